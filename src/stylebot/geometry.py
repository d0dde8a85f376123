"""The FFHQ square of a face and two ways to cut it out: our warp, and the published recipe.

Coordinates are pixel indices of the upright photo: (0, 0) is the centre of its top left pixel, as in dlib.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from stylebot import fivepoints

Padding = Literal["edge", "reflect", "background", "ffhq", "none"]

_LEFT_EYE, _RIGHT_EYE, _MOUTH_CORNERS = slice(36, 42), slice(42, 48), [48, 54]
_MARGIN_PX = 4  # what the bicubic and Lanczos kernels reach beyond the square
_SWAP = np.array([-1.0, 1.0])  # flip(v) * _SWAP is v turned by a quarter


@dataclass(frozen=True)
class Square:
    """The square around a face: `center` (x, y), and `half`, the vector from there to the right side."""

    center: tuple[float, float]
    half: tuple[float, float]

    @property
    def side_px(self) -> float:
        """Length of a side ("qsize")."""
        return 2.0 * float(np.hypot(*self.half))

    @property
    def roll_deg(self) -> float:
        """Rotation of the face in the picture, clockwise as seen, -180..180."""
        return float(np.degrees(np.arctan2(self.half[1], self.half[0])))

    @property
    def corners(self) -> np.ndarray:
        """corners [4, 2] float64, px: top left, bottom left, bottom right, top right of the face."""
        c, x = np.array(self.center), np.array(self.half)
        y = np.flip(x) * _SWAP
        return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])


def anchors(landmarks: np.ndarray) -> np.ndarray:
    """What frames a face [3, 2] px: centres of the left and right eye (in the picture) and of the mouth.

    landmarks [68, 2] (iBUG order), or [5, 2] as dlib's 5-point model gives them: see `fivepoints`.
    """
    if len(landmarks) == fivepoints.POINTS:
        return fivepoints.anchors(landmarks)
    parts = (landmarks[part].mean(0) for part in (_LEFT_EYE, _RIGHT_EYE, _MOUTH_CORNERS))
    return np.stack(list(parts))


def eye_distance(landmarks: np.ndarray) -> float:
    """Distance between the eye centres in px, from landmarks [68, 2] or [5, 2]."""
    left, right, _ = anchors(landmarks)
    return float(np.hypot(*(right - left)))


def ffhq_square(landmarks: np.ndarray, level: bool = False) -> Square:
    """The square that FFHQ cuts around a face.

    landmarks [68, 2] (iBUG order) or [5, 2] float, px. `level`: keep the sides parallel to the picture's.
    Its direction is the mean of the eye line and of the perpendicular of eyes-to-mouth, its side the larger
    of 4 eye distances and 3.6 times eyes-to-mouth, its centre a tenth of the way from the eyes to the mouth.
    Raises ValueError when all these points fall together.
    Source: Karras et al., A Style-Based Generator Architecture for GANs, and FFHQ's published script.
    """
    left, right, mouth = anchors(np.asarray(landmarks, dtype=np.float64))
    eyes = (left + right) * 0.5
    across, down = right - left, mouth - eyes
    direction = np.array([1.0, 0.0]) if level else across - np.flip(down) * _SWAP
    length = max(np.hypot(*across) * 2.0, np.hypot(*down) * 1.8)
    if length == 0 or np.hypot(*direction) == 0:
        raise ValueError("the eyes and the mouth lie on one point")
    half = direction / np.hypot(*direction) * length
    center = eyes + down * 0.1
    return Square((float(center[0]), float(center[1])), (float(half[0]), float(half[1])))


def pad_fraction(square: Square, width: int, height: int) -> float:
    """Share of the square's area that lies outside a picture of width x height px, 0..1."""
    polygon = list(square.corners + 0.5)
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        polygon = _clip(polygon, axis, limit, sign)
    if len(polygon) < 3:
        return 1.0
    x, y = np.array(polygon).T
    inside = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2.0
    return min(max(1.0 - inside / square.side_px**2, 0.0), 1.0)


def _clip(polygon: list[np.ndarray], axis: int, limit: float, sign: int) -> list[np.ndarray]:
    """The part of a convex polygon where sign * (coordinate - limit) >= 0 (Sutherland and Hodgman)."""
    kept = []
    for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        da, db = sign * (a[axis] - limit), sign * (b[axis] - limit)
        if da >= 0:
            kept.append(a)
        if (da >= 0) != (db >= 0):
            kept.append(a + (b - a) * (da / (da - db)))
    return kept


def warp(picture: Image.Image, square: Square, resolution: int, padding: Padding) -> Image.Image:
    """The square cut out of an RGB picture, anti-aliased: our recipe.

    Large faces are first shrunk to at most twice the resolution (Lanczos), then turned by one bicubic affine
    map at twice the resolution, then halved (Lanczos); faces smaller than the resolution are mapped directly.
    What lies outside the picture is made by `padding`; real pixels are never touched, except by "ffhq".
    Returns an RGB picture of resolution x resolution px.
    Raises ValueError when the square misses the picture.
    Source: ours; within 45-50 dB of an 8x supersampled map.
    """
    side = resolution * (2 if square.side_px > resolution else 1)
    shrink = min(1.0, side / square.side_px)
    margin = 0.1 * square.side_px if padding == "ffhq" else _MARGIN_PX / shrink
    box = _window(square.corners + 0.5, margin, picture.size)
    target = [max(1, round((box[i + 2] - box[i]) * shrink)) for i in (0, 1)]
    if target == [box[2] - box[0], box[3] - box[1]]:
        part = picture.crop(box)
    else:
        part = picture.resize(target, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    scale = np.array(target) / (box[2] - box[0], box[3] - box[1])
    corners = (square.corners + 0.5 - box[:2]) * scale
    if padding != "none":
        part, offset = _padded(part, corners, square.side_px * shrink, padding)
        corners = corners + offset
    (ax, ay), (bx, by) = (corners[3] - corners[0]) / side, (corners[1] - corners[0]) / side
    matrix = (ax, bx, corners[0][0], ay, by, corners[0][1])
    out = part.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return out if side == resolution else out.resize((resolution, resolution), Image.Resampling.LANCZOS)


def _window(corners: np.ndarray, margin: float, limits: tuple[int, int]) -> tuple[int, int, int, int]:
    """The whole pixels (left, top, right, bottom) around `corners` and a `margin`, inside the picture."""
    low = np.floor(corners.min(0) - margin).clip(0)
    high = np.minimum(np.ceil(corners.max(0) + margin), limits)
    if (high <= low).any():
        raise ValueError("the face's square lies outside the picture")
    return (int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _padded(part: Image.Image, corners: np.ndarray, side_px: float,
            padding: Padding) -> tuple[Image.Image, np.ndarray]:
    """`part` with what the square needs beyond it, and how far that moved the origin (x, y) px."""
    border = max(round(side_px * 0.1), 3) if padding == "ffhq" else _MARGIN_PX
    before = np.maximum(border - np.floor(corners.min(0)), 0)
    after = np.maximum(np.ceil(corners.max(0)) + border - part.size, 0)
    pad = np.concatenate([before, after]).astype(int)
    if padding == "ffhq":
        if pad.max() <= border - 4:
            return part, np.zeros(2)
        pad = np.maximum(pad, round(side_px * 0.3))
        return Image.fromarray(_blurred_border(np.asarray(part), pad, side_px)), pad[:2].astype(float)
    if (before <= border).all() and (after <= border).all():
        return part, np.zeros(2)  # the square lies inside: the kernels' own clamping is enough
    mode = "reflect" if padding == "reflect" else "edge"
    pixels = np.pad(np.asarray(part), ((pad[1], pad[3]), (pad[0], pad[2]), (0, 0)), mode)
    if padding == "background":
        pixels = _faded(pixels, pad, side_px)
    return Image.fromarray(pixels), pad[:2].astype(float)


def _faded(pixels: np.ndarray, pad: np.ndarray, side_px: float) -> np.ndarray:
    """An edge-padded picture whose padding fades, over a twentieth of the square, to the background's colour.

    The background is the median of the upper half of the photo's outermost pixels left, right and above.
    """
    h, w = pixels.shape[:2]
    inner = pixels[pad[1] : h - pad[3], pad[0] : w - pad[2]]
    half = max(1, inner.shape[0] // 2)
    rim = np.concatenate([inner[0], inner[:half, 0], inner[:half, -1]])
    background = np.median(rim, axis=0)
    y, x = np.ogrid[:h, :w]
    outside = np.maximum.reduce([pad[0] - x + 0 * y, x - (w - 1 - pad[2]) + 0 * y,
                                 pad[1] - y + 0 * x, y - (h - 1 - pad[3]) + 0 * x])
    weight = np.clip(outside / max(side_px * 0.05, 1.0), 0.0, 1.0)[..., None]
    return np.rint(pixels + (background - pixels) * weight).astype(np.uint8)


def _blurred_border(pixels: np.ndarray, pad: np.ndarray, side_px: float) -> np.ndarray:
    """pixels [H, W, 3] mirrored outwards by pad (left, top, right, bottom) px, blurred, faded to the median.

    The published recipe: the blur starts inside the picture, at a third of the padding.
    """
    mirrored = np.pad(np.float32(pixels), ((pad[1], pad[3]), (pad[0], pad[2]), (0, 0)), "reflect")
    h, w = mirrored.shape[:2]
    y, x = np.ogrid[:h, :w]
    sideways = np.minimum(np.float32(x) / pad[0], np.float32(w - 1 - x) / pad[2])
    upwards = np.minimum(np.float32(y) / pad[1], np.float32(h - 1 - y) / pad[3])
    depth = np.maximum(1.0 - sideways, 1.0 - upwards)[..., None]
    sigma = side_px * 0.02
    blurred = gaussian_filter(mirrored, [sigma, sigma, 0])
    mirrored += (blurred - mirrored) * np.clip(depth * 3.0 + 1.0, 0.0, 1.0)
    mirrored += (np.median(mirrored, axis=(0, 1)) - mirrored) * np.clip(depth, 0.0, 1.0)
    return np.uint8(np.clip(np.rint(mirrored), 0, 255))


def warp_published(picture: Image.Image, square: Square, resolution: int, transform_px: int = 4096,
                   pad: bool = True) -> Image.Image:
    """The square cut out of an RGB picture exactly as FFHQ's published script does it.

    `transform_px`: size of the intermediate bilinear map (FFHQ 4096; pSp and e4e take the resolution itself).
    `pad`: mirror and blur what lies outside; without it the outside is black.
    Returns resolution x resolution px. Raises ValueError when the square misses the picture.
    Source: steps of NVlabs/ffhq-dataset; equal to its output on the same Pillow and scipy.
    """
    corners, side_px = square.corners, square.side_px
    shrink = int(np.floor(side_px / resolution * 0.5))
    if shrink > 1:
        reduced = [int(np.rint(length / shrink)) for length in picture.size]
        picture = picture.resize(reduced, Image.Resampling.LANCZOS)
        corners, side_px = corners / shrink, side_px / shrink
    border = max(int(np.rint(side_px * 0.1)), 3)
    low, high = np.floor(corners.min(0)), np.ceil(corners.max(0))
    box = [*np.maximum(low - border, 0).astype(int), *np.minimum(high + border, picture.size).astype(int)]
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError("the face's square lies outside the picture")
    picture, corners = picture.crop(box), corners - box[:2]
    low, high = np.floor(corners.min(0)), np.ceil(corners.max(0))
    missing = np.concatenate([border - low, high - picture.size + border]).clip(0).astype(int)
    if pad and missing.max() > border - 4:
        missing = np.maximum(missing, int(np.rint(side_px * 0.3)))
        picture = Image.fromarray(_blurred_border(np.asarray(picture), missing, side_px))
        corners = corners + missing[:2]
    size = (transform_px, transform_px)
    quad = (corners + 0.5).flatten()
    picture = picture.transform(size, Image.Transform.QUAD, quad, Image.Resampling.BILINEAR)
    if resolution < transform_px:
        picture = picture.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return picture
