"""FFHQ's alignment the plain way, as the baseline of bench/align.py: written for this purpose only.

Every step as the published scripts do it: decode the whole photo, detect on all of its pixels, take the last
detection, integer landmarks, shrink the whole photo by a whole factor, mirror and blur what is missing, map
the square bilinearly, shrink, save. No step is left out, none is made faster.
"""

import io

import dlib
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


class PublishedAlign:
    """As the scripts of FFHQ (`transform_px` 4096) or of pSp and e4e (the output's size; `upsample` 1)."""

    def __init__(self, landmarks: str, output_px: int, transform_px: int, upsample: int) -> None:
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(landmarks)
        self._output_px, self._transform_px, self._upsample = output_px, transform_px, upsample

    def __call__(self, content: bytes) -> tuple[np.ndarray, bytes] | None:
        """The face's centre (x, y) px and its PNG, or None when none is found. content: a photo's bytes."""
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        rgb = np.array(picture)
        found = self._detector(rgb, self._upsample)
        if not found:
            return None
        points = self._predictor(rgb, found[len(found) - 1]).parts()
        landmarks = np.array([[p.x, p.y] for p in points])
        center, half = _oriented(landmarks)
        cut = _cut(picture, center, half, self._output_px, self._transform_px)
        png = io.BytesIO()
        cut.save(png, "PNG")
        return center, png.getvalue()


def _oriented(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre of the square and the vector from there to its right side, px, of landmarks [68, 2]."""
    left, right = landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)
    eyes = (left + right) / 2
    across, down = right - left, (landmarks[48] + landmarks[54]) / 2 - eyes
    half = across - np.array([-down[1], down[0]])
    half /= np.hypot(half[0], half[1])
    half *= max(np.hypot(across[0], across[1]) * 2.0, np.hypot(down[0], down[1]) * 1.8)
    return eyes + down * 0.1, half


def _cut(
    picture: Image.Image, center: np.ndarray, half: np.ndarray, output_px: int, transform_px: int
) -> Image.Image:
    down = np.array([-half[1], half[0]])
    quad = np.stack([center - half - down, center - half + down, center + half + down, center + half - down])
    side = 2 * np.hypot(half[0], half[1])
    shrink = int(np.floor(side / output_px * 0.5))
    if shrink > 1:
        size = (round(picture.width / shrink), round(picture.height / shrink))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        quad, side = quad / shrink, side / shrink
    border = max(round(side * 0.1), 3)
    left, top = np.floor(quad.min(axis=0)).astype(int)
    right, bottom = np.ceil(quad.max(axis=0)).astype(int)
    box = (
        max(left - border, 0),
        max(top - border, 0),
        min(right + border, picture.width),
        min(bottom + border, picture.height),
    )
    if box[2] - box[0] < picture.width or box[3] - box[1] < picture.height:
        picture, quad = picture.crop(box), quad - box[:2]
    left, top = np.floor(quad.min(axis=0)).astype(int)
    right, bottom = np.ceil(quad.max(axis=0)).astype(int)
    missing = [
        max(border - left, 0),
        max(border - top, 0),
        max(right - picture.width + border, 0),
        max(bottom - picture.height + border, 0),
    ]
    if max(missing) > border - 4:
        missing = [max(n, round(side * 0.3)) for n in missing]
        picture, quad = _padded(picture, missing, side), quad + missing[:2]
    corners = tuple((quad + 0.5).flatten())
    size = (transform_px, transform_px)
    picture = picture.transform(size, Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    if output_px < transform_px:
        picture = picture.resize((output_px, output_px), Image.Resampling.LANCZOS)
    return picture


def _padded(picture: Image.Image, missing: list[int], side: float) -> Image.Image:
    left, top, right, bottom = missing
    rgb = np.pad(np.float32(picture), ((top, bottom), (left, right), (0, 0)), "reflect")
    height, width = rgb.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    inside = np.minimum(
        np.minimum(x / left, (width - 1 - x) / right), np.minimum(y / top, (height - 1 - y) / bottom)
    )[..., None]
    blurred = gaussian_filter(rgb, [side * 0.02, side * 0.02, 0])
    rgb += (blurred - rgb) * np.clip((1 - inside) * 3 + 1, 0, 1)
    rgb += (np.median(rgb, axis=(0, 1)) - rgb) * np.clip(1 - inside, 0, 1)
    return Image.fromarray(np.uint8(np.clip(np.rint(rgb), 0, 255)))
