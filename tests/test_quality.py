"""Quality components answer to what they are meant to answer to, and to nothing else."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter
from scipy.stats import spearmanr

from stylebot import duplicates, identities, pose, quality
from stylebot.colours import lab, linear
from stylebot.identities import cluster

N = 256
LUMA = np.array([0.2126, 0.7152, 0.0722])
FLIP = [*range(16, -1, -1), *range(26, 16, -1),
        27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
        *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65]


def load_faces() -> list[tuple[np.ndarray, np.ndarray]]:
    """Twelve faces [256,256,3] and their landmarks [68,2]."""
    with np.load(Path(__file__).parent / "data" / "faces12.npz") as data:
        pictures = [Image.open(io.BytesIO(data[f"jpeg{i}"].tobytes())) for i in range(12)]
        rgbs = [np.asarray(p.convert("RGB").resize((N, N), Image.Resampling.LANCZOS)) for p in pictures]
        return list(zip(rgbs, data["landmarks"].astype(np.float64), strict=True))


FACES = load_faces()


def clip(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def blurred(rgb: np.ndarray, sigma: float) -> np.ndarray:
    return clip(gaussian_filter(rgb.astype(np.float32), (sigma, sigma, 0)))


def moved(rgb: np.ndarray, px: int, degrees: float) -> np.ndarray:
    kernel = np.zeros((2 * px + 1, 2 * px + 1))
    for t in np.linspace(-px / 2, px / 2, 8 * px + 1):
        angle = np.radians(degrees)
        kernel[round(px + t * np.sin(angle)), round(px + t * np.cos(angle))] += 1
    kernel /= kernel.sum()
    planes = [convolve(plane.astype(np.float32), kernel, mode="nearest") for plane in np.moveaxis(rgb, -1, 0)]
    return clip(np.stack(planes, -1))


def noisy(rgb: np.ndarray, sigma: float) -> np.ndarray:
    return clip(rgb + np.random.default_rng(1).normal(0, 1, rgb.shape) * sigma)


def jpeg(rgb: np.ndarray, q: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=q)
    return np.asarray(Image.open(buffer).convert("RGB"))


def shrunk(rgb: np.ndarray, factor: int) -> np.ndarray:
    small = Image.fromarray(rgb).resize((N // factor, N // factor), Image.Resampling.LANCZOS)
    return np.asarray(small.resize((N, N), Image.Resampling.BICUBIC))


def side_lit(rgb: np.ndarray, how: float) -> np.ndarray:
    fade = 1 - how * np.clip((np.arange(N) - 128) / 60 + 0.5, 0, 1)
    return clip(255 * ((rgb / 255.0) ** 2.2 * fade[None, :, None]) ** (1 / 2.2))


def covered(rgb: np.ndarray, share: float) -> np.ndarray:
    out = rgb.copy()
    out[round(240 - 130 * share) :] = (70, 90, 160)
    return out


GRADED: list[tuple[str, int, Callable, list]] = [
    ("sharpness_db", -1, blurred, [0, 0.7, 1.5, 3]),
    ("sharpness_db", -1, shrunk, [1, 2, 3, 6]),
    ("worst_direction_db", -1, lambda x, a: moved(x, a, 0), [1, 3, 5, 8]),
    ("worst_direction_db", -1, lambda x, a: moved(x, a, 45), [1, 3, 5, 8]),
    ("worst_direction_db", -1, lambda x, a: moved(x, a, 90), [1, 3, 5, 8]),
    ("noise", +1, noisy, [0, 5, 10, 20]),
    ("highlight", -1, lambda x, a: clip(x * a), [1.0, 0.7, 0.5, 0.3]),
    ("luminance", -1, lambda x, a: clip(x * a), [1.0, 0.7, 0.5, 0.3]),
    ("luminance", +1, lambda x, a: clip(x * a), [1.0, 1.2, 1.5, 2.0]),
    ("over_exposed", +1, lambda x, a: clip(x * a), [1.4, 1.7, 2.0, 2.4]),
    ("dynamic_bits", -1, lambda x, a: clip(128 + (x - 128.0) * a), [1, 0.7, 0.5, 0.3]),
    ("light_stops", +1, lambda x, a: side_lit(x, a), [0.3, 0.6, 0.8, 0.95]),
    ("colour_cast", +1, lambda x, a: clip(x * np.array([1 - a, 1 - a / 2, 1 + a])), [0.1, 0.2, 0.3, 0.4]),
    ("skin_share", -1, covered, [0, 0.2, 0.4, 0.6]),
]


@pytest.mark.parametrize(("name", "direction", "worsened", "levels"), GRADED, ids=[g[0] for g in GRADED])
def test_graded_degradation_moves_its_component_in_order(name: str, direction: int, worsened: Callable,
                                                         levels: list) -> None:
    orders = []
    for rgb, points in FACES:
        values = [getattr(quality.measure(worsened(rgb, level), points), name) for level in levels]
        orders.append(spearmanr(range(len(levels)), values).statistic if np.ptp(values) else 0.0)
    assert direction * np.mean(orders) >= 0.95, np.round(orders, 2)


def test_a_bright_background_is_no_highlight_of_a_dark_face() -> None:
    for rgb, points in FACES:
        soft = gaussian_filter(quality._polygon(rgb.shape[:2], points).astype(float), 2)[..., None]
        backlit = clip(rgb * 0.12 * soft + 250 * (1 - soft))
        assert quality.measure(backlit, points).highlight < 0.03
        assert quality.measure(backlit, points + np.array([4, -2])).highlight < 0.08, "landmarks a little off"


def test_a_darker_skin_with_the_same_gloss_is_not_a_darker_photo() -> None:
    """Light that skin lets out again falls with its melanin, what its surface mirrors does not."""
    for rgb, points in FACES:
        light, (xs, ys) = linear(rgb), points.astype(int).T
        gloss = np.clip(light - np.median(light[ys, xs], axis=0), 0, None)
        both = [0.2 * (light - gloss) + shine * gloss for shine in (1.0, 0.2)]
        dark_skin, dark_photo = (clip(255 * part.clip(0, 1) ** (1 / 2.2)) for part in both)
        skin, photo = (quality.measure(each, points) for each in (dark_skin, dark_photo))
        assert skin.highlight > 2 * photo.highlight


def test_entropy_falls_with_contrast_and_hardly_with_exposure() -> None:
    for rgb, points in FACES:
        clean, darker = (quality.measure(x, points) for x in (rgb, clip(rgb * 0.6)))
        assert clean.dynamic_bits - 0.9 < darker.dynamic_bits < clean.dynamic_bits


@pytest.mark.parametrize("degrees", [0, 45, 90, 135])
def test_motion_shows_in_the_worst_direction_whatever_it_is(degrees: float) -> None:
    measures = [quality.measure(moved(rgb, 8, degrees), points) for rgb, points in FACES]
    assert np.median([m.worst_direction_db for m in measures]) < -14
    assert np.median([m.worst_direction_db - m.sharpness_db for m in measures]) < -2.5


def test_blockiness_follows_jpeg_quality_at_any_phase_of_the_grid() -> None:
    for rgb, _ in FACES:
        values = [quality.blockiness((jpeg(rgb, q) @ LUMA)[3:, 5:]) for q in (95, 80, 60, 40, 20, 10)]
        assert spearmanr(range(6), values).statistic >= 0.95 and values[0] < 1.5 and values[-1] > 2.2


HARMLESS: dict[str, Callable] = {
    "noise": lambda x: noisy(x, 5), "dark": lambda x: clip(x * 0.3), "jpeg": lambda x: jpeg(x, 40),
    "flat": lambda x: clip(128 + (x - 128.0) * 0.3)}


@pytest.mark.parametrize("harmless", HARMLESS.values(), ids=HARMLESS.keys())
def test_sharpness_is_fooled_by_nothing_else(harmless: Callable) -> None:
    change = [quality.measure(harmless(rgb), points).sharpness_db - quality.measure(rgb, points).sharpness_db
              for rgb, points in FACES]
    assert abs(np.median(change)) < 0.5, np.round(change, 2)


def drawn(rgb: np.ndarray, shades: int) -> np.ndarray:
    """Fills of few shades with hard edges."""
    soft = gaussian_filter(rgb.astype(np.float32), (3, 3, 0))
    return clip(np.round(soft * shades / 255) * 255 / shades)


def test_drawings_lack_the_shading_of_photos() -> None:
    for rgb, points in FACES:
        photos = [rgb, blurred(rgb, 2), *(harmless(rgb) for harmless in HARMLESS.values())]
        assert min(quality.measure(photo, points).shading for photo in photos) > 0.4
        assert max(quality.measure(drawn(rgb, shades), points).shading for shades in (5, 8)) < 0.3


def test_clean_faces_have_values_of_clean_faces() -> None:
    measures = [quality.measure(rgb, points) for rgb, points in FACES]
    for name, low, high in (("sharpness_db", -11.5, -5), ("worst_direction_db", -11.5, -4), ("noise", 0, 2),
                            ("highlight", 0.2, 1), ("luminance", 0.08, 0.6),
                            ("dynamic_bits", 5.5, 8), ("colour_cast", 0, 9),
                            ("eyes_open", 0.02, 0.13), ("mouth_open", 0, 0.2), ("skin_share", 0.6, 1),
                            ("chin_distance", 0.36, 0.53), ("pitch_deg", -20, 20)):
        values = [getattr(m, name) for m in measures]
        assert low <= min(values) and max(values) <= high, (name, min(values), max(values))


def test_the_mirror_image_turns_the_yaw_and_nothing_else() -> None:
    for rgb, points in FACES:
        mirrored = np.stack([N - 1 - points[FLIP, 0], points[FLIP, 1]], 1)
        straight = vars(quality.measure(rgb, points))
        turned = vars(quality.measure(rgb[:, ::-1], mirrored))
        for name in set(quality.MEASURES) - {"yaw_deg"}:
            assert turned[name] == pytest.approx(straight[name], rel=0.03, abs=0.03), name
        assert turned["yaw_deg"] == pytest.approx(-straight["yaw_deg"], abs=1e-6)


def test_twice_the_resolution_gives_about_the_same_values() -> None:
    for rgb, points in FACES[:4]:
        double = np.asarray(Image.fromarray(rgb).resize((2 * N, 2 * N), Image.Resampling.BICUBIC))
        once, twice = quality.measure(rgb, points), quality.measure(double, 2 * points + 0.5)
        assert twice.sharpness_db == pytest.approx(once.sharpness_db, abs=0.6)
        for name in ("luminance", "skin_share", "eyes_open", "chin_distance", "dynamic_bits", "yaw_deg"):
            assert getattr(twice, name) == pytest.approx(getattr(once, name), rel=0.05, abs=0.02), name


@pytest.mark.parametrize(("yaw", "pitch", "roll"),
                         [(0, 0, 0), (30, 0, 0), (0, -20, 0), (-25, 15, 40), (10, 5, -90)])
def test_pose_of_a_turned_head(yaw: float, pitch: float, roll: float) -> None:
    y, p, r = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    points = np.zeros((68, 2))
    turned = about_z @ about_x @ about_y @ pose._SHAPE
    points[pose._POINTS] = 3.0 * turned[:2].T + np.array([100.0, 50.0])
    found = pose.head_pose(points)
    assert found.roll_deg == pytest.approx(roll, abs=1e-6)
    assert found.yaw_deg == pytest.approx(yaw, abs=1e-6) and found.pitch_deg == pytest.approx(pitch, abs=1e-6)


def test_lab_of_known_colours() -> None:
    known = {(255, 255, 255): (100, 0, 0), (255, 0, 0): (53.24, 80.09, 67.20),
             (0, 0, 255): (32.30, 79.19, -107.86)}
    for rgb, wanted in known.items():
        assert lab(linear(np.array([rgb], np.uint8)))[0] == pytest.approx(wanted, abs=0.05)


def test_scores_rise_with_quality_and_one_bad_component_spoils_a_face() -> None:
    assert quality.score("sharpness_db", -12) == pytest.approx(50)
    assert quality.score("noise", 20) < 1 < 95 < quality.score("noise", 0.5)
    assert quality.score("yaw_deg", -60) == quality.score("yaw_deg", 60) < 10
    assert quality.overall({"a": 90, "b": 90}) == pytest.approx(90)
    assert quality.overall({"a": 100, "b": 5}) < 25


def test_copies_are_found_and_other_faces_are_not() -> None:
    def grown(x: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(x).crop((2, 1, 254, 254)).resize((N, N), Image.Resampling.BICUBIC))

    rgbs = [rgb for rgb, _ in FACES]
    copies = [jpeg(rgbs[0], 30), shrunk(rgbs[1], 3), clip(rgbs[2] * 0.6), rgbs[3][:, ::-1],
              jpeg(grown(rgbs[4]), 60)]
    everything = [*rgbs, *copies]
    hashes = np.array([duplicates.perceptual_hash(x) for x in everything], np.uint64)
    mirrored = np.array([duplicates.perceptual_hash(x[:, ::-1]) for x in everything], np.uint64)
    prints = np.stack([duplicates.fingerprint(x) for x in everything])
    groups = duplicates.duplicate_groups(hashes, mirrored, prints, 8, 0.9)
    assert groups[12:].tolist() == groups[:5].tolist() and len(set(groups.tolist())) == 12
    whatever_the_hash = duplicates.duplicate_groups(hashes, mirrored, prints, 64, 0.9)
    assert whatever_the_hash.tolist() == groups.tolist()


def test_the_best_of_a_group_stays() -> None:
    groups, scores = np.array([0, 1, 0, 2, 1, 0]), [1, 5, 7, 3, 5, 6]
    assert duplicates.best_of_groups(groups, scores).tolist() == [2, 1, 2, 3, 1, 2]


def people(count: int, each: int, common: float, seed: int = 0) -> np.ndarray:
    """Embeddings [count * each, 128] of people who share a direction of length `common`."""
    rng = np.random.default_rng(seed)
    centres = np.eye(128)[0] * common + rng.normal(0, 0.5 / 128**0.5, (count, 128))
    return np.repeat(centres, each, 0) + rng.normal(0, 0.18 / 128**0.5, (count * each, 128))


def test_identities_are_clustered_without_chains_and_never_within_a_photo() -> None:
    near, photos = people(5, 4, 0.0), [f"p{i}" for i in range(20)]
    assert cluster(near, photos, 0.45, 0.55).tolist() == [i // 4 for i in range(20)]
    photos[1] = "p0"
    labels = cluster(near, photos, 0.45, 0.55)
    assert labels[0] != labels[1] and len(set(labels.tolist())) == 6
    chain = np.eye(128)[:1] * np.linspace(0, 8, 33)[:, None]
    assert cluster(chain, [f"q{i}" for i in range(33)], 0.45, 0.55).max() >= 6
    assert cluster(near[:1], ["p"], 0.45, 0.55).tolist() == [0]


@pytest.mark.parametrize("count", [8, 60])
def test_people_who_look_alike_are_told_apart_in_the_region_s_own_terms(count: int) -> None:
    alike = people(count, 3, 1.3) * 0.72  # mean distance of different people about 0.5, less than dlib's 0.6
    photos = [f"p{i}" for i in range(len(alike))]
    assert cluster(alike, photos, 0.58, 0.55).tolist() == [i // 3 for i in range(len(alike))]
    assert cluster(alike, photos, 0.58, 1.99).max() < count - 2, "the plain distance is to merge them"


def test_people_are_the_same_when_clustered_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = people(20, 4, 0.6)
    photos = [f"p{i // 2}" if i % 8 == 0 else f"q{i}" for i in range(len(faces))]
    whole = cluster(faces, photos, 0.6, 0.8)
    assert whole.max() == 19
    for rows, most in ((7, 10_000), (512, 12), (11, 5)):
        monkeypatch.setattr(identities, "_ROWS", rows)
        monkeypatch.setattr(identities, "MOST", most)
        assert cluster(faces, photos, 0.6, 0.8).tolist() == whole.tolist()
    copies = np.repeat(faces[:1], 23, axis=0)
    assert cluster(copies, [f"c{i}" for i in range(23)], 0.6, 0.8).max() == 4, "chains of copies are cut, too"


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="aligned face"):
        quality.measure(np.zeros((4, 5, 3), np.uint8), FACES[0][1])
    with pytest.raises(ValueError, match="landmarks"):
        pose.head_pose(np.zeros((5, 2)))
