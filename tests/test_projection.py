"""Projection: a generated face is found again; photos are cut to the frame unless they are crops already."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylebot import geometry, projection
from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.latents import of_seeds
from stylebot.perceptual import Perceptual
from stylebot.portions import pictures


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The perceptual distance gets small pictures as they are, which is quick."""
    monkeypatch.setattr(projection, "_LEAST_PX", 32)


def test_a_generated_face_is_found_again(as_it_is: None, model_file: Callable[[str], Path]) -> None:
    torch.manual_seed(3)
    g = Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=32, mapping_layers=2, channel_base=128)
    g = g.eval().requires_grad_(False)
    perceptual = Perceptual(model_file("perceptual.pth"))
    ws = of_seeds(g, [5])
    target = next(pictures(g, lambda _: ws, [0]))
    ticks: list[int] = []
    w, wplus = projection.project(g, target, perceptual, 60, tick=lambda: ticks.append(1))
    assert len(ticks) == 120 and (w.space, wplus.space) == ("w", "w+")
    average, *_ = projection.project(g, target, perceptual, 1)
    assert w.distance < 0.25 * average.distance and wplus.distance < 0.5 * average.distance
    assert torch.equal(w.ws, w.ws[:, :1].expand_as(w.ws)) and wplus.ws.std(1).max() > 0
    again, _ = projection.project(g, target, perceptual, 60)
    assert torch.equal(again.ws, w.ws)


class Seen(torch.nn.Module):
    """In the perceptual network's place: remembers sizes, compares means of colours."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[tuple[int, ...]] = set()

    def features(self, img: torch.Tensor) -> list[torch.Tensor]:
        self.sizes.add(tuple(img.shape[2:]))
        return [torch.nn.functional.adaptive_avg_pool2d(img, 8)]

    def compare(self, a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
        return (a[0] - b[0]).square().mean((1, 2, 3))


def small(px: int) -> Generator:
    torch.manual_seed(3)
    shape = {"img_resolution": px, "mapping_layers": 1, "channel_base": 2048, "channel_max": 4}
    return Generator(z_dim=4, c_dim=0, w_dim=4, **shape).eval().requires_grad_(False)


@pytest.mark.parametrize(("px", "wanted"), [(16, 128), (128, 128), (512, 256)])
def test_pictures_are_compared_at_a_size_that_the_network_sees(px: int, wanted: int) -> None:
    seen = Seen()
    projection.project(small(px), np.zeros((px, px, 3), np.uint8), seen, 1)
    assert seen.sizes == {(wanted, wanted)}


def test_wplus_stays_near_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    noise, moved = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8), []
    for stay in (0.0, projection._STAY, 100.0):
        monkeypatch.setattr(projection, "_STAY", stay)
        w, wplus = projection.project(small(16), noise, Seen(), 40)
        moved.append(float((wplus.ws - w.ws).norm()))
    assert moved[0] > moved[1] > 10 * moved[2] > 0


def test_an_encoders_answer_is_told_and_gone_on_from(
    as_it_is: None, model_file: Callable[[str], Path]
) -> None:
    torch.manual_seed(3)
    g = Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=32, mapping_layers=2, channel_base=128)
    g = g.eval().requires_grad_(False)
    ws, given = of_seeds(g, [5]), []
    target = next(pictures(g, lambda _: ws, [0]))

    def encode(img: torch.Tensor) -> torch.Tensor:
        given.append(img)
        return ws.clone()

    perceptual = Perceptual(model_file("perceptual.pth"))
    first, w, wplus = projection.project(g, target, perceptual, 1, encode=encode)
    assert [one.space for one in (first, w, wplus)] == ["encoder", "w", "w+"]
    assert given[0].shape == (1, 3, 32, 32) and given[0].min() >= -1 and given[0].max() <= 1
    assert first.distance < w.distance / 4 and torch.equal(first.ws, ws)
    assert wplus.distance < w.distance / 2  # it started from the encoder's answer
    wrong = projection.project(g, target, perceptual, 1, encode=lambda img: ws * 0 + 9)
    assert wrong[0].distance > wrong[1].distance and (wrong[2].ws - wrong[1].ws).abs().max() < 1


class FoundAt:
    """Instead of dlib: landmarks whose FFHQ square is the given one."""

    def __init__(self, center: float, side: float) -> None:
        points = np.zeros((68, 2))
        eyes, quarter = center - 0.1 * side / 3.6, side / 8
        points[36:42], points[42:48] = (center - quarter, eyes), (center + quarter, eyes)
        points[[48, 54]] = (center, eyes + side / 3.6)
        self.points, self.boxes, self.rotated_deg = points, np.array([[0.0, 0.0, 1.0, 1.0]]), 0


def test_photos_are_cut_and_crops_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (160, 160, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "square.png")
    Image.fromarray(noise[:120]).save(tmp_path / "wide.png")
    whole = np.asarray(Image.fromarray(noise).resize((32, 32), Image.Resampling.LANCZOS))
    found = FoundAt(79.5, 160)
    frame = geometry.ffhq_square(found.points)
    assert frame.side_px == pytest.approx(160) and frame.center[1] == pytest.approx(79.5, abs=0.1)

    def crop(name: str, at: FoundAt, cropped: bool = False) -> np.ndarray:
        monkeypatch.setattr(projection.faces.Detector, "find", lambda self, picture: at)
        model = type("Model", (), {"landmarks": lambda self, found, index: found.points})
        monkeypatch.setattr(projection.faces, "Landmarker", lambda path: model())
        return projection.face_crop(tmp_path / name, tmp_path / "landmarks.dat", 32, cropped)

    assert np.array_equal(crop("square.png", found), whole)
    cut = crop("square.png", FoundAt(79.5, 80))
    middle = geometry.warp(Image.fromarray(noise), geometry.ffhq_square(FoundAt(79.5, 80).points), 32, "edge")
    assert np.array_equal(cut, np.asarray(middle))
    nobody = FoundAt(0, 1)
    nobody.boxes = np.zeros((0, 4))
    with pytest.raises(StylebotError, match=r"square\.png: no frontal face found.*--cropped"):
        crop("square.png", nobody)
    assert np.array_equal(crop("square.png", nobody, cropped=True), whole)
    with pytest.raises(StylebotError, match=r"160 x 120 px: a face crop is square"):
        crop("wide.png", nobody, cropped=True)
    with pytest.raises(StylebotError, match=r"none\.png"):
        projection.face_crop(tmp_path / "none.png", tmp_path / "landmarks.dat", 32)
