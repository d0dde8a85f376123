"""Exports come back bit for bit, and mean the same to other programs."""

import copy
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stylebot.checkpoints import descent, load_networks, save_networks
from stylebot.discriminator import Discriminator
from stylebot.encoder import Encoder, PspEncoder, save_encoder
from stylebot.errors import StylebotError
from stylebot.export import (
    export,
    official_state,
    psp_options,
    read_encoder,
    unlike_psp,
    write_official,
    write_onnx,
    write_psp,
    write_rosinality,
)
from stylebot.generator import Generator
from stylebot.torchfile import read_snapshot
from stylebot.weights import ROLES, Networks

DATA = Path(__file__).parent / "data"
PSP_LIST = "7bc68bfacc0c2210969aeb8161b756c7ba4f441e15fbc62e46924104e755e360"  # oracle psp_state_keys


@pytest.fixture(scope="module")
def networks() -> Networks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        G = Generator(16, 0, 16, 16, 3, mapping_layers=2, channel_base=256, channel_max=16).eval()
        D = Discriminator(0, 16, 3, channel_base=256, channel_max=16).eval()
        for tensor in [*G.state_dict().values(), *D.state_dict().values()]:
            tensor.copy_(torch.randn(tensor.shape))
    return Networks(G, D, copy.deepcopy(G), {"kimg": 3})


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_rosinality_there_and_back(networks: Networks, tmp_path: Path) -> None:
    write_rosinality(networks, tmp_path / "a.pt")
    back = load_networks(tmp_path / "a.pt", need=ROLES)
    assert all(same(getattr(back, role), getattr(networks, role)) for role in ROLES)
    theirs = torch.load(tmp_path / "a.pt", weights_only=True)
    assert theirs.keys() == {"g", "d", "g_ema", "latent_avg"}
    assert float(theirs["g_ema"]["convs.0.conv.blur.kernel"].sum()) == pytest.approx(4)
    assert float(theirs["d"]["convs.1.skip.0.kernel"].sum()) == pytest.approx(1)


def test_rosinality_names_and_shapes_are_theirs(tmp_path: Path) -> None:
    theirs = torch.load(DATA / "rosinality_legacy.pt", weights_only=True)["g_ema"]
    write_rosinality(load_networks(DATA / "rosinality_legacy.pt"), tmp_path / "a.pt")
    ours = torch.load(tmp_path / "a.pt", weights_only=True)["g_ema"]
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_rosinality_goes_without_a_discriminator_that_it_cannot_hold(
    networks: Networks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    D = Discriminator(**networks.D.config | {"filter_taps": (1.0,)})
    write_rosinality(replace(networks, D=D), tmp_path / "a.pt")
    assert capsys.readouterr().err.startswith("export: D is left out")
    assert "d" not in torch.load(tmp_path / "a.pt", weights_only=True)
    official = tmp_path / "official"
    write_official(replace(networks, D=D), official)
    assert load_networks(official).D.config["filter_taps"] == (1.0,)


def test_rosinality_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    G = Generator(8, 3, 8, 8, channel_base=64, channel_max=8)
    with pytest.raises(StylebotError, match="c_dim 3"):
        write_rosinality(Networks(None, None, G), tmp_path / "a.pt")


def test_official_there_and_back(networks: Networks, tmp_path: Path) -> None:
    write_official(networks, tmp_path / "a")
    back = load_networks(tmp_path / "a", need=ROLES)
    assert all(same(getattr(back, role), getattr(networks, role)) for role in ROLES)
    assert back.G.config == networks.G.config and back.D.config == networks.D.config
    assert back.meta == {"kimg": 3}
    arguments = json.loads((tmp_path / "a" / "config.json").read_text())["networks"]["G_ema"]
    assert arguments["synthesis_kwargs"]["channel_base"] == 256 and arguments["z_dim"] == 16


def test_official_names_are_the_official_ones() -> None:
    snapshot = read_snapshot((DATA / "official_tiny.pkl").read_bytes())
    ours = load_networks(DATA / "official_tiny.pkl")

    def names(node, prefix: str = "") -> dict[str, tuple]:
        own = {**node.state["_parameters"], **node.state["_buffers"]}
        out = {f"{prefix}{k}": v.shape for k, v in own.items() if v is not None}
        for name, child in node.state["_modules"].items():
            out |= names(child, f"{prefix}{name}.")
        return out

    for role in ROLES:
        theirs = names(snapshot[role])
        assert {k: tuple(v.shape) for k, v in official_state(getattr(ours, role)).items()} == theirs


def test_a_damaged_folder_is_refused(networks: Networks, tmp_path: Path) -> None:
    write_official(networks, tmp_path / "a")
    (tmp_path / "a" / "D.safetensors").write_bytes(b"x")
    with pytest.raises(StylebotError, match=r"D\.safetensors"):
        load_networks(tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(StylebotError, match="does not describe"):
        load_networks(tmp_path / "a")


@pytest.mark.slow
def test_onnx_gives_the_same_pictures(networks: Networks, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    write_onnx(networks.G_ema, tmp_path)
    z, psi = torch.randn(3, 16), torch.tensor(0.5)
    with torch.no_grad():
        want = networks.G_ema(z, truncation_psi=0.5, noise_mode="const").numpy()
        ws = networks.G_ema.mapping(z, truncation_psi=0.5)
    for name, inputs in (("generator", {"z": z, "psi": psi}), ("synthesis", {"ws": ws})):
        given = {key: value.numpy() for key, value in inputs.items()}
        session = runtime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        (got,) = session.run(None, given)
        np.testing.assert_allclose(got, want, atol=1e-4 * max(1.0, np.abs(want).max()))


@pytest.mark.parametrize("resolution", [int(px) for px in os.environ.get("STYLEBOT_ONNX_PX", "").split()])
def test_onnx_at_full_width(tmp_path: Path, resolution: int) -> None:
    """Configuration F; minutes and 4 GB: only for the resolutions in STYLEBOT_ONNX_PX ("256 1024")."""
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(5)
    G = Generator(img_resolution=resolution).eval().requires_grad_(False)
    for name, tensor in G.state_dict().items():
        if name.endswith(("noise_strength", "w_avg", "bias")) and "affine" not in name:
            tensor.add_(torch.randn(tensor.shape) * 0.1)
    write_onnx(G, tmp_path)
    z = torch.randn(2, 512)
    ws = G.mapping(z, truncation_psi=0.7)
    pictures = {n: G.synthesis(ws[:n], noise_mode="const").numpy() for n in (1, 2)}  # both batch sizes
    for name, inputs in (("generator", {"z": z, "psi": torch.tensor(0.7)}), ("synthesis", {"ws": ws})):
        session = runtime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for n, wanted in pictures.items():
            given = {key: value[:n].numpy() if value.ndim else value.numpy() for key, value in inputs.items()}
            (got,) = session.run(None, given)
            print(f"{resolution} px {name} batch {n}: off by {np.abs(got - wanted).max():.2g}, "
                  f"range {wanted.min():.2f} to {wanted.max():.2f}")  # fmt: skip
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4)


def test_children_inherit_source_and_licence(networks: Networks, tmp_path: Path) -> None:
    told = {"source": "faces of nobody", "licence": "for no commerce", "kimg": 3}
    save_networks(tmp_path / "a", Networks(networks.G, None, None, told))
    files = (tmp_path / "a", DATA / "official_tiny.pkl")
    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    wanted = {"source": "faces of nobody", "licence": "for no commerce", "parents": sums[:1]}
    metas = [load_networks(path).meta for path in files]
    assert descent(metas[0], sums[0]) == wanted
    official = descent(metas[1], sums[1])
    assert official["source"] == "official pickle" and official["parents"] == sums[1:]
    assert "that of its parents" in official["licence"]


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StylebotError, match="tensorflow is none of"):
        export(DATA / "official_tiny.pkl", "tensorflow", tmp_path / "x")


def psp_state(styles: int = 6) -> dict[str, torch.Tensor]:
    """Some tensors under pSp's names, and an integer as its batch norms have."""
    names = ["input_layer.0.weight", *(f"styles.{i}.linear.weight" for i in range(styles))]
    state = {name: torch.randn(3, 2) for name in names}
    return state | {"input_layer.1.num_batches_tracked": torch.tensor(7)}


def test_psp_there_and_back(networks: Networks, tmp_path: Path) -> None:
    G = networks.G_ema
    encoder = psp_state() | {"latent_avg": G.mapping.w_avg.expand(6, 16).clone()}
    whole = Networks(None, None, G, {}, encoder)
    write_psp(whole, tmp_path / "a.pt", psp_options(G, encoder, {"lr": 1e-4, "factors": [1, 8]}))
    back = load_networks(tmp_path / "a.pt", need=("G_ema",))
    assert same(back.G_ema, G) and back.encoder.keys() == encoder.keys()
    assert all(torch.equal(back.encoder[name], tensor) for name, tensor in encoder.items())
    assert back.encoder["input_layer.1.num_batches_tracked"].dtype == torch.int64
    theirs = torch.load(tmp_path / "a.pt", weights_only=True)
    assert theirs.keys() == {"state_dict", "latent_avg", "opts"}
    assert {name.partition(".")[0] for name in theirs["state_dict"]} == {"encoder", "decoder"}
    opts = theirs["opts"]
    assert opts["encoder_type"] == "GradualStyleEncoder" and opts["output_size"] == 16
    assert opts["resize_factors"] == "1,8" and opts["lr"] == 1e-4 and opts["start_from_latent_avg"]
    write_psp(back, tmp_path / "b.pt")
    again = torch.load(tmp_path / "b.pt", weights_only=True)
    assert again["opts"] == opts and again["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(torch.equal(again["state_dict"][k], v) for k, v in theirs["state_dict"].items())


def test_psp_refuses_what_does_not_belong_together(networks: Networks, tmp_path: Path) -> None:
    G, path = networks.G_ema, tmp_path / "a.pt"
    average = G.mapping.w_avg.expand(6, 16).clone()
    for encoder, words in (({}, "needs G_ema and an encoder"), (psp_state(), "does not fit a generator"),
                           (psp_state() | {"latent_avg": average + 1}, "do not match"),
                           (psp_state(5) | {"latent_avg": average}, "has 5 styles, the generator 6")):
        with pytest.raises(StylebotError, match=words):
            write_psp(Networks(None, None, G, {}, encoder), path)
    assert not path.exists()
    light = Encoder("light", 16, w_dim=16)
    save_encoder(tmp_path / "light.safetensors", light, {})
    with pytest.raises(StylebotError, match=r"a light encoder.*encode\.variant"):
        export(DATA / "rosinality_legacy.pt", "psp", path, encoder=tmp_path / "light.safetensors")


def test_psp_gets_no_skip_connections_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for kimg, said in ((3, "skip connections of mode faithful are left out"), (0, "")):
        params = {"batch": 2, **({"faithful": {"kimg": kimg}} if kimg else {})}
        average, config = torch.ones(2, 3), {"variant": "psp"}
        encoder = SimpleNamespace(config=config, net=torch.nn.PReLU(), latent_avg=average)
        monkeypatch.setattr("stylebot.export.load_encoder", lambda _, e=encoder, p=params: (e, {"params": p}))
        state, found = read_encoder(tmp_path / "e", tmp_path / "g")
        assert state.keys() == {"weight", "latent_avg"} and found == params
        assert (said in capsys.readouterr().err) if said else not capsys.readouterr().err


def test_psp_is_told_where_its_decoder_differs(networks: Networks) -> None:
    said = "; ".join(unlike_psp(networks.G_ema))
    assert "w_dim 16 instead of 512" in said and "mapping_layers 2 instead of 8" in said
    with torch.device("meta"):
        assert unlike_psp(Generator(img_resolution=256)) == []
        assert unlike_psp(Generator(img_resolution=256, channel_base=16384)) == [
            "channel_multiplier 1 instead of 2"]


def test_psp_encoders_have_the_published_names() -> None:
    """Names and shapes of GradualStyleEncoder for 1024 px, by a hash of the published list."""
    with torch.device("meta"):
        state = PspEncoder(1024).state_dict()
    listed = "\n".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(state.items()))
    assert hashlib.sha256(listed.encode()).hexdigest() == PSP_LIST
