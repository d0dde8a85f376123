"""pSp's other encoders and its forward pass, against what the published code computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import close, psp_weights, read

from stylebot.checkpoints import load_networks
from stylebot.encoder import PspEncoder
from stylebot.errors import StylebotError
from stylebot.export import write_psp
from stylebot.generator import Generator
from stylebot.psp import LastLayerEncoder, ProgressiveEncoder, inverter, masked, placed, read_encoder
from stylebot.rosinality import to_official
from stylebot.weights import Networks

DATA = Path(__file__).parent / "data"
OPTIONS, ARRAYS = read("psp_forward")


@pytest.mark.slow
def test_the_last_layers_codes_are_the_references() -> None:
    stored = np.load(DATA / "psp_wplus16.npz")
    with torch.device("meta"):
        shapes = LastLayerEncoder(6, wide=True)
    net = read_encoder(psp_weights("enc_wplus_out16", shapes), 16)
    codes = net(torch.from_numpy(stored["img"]).float() / 127.5 - 1)
    assert np.abs(codes.numpy() - stored["codes"]).max() < 2e-6 * np.abs(stored["codes"]).max()


def decoder() -> Generator:
    state = {k.removeprefix("decoder/"): v.float() for k, v in ARRAYS.items() if k.startswith("decoder/")}
    config, official = to_official("G_ema", state)
    G = Generator(**config).eval()
    G.load_state_dict(official | {"mapping.w_avg": torch.zeros(config["w_dim"])})
    return G.double().requires_grad_(False)


@pytest.mark.parametrize("run", OPTIONS["runs"], ids=lambda run: run["name"])
def test_the_forward_pass_is_the_references(run: dict) -> None:
    G, given = decoder(), run["kw"]
    inputs = {k.removeprefix("in/"): v for k, v in ARRAYS.items() if k.startswith("in/")}
    if given.get("input_code"):
        ws = G.mapping(inputs["z"])
    else:
        space = "w" if run["learn_in_w"] else "wplus"
        average = inputs[f"latent_avg_{space}"] if run["start_from_latent_avg"] else None
        ws = placed(inputs[f"codes_{space}"], G.num_ws, average)
    if "latent_mask" in given:
        inject = inputs[f"inject_{given['inject']}"] if "inject" in given else None
        ws = masked(ws, given["latent_mask"], inject, given.get("alpha", 1.0))
    close(ws, ARRAYS[f"out/{run['name']}/result_latent"], 5e-7, "latent")  # float32 there
    close(G.synthesis(ws, noise_mode="const"), ARRAYS[f"out/{run['name']}/images"], 1e-6, "images")


@pytest.fixture(scope="module")
def tiny(request: pytest.FixtureRequest) -> pytest.MonkeyPatch:
    """Encoders with narrow trunks, so that building one costs nothing."""
    patch = pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    for module in ("encoder", "psp"):
        patch.setattr(f"stylebot.{module}.PSP_STAGES", ((16, 1), (128, 1), (256, 1), (512, 1)))
    return patch



@pytest.mark.parametrize(("make", "kind"), [
    (lambda: LastLayerEncoder(8, wide=False), None), (lambda: LastLayerEncoder(8, wide=True), None),
    (lambda: PspEncoder(32), "GradualStyleEncoder"), (lambda: ProgressiveEncoder(32), "Encoder4Editing")])
def test_the_names_tell_which_encoder_it_is(tiny: pytest.MonkeyPatch, make, kind: str | None) -> None:
    with torch.device("meta"):
        wanted = make()
    state = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in wanted.state_dict().items()}
    found = read_encoder(state | {"latent_avg": torch.zeros(8, 512)}, 32, kind)
    assert type(found) is type(wanted) and found.n_styles == wanted.n_styles
    assert not found.training and not any(p.requires_grad for p in found.parameters())


def test_what_does_not_fit_is_named(tiny: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        wanted = LastLayerEncoder(8, wide=False)
    state = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in wanted.state_dict().items()}
    for change, words in (({"extra": torch.zeros(1)}, "no such encoder has: extra"),
                          ({"linear.bias": None}, "missing tensors: linear.bias"),
                          ({"linear.bias": torch.zeros(3)}, "other shapes: linear.bias")):
        changed = {k: v for k, v in (state | change).items() if v is not None}
        with pytest.raises(StylebotError, match=words):
            read_encoder(changed, 32)


def test_e4e_adds_each_heads_difference_to_the_first(
    tiny: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = torch.randn(2, 8, 512)
    monkeypatch.setattr(PspEncoder, "forward", lambda self, img: heads)
    with torch.device("meta"):
        codes = ProgressiveEncoder(32)
    codes = codes(torch.zeros(2, 3, 256, 256))
    assert torch.equal(codes[:, 0], heads[:, 0]) and torch.equal(codes[:, 3], heads[:, 0] + heads[:, 3])


def test_one_style_serves_every_layer() -> None:
    one, average = torch.randn(2, 4), torch.randn(1, 4)
    ws = placed(one, 6, average)
    assert ws.shape == (2, 6, 4) and torch.equal(ws[:, 5], one + average)
    assert torch.equal(placed(one, 6, average[0]), ws)


def test_an_encoder_answers_for_its_generator(tiny: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in LastLayerEncoder(8, wide=False).state_dict().items()}
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}  # it answers with its last bias
    state["linear.bias"] = torch.randn(512)
    G = Generator(img_resolution=32, mapping_layers=1, channel_base=128)
    img, average = torch.rand(2, 3, 32, 32), torch.randn(8, 512)
    plain, moved = (inverter(state | more, G)(img) for more in ({}, {"latent_avg": average}))
    assert plain.shape == (2, G.num_ws, 512) and torch.equal(plain[1, 7], state["linear.bias"])
    assert torch.equal(moved, plain + average)
    for other, words in ((Generator(w_dim=8, img_resolution=32, channel_base=128), "takes 8"),
                         (Generator(img_resolution=32, channel_base=128), r"shape \[3, 512\]")):
        with pytest.raises(StylebotError, match=words):
            inverter(state | {"latent_avg": torch.zeros(3, 512)}, other)


def test_out_and_in_again_it_is_the_same_function(tiny: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in LastLayerEncoder(8, wide=False).state_dict().items()}
    state = {name: torch.rand(shape) * 0.01 for name, shape in shapes.items()}
    state["input_layer.1.num_batches_tracked"] = torch.tensor(7)
    G = Generator(img_resolution=32, mapping_layers=1, channel_base=128).eval().requires_grad_(False)
    G.mapping.w_avg.normal_()
    state["latent_avg"] = G.mapping.w_avg[None].clone()
    write_psp(Networks(None, None, G, {}, state), tmp_path / "psp.pt")
    back = load_networks(tmp_path / "psp.pt", need=("G_ema",))
    assert back.meta["opts"]["encoder_type"] == "BackboneEncoderUsingLastLayerIntoW"
    assert back.encoder.keys() == state.keys()
    assert all(torch.equal(back.encoder[name], tensor) for name, tensor in state.items())
    img = torch.rand(1, 3, 32, 32)
    before, after = inverter(state, G)(img), inverter(back.encoder, back.G_ema)(img)
    assert torch.equal(before, after)
    assert torch.equal(G.synthesis(before, "const"), back.G_ema.synthesis(after, "const"))
