"""The public-domain option: frames by dlib's 5-point model, and what filter then says of a face."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from aligned_faces import align_params
from PIL import Image
from test_quality import FACES, LUMA

from stylebot import fivepoints, geometry, quality
from stylebot.align import align_photo
from stylebot.errors import StylebotError
from stylebot.faces import Detector, Landmarker
from stylebot.filter import RANKED, FilterParams
from stylebot.limits import margins, refusals
from stylebot.params import load_params

ROOT = Path(__file__).parents[1]
PHOTOS = sorted((ROOT / "tests" / "data" / "faces").glob("*.jpg"))
POINTS = np.array([[180.0, 100.0], [150.0, 104.0], [60.0, 98.0], [92.0, 103.0], [118.0, 160.0]])
INNOCENT = {"face_score": 2.0, "second_area_ratio": 0.0, "scale": 1.0, "pad_fraction": 0.0, "roll_deg": 3.0,
            "head_share": math.nan, "blockiness": 1.0}  # fmt: skip


@pytest.fixture(scope="module")
def five(model_file: Callable[[str], Path]) -> Path:
    return model_file("dlib5.dat")


@pytest.fixture(scope="module")
def found(model_file: Callable[[str], Path], five: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every test photo: its 68 points and its 5."""
    detector, models = Detector(), (Landmarker(model_file("landmarks.dat"), 68), Landmarker(five, 5))
    boxes = [detector.find(Image.open(path).convert("RGB")) for path in PHOTOS]
    return [tuple(model.landmarks(one, 0) for model in models) for one in boxes]


@pytest.mark.parametrize("turn_deg, zoom", [(0, 1), (37, 0.4), (-120, 6)])
def test_what_happens_to_the_points_happens_to_the_centres(turn_deg: float, zoom: float) -> None:
    angle = np.radians(turn_deg)
    turn = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved = fivepoints.anchors(POINTS @ turn + (30, -7))
    np.testing.assert_allclose(moved, fivepoints.anchors(POINTS) @ turn + (30, -7), atol=1e-9)


def test_mirrored_points_give_mirrored_centres() -> None:
    mirrored = POINTS[[2, 3, 0, 1, 4]] * (-1, 1)
    expected = fivepoints.anchors(POINTS)[[1, 0, 2]] * (-1, 1)
    np.testing.assert_allclose(fivepoints.anchors(mirrored), expected, atol=1e-9)


def test_the_fit_finds_the_rule_that_made_the_targets() -> None:
    rng = np.random.default_rng(0)
    faces = POINTS + rng.normal(size=(80, 5, 2)) * 4
    truth = np.array([fivepoints.anchors(face) for face in faces])
    known, wanted, matrix = fivepoints.fit(faces, truth)
    for face, centres in zip(faces[:5], truth, strict=False):
        origin, axes = fivepoints._frame(face)
        places = wanted + ((fivepoints._within(face, face[[4, 0, 2]]) - known).ravel() @ matrix).reshape(3, 2)
        np.testing.assert_allclose(origin + places @ axes, centres, atol=1e-6)


def test_points_that_fall_together_are_an_error_not_a_frame() -> None:
    with pytest.raises(ValueError, match="one point"):
        geometry.ffhq_square(np.zeros((5, 2)))


def test_centres_and_frames_are_near_those_of_68_points(found: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """In px of a 1024 px crop; six faces of the 1,168 that the fit is made of."""
    frames = [tuple(map(geometry.ffhq_square, both)) for both in found]
    centres = [(geometry.anchors(few) - geometry.anchors(many)) * 1024 / frame.side_px
               for (many, few), (frame, _) in zip(found, frames, strict=True)]
    assert np.abs(np.mean(centres, axis=0)).max() < 20, centres
    off = [1024 / many.side_px * math.dist(few.center, many.center) for many, few in frames]
    sides = [abs(math.log(few.side_px / many.side_px)) for many, few in frames]
    turns = [abs(few.roll_deg - many.roll_deg) for many, few in frames]
    assert len(off) == len(PHOTOS) >= 6
    assert np.mean(off) < 8 and max(off) < 20, off
    assert np.mean(sides) < 0.05 and max(sides) < 0.12, sides
    assert max(turns) < 4, turns


def test_the_wrong_model_is_one_line(five: Path, model_file: Callable[[str], Path]) -> None:
    assert Landmarker(five).points == 5
    for path, wanted in ((five, 68), (model_file("landmarks.dat"), 5)):
        with pytest.raises(StylebotError, match=f"{wanted} are wanted.*repro fetch@landmarks"):
            Landmarker(path, wanted)


def test_align_by_five_points(five: Path) -> None:
    content = PHOTOS[0].read_bytes()
    entry = align_photo(content, five, align_params(resolution=128, landmarks="dlib5"))
    assert entry.outcome == "faces" and len(entry.rows[0]["landmarks"]) == 10 and len(entry.pngs) == 1
    with pytest.raises(StylebotError, match="68 are wanted"):
        align_photo(content, five, align_params(resolution=128))


def measured(rgb: np.ndarray, points: np.ndarray) -> dict[str, float]:
    return vars(quality.measure(rgb, points)) | {"blockiness": quality.blockiness(rgb @ LUMA)}


def test_what_needs_68_points_is_empty_and_the_rest_is_measured() -> None:
    for rgb, points in FACES:
        many, few = (measured(rgb, each) for each in (points, np.zeros((5, 2))))
        assert {name for name, value in few.items() if math.isnan(value)} == set(quality.BY_68_POINTS)
        assert abs(few["sharpness_db"] - many["sharpness_db"]) < 2.5
        assert abs(few["luminance"] - many["luminance"]) < 0.08
        assert abs(few["skin_share"] - many["skin_share"]) < 0.25


@pytest.mark.parametrize("source", ["celebrity", "id"])
def test_what_is_empty_is_not_judged(source: str) -> None:
    limits = load_params("filter", FilterParams, path=ROOT / "params.yaml").thresholds(source)
    rgb, _ = FACES[0]
    few = INNOCENT | measured(rgb, np.zeros((5, 2)))
    judged = margins(few, False, limits)
    unknown = {f"max_{name}" for name in ("yaw_deg", "pitch_deg", "mouth_open", "head_share")}
    unknown |= {"min_eyes_open"}
    assert not unknown & set(judged)
    assert "max_roll_deg" in judged and "min_sharpness_db" in judged
    assert all(math.isfinite(value) for value in judged.values())
    assert "pose" not in refusals(judged, False, limits)
    scores = {name: quality.score(name, few[name]) for name in RANKED}
    assert math.isfinite(quality.overall(scores)) and math.isnan(scores["yaw_deg"])
