"""The detector's score on aligned faces: steady where that of photos is not, low for what is no face."""

import numpy as np
from PIL import Image
from test_quality import FACES, N, covered

from stylebot.confidence import face_score
from stylebot.faces import Detector


def test_it_depends_little_on_where_the_face_lies() -> None:
    """Faces 256 to 283 px large, anywhere in a picture: the detector's own scores differ, these hardly."""
    detector, found, steady = Detector(), [], []
    for rgb, _ in FACES:
        scores, aligned = [], []
        for k in range(4):
            side, top, left = N + 9 * k, 40 + 3 * k, 40 + 5 * k
            large = np.asarray(Image.fromarray(rgb).resize((side, side), Image.Resampling.LANCZOS))
            photo = np.pad(large, ((top, 60), (left, 60), (0, 0)), mode="edge")
            scores.append(max(detector._search(photo)[1], default=0.0))
            crop = Image.fromarray(photo[top : top + side, left : left + side])
            aligned.append(face_score(np.asarray(crop.resize((N, N), Image.Resampling.LANCZOS))))
        found.append(np.std(scores))
        steady.append(np.std(aligned))
    assert max(steady) < 0.05 < np.mean(found), (steady, found)


def test_faces_score_high_and_what_is_none_low() -> None:
    for rgb, _ in FACES:
        clean = face_score(rgb)
        assert clean > 1.0
        assert face_score(np.rot90(rgb).copy()) < 0.3
        assert face_score(covered(rgb, 0.9)) < 0.5 * clean
        assert face_score(np.roll(rgb, N // 3, 1)) < 0.5, "a face where the frame has none"
    assert face_score(np.full((N, N, 3), 128, np.uint8)) == -1.0
