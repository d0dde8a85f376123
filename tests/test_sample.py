"""The sample's photographs: plan, pictures and truth, with small made-up faces (no openvino)."""

import csv
import io
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from stylebot import sample, staging
from stylebot.errors import StylebotError
from stylebot.sample import SEED, Shot, encoded, make, near_copy, photographs, plan
from stylebot.scenes import Placing, continued, cut_out, filled, frame_of, refine_matte

EYES = ((0.38, 0.47), (0.62, 0.47))  # of the made-up face, in units of the square


def face(identity: int, variant: int, side: int) -> staging.Face:
    """A grey oval with two blue eyes before green, and its exact cut-out."""
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side
    alpha = (((x - 0.5) / 0.3) ** 2 + ((y - 0.55) / 0.45) ** 2 < 1).astype(np.float32)
    rgb = np.where(alpha[..., None] > 0, [170 + identity % 40, 140, 120 + variant], [60, 130, 60])
    for u, v in EYES:
        rgb[np.hypot(x - u, y - v) < 0.04] = (20, 20, 250)
    return rgb.astype(np.uint8), cut_out(rgb.astype(np.uint8), alpha)


def small_face(identity: int, variant: int, side: int) -> staging.Face:
    """Small whatever is asked for, to be quick."""
    return face(identity, variant, 128)


SHOTS = plan(SEED)
WILD = [s for s in SHOTS if s.source == "celebrity"]
IDS = [s for s in SHOTS if s.source == "id"]


def test_the_plan_is_the_sample_that_was_asked_for() -> None:
    assert (len(WILD), len(IDS)) == (240, 100)
    assert Counter(s.meant for s in WILD) == sample.REFUSED | {"good": 202}
    assert {s.meant for s in IDS} == {"good"}
    assert len({s.name for s in WILD}) == 240 and plan(SEED) == SHOTS != plan(SEED + 1)


def test_good_wild_photos_cover_sizes_people_and_ways_to_store() -> None:
    good = [s for s in WILD if s.meant == "good"]
    heights = sorted(s.height_px for s in good)
    assert 90 <= heights[0] < 95 and 450 < heights[-1] <= 600
    assert all(70 <= s.quality <= 95 for s in WILD)
    assert sum(len(s.people) == 2 for s in good) == sample.TWO_PEOPLE
    assert sum(s.orientation != 1 for s in good) == sample.ROTATED
    assert sum(s.grey for s in good) == sample.GREY
    assert max(s.height_px for s in WILD if s.meant == "face_too_small") < 0.4 * heights[0]


def test_people_have_several_different_pictures_and_id_photos_mostly_other_people() -> None:
    pictures = [who for s in WILD if s.meant != "duplicate" for who in s.people]
    assert len(set(pictures)) == len(pictures)
    famous = Counter(identity for identity, _ in pictures)
    assert len(famous) == 60 and min(famous.values()) >= 2
    sitters = [identity for s in IDS for identity, _ in s.people]
    assert len(set(sitters)) == 100
    assert set(sitters) & famous.keys() == set(sample.SHARED)


def test_duplicates_point_at_good_photos_of_one_person() -> None:
    by_name = {s.name: s for s in WILD}
    copies = [s for s in WILD if s.meant == "duplicate"]
    assert len({s.duplicate_of for s in copies}) == len(copies)
    for copy in copies:
        original = by_name[copy.duplicate_of]
        assert original.meant == "good" and original.people == copy.people and len(copy.people) == 1
    assert {copy.quality % 2 for copy in copies} == {0, 1}  # exact ones and near ones


@pytest.mark.parametrize("meant", ["good", "no_face", "blurred", "dark", "padded", "face_too_small"])
def test_a_picture_depends_on_its_shot_and_the_seed_alone(meant: str) -> None:
    shot = next(s for s in WILD if s.meant == meant and s.height_px < 200)
    once, again = make(shot, SEED, small_face), make(shot, SEED, small_face)
    assert np.array_equal(once.rgb, again.rgb)
    assert once.rgb.dtype == np.uint8 and once.rgb.ndim == 3
    other = make(shot, SEED + 1, small_face)
    assert other.rgb.shape != once.rgb.shape or not np.array_equal(other.rgb, once.rgb)


def eyes_of(rgb: np.ndarray) -> np.ndarray:
    """Centres [2, 2] of the two blue eyes in px, left to right."""
    from scipy import ndimage

    red, green, blue = rgb.astype(int).transpose(2, 0, 1)
    labels, count = ndimage.label(ndimage.median_filter(blue - np.maximum(red, green), 3) > 90)
    sizes = np.bincount(labels.ravel())[1:]
    assert count >= 2
    two = 1 + np.argsort(sizes)[-2:]
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, two))[:, ::-1] + 0.5
    return centres[np.argsort(centres[:, 0])]


def test_the_face_lies_where_the_truth_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eye distance and roll, measured in the finished pictures, are those of the truth; the square fits."""
    monkeypatch.setattr(staging, "SCENES", [lambda rng, palette, w, h: np.full((h, w, 3), 90, np.float32)])
    for number in range(6):
        rng = np.random.default_rng(number)
        picture = staging.wild(rng, [face(0, 0, 256)], face(1, 0, 128), 110)
        left, right = eyes_of(picture.rgb)
        across = right - left
        assert np.hypot(*across) == pytest.approx(0.24 * picture.side_px, rel=0.03)
        assert np.degrees(np.arctan2(across[1], across[0])) == pytest.approx(picture.roll_deg, abs=1.5)
        down = np.array([-across[1], across[0]])
        centre = (left + right) / 2 + down / 0.24 * 0.03
        reach = staging.half_extent(picture.side_px, picture.roll_deg)
        height, width = picture.rgb.shape[:2]
        assert centre[0] - reach > -2 and centre[0] + reach < width + 2
        assert centre[1] - reach > -2 and centre[1] + reach < height + 2


def test_a_face_that_is_cut_off_lies_outside_by_a_third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "SCENES", [lambda rng, palette, w, h: np.full((h, w, 3), 90, np.float32)])
    borders = set()
    for number in range(8):
        picture = staging.cut_off(np.random.default_rng(number), face(0, 0, 256), face(1, 0, 128), 110)
        left, right = eyes_of(picture.rgb)
        x, y = (left + right) / 2 / picture.side_px
        height, width = np.array(picture.rgb.shape[:2]) / picture.side_px
        outside = {"left": 0.5 - x, "right": x + 0.5 - width, "top": 0.47 - y, "bottom": y + 0.53 - height}
        border = max(outside, key=outside.get)
        assert 0.25 < outside[border] < 0.38
        borders.add(border)
    assert borders == {"left", "right", "top"}


def test_id_photos_are_upright_light_and_centred() -> None:
    for number in range(4):
        picture = staging.portrait(np.random.default_rng(number), face(0, 0, 256))
        height, width = picture.rgb.shape[:2]
        assert height / width == pytest.approx(4 / 3, abs=0.01)
        assert abs(picture.roll_deg) <= 2
        assert picture.rgb[: height // 12].mean() > 200 and picture.rgb[: height // 12].std() < 20
        assert eyes_of(picture.rgb).mean(axis=0)[0] == pytest.approx(width / 2, abs=0.04 * width)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_the_stored_picture_is_upright_again_for_who_obeys_exif(orientation: int) -> None:
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:24, :32] = (250, 30, 30)
    rgb[:24, 32:] = (30, 250, 30)
    shot = Shot("a.jpg", "celebrity", orientation=orientation, quality=95)
    image = Image.open(io.BytesIO(encoded(shot, rgb)))
    upright = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert upright.shape == rgb.shape and np.abs(upright - rgb).mean() < 6
    assert dict(image.getexif()) == ({} if orientation == 1 else {274: orientation})


def test_grey_photos_are_grey() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    modes = set()
    for quality in (80, 81):
        image = Image.open(io.BytesIO(encoded(Shot("a.jpg", "celebrity", grey=True, quality=quality), rgb)))
        modes.add(image.mode)
        assert np.ptp(np.asarray(image.convert("RGB")).astype(int), axis=2).max() == 0
    assert modes == {"L", "RGB"}


def test_a_near_copy_is_smaller_and_alike() -> None:
    original = encoded(Shot("a.jpg", "celebrity", quality=92), face(0, 0, 256)[0])
    copy = near_copy(original, 80)
    assert copy != original and near_copy(original, 80) == copy
    a, b = (np.asarray(Image.open(io.BytesIO(c)).resize((32, 32))).astype(int) for c in (original, copy))
    assert Image.open(io.BytesIO(copy)).width < 230 and np.abs(a - b).mean() < 12


def test_the_truth_has_one_line_per_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shots = [s for s in WILD if s.meant != "good"][:10]
    shots += [s for s in WILD if s.name in {d.duplicate_of for d in shots}]
    shots += [s for s in WILD if s.grey and s not in shots][:2] + IDS[:2]
    small = [s if s.source == "id" else Shot(**{**vars(s), "height_px": min(s.height_px, 95)}) for s in shots]
    monkeypatch.setattr(sample, "plan", lambda seed: small)
    sample.write_sample(tmp_path / "photos", tmp_path / "truth.csv", SEED, small_face)
    rows = list(csv.DictReader((tmp_path / "truth.csv").read_text().splitlines()))
    assert " ".join(rows[0]) == "photo source identity meant face_height_px roll_deg duplicate_of faces"
    folder = tmp_path / "photos"
    written = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.jpg"))
    assert [f"{r['source']}/{r['photo']}" for r in rows] == written and len(rows) == len(small)
    contents = {name: (folder / name).read_bytes() for name in written}
    for row in rows:
        if row["duplicate_of"]:
            same = contents[f"celebrity/{row['photo']}"] == contents[f"celebrity/{row['duplicate_of']}"]
            shot = next(s for s in small if (s.source, s.name) == ("celebrity", row["photo"]))
            assert same == (shot.quality % 2 == 1)
        assert int(row["faces"]) == (0 if row["meant"] == "no_face" else len(row["identity"].split()))
    assert {r["meant"] for r in rows} >= {"good", "duplicate"}
    again = {f"{s.source}/{s.name}": content for s, content, _ in photographs(SEED, small_face)}
    assert again == contents


def test_other_peoples_photos_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "id").mkdir()
    (tmp_path / "id" / "me.jpg").write_bytes(b"mine")
    with pytest.raises(StylebotError, match=r"id holds 1 files that are not of the sample, me\.jpg for one"):
        sample.write_sample(tmp_path, tmp_path / "truth.csv", SEED, small_face)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["id", "me.jpg"]


def test_frame_of_is_the_inverse_of_placing() -> None:
    """A clockwise quarter turn: the face's right border points down the photo."""
    u, v = frame_of(Placing(30.5, 20.5, 16, 90), 64, 48)
    assert (u[20, 30], v[20, 30]) == (0.5, 0.5)
    assert u[28, 30] == pytest.approx(1.0) and v[28, 30] == pytest.approx(0.5)


def test_inside_the_square_nothing_is_changed() -> None:
    u, v = np.meshgrid(np.linspace(0.01, 0.99, 9), np.linspace(0.01, 0.99, 9))
    narrow = np.zeros((64, 64), np.float32)
    narrow[:, 28:36] = 1  # a head that the upper border cuts
    look_u, look_v, keep = continued(narrow, u, v)
    assert np.allclose(look_u, u) and np.allclose(look_v, v) and (keep == 1).all()


def test_a_head_cut_by_the_upper_border_ends_in_a_dome() -> None:
    alpha = np.zeros((64, 64), np.float32)
    alpha[:, 16:48] = 1
    tops = []
    for column in (0.5, 0.62, 0.7):
        heights = np.linspace(0, 0.3, 200)
        _, _, keep = continued(alpha, np.full(200, column), -heights)
        tops.append(heights[keep > 0.5].max(initial=0))
    assert tops[0] > 0.08 and all(a > b + 0.01 for a, b in pairwise(tops))


def test_filled_keeps_what_is_known_and_stays_within_it() -> None:
    rng = np.random.default_rng(0)
    picture = rng.uniform(50, 200, (64, 64, 3)).astype(np.float32)
    known = (rng.uniform(size=(64, 64)) < 0.2).astype(np.float32)
    known[20:50, 20:50] = 0
    out = filled(picture, known)
    assert np.allclose(out[known == 1], picture[known == 1], atol=1e-3)
    shown = picture[known == 1]
    assert (out >= shown.min(axis=0) - 1e-3).all() and (out <= shown.max(axis=0) + 1e-3).all()


@pytest.mark.parametrize("edge", [129, 131])
def test_the_matte_follows_the_edge_of_the_picture(edge: int) -> None:
    """A coarse matte whose edge is at 128 steps where the picture does; a speck elsewhere is dropped."""
    rgb = np.full((256, 256, 3), 200, np.uint8)
    rgb[:, edge:] = 20
    logits = np.full((64, 64), -8.0, np.float32)
    logits[:, 32:] = 8
    logits[6, 6] = 8
    matte = refine_matte(logits, rgb)
    assert matte.shape == (256, 256) and matte.min() >= 0 and matte.max() <= 1
    assert matte[128, :120].max() < 0.05 and matte[128, 140:].min() > 0.95
    assert int(np.argmax(np.diff(matte[128]))) == edge - 1
    assert matte[20:32, 20:32].max() < 0.1
