"""The perceptual distance: the reference's numbers, and what holds for every distance."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from stylebot.errors import StylebotError
from stylebot.perceptual import Perceptual

CONVS = {"net.slice1.0": (64, 3, 11), "net.slice2.5": (192, 64, 5), "net.slice3.9": (384, 192, 3),
         "net.slice4.11": (256, 384, 3), "net.slice5.13": (256, 256, 3)}


def drawn(name: str, *shape: int) -> torch.Tensor:
    """Standard normal numbers that depend on `name` alone."""
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def weights() -> dict[str, torch.Tensor]:
    """A network of the real shape, by formula."""
    state = {"scaling_layer.shift": torch.tensor([-0.03, -0.088, -0.188]).view(1, 3, 1, 1),
             "scaling_layer.scale": torch.tensor([0.458, 0.448, 0.45]).view(1, 3, 1, 1)}
    for i, (name, (o, c, k)) in enumerate(CONVS.items()):
        state[f"{name}.weight"] = drawn(f"{name}.weight", o, c, k, k) * (2 / (c * k * k)) ** 0.5
        state[f"{name}.bias"] = drawn(f"{name}.bias", o) * 0.1
        state[f"lin{i}.model.1.weight"] = drawn(f"lin{i}", 1, o, 1, 1).abs()
    return state


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Perceptual:
    path = tmp_path_factory.mktemp("perceptual") / "net.pth"
    torch.save(weights(), path)
    return Perceptual(path)


def pictures(px: int) -> tuple[torch.Tensor, torch.Tensor]:
    a = drawn(f"a{px}", 2, 3, px, px).clamp(-1, 1)
    return a, (a + 0.3 * drawn(f"b{px}", 2, 3, px, px)).clamp(-1, 1)


# Distances and norms of the gradient in `a`, computed with LPIPS(net="alex", variant="shift_tolerant") of
# stlpips-pytorch 0.0.2 and the weights above.
REFERENCE = {32: ([0.1444772, 0.12199588], 0.06235366), 47: ([0.12056649, 0.12926199], 0.03744811)}


@pytest.mark.parametrize("px", sorted(REFERENCE))
def test_equals_the_reference(net: Perceptual, px: int) -> None:
    a, b = pictures(px)
    a.requires_grad_()
    found = net(a, b)
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert found.tolist() == pytest.approx(REFERENCE[px][0], rel=1e-5)
    assert float(gradient.norm()) == pytest.approx(REFERENCE[px][1], rel=1e-4)


def test_is_zero_for_equal_pictures_and_symmetric(net: Perceptual) -> None:
    a, b = pictures(32)
    assert net(a, a).tolist() == [0, 0]
    assert net(a, b).tolist() == pytest.approx(net(b, a).tolist(), rel=1e-6)
    assert (net(a, b) > 0).all()


def test_grows_with_the_disturbance(net: Perceptual) -> None:
    a, b = pictures(32)
    found = [float(net(a, a.lerp(b, t))[0]) for t in (0.1, 0.3, 1.0)]
    assert found == sorted(found)


def test_layers_without_any_response_are_no_trap(tmp_path: Path) -> None:
    dead = {key: value - 100 if key.endswith("bias") else value for key, value in weights().items()}
    torch.save(dead, tmp_path / "net.pth")
    img = torch.zeros(1, 3, 32, 32, requires_grad=True)
    found = Perceptual(tmp_path / "net.pth")(img, torch.ones_like(img))
    found.sum().backward()
    assert found.tolist() == [0]
    assert torch.isfinite(img.grad).all()


def test_nothing_in_it_can_be_trained(net: Perceptual) -> None:
    assert not list(net.parameters())
    assert not any(buffer.requires_grad for buffer in net.buffers())


@pytest.mark.parametrize("shape", [(1, 3, 20, 20), (1, 1, 32, 32)])
def test_refuses_pictures_it_cannot_compare(net: Perceptual, shape: tuple[int, ...]) -> None:
    with pytest.raises(StylebotError, match="RGB pictures of 21 px"):
        net(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("content", [b"", b"no network", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(StylebotError, match="cannot be read"):
        Perceptual(path)


def test_another_network_is_one_clear_error(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(StylebotError, match="another network"):
        Perceptual(tmp_path / "net.pth")
