"""Picture quality of an aligned face, component by component, each in its native unit.

Lengths are shares of the FFHQ frame, so that every resolution of the crop gives about the same values. Where
no docstring says "ours", the formula is ISO/IEC 29794-5's (OFIQ), with dlib's points instead of its networks.
"""

import math
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from scipy.spatial import ConvexHull

from stylebot import fivepoints
from stylebot.colours import lab, linear
from stylebot.pose import head_pose

_IED_SHARE = 0.247  # distance of the eyes in an FFHQ frame of side 1
_OFIQ_IED_PX = 113.0  # and in the 616 px frame in which the sharpness bands were chosen
_LUMA = np.array([0.2126, 0.7152, 0.0722])
_EYES = (slice(36, 42), slice(42, 48))
_LIDS = (((37, 41), (38, 40)), ((43, 47), (44, 46)))
_INNER_LIPS = ((61, 67), (62, 66), (63, 65))
_NOT_SKIN = (range(17, 22), range(22, 27), range(36, 42), range(42, 48), range(48, 60))
_CHIN, _MOUTH_CORNERS = 8, (48, 54)
_INNER = slice(17, 68)  # brows, eyes, nose, mouth
_DIRECTION_DB = -6.2  # mean of S minus the unshifted worst direction, 200 clean faces (ours)


@dataclass(frozen=True)
class Measures:
    """Native values of one face; see `SCALES` for the direction and the middle of each."""

    yaw_deg: float
    pitch_deg: float
    sharpness_db: float
    worst_direction_db: float
    noise: float
    highlight: float
    luminance: float
    under_exposed: float
    over_exposed: float
    dynamic_bits: float
    light_symmetry: float
    light_stops: float
    colour_cast: float
    eyes_open: float
    mouth_open: float
    skin_share: float
    shading: float
    background: float
    background_std: float
    chin_distance: float  # eyes to chin as a share of the frame's side


MEASURES = tuple(field.name for field in fields(Measures))
BY_68_POINTS = ("yaw_deg", "pitch_deg", "eyes_open", "mouth_open", "chin_distance")


@dataclass(frozen=True)
class Scale:
    """How a native value becomes 0-100: 100 / (1 + exp(-direction (x - middle) / width))."""

    direction: int
    middle: float
    width: float


# The middle is where a face is as often kept as not; where OFIQ states a curve, it is OFIQ's.
SCALES = {
    "face_score": Scale(+1, 1.0, 0.4),
    "second_area_ratio": Scale(-1, 0.5, 0.1),
    "scale": Scale(-1, 2.5, 0.5),
    "pad_fraction": Scale(-1, 0.10, 0.03),
    "yaw_deg": Scale(-1, 40.0, 8.0),
    "pitch_deg": Scale(-1, 30.0, 6.0),
    "roll_deg": Scale(-1, 45.0, 8.0),
    "sharpness_db": Scale(+1, -12.0, 1.2),
    "worst_direction_db": Scale(+1, -12.0, 1.2),
    "noise": Scale(-1, 5.0, 1.0),
    "blockiness": Scale(-1, 2.5, 0.4),
    "highlight": Scale(+1, 0.08, 0.02),
    "luminance": Scale(+1, 0.05, 0.015),
    "under_exposed": Scale(-1, 0.92, 0.05),
    "over_exposed": Scale(-1, 0.10, 0.03),
    "dynamic_bits": Scale(+1, 5.0, 1.2),
    "light_symmetry": Scale(+1, 0.05, 0.03),
    "light_stops": Scale(-1, 3.0, 0.6),
    "colour_cast": Scale(-1, 12.0, 4.0),
    "eyes_open": Scale(+1, 0.02, 0.01),
    "mouth_open": Scale(-1, 0.2, 0.06),
    "skin_share": Scale(+1, 0.5, 0.1),
    "shading": Scale(+1, 0.32, 0.04),
}


def score(name: str, value: float) -> float:
    """Score 0-100 of the native `value` of component `name`; angles count by their size."""
    scale = SCALES[name]
    size = abs(value) if name.endswith("_deg") else value
    return 50.0 + 50.0 * math.tanh(scale.direction * (size - scale.middle) / (2.0 * scale.width))


def overall(scores: dict[str, float]) -> float:
    """Geometric mean of component scores (NaN: left out), 0-100: one very bad one spoils a face. Ours."""
    known = [value for value in scores.values() if not math.isnan(value)]
    return float(np.exp(np.mean(np.log(np.maximum(known, 1e-3)))))


def _polygon(shape: tuple[int, int], points: np.ndarray) -> np.ndarray:
    """Mask bool [H,W] of the convex hull of `points` [n,2], px."""
    mask, hull = Image.new("1", shape[::-1]), points[ConvexHull(points).vertices]
    ImageDraw.Draw(mask).polygon([tuple(map(float, p)) for p in hull], fill=1)
    return np.asarray(mask)


def _square(shape: tuple[int, int], centre: np.ndarray, side_px: float) -> np.ndarray:
    """Mask bool [H,W] of an upright square of `side_px` about `centre` (x, y)."""
    (left, top), half = centre, side_px / 2
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    return (abs(xs - left) <= half) & (abs(ys - top) <= half)


def cheeks(landmarks: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool [H,W] of two cheek squares, 0.3 eye distances wide, midway from eye to mouth corner."""
    eyes = [landmarks[e].mean(axis=0) for e in _EYES]
    side = 0.3 * float(np.linalg.norm(eyes[1] - eyes[0]))
    left, right = (_square(shape, (eye + landmarks[corner]) / 2, side)
                   for eye, corner in zip(eyes, _MOUTH_CORNERS, strict=True))
    return left, right


@lru_cache
def _noise_in_band(unit: float) -> float:
    """Variance that white noise leaves in G1 - G2, as a share of what it leaves in g - G1; `unit` px is 1."""
    impulse = np.pad([[1.0]], math.ceil(10 * unit) + 1)
    g1, g2 = (gaussian_filter(impulse, s * unit) for s in (1, 2))
    return float(((g1 - g2) ** 2).sum() / ((impulse - g1) ** 2).sum())


def _sharpness(grey: np.ndarray, hull: np.ndarray, skin: np.ndarray) -> tuple[float, float, float]:
    """Sharpness, sharpness in the worst direction (both dB), and noise of grey float32 [N,N], 0-255.

    S = 10 log10((var(G1 - G2) - k sn^2) / var(G4 - G8)) in the hull: detail against coarse structure, which
    neither darkness nor low contrast changes, with the noise's share taken off. G_s: Gaussian of s px in a
    frame whose eyes are 113 px apart; sn = 1.4826 MAD(g - G1) on the cheeks; k is what white noise leaves in
    the band. The worst direction is the least ratio of the bands' gradient energies over all
    directions (a motion blurs along one only), shifted to equal S on clean faces on average. Ours.
    """
    unit = _IED_SHARE * grey.shape[0] / _OFIQ_IED_PX
    g1, g2, g4, g8 = (gaussian_filter(grey, s * unit, mode="nearest") for s in (1, 2, 4, 8))
    rest = (grey - g1)[skin]
    noise = 1.4826 * float(np.median(abs(rest - np.median(rest))))
    fine, coarse = g1 - g2, g4 - g8
    leaked = _noise_in_band(unit) * noise**2
    floor = 1e-3 * float(fine[hull].var()) + 1e-9
    detail = max(float(fine[hull].var()) - leaked, floor)
    shape_energy = max(float(coarse[hull].var()), 1e-9)
    tensors = []
    for band in (fine, coarse):
        down, across = np.gradient(band)
        tensors.append(np.cov(np.stack([across[hull], down[hull]])))
    fine_t, coarse_t = tensors
    keep = detail / max(float(fine[hull].var()), 1e-9)
    ratios = np.linalg.eigvals(np.linalg.solve(coarse_t + 1e-9 * np.eye(2), fine_t)).real
    worst = max(float(ratios.min()) * keep, 1e-6)
    return 10 * math.log10(detail / shape_energy), 10 * math.log10(worst) + _DIRECTION_DB, noise


def _exposure(light: np.ndarray, grey: np.ndarray, inner: np.ndarray, hull: np.ndarray,
              sides: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Mean, dark share, burnt share of linear luminance in the hull, highlight, entropy, evenness of cheeks.

    highlight (ours): what the brightest twentieth from brows to lips reaches, 0-1. Gloss, teeth and whites
    of eyes reflect alike whatever the skin: it falls with the exposure, the mean with darker skin too.
    Left out: the contour, where a bright background leaks in, and the very brightest, where glasses glare.
    dynamic_bits (ours): entropy of the file's own grey levels, 0-8. That of linear light, OFIQ's, loses a
    bit with each stop that a skin is darker, though nearly as many levels tell it from its shadows.
    light_symmetry: overlap 0-1 of the cheeks' histograms; light_stops (ours): |log2| of the ratio of their
    means, which goes on rising where the overlap is 0 already.
    """
    luminance = (light @ _LUMA.astype(np.float32)).clip(0, 1)
    inside = luminance[hull] * 255
    histogram = np.bincount(np.rint(grey[hull]).astype(int), minlength=256) / inside.size
    used = histogram[histogram > 0]
    stops = abs(math.log2(max(luminance[sides[0]].mean(), 1e-4) / max(luminance[sides[1]].mean(), 1e-4)))
    left, right = (np.histogram(luminance[side], bins=64, range=(0, 1))[0] / max(int(side.sum()), 1)
                   for side in sides)
    return {
        "highlight": float(np.quantile(luminance[inner], 0.95)),
        "luminance": float(inside.mean() / 255),
        "under_exposed": float((inside <= 25).mean()),
        "over_exposed": float((inside >= 247).mean()),
        "dynamic_bits": float(-(used * np.log2(used)).sum()),
        "light_symmetry": float(np.minimum(left, right).sum()),
        "light_stops": float(stops),
    }


def _colour(light: np.ndarray, landmarks: np.ndarray, hull: np.ndarray,
            sides: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Distance of the cheeks' mean colour from skin colours (CIELAB a*, b*); share of skin in the face.

    Skin (ours): within 15 of the median colour of cheeks and nose bridge, lightness counting a third; brows,
    eyes and mouth are left out. Hands, masks, microphones, dark glasses lower it; hard shadows do a little.
    """
    cheek = sides[0] | sides[1]
    _, a, b = lab(light[cheek]).mean(axis=0)
    cast = math.hypot(max(0.0, 5 - a, a - 25), max(0.0, 5 - b, b - 35))
    shape = hull.shape
    bridge = _polygon(shape, landmarks[[39, 42, 31, 35]])
    reference = np.median(lab(light[(cheek | bridge) & hull]), axis=0)
    bare = hull.copy()
    for part in _NOT_SKIN:
        bare &= ~_polygon(shape, landmarks[list(part)])
    away = (lab(light[bare]) - reference) / (3.0, 1.0, 1.0)
    return {"colour_cast": cast, "skin_share": float((np.linalg.norm(away, axis=1) < 15).mean())}


def _openings(landmarks: np.ndarray, side: int) -> dict[str, float]:
    """Eye and mouth opening as shares of the distance from eyes to chin, and that as a share of the frame."""
    centre = (landmarks[_EYES[0]].mean(axis=0) + landmarks[_EYES[1]].mean(axis=0)) / 2
    chin = max(float(np.linalg.norm(landmarks[_CHIN] - centre)), 1e-6)

    def gap(pairs: tuple[tuple[int, int], ...]) -> float:
        return max(float(np.linalg.norm(landmarks[i] - landmarks[j])) for i, j in pairs) / chin

    return {"eyes_open": min(map(gap, _LIDS)), "mouth_open": gap(_INNER_LIPS), "chin_distance": chin / side}


def _background(grey: np.ndarray, hull: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation (grey levels) of the two upper corners, a tenth wide, a fifth high (ours).

    Lower down, long hair reaches the sides of the frame.
    """
    side = grey.shape[0]
    wide, high = max(1, side // 10), max(1, side // 5)
    mask = np.zeros(hull.shape, bool)
    mask[:high, :wide] = mask[:high, -wide:] = True
    values = grey[mask & ~hull]
    return {"background": float(values.mean()), "background_std": float(values.std())}


def _shading(grey: np.ndarray, hull: np.ndarray) -> float:
    """Median over mean slope in the hull: photos shade everywhere, drawings are fills and lines (ours)."""
    soft = gaussian_filter(grey, 0.5 * _IED_SHARE * grey.shape[0] / _OFIQ_IED_PX)
    slope = np.hypot(*np.gradient(soft))[hull]
    return float(np.median(slope) / max(float(slope.mean()), 1e-6))


def measure(rgb: np.ndarray, landmarks: np.ndarray) -> Measures:
    """All components of one aligned face.

    rgb: uint8 [N,N,3], FFHQ frame; landmarks: [68,2] px of this crop, or [5,2]: then pose, eyes, mouth, chin
    are NaN, and the rest is measured where the mean face of that frame has its parts
    Raises ValueError for anything but a square RGB picture.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[0] != rgb.shape[1] or rgb.shape[2] != 3:
        raise ValueError(f"an aligned face is uint8 [N,N,3], not {rgb.dtype} {list(rgb.shape)}")
    shape, known = rgb.shape[:2], len(landmarks) != fivepoints.POINTS
    landmarks = landmarks if known else fivepoints.mean_face(shape[0])
    hull, inner = _polygon(shape, landmarks), _polygon(shape, landmarks[_INNER])
    sides = tuple(side & hull if (side & hull).any() else hull for side in cheeks(landmarks, shape))
    light = linear(rgb)
    grey = (rgb.astype(np.float32) @ _LUMA.astype(np.float32))
    sharp, worst, noise = _sharpness(grey, hull, sides[0] | sides[1])
    pose = head_pose(landmarks)
    measured = Measures(
        yaw_deg=pose.yaw_deg, pitch_deg=pose.pitch_deg,
        sharpness_db=sharp, worst_direction_db=worst, noise=noise, shading=_shading(grey, hull),
        **_exposure(light, grey, inner, hull, sides), **_colour(light, landmarks, hull, sides),
        **_openings(landmarks, shape[0]), **_background(grey, hull))
    return measured if known else replace(measured, **dict.fromkeys(BY_68_POINTS, math.nan))


def blockiness(grey: np.ndarray) -> float:
    """How much steps across an 8 px grid stand out: 1 without JPEG blocks, 2.5 at about quality 25.

    grey: float or uint8 [H,W], native pixels (never resampled). Per axis, the mean step between neighbours on
    the strongest of the eight grid phases over the mean step of the others; the mean of both axes. Ours.
    """
    ratios = []
    for axis in (0, 1):
        steps = abs(np.diff(grey.astype(np.float32), axis=axis)).mean(axis=1 - axis)
        if steps.size < 16:
            return 1.0
        phases = np.array([steps[p::8].mean() for p in range(8)])
        strongest = int(phases.argmax())
        others = float(np.delete(phases, strongest).mean())
        ratios.append(float(phases[strongest]) / others if others > 0 else 1.0)
    return float(np.mean(ratios))
