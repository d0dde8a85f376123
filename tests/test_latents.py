"""Latents: mixing, closed paths, directions by closed form, files."""

import io
import pickle
import resource
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from stylebot import latents
from stylebot.errors import StylebotError
from stylebot.generator import Generator


@pytest.fixture(scope="module")
def g() -> Generator:
    torch.manual_seed(0)
    return Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, mapping_layers=2, channel_base=64).eval()


def test_mixing_takes_the_named_layers(rng: torch.Generator) -> None:
    rows, columns = torch.randn(2, 6, 8, generator=rng), torch.randn(3, 6, 8, generator=rng)
    ws = latents.mixed(rows, columns, [0, 2]).reshape(2, 3, 6, 8)
    assert torch.equal(ws[1, 2, [0, 2]], columns[2, [0, 2]])
    assert torch.equal(ws[1, 2, [1, 3, 4, 5]], rows[1, [1, 3, 4, 5]])


def test_a_closed_path_goes_through_its_faces_without_a_corner(rng: torch.Generator) -> None:
    keys = torch.randn(5, 2, 3, generator=rng)
    path = latents.closed_path(keys, 50)
    assert path.shape == (250, 2, 3) and torch.allclose(path[::50], keys, atol=1e-5)
    speed = torch.cat([path, path[:2]]).diff(dim=0)
    assert speed.diff(dim=0).abs().max() < 0.02 and speed.abs().max() > 0.05
    with pytest.raises(StylebotError, match="two faces"):
        latents.closed_path(keys[:1], 5)


def test_directions_change_the_styles_most(g: Generator, rng: torch.Generator) -> None:
    for layers in (range(g.num_ws), [1, 2]):
        a = latents.affine_weights(g, layers)
        ways = latents.directions(g, 8, layers).double()
        assert torch.allclose(ways @ ways.t(), torch.eye(8).double(), atol=1e-5)
        change = (a @ ways.t()).norm(dim=0)
        assert (change.diff() <= 1e-6).all()
        others = torch.nn.functional.normalize(torch.randn(500, 8, generator=rng).double())
        assert (a @ others.t()).norm(dim=0).max() <= change[0] + 1e-6
        assert (ways.gather(1, ways.abs().argmax(1, keepdim=True)) > 0).all()


def test_affine_weights_are_those_that_a_layer_feeds(g: Generator) -> None:
    named = [m for n, m in g.synthesis.named_modules() if n.endswith("affine")]
    fed: list[list[int]] = []
    for index in range(g.num_ws):
        ws, heard = torch.zeros(1, g.num_ws, 8), []
        hooks = [m.register_forward_hook(lambda m, i, _, to=heard: to.append((m, i[0]))) for m in named]
        ws[:, index] = 1
        g.synthesis(ws, noise_mode="none")
        for hook in hooks:
            hook.remove()
        fed.append([m.weight.shape[0] for m, x in heard if x.any()])
    assert [len(widths) for widths in fed] == [1, 2, 1, 2, 1, 1]
    assert [len(latents.affine_weights(g, [i])) for i in range(g.num_ws)] == [sum(w) for w in fed]


def test_moves_are_in_order_and_in_their_layers(rng: torch.Generator) -> None:
    ws, ways = torch.randn(2, 4, 3, generator=rng), torch.eye(3)[:2]
    out = latents.moved(ws, ways, [-1.0, 0.0, 2.0], [1]).reshape(2, 2, 3, 4, 3)
    assert torch.equal(out[1, 1, 1], ws[1])
    assert torch.allclose(out[1, 1, 2] - ws[1], torch.tensor([0, 2.0, 0]) * torch.eye(4)[1][:, None])


def test_files_of_latents_come_back(g: Generator, tmp_path: Path) -> None:
    ws = latents.of_seeds(g, [1, 2])
    latents.save_ws(tmp_path / "w.npz", ws)
    assert torch.equal(latents.read_ws(tmp_path / "w.npz", g), ws)
    np.savez(tmp_path / "flat.npz", w=ws[:, 0].numpy())
    assert torch.equal(latents.read_ws(tmp_path / "flat.npz", g), ws)


@pytest.mark.parametrize(("arrays", "said"), [
    ({"x": np.zeros(3)}, "no .npz"), ({"w": np.zeros((1, 5, 8))}, "this network needs"),
    ({"w": np.full((1, 6, 8), np.nan)}, "not finite"), ({"w": np.array(["a"])}, "no .npz"),
    ({"w": np.array([{}], dtype=object)}, "no .npz"), ({"w": np.zeros((0, 6, 8))}, "this network needs"),
])  # fmt: skip
def test_other_files_are_refused(g: Generator, tmp_path: Path, arrays: dict, said: str) -> None:
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(StylebotError, match=said):
        latents.read_ws(tmp_path / "w.npz", g)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "w.npz").read_bytes()[:60])
    with pytest.raises(StylebotError, match=r"cut\.npz is no \.npz"):
        latents.read_ws(tmp_path / "cut.npz", g)


def npy(header: str, content: bytes = b"") -> bytes:
    """An .npz whose array `w` has this header."""
    text = header.encode().ljust(118) + b"\n"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", member)
    return buffer.getvalue()


def described(shape: tuple, dtype: str = "<f4") -> str:
    return str({"descr": dtype, "fortran_order": False, "shape": shape})


@pytest.mark.parametrize(("content", "said"), [
    (npy(described((1 << 30, 6, 8))), "too short for the shape"),
    (npy(described((-1, 6, 8))), "real numbers"),
    (npy(described((1 << 18, 6, 8)), bytes(1 << 25)), "unpacks to far more"),
    (npy(described((1, 6, 8), "<c8"), bytes(384)), "no real numbers"),
    (npy("__import__('os').abort()"), "no .npz"), (npy("("), "no .npz"), (npy("[" * 100), "no .npz"),
    (b"", "no .npz"), (b"\x93NUMPY", "no .npz"), (pickle.dumps({"w": 1}), "no .npz"),
])  # fmt: skip
def test_hostile_files_are_one_line(g: Generator, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "w.npz").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StylebotError, match=said) as caught:
        latents.read_ws(tmp_path / "w.npz", g)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_latents_of_a_wider_network_are_one_line(g: Generator, tmp_path: Path) -> None:
    latents.save_ws(tmp_path / "w.npz", torch.zeros(1, 18, 512))
    with pytest.raises(StylebotError) as caught:
        latents.read_ws(tmp_path / "w.npz", g)
    assert str(caught.value) == (f"{tmp_path / 'w.npz'}: w has the shape [1, 18, 512], "
                                 "this network needs [faces, 6, 8]")  # fmt: skip
