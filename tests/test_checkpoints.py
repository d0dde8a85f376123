"""Official, rosinality, pSp and own checkpoints come in exactly; bad ones end in one line."""

import argparse
import copy
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stylebot.checkpoints import at_resolution, load_networks, save_networks
from stylebot.discriminator import Discriminator
from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.official import from_snapshot
from stylebot.rosinality import from_official
from stylebot.torchfile import read_snapshot
from stylebot.weights import ROLES, Networks, build, skeleton

DATA = Path(__file__).parent / "data"
OFFICIAL = ("tiny", "tiny_sg3", "tiny_torch113")


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(DATA / "checkpoints_expected.npz") as data:
        return dict(data)


@pytest.fixture(scope="module")
def trained() -> Networks:
    """Three small networks without a zero in them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        G = Generator(16, 0, 16, 16, 3, mapping_layers=2, channel_base=256, channel_max=16).eval()
        D = Discriminator(0, 16, 3, channel_base=256, channel_max=16).eval()
        for tensor in [*G.state_dict().values(), *D.state_dict().values()]:
            tensor.copy_(torch.randn(tensor.shape))
    return Networks(G, D, copy.deepcopy(G), {"kimg": 12, "parents": ["x"]})


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_skeletons_have_the_shapes_of_the_networks(architecture: str) -> None:
    for role, network in (("G", Generator(8, 3, 8, 16, architecture=architecture, channel_base=64)),
                          ("D", Discriminator(3, 16, architecture=architecture, channel_base=64))):
        shapes = {k: v.shape for k, v in skeleton(role, network.config).state_dict().items()}
        assert shapes == {k: v.shape for k, v in network.state_dict().items()}


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def refusal(path: Path, **options: object) -> str:
    """The one line that loading `path` ends in."""
    with pytest.raises(StylebotError) as caught:
        load_networks(path, **options)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text and len(text) < 600
    return text


# ---- our own


def test_own_files_come_back_bit_for_bit(trained: Networks, tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_networks(first, trained)
    back = load_networks(first, need=ROLES)
    assert all(same(getattr(back, role), getattr(trained, role)) for role in ROLES)
    assert back.G.config == trained.G.config and back.D.config == trained.D.config
    assert back.meta == trained.meta
    save_networks(second, back)
    assert first.read_bytes() == second.read_bytes()


def test_half_keeps_every_number_to_float16(trained: Networks, tmp_path: Path) -> None:
    encoder = {"weight": torch.randn(3), "num_batches_tracked": torch.tensor(100_000)}
    save_networks(tmp_path / "a", Networks(None, None, trained.G_ema, {}, encoder), half=True)
    back = load_networks(tmp_path / "a")
    for name, tensor in back.G_ema.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, trained.G_ema.state_dict()[name].half().float())
    assert int(back.encoder["num_batches_tracked"]) == 100_000


def test_an_encoder_travels_too(trained: Networks, tmp_path: Path) -> None:
    encoder = {"body.0.weight": torch.randn(2, 3), "count": torch.tensor(3)}
    save_networks(tmp_path / "a", Networks(None, None, trained.G_ema, {}, encoder))
    back = load_networks(tmp_path / "a", need=("G_ema",))
    assert back.G is None and back.D is None and torch.equal(back.encoder["count"], encoder["count"])


def rewritten(trained: Networks, path: Path, change: Callable[[dict, dict], None]) -> Path:
    """`trained` saved with tensors and header changed by `change`."""
    configs = {role: getattr(trained, role).config for role in ROLES}
    tensors = {f"{role}.{k}": v.contiguous().clone() for role in ROLES
               for k, v in getattr(trained, role).state_dict().items()}
    header = json.loads(json.dumps({"format": 1, "configs": configs, "meta": {}}))
    change(tensors, header)
    save_file(tensors, path, metadata={"stylebot": json.dumps(header)})
    return path


def test_missing_tensors_are_named_unless_allowed(trained: Networks, tmp_path: Path) -> None:
    path = rewritten(trained, tmp_path / "a", lambda t, h: t.pop("D.b8.conv0.bias"))
    assert "D: missing b8.conv0.bias" in refusal(path)
    networks = load_networks(path, allow_missing=True)
    assert networks.meta["at_initialisation"] == ["D.b8.conv0.bias"] and same(networks.G, trained.G)


def test_needed_networks_are_named_unless_allowed(trained: Networks, tmp_path: Path) -> None:
    save_networks(tmp_path / "a", Networks(None, None, trained.G_ema, {}))
    assert "no G and no D" in refusal(tmp_path / "a", need=ROLES)
    networks = load_networks(tmp_path / "a", need=ROLES, allow_missing=True)
    assert networks.meta["at_initialisation"] == ["G (copy of G_ema)", "D (all of it)"]
    assert same(networks.G, trained.G_ema) and networks.D(torch.zeros(4, 3, 16, 16)).shape == (4, 1)
    assert all(p.requires_grad for p in networks.G.parameters())


@pytest.mark.parametrize(("change", "words"), [
    (lambda t, h: t.update({"G.extra": torch.zeros(1)}), "no place for: extra"),
    (lambda t, h: t.update({"H.extra": torch.zeros(1)}), "belongs to no network"),
    (lambda t, h: t.update({"D.b4.out.bias": torch.zeros(2)}), r"b4.out.bias \[2\] instead of \[1\]"),
    (lambda t, h: t.update({"D.b4.out.bias": torch.zeros(1, dtype=torch.int64)}), "not floating-point"),
    (lambda t, h: h["configs"]["G"].update(img_resolution=1 << 40), "img_resolution = .* out of range"),
    (lambda t, h: h["configs"]["G"].update(img_resolution=17), "power of two"),
    (lambda t, h: h["configs"]["G"].update(img_resolution=4096, channel_base=1 << 20, channel_max=1 << 20),
     "other shapes|missing"),
    (lambda t, h: h["configs"]["G"].update(shell="rm"), "unknown architecture argument 'shell'"),
    (lambda t, h: h["configs"]["G"].update(z_dim="512"), "no network has this architecture"),
    (lambda t, h: h.update(format=2), "format 2"),
    (lambda t, h: h.update(meta=[1]), "not a table"),
    (lambda t, h: h.pop("configs"), "without this project's description"),
])
def test_lying_headers_are_refused(trained: Networks, tmp_path: Path, change: Callable, words: str) -> None:
    text = refusal(rewritten(trained, tmp_path / "a", change))
    assert re.search(words, text), text


def test_damaged_safetensors(trained: Networks, tmp_path: Path) -> None:
    save_networks(tmp_path / "a", trained)
    whole = (tmp_path / "a").read_bytes()
    for number, content in enumerate((whole[:-1], whole[:1000], struct.pack("<Q", 1 << 62) + whole[8:],
                                      struct.pack("<Q", 10) + b"{" * 10, b'\x02' + bytes(7) + b"{}")):
        (tmp_path / f"{number}").write_bytes(content)
        refusal(tmp_path / f"{number}")


# ---- the official pickles


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_snapshots_are_the_same_networks(expected: dict, name: str) -> None:
    networks = load_networks(DATA / f"official_{name}.pkl", need=ROLES)
    z, c = (torch.tensor(expected[f"{name}/in/{k}"]) for k in ("z", "c"))
    with torch.no_grad():
        for role in ("G", "G_ema"):
            img = getattr(networks, role)(z, c, noise_mode="const")
            np.testing.assert_allclose(img, expected[f"{name}/out/{role}_img_const"], atol=1e-5)
        logits = networks.D(*(torch.tensor(expected[f"{name}/in/d_{k}"]) for k in ("img", "c")))
    np.testing.assert_allclose(logits, expected[f"{name}/out/D_logits"], atol=1e-5)
    assert networks.meta["augment_p"] == 0.375 and len(networks.meta["sha256"]) == 64


def test_official_tensors_are_bit_for_bit(expected: dict) -> None:
    networks = load_networks(DATA / "official_tiny.pkl")
    for role in ROLES:
        state = getattr(networks, role).state_dict()
        start = f"tiny/{role}/"
        wanted = {k.removeprefix(start): v for k, v in expected.items() if k.startswith(start)}
        assert state.keys() == wanted.keys()
        assert all(np.array_equal(state[k].numpy(), wanted[k]) for k in wanted)


def test_what_the_snapshot_says_about_itself_is_kept() -> None:
    one, other = (load_networks(DATA / f"official_{name}.pkl") for name in ("tiny", "tiny_sg3"))
    assert (one.G.config["w_avg_beta"], other.G.config["w_avg_beta"]) == (0.995, 0.998)
    for networks in (one, other):
        assert networks.G.config["conv_clamp"] == 256 and networks.G.config["num_fp16_res"] == 4
        assert networks.D.config["mbstd_group_size"] == 4


def test_frozen_layers_are_found_among_the_buffers() -> None:
    content = (DATA / "official_tiny.pkl").read_bytes()
    snapshot, whole = read_snapshot(content), load_networks(DATA / "official_tiny.pkl")
    frozen = snapshot["D"].state["_modules"]["b8"].state["_modules"]["conv0"].state  # as Freeze-D saves it
    frozen["_buffers"] |= frozen["_parameters"]
    frozen["_parameters"] = {}
    assert same(build(from_snapshot(snapshot, len(content))).D, whole.D)


def test_a_snapshot_that_contradicts_itself_is_refused() -> None:
    content = (DATA / "official_tiny.pkl").read_bytes()
    snapshot = read_snapshot(content)
    snapshot["G"].state["_init_kwargs"]["w_dim"] = 9
    with pytest.raises(StylebotError, match="w_dim is 9 here and 8 there"):
        from_snapshot(snapshot, len(content))
    snapshot["G"].state["_init_kwargs"] |= {"w_dim": 8, "magic": 1}
    with pytest.raises(StylebotError, match="magic"):
        from_snapshot(snapshot, len(content))


# ---- rosinality, pSp


def test_rosinality_training_form(expected: dict) -> None:
    networks = load_networks(DATA / "rosinality_training.pt", need=ROLES)
    z, img = (torch.tensor(expected[f"rosinality/in/{k}"]) for k in ("z", "d_img"))
    with torch.no_grad():
        got, logits = networks.G_ema(z, noise_mode="const"), networks.D(img)
    np.testing.assert_allclose(got, expected["rosinality/out/img_noise_buffers"], atol=2e-5)
    np.testing.assert_allclose(logits, expected["rosinality/out/d_logits"], atol=1e-6)
    w = networks.G_ema.mapping(torch.randn(5000, 32, generator=torch.Generator().manual_seed(9)))[:, 0]
    spread = (w.std(dim=0) / 5000**0.5).clamp(min=1e-6)
    assert ((networks.G_ema.mapping.w_avg - w.mean(dim=0)).abs() < 8 * spread).all()
    assert "mean of 10000" in networks.meta["w_avg"]


def test_rosinality_file_form_before_torch_1_6(expected: dict) -> None:
    networks = load_networks(DATA / "rosinality_legacy.pt", need=("G_ema",))
    with torch.no_grad():
        z = torch.tensor(expected["rosinality/in/z"])
        got = networks.G_ema(z, truncation_psi=0.5, noise_mode="const")
    np.testing.assert_allclose(got, expected["rosinality/out/img_trunc0.5_buffers"], atol=2e-5)
    assert networks.D is None and "w_avg" not in networks.meta


def psp_file(trained: Networks, path: Path, **more: object) -> Path:
    decoder = from_official("G_ema", trained.G_ema.config, trained.G_ema.state_dict())
    state = {f"decoder.{k}": v for k, v in decoder.items()} | {"encoder.body.0.weight": torch.ones(2, 2)}
    average = trained.G_ema.mapping.w_avg.repeat(6, 1)
    torch.save({"state_dict": state, "latent_avg": average} | more, path)
    return path


@pytest.mark.parametrize("kind", [dict, argparse.Namespace])
def test_psp_gives_its_generator_and_keeps_its_encoder(trained: Networks, tmp_path: Path, kind: type) -> None:
    opts = kind(size=16, lr=1e-4)
    networks = load_networks(psp_file(trained, tmp_path / "a.pt", opts=opts), need=("G_ema",))
    assert same(networks.G_ema, trained.G_ema)
    assert networks.encoder.keys() == {"body.0.weight", "latent_avg"} and networks.meta["opts"]["lr"] == 1e-4


def test_rosinality_round_trip_is_bit_for_bit(trained: Networks, tmp_path: Path) -> None:
    theirs = {"g_ema": from_official("G_ema", trained.G_ema.config, trained.G_ema.state_dict()),
              "d": from_official("D", trained.D.config, trained.D.state_dict()),
              "latent_avg": trained.G_ema.mapping.w_avg}
    torch.save(theirs, tmp_path / "a.pt")
    back = load_networks(tmp_path / "a.pt", need=("G_ema", "D"))
    assert same(back.G_ema, trained.G_ema) and same(back.D, trained.D)


def test_rosinality_tensors_that_do_not_fit_are_named(trained: Networks, tmp_path: Path) -> None:
    def broken(**changes: object) -> Path:
        state = from_official("G_ema", trained.G_ema.config, trained.G_ema.state_dict()) | changes
        state = {k: v for k, v in state.items() if v is not None}
        torch.save({"g_ema": state, "latent_avg": trained.G_ema.mapping.w_avg}, tmp_path / "a.pt")
        return tmp_path / "a.pt"

    assert "no place for: extra" in refusal(broken(extra=torch.zeros(1)))
    assert "missing synthesis.b8.conv0.bias" in refusal(broken(**{"convs.0.activate.bias": None}))
    assert "another filter" in refusal(broken(**{"convs.0.conv.blur.kernel": torch.ones(4, 4)}))
    assert "has shape" in refusal(broken(**{"style.1.bias": torch.zeros(3)}))


# ---- resolutions


def test_lower_resolutions_keep_what_they_share(trained: Networks) -> None:
    low = at_resolution(trained, 8)
    ws = torch.randn(2, 6, 16)
    with torch.no_grad():
        x, img = None, None
        for r in (4, 8):
            first = 0 if r == 4 else 1
            block = getattr(trained.G.synthesis, f"b{r}")
            x, img = block(x, img, list(ws.unbind(1)[first:]), noise_mode="const")
        torch.testing.assert_close(low.G.synthesis(ws[:, : low.G.num_ws], noise_mode="const"), img)
    assert low.meta["at_initialisation"] == ["D.b8.fromrgb.bias", "D.b8.fromrgb.weight"]
    assert same(at_resolution(trained, 8).D, low.D) and low.D(torch.zeros(4, 3, 8, 8)).shape == (4, 1)
    assert at_resolution(trained, 16) is trained


def test_higher_resolutions_are_refused(trained: Networks) -> None:
    with pytest.raises(StylebotError, match="cannot start 32 px"):
        at_resolution(trained, 32)
