"""Detection, landmarks and identity on faces of people who do not exist."""

from collections.abc import Callable
from pathlib import Path

import dlib
import numpy as np
import pytest
from PIL import Image

from stylebot.errors import StylebotError
from stylebot.faces import Detector, Identity, Landmarker, turned
from stylebot.geometry import ffhq_square, warp

FACES = sorted((Path(__file__).parent / "data" / "faces").glob("*.jpg"))


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.fixture(scope="module")
def landmarker(model_file: Callable[[str], Path]) -> Landmarker:
    return Landmarker(model_file("landmarks.dat"))


def face(number: int) -> Image.Image:
    return Image.open(FACES[number]).convert("RGB")


def framed(number: int, side_px: int, size: tuple[int, int], at: tuple[int, int],
           roll_deg: float = 0) -> Image.Image:
    """A photo of `size` px with the face's square of `side_px` centred at `at`."""
    photo = Image.new("RGB", size, (120, 130, 140))
    picture = face(number).resize((side_px, side_px), Image.Resampling.LANCZOS)
    mask = Image.new("L", picture.size, 255)
    if roll_deg:
        picture, mask = (p.rotate(-roll_deg, Image.Resampling.BICUBIC, expand=True) for p in (picture, mask))
    photo.paste(picture, (at[0] - picture.width // 2, at[1] - picture.height // 2), mask)
    return photo


def test_one_face_each(detector: Detector) -> None:
    for number in range(len(FACES)):
        found = detector.find(face(number))
        assert len(found.boxes) == 1 and found.rotated_deg == 0 and found.scores[0] > 1


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_photos_are_put_upright(detector: Detector, degrees: int) -> None:
    photo = framed(0, 300, (500, 420), (240, 210))
    found = detector.find(turned(photo, 360 - degrees))
    upright = detector.find(photo)
    assert found.rotated_deg == degrees
    assert np.allclose(found.boxes, upright.boxes)


def test_small_faces_are_looked_for_in_larger_copies(detector: Detector) -> None:
    photo = framed(1, 160, (2400, 1800), (1500, 700))
    found = detector.find(photo)
    assert len(found.boxes) == 1 and max(found.searched.shape) > 640
    x0, y0, x1, y1 = found.boxes[0]
    assert x0 < 1500 < x1 and y0 < 700 < y1


def test_no_face(detector: Detector) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    plain, thin = Image.new("RGB", (400, 300), "grey"), Image.new("RGB", (700, 66))
    for picture in (plain, thin, Image.fromarray(noise)):
        assert len(detector.find(picture).boxes) == 0


def test_best_score_comes_first(detector: Detector) -> None:
    photo = Image.new("RGB", (600, 300), (120, 130, 140))
    photo.paste(face(0), (20, 20))
    photo.paste(face(2).point(lambda v: v // 7), (310, 20))
    found = detector.find(photo)
    assert len(found.boxes) == 2 and found.scores[0] > found.scores[1]
    assert {bool(box[0] < 300) for box in found.boxes} == {True, False}


@pytest.mark.parametrize(("side_px", "size", "roll_deg"), [
    (256, (256, 256), 0), (700, (1500, 1200), 0), (700, (1500, 1200), 20), (1024, (1024, 1024), 0)])
def test_realigning_an_aligned_face(detector: Detector, landmarker: Landmarker, side_px: int,
                                    size: tuple[int, int], roll_deg: float) -> None:
    """The square found around a framed face is that frame: the mean over faces within 2.5 of 1024 px."""
    offsets = []
    for number in range(len(FACES)):
        photo = framed(number, side_px, size, (size[0] // 2, size[1] // 2), roll_deg)
        found = detector.find(photo)
        square = ffhq_square(landmarker.landmarks(found, 0))
        center = (np.array(square.center) + 0.5 - np.array(size) / 2) * 1024 / side_px
        offsets.append([*center, square.side_px / side_px, square.roll_deg - roll_deg])
    offsets = np.array(offsets)
    assert np.abs(offsets[:, :2].mean(0)).max() < 2.5 and np.abs(offsets[:, :2]).max() < 8
    assert np.abs(offsets[:, 2] - 1).max() < 0.05 and np.abs(offsets[:, 3]).max() < 2


def test_landmarks_follow_a_shifted_photo(detector: Detector, landmarker: Landmarker) -> None:
    photo = framed(3, 400, (640, 560), (300, 280))
    shifted = framed(3, 400, (640, 560), (332, 264))
    here, there = (landmarker.landmarks(detector.find(p), 0) for p in (photo, shifted))
    assert here.shape == (68, 2) and here.dtype == np.float64
    assert np.abs(there - here - (32, -16)).mean() < 2


def test_identity_knows_people(detector: Detector, landmarker: Landmarker,
                               model_file: Callable[[str], Path]) -> None:
    """The same face at another size, light and framing is nearer than any two different faces."""
    identity = Identity(model_file("identity.dat"))
    faces = [face(number) for number in range(4)]
    again = []
    for number in range(4):
        photo = framed(number, 500, (900, 800), (420, 400), 12).point(lambda v: v * 3 // 4)
        square = ffhq_square(landmarker.landmarks(detector.find(photo), 0))
        again.append(np.asarray(warp(photo, square, 128, "edge")))
    a, b = identity.embed([np.asarray(f) for f in faces]), identity.embed(again)
    assert a.shape == (4, 128) and a.dtype == np.float32
    distance = np.linalg.norm(a[:, None] - b[None], axis=2)
    same, other = np.diag(distance), distance[~np.eye(4, dtype=bool)]
    assert same.max() < 0.35 and other.min() > same.max()
    assert identity.embed([]).shape == (0, 128)


def test_identity_agrees_with_dlibs_own_cut(model_file: Callable[[str], Path]) -> None:
    """Embeddings by the frame are near those that dlib makes from its own detection and landmarks."""
    network = dlib.face_recognition_model_v1(str(model_file("identity.dat")))
    predictor = dlib.shape_predictor(str(model_file("landmarks.dat")))
    rgbs = [np.asarray(face(number)) for number in range(3)]
    shapes = [predictor(rgb, dlib.get_frontal_face_detector()(rgb)[0]) for rgb in rgbs]
    wanted = [np.array(network.compute_face_descriptor(*pair)) for pair in zip(rgbs, shapes, strict=True)]
    ours = Identity(model_file("identity.dat")).embed(rgbs)
    assert np.linalg.norm(ours - wanted, axis=1).max() < 0.32


@pytest.mark.parametrize("kind", [Landmarker, Identity])
def test_damaged_models_are_one_clear_error(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "model.dat"
    path.write_bytes(b"no model" * 100)
    with pytest.raises(StylebotError, match=r"model\.dat is not dlib's"):
        kind(path)
