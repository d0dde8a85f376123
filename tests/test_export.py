"""Exports come back bit for bit, and mean the same to other programs."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stylebot.checkpoints import load_networks
from stylebot.discriminator import Discriminator
from stylebot.errors import StylebotError
from stylebot.export import export, official_state, write_official, write_onnx, write_rosinality
from stylebot.generator import Generator
from stylebot.torchfile import read_snapshot
from stylebot.weights import ROLES, Networks

DATA = Path(__file__).parent / "data"


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


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StylebotError, match="tensorflow is none of"):
        export(DATA / "official_tiny.pkl", "tensorflow", tmp_path / "x")
