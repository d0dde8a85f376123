"""Faces by dlib: boxes (HOG), 68 or 5 landmarks in floats, and 128-d identities of aligned faces."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dlib
import numpy as np
from PIL import Image

from stylebot.errors import StylebotError

_COPY_PX = 640  # longest side of the copy that is searched first: finds what full size finds, at a fortieth
_LARGER_PX = (1280, 2560)
_SURE = 1.2  # the best score of a wrongly turned face measured .94, the worst of an upright one 1.36
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}

# shift x, shift y (shares of the box's width and height), zoom: the boxes whose landmarks are averaged
_JITTER = ((0.0, 0.0, 1.0), (0.04, 0.0, 1.0), (-0.04, 0.0, 1.0), (0.0, 0.04, 1.0), (0.0, -0.04, 1.0),
           (0.0, 0.0, 0.95), (0.0, 0.0, 1.05))


@dataclass(frozen=True)
class Found:
    """Boxes found in a photo, best score first.

    boxes [n, 4] x0 y0 x1 y1, px, and scores [n], of the photo turned counter-clockwise by `rotated_deg`;
    `searched` rgb uint8: the shrunken copy that the boxes were found on, `scale` its size over the photo's.
    """

    boxes: np.ndarray
    scores: np.ndarray
    rotated_deg: int
    searched: np.ndarray
    scale: float


def turned(picture: Image.Image, degrees: int) -> Image.Image:
    """`picture` turned counter-clockwise by 0, 90, 180 or 270 degrees."""
    return picture.transpose(_TURNS[degrees]) if degrees else picture


class Detector:
    """dlib's frontal face detector, searched cheaply: small copies first, other rotations only in doubt."""

    def __init__(self) -> None:
        self._hog = dlib.get_frontal_face_detector()

    def _search(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """boxes [n, 4] (exclusive right and bottom) and scores [n] on the copy, best first."""
        rectangles, scores, _ = self._hog.run(rgb, 0, 0.0)
        boxes = [(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in rectangles]
        confidence = np.array(scores, dtype=np.float64)
        order = np.argsort(-confidence, kind="stable")
        return np.array(boxes, dtype=np.float64).reshape(-1, 4)[order], confidence[order]

    def find(self, picture: Image.Image) -> Found:
        """All frontal faces of an RGB picture.

        The copy of 640 px is searched; when its best score is weak or missing, the copy turned by 90, 180 and
        270 degrees too, and the rotation with the best score is taken for the whole photo; when nothing is
        found, copies of 1280 and 2560 px (small photos are enlarged at most twofold).
        """
        longest = max(picture.size)
        copy, scale = _shrunk(picture, min(_COPY_PX, longest))
        best = Found(*self._search(np.asarray(copy)), 0, np.asarray(copy), scale)
        if _top(best) < _SURE:
            for degrees in _TURNS:
                rgb = np.asarray(turned(copy, degrees))
                other = Found(*self._search(rgb), degrees, rgb, scale)
                best = max(best, other, key=_top)
        for wanted in _LARGER_PX:
            wanted = min(wanted, 2 * longest if wanted == _LARGER_PX[0] else longest)
            if len(best.boxes) == 0 and wanted > max(best.searched.shape):
                copy, scale = _shrunk(picture, wanted)
                best = Found(*self._search(np.asarray(copy)), 0, np.asarray(copy), scale)
        return Found(best.boxes / best.scale, best.scores, best.rotated_deg, best.searched, best.scale)


def _top(found: Found) -> float:
    return float(found.scores[0]) if len(found.scores) else -np.inf


def _shrunk(picture: Image.Image, longest_px: int) -> tuple[Image.Image, float]:
    scale = longest_px / max(picture.size)
    if scale == 1.0:
        return picture, 1.0
    target = [max(1, round(length * scale)) for length in picture.size]
    return picture.resize(target, Image.Resampling.LANCZOS, reducing_gap=2.0), scale


class Landmarker:
    """A shape predictor of 68 or 5 points (`points`), averaged over moved boxes.

    Raises StylebotError for a bad file, or one of other than `wanted` points (None: either).
    """

    def __init__(self, path: Path, wanted: int | None = None) -> None:
        try:
            self._predictor = dlib.shape_predictor(str(path))
        except RuntimeError as error:
            raise StylebotError(f"{path} is not dlib's landmark model ({error}); fetch it again") from None
        blank, box = np.zeros((32, 32, 3), np.uint8), dlib.rectangle(8, 8, 23, 23)
        self.points = self._predictor(blank, box).num_parts
        allowed = (68, 5) if wanted is None else (wanted,)
        if self.points not in allowed:
            wish = " or ".join(map(str, allowed))
            raise StylebotError(f"{path}: the landmark model gives {self.points} points, {wish} are wanted; "
                                "`dvc repro fetch@landmarks` brings the one that align.landmarks names")

    def landmarks(self, found: Found, index: int) -> np.ndarray:
        """landmarks [68 or 5, 2] float64 of the face `index`, px of the photo turned by found.rotated_deg."""
        x0, y0, x1, y1 = found.boxes[index] * found.scale
        width, height = x1 - x0, y1 - y0
        total = np.zeros((self.points, 2))
        for dx, dy, zoom in _JITTER:
            left, top = x0 + width * (dx + (1 - zoom) / 2), y0 + height * (dy + (1 - zoom) / 2)
            right, bottom = left + width * zoom, top + height * zoom
            box = dlib.rectangle(round(left), round(top), round(right) - 1, round(bottom) - 1)
            shape = self._predictor(found.searched, box)
            total += [(p.x, p.y) for p in shape.parts()]
        return (total / len(_JITTER) + 0.5) / found.scale - 0.5


class Identity:
    """dlib's face recogniser on faces that are aligned already. Raises StylebotError for a bad file.

    Two embeddings of one person are usually nearer than 0.6 (Euclidean); nearer values are needed where
    the recogniser knows the region's faces badly.
    """

    # dlib's 150 px chip in the FFHQ frame, from the mean landmarks of 150 generated faces: left, top, side
    _CHIP = (0.1598, 0.2595, 0.6886)
    _CHIP_PX = 150
    _BATCH = 16

    def __init__(self, path: Path) -> None:
        try:
            self._network = dlib.face_recognition_model_v1(str(path))
        except RuntimeError as error:
            raise StylebotError(f"{path} is not dlib's identity model ({error}); fetch it again") from None

    def _chip(self, rgb: np.ndarray) -> np.ndarray:
        face = Image.fromarray(rgb)
        left, top, side = self._CHIP
        box = (left * face.width, top * face.height, (left + side) * face.width, (top + side) * face.height)
        return np.asarray(face.resize((self._CHIP_PX, self._CHIP_PX), Image.Resampling.BICUBIC, box=box))

    def embed(self, rgbs: Sequence[np.ndarray]) -> np.ndarray:
        """embeddings [N, 128] float32, about unit length, of FFHQ-framed faces, uint8 [H, W, 3] of any size.

        No detection: the frame says where the face is.
        """
        rows = []
        for start in range(0, len(rgbs), self._BATCH):
            chips = [self._chip(rgb) for rgb in rgbs[start : start + self._BATCH]]
            rows += [np.array(vector) for vector in self._network.compute_face_descriptor(chips)]
        return np.array(rows, dtype=np.float32).reshape(-1, 128)
