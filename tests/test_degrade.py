"""Small pictures as the web has them: brightness, noise, blur, JPEG against Pillow's, and the draws."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylebot import degrade as module
from stylebot.degrade import blurred, degrade, photographed, shrink, to_img
from stylebot.jpeg import _CHROMINANCE, _LUMINANCE, jpeg, tables
from stylebot.randomness import drawer

FACES = Path(__file__).parent / "data" / "faces"


@cache
def faces(side_px: int = 64, count: int = 6) -> torch.Tensor:
    """Real pictures [N,3,side,side] float, [-1,1]."""
    rgbs = []
    for path in sorted(FACES.glob("*.jpg"))[:count]:
        with Image.open(path) as picture:
            picture.draft("RGB", (side_px, side_px))
            rgbs.append(np.asarray(picture.convert("RGB").resize((side_px, side_px))))
    return to_img(torch.from_numpy(np.stack(rgbs)).permute(0, 3, 1, 2))


def draw(name: str = "test") -> torch.Generator:
    return drawer(0, 0, name)


def only(monkeypatch: pytest.MonkeyPatch, blur: float = 1e-3, noise: float = 0.0, quality: int = 100) -> None:
    """Let `photographed` do one thing alone."""
    monkeypatch.setattr(module, "_BLUR_PX", (blur, blur))
    monkeypatch.setattr(module, "_NOISE", (noise, noise))
    monkeypatch.setattr(module, "_QUALITY", (quality, quality))


def blockiness(rgb: torch.Tensor) -> float:
    """Steps between neighbouring columns at the borders of blocks over those inside blocks."""
    steps = rgb.mean(1).diff(dim=2).abs().mean((0, 1))
    border = torch.arange(len(steps)) % 8 == 7
    return float(steps[border].mean() / steps[~border].mean())


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 100])
def test_quantisation_tables_are_pillows(quality: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
    for k, base in enumerate((_LUMINANCE, _CHROMINANCE)):
        theirs = Image.open(buffer).quantization[k]
        assert tables(torch.tensor([quality]), base)[0].flatten().int().tolist() == list(theirs)


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize("side", [64, 61])
def test_jpeg_is_pillows(side: int, quality: int) -> None:
    levels = ((faces(side, 2) + 1) * 127.5).round()
    found = jpeg(levels, torch.full((2,), quality))
    for rgb, mine in zip(levels.permute(0, 2, 3, 1), found.permute(0, 2, 3, 1), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(rgb.byte().numpy()).save(buffer, "JPEG", quality=quality)
        theirs = np.asarray(Image.open(buffer)).astype(np.float32)
        lost = np.abs(theirs - rgb.numpy()).mean()
        # rounding of single coefficients differs; what compression destroys is the same
        assert np.abs(mine.numpy() - theirs).mean() < 0.1 * lost + 0.75


def test_each_picture_has_its_own_quality_and_blocks_appear() -> None:
    levels = ((faces(64) + 1) * 127.5).round()
    together = jpeg(levels, torch.tensor([5, 20, 40, 60, 80, 100]))
    assert torch.equal(together[2:3], jpeg(levels[2:3], torch.tensor([40])))
    lost = (together - levels).abs().mean((1, 2, 3))
    assert lost[0] > lost[1] > lost[5]
    assert blockiness(jpeg(levels, torch.full((6,), 8))) > 2 * blockiness(levels)
    assert together.min() >= 0 and together.max() <= 255 and torch.equal(together, together.round())


def test_tiny_pictures_have_a_jpeg_too() -> None:
    levels = torch.full((1, 3, 2, 2), 77.0)
    assert float((jpeg(levels, torch.tensor([60])) - levels).abs().max()) <= 1


def test_brightness_is_kept() -> None:
    img = faces()
    for factor in (1, 4, 8):
        found = photographed(img, factor, draw())
        assert found.shape == (6, 3, 64 // factor, 64 // factor)
        assert float((found.mean((1, 2, 3)) - img.mean((1, 2, 3))).abs().max()) < 4 / 127.5


def test_noise_has_the_level_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, noise=12.0)
    grey = torch.zeros(64, 3, 32, 32)
    levels = (photographed(grey, 1, draw()) + 1) * 127.5
    luminance = (levels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    spread = luminance.std((1, 2))
    alike = (levels[:, 0] - levels[:, 1]).std((1, 2)) < 3  # the same noise in all colours
    assert 0.3 < float(alike.float().mean()) < 0.7
    assert float(spread[alike].mean()) == pytest.approx(12.0, rel=0.05)
    # independent colours add up as squares
    mixed = 12.0 * np.sqrt(0.299**2 + 0.587**2 + 0.114**2)
    assert float(spread[~alike].mean()) == pytest.approx(mixed, rel=0.1)
    assert float(levels.mean()) == pytest.approx(127.5, abs=0.5)


def test_blur_has_the_width_and_the_direction_that_were_asked_for() -> None:
    img = torch.full((2, 3, 21, 21), -1.0)
    img[:, :, 10, 10] = 1
    found = (blurred(img, torch.tensor([[1.2, 0.6], [1.2, 0.6]]), torch.tensor([0.0, np.pi / 2])) + 1) / 2
    at = torch.arange(21) - 10
    weights = found[:, 0] / found[:, 0].sum((1, 2), keepdim=True)
    across, down = (weights.sum(1) * at**2).sum(1).sqrt(), (weights.sum(2) * at**2).sum(1).sqrt()
    assert across.tolist() == pytest.approx([1.2, 0.6], rel=0.02)
    assert down.tolist() == pytest.approx([0.6, 1.2], rel=0.02)
    assert torch.allclose(found.sum((2, 3)), torch.ones(2, 3), atol=1e-3)


def test_without_blur_noise_and_loss_it_is_a_smaller_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    img = faces()
    gaps = (photographed(img, 4, draw()) - shrink(img, 4)).abs().mean((1, 2, 3)) * 127.5
    assert float(gaps.max()) < 6  # three filters, and colours at half resolution
    assert float((degrade(img, [1] * 6, draw()) - img).abs().mean()) * 127.5 < 2


def test_draws_decide_and_nothing_else() -> None:
    img = faces()
    factors = [1, 2, 4, 4, 8, 2]
    one = degrade(img, factors, draw())
    assert torch.equal(one, degrade(img, factors, draw()))
    assert not torch.equal(one, degrade(img, factors, draw("other")))
    assert one.shape == img.shape and float(one.abs().max()) <= 1
    worse = [float((degrade(img, [f] * 6, draw()) - img).abs().mean()) for f in (1, 4, 16)]
    assert worse[0] < worse[1] < worse[2]


def test_photos_are_worse_than_bicubic() -> None:
    img = faces()
    for factor in (2, 4, 8):
        bicubic, photo = degrade(img, [factor] * 6), degrade(img, [factor] * 6, draw())
        assert float((photo - img).square().mean()) > float((bicubic - img).square().mean())
