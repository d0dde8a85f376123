"""What an encoder's training begins with: ours, pSp's, and files that do not fit; tiny trunks."""

from pathlib import Path

import pytest
import torch
from test_encode import faces_zip, inputs, narrow_perceptual, params, tiny_generator  # noqa: F401

from stylebot.encode import encode
from stylebot.encoder import Encoder, Heads, load_encoder, save_encoder
from stylebot.errors import StylebotError
from stylebot.export import write_psp
from stylebot.generator import Generator
from stylebot.starts import begin_with
from stylebot.weights import Networks


@pytest.fixture(autouse=True)
def narrow_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders of a few thousand parameters."""
    monkeypatch.setattr("stylebot.encoder._LIGHT_STAGES", ((16, 1), (16, 1), (16, 1), (16, 1)))


def ours(path: Path, resolution: int = 32, w_dim: int = 8) -> Encoder:
    """A trained encoder of ours, as it were: its generator's average lies elsewhere."""
    torch.manual_seed(7)
    encoder = Encoder("light", resolution, w_dim)
    encoder.latent_avg.normal_()
    for head in encoder.net.heads:
        torch.nn.init.normal_(head.weight, std=0.1)
        torch.nn.init.normal_(head.bias)
    save_encoder(path, encoder, {})
    return encoder.eval()


def test_an_encoder_of_ours_goes_on_with_the_codes_it_gave(tmp_path: Path, rng: torch.Generator) -> None:
    first, img = ours(tmp_path / "e.safetensors"), torch.rand(2, 3, 32, 32, generator=rng)
    new = Encoder("light", 32, 8).eval()
    new.latent_avg.normal_(generator=rng)
    average = new.latent_avg.clone()
    begin_with(new, tmp_path / "e.safetensors")
    torch.testing.assert_close(new(img), first(img))
    assert torch.equal(new.latent_avg, average), "a pSp checkpoint of it names our generator's average"


def test_the_stage_begins_with_it_and_says_so(inputs: dict[str, Path], tmp_path: Path) -> None:  # noqa: F811
    start = tmp_path / "base.safetensors"
    whole = {"synthetic_share": 1.0, "factors": [1], "lr": 0.002}
    encode(**inputs | {"out": start}, params=params(kimg=0.1, **whole))
    new, going = (encode(**inputs, params=params(kimg=0.004, start=name, **whole))["encode_w"]
                  for name in ("nothing", str(start)))  # fmt: skip
    assert going < 0.8 * new
    meta = load_encoder(inputs["out"])[1]
    assert meta["params"]["start"] == str(start) and len(meta["parents"][str(start)]) == 64


class Narrow(torch.nn.Module):
    """Stands for PspEncoder: its heads alone, of 4 px and 8 channels, under the official names."""

    def __init__(self, resolution: int, w_dim: int = 512, img_channels: int = 3) -> None:
        super().__init__()
        from stylebot.encoder import _join, _split, n_styles

        self.n_styles, self.input_px = n_styles(resolution), 4
        self.heads = torch.nn.ModuleList([Heads(range(3), 8, 4), Heads(range(3, 7), 8, 4),
                                          Heads(range(7, self.n_styles), 8, 4)])  # fmt: skip
        self.register_state_dict_post_hook(_split)
        self.register_load_state_dict_pre_hook(_join)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        """Codes [N,n_styles,8]."""
        x = img.repeat(1, 3, 1, 1)[:, :8]
        return torch.cat([head(x) for head in self.heads], 1)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, torch.nn.Module, torch.Tensor]:
    """A pSp checkpoint for 128 px, its encoder, and its latent_avg."""
    monkeypatch.setattr("stylebot.encoder.PspEncoder", Narrow)
    torch.manual_seed(9)
    net = Narrow(128)
    G = Generator(8, 0, 8, 128, 3, 8, channel_base=256, channel_max=4)
    G.mapping.w_avg.normal_()
    state = net.state_dict() | {"latent_avg": G.mapping.w_avg.repeat(12, 1)}
    write_psp(Networks(None, None, G, encoder=state), tmp_path / "psp.pt")
    return tmp_path / "psp.pt", net, G.mapping.w_avg


def test_a_psp_checkpoint_lends_its_encoder(checkpoint: tuple, rng: torch.Generator) -> None:
    """Of a larger generator, too: styles are counted from the coarsest layer."""
    path, net, average = checkpoint
    img = torch.randn(2, 3, 4, 4, generator=rng)
    for resolution, styles in ((128, 12), (64, 10)):
        encoder = Encoder("psp", resolution, 8)
        encoder.latent_avg.normal_(generator=rng)
        begin_with(encoder, path)
        torch.testing.assert_close(encoder(img), (net(img) + average)[:, :styles])


def test_what_does_not_fit_is_one_line(checkpoint: tuple, tmp_path: Path) -> None:
    light, path = Encoder("light", 32, 8), checkpoint[0]
    ours(tmp_path / "64.safetensors", 64)
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    write_psp(Networks(None, None, Generator(8, 0, 8, 128, 3, 8, channel_base=256, channel_max=4),
                       encoder=Narrow(128).state_dict() | {"latent_avg": torch.zeros(12, 8)}),
              tmp_path / "e4e.pt", {"encoder_type": "Encoder4Editing"})  # fmt: skip
    for encoder, name, says in (
        (light, tmp_path / "none.pt", "encode.start: no such file"),
        (light, tmp_path / "64.safetensors", "an encoder with resolution 64, wanted: 32"),
        (light, path, "with encode.variant psp"),
        (light, tmp_path / "bad.pt", "neither safetensors nor a pickle"),
        (Encoder("psp", 128, 8), tmp_path / "e4e.pt", "type Encoder4Editing"),
        (Encoder("psp", 256, 8), path, r"does not fit a psp encoder for 256 px: styles.12.*and \d+ more"),
    ):  # fmt: skip
        with pytest.raises(StylebotError, match=says) as caught:
            begin_with(encoder, name)
        assert "\n" not in str(caught.value)
