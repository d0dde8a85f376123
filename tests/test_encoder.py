"""The encoders: pSp's reference codes, official key names, the light variant, files."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hostile_files import lying
from oracle import psp_weights
from safetensors.torch import save_file

from stylebot.encoder import Encoder, Heads, LightEncoder, PspEncoder, load_encoder, n_styles, save_encoder
from stylebot.errors import StylebotError

DATA = Path(__file__).parent / "data"


@pytest.mark.slow
def test_psp_gives_the_reference_codes_from_official_weights() -> None:
    stored = np.load(DATA / "psp_gradual64.npz")
    net = PspEncoder(64).eval()
    net.load_state_dict(psp_weights("enc_gradual_out64", net))
    with torch.no_grad():
        codes = net(torch.from_numpy(stored["img"]).float() / 127.5 - 1)
    assert np.abs(codes.numpy() - stored["codes"]).max() < 2e-5
    assert np.abs(stored["codes"]).max() > 0.5


@pytest.mark.parametrize(("resolution", "styles", "parameters"),
                         [(1024, 18, 267.1), (512, 16, 238.3), (256, 14, 209.5)])
def test_psp_has_the_published_shape_and_keys(resolution: int, styles: int, parameters: float) -> None:
    with torch.device("meta"):
        net = PspEncoder(resolution)
    assert net.n_styles == styles
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(parameters, abs=0.1)
    keys = net.state_dict()
    assert not [key for key in keys if "heads" in key]
    for key, shape in {"input_layer.0.weight": (64, 3, 3, 3),
                       "body.3.shortcut_layer.0.weight": (128, 64, 1, 1),
                       "body.0.res_layer.5.fc1.weight": (4, 64, 1, 1), "latlayer2.weight": (512, 128, 1, 1),
                       "styles.0.convs.6.weight": (512, 512, 3, 3), "styles.3.convs.8.bias": (512,),
                       f"styles.{styles - 1}.convs.10.weight": (512, 512, 3, 3),
                       "styles.2.linear.weight": (512, 512), "styles.2.linear.bias": (512,)}.items():
        assert tuple(keys[key].shape) == shape, key


def test_grouped_heads_equal_single_ones(rng: torch.Generator) -> None:
    heads = Heads((4, 9), 6, 8)
    x = torch.randn(3, 6, 8, 8, generator=rng)
    found = heads(x)
    for g in range(2):
        y = x
        for i in range(3):
            rows = slice(6 * g, 6 * g + 6)
            y = F.conv2d(y, getattr(heads, f"conv{i}")[rows], getattr(heads, f"bias{i}")[rows], 2, 1)
            y = F.leaky_relu(y, 0.01)
        wanted = F.linear(y.flatten(1), heads.linear[g] / 6**0.5, heads.linear_bias[g])
        assert torch.allclose(found[:, g], wanted, atol=1e-6)


@pytest.mark.parametrize("resolution", [16, 32, 64, 128])
def test_light_gives_one_style_per_layer(resolution: int, rng: torch.Generator) -> None:
    net = Encoder("light", resolution, w_dim=24).eval()
    net.latent_avg.normal_(generator=rng)
    img = torch.randn(2, 3, resolution, resolution, generator=rng)
    codes = net(img)
    assert codes.shape == (2, n_styles(resolution), 24)
    assert (codes - net.latent_avg).abs().max() < 1  # it starts at the average face
    assert codes[0].sub(codes[1]).abs().amin(1).max() > 0


def test_light_is_small() -> None:
    size = sum(p.numel() for p in LightEncoder(64).parameters())
    assert 2e6 < size < 4.2e6


def test_every_parameter_of_the_light_one_learns(rng: torch.Generator) -> None:
    net = LightEncoder(32, w_dim=16)
    net(torch.randn(4, 3, 32, 32, generator=rng)).square().sum().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]


def test_resizes_what_it_is_given(rng: torch.Generator) -> None:
    net = Encoder("light", 32, w_dim=16).eval()
    flat = torch.rand(2, 3, 1, 1, generator=rng)
    same = [net(flat.expand(-1, -1, px, px)) for px in (16, 32, 64)]
    assert torch.allclose(same[0], same[1], atol=1e-5)
    assert torch.allclose(same[2], same[1], atol=1e-5)


def test_a_file_brings_everything_back(tmp_path: Path, rng: torch.Generator) -> None:
    net = Encoder("light", 16, w_dim=8)
    net.latent_avg.normal_(generator=rng)
    net(torch.randn(8, 3, 16, 16, generator=rng))  # moves the running statistics
    save_encoder(tmp_path / "e.safetensors", net, {"kimg": 0.5})
    loaded, meta = load_encoder(tmp_path / "e.safetensors")
    img = torch.randn(2, 3, 16, 16, generator=rng)
    assert meta == {"kimg": 0.5}
    assert torch.equal(loaded(img), net.eval()(img))
    assert not any(p.requires_grad for p in loaded.parameters())


def test_stacked_heads_know_their_official_names() -> None:
    heads = Heads((0, 1), 4, 4)
    assert heads.pairs("net.heads.0.")[0] == (
        "net.heads.0.conv0", ["net.styles.0.convs.0.weight", "net.styles.1.convs.0.weight"])


@pytest.mark.parametrize(("content", "says"), [(b"", "not a readable"),
                                               (b"\x08" + b"\0" * 7 + b"{}      ", "no encoder")])
def test_other_files_are_one_clear_error(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "e.safetensors"
    path.write_bytes(content)
    with pytest.raises(StylebotError, match=says):
        load_encoder(path)


CONFIG = {"variant": "light", "resolution": 16, "w_dim": 8, "img_channels": 3}


@pytest.mark.parametrize("description", [
    "{", "[]", "{}", "[" * 100_000, {"config": [1]}, {"meta": 3}, {"config": CONFIG | {"shell": "rm"}},
    *({"config": CONFIG | change} for change in (
        {"resolution": "16"}, {"resolution": 1 << 40}, {"resolution": float("inf")}, {"resolution": True},
        {"w_dim": 1 << 13}, {"w_dim": -1}, {"img_channels": 1 << 13}, {"variant": []}, {"variant": "x"},
        {"variant": "psp", "resolution": 1024, "w_dim": 512}))], ids=lambda d: str(d)[:60])  # fmt: skip
def test_a_lying_description_is_one_line_and_costs_nothing(
    tmp_path: Path, description: str | dict
) -> None:
    if isinstance(description, dict):
        description = json.dumps({"config": CONFIG, "meta": {}} | description)
    path = tmp_path / "e.safetensors"
    save_file({"a": torch.zeros(20_000)}, path, {"stylebot_encoder": description})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StylebotError) as caught:
        load_encoder(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("name", lying())
def test_lying_safetensors_are_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "e").write_bytes(lying()[name])
    with pytest.raises(StylebotError) as caught:
        load_encoder(tmp_path / "e")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(("arguments", "says"),
                         [(("psp", 64, 256), "w_dim 512"), (("psp", 16, 512), "32 px or more"),
                          (("light", 8, 512), "16 px or more"), (("e4e", 64, 512), "not one of")])
def test_shapes_that_cannot_be_are_refused(arguments: tuple, says: str) -> None:
    with pytest.raises(StylebotError, match=says):
        Encoder(*arguments)
