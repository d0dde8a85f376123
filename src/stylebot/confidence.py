"""How much an aligned crop looks like a face to dlib's detector, wherever its windows happen to fall."""

from functools import lru_cache

import dlib
import numpy as np
from PIL import Image

# The detector's windows lie 8 px apart and grow by 1.2: sides a third of that step apart, and the mirror
# image, let them fall differently. Here a face of the FFHQ frame is about as large as the least window, 80.
_SIDES_PX = (140, 149, 158)
_LOWEST = -1.0  # what a crop counts in which the detector sees no face at all
# where the frame has its face: centre, what it may be off, width; shares of the side
_CENTRE, _OFF, _WIDTH = np.array([0.5, 0.6]), np.array([0.15, 0.2]), (0.35, 0.85)


@lru_cache(maxsize=1)
def _detector() -> dlib.fhog_object_detector:
    return dlib.get_frontal_face_detector()


def _score(rgb: np.ndarray) -> float:
    """The best score of a window where the frame has its face."""
    best, side = _LOWEST, rgb.shape[0]
    boxes, scores, _ = _detector().run(rgb, 0, _LOWEST)
    for box, score in zip(boxes, scores, strict=True):
        centre = np.array([box.left() + box.right() + 1, box.top() + box.bottom() + 1]) / (2 * side)
        inside = (abs(centre - _CENTRE) < _OFF).all()
        if inside and _WIDTH[0] < box.width() / side < _WIDTH[1]:
            best = max(best, float(score))
    return best


def face_score(rgb: np.ndarray) -> float:
    """Mean score of dlib's frontal detector on an aligned face, -1 (none) to about 3.5.

    rgb: uint8 [N,N,3], FFHQ frame. In a photo the score depends on where the detector's windows fall and on
    the face's roll: one face gives .2 here and 2.0 there. Upright, at known sizes, averaged, it hardly does.
    Ours.
    """
    picture = Image.fromarray(rgb)
    scores = []
    for side in _SIDES_PX:
        small = np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS))
        scores += [_score(small), _score(np.ascontiguousarray(small[:, ::-1]))]
    return float(np.mean(scores))
