"""How alike faces are: by identity and by picture, with thresholds from the people at hand.

Two independent looks: the distance of identities (dlib's 128 numbers) and the correlation of small luminance
pictures without what all faces share, also mirrored and moved a little. Each has a threshold at which pairs
of different people match with a chosen rate. A copy matches one and the same training face by both: chance
does that with about N * rate^2 against N training faces.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.stats import binomtest

from stylebot.errors import StylebotError

_SIDE_PX = 32  # of the luminance that pictures are compared by: fine enough for eyes and mouth
_MARGIN = 2  # cells left out on each side, so that pictures may be moved against each other
_FEWEST_PAIRS = 100
_MOST = 4000  # faces that thresholds are calibrated on: 8 million pairs
_BLOCK = 1024


@dataclass(frozen=True)
class Faces:
    """Faces ready to be compared, all float32.

    identity [N, 128]; picture [N, 784]: the middle; views [18, N, 784]: the middle after moves by one cell in
    any direction, as it is and mirrored
    """

    identity: np.ndarray
    picture: np.ndarray
    views: np.ndarray

    def rows(self, which: slice | np.ndarray) -> "Faces":
        """Some of the faces."""
        return Faces(self.identity[which], self.picture[which], self.views[:, which])


@dataclass(frozen=True)
class Thresholds:
    """Greatest distances at which two faces count as one person and as one picture."""

    identity: float
    picture: float


@dataclass(frozen=True)
class Nearest:
    """Per face, against the training set: nearest by identity, by picture, and whether it is a copy.

    identity, picture [N]: distances; identity_at, picture_at [N]: the training faces; copy [N] bool;
    copy_at [N]: the training face that it copies, else the nearest by identity.
    """

    identity: np.ndarray
    identity_at: np.ndarray
    picture: np.ndarray
    picture_at: np.ndarray
    copy: np.ndarray
    copy_at: np.ndarray


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Luminance [32, 32] float32 of rgb [H, W, 3] uint8, by area."""
    small = Image.fromarray(rgb).convert("L").resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def _standard(grey: np.ndarray) -> np.ndarray:
    """Vectors [N, n] of pictures [N, h, w] with mean 0 and length 1."""
    flat = grey.reshape(len(grey), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def prepare(grey: np.ndarray, identity: np.ndarray, mean: np.ndarray) -> Faces:
    """Faces from luminance [N, 32, 32] and identities [N, 128]; mean [32, 32]: of the training set.

    Of each view brightness and contrast are taken off, then what all faces share in that place: two faces
    correlate by what is their own.
    """
    middle = slice(_MARGIN, _SIDE_PX - _MARGIN)
    common = _standard(((mean + mean[:, ::-1]) / 2)[None, middle, middle])
    moves = range(-1, 2)
    views = []
    for way in (grey, grey[:, :, ::-1]):
        for down in moves:
            for right in moves:
                rows, columns = (slice(middle.start + by, middle.stop + by) for by in (down, right))
                own = _standard(way[:, rows, columns]) - common
                views.append(_standard(own[:, None]))
    return Faces(identity, views[len(moves) ** 2 // 2], np.stack(views))


def identity_distances(a: Faces, b: Faces) -> np.ndarray:
    """Euclidean distances [N, M] of identities."""
    squared = np.sum(a.identity**2, 1)[:, None] + np.sum(b.identity**2, 1) - 2 * a.identity @ b.identity.T
    return np.sqrt(np.maximum(squared, 0))


def picture_distances(a: Faces, b: Faces) -> np.ndarray:
    """1 - correlation, 0..2, [N, M] of pictures: the best over the views of a."""
    best = a.views[0] @ b.picture.T
    for view in a.views[1:]:
        np.maximum(best, view @ b.picture.T, out=best)
    return 1 - best


def calibrate(train: Faces, people: np.ndarray, rate: float) -> Thresholds:
    """Thresholds at which pairs of different people of the training set match with `rate`.

    people [N] int: who each face shows; -1 (unknown) stays out. People that pack could not tell apart are one
    here, so that the identity threshold is rather too wide than too narrow for look-alikes.
    Raises StylebotError with fewer than 100 pairs.
    """
    if len(people) > _MOST:
        some = np.random.default_rng(0).permutation(len(people))[:_MOST]
        train, people = train.rows(some), people[some]
    known = people >= 0
    different = np.triu(known[:, None] & known & (people[:, None] != people), 1)
    if different.sum() < _FEWEST_PAIRS:
        raise StylebotError(f"the training set gives {different.sum()} pairs of different people, "
                            f"{_FEWEST_PAIRS} are the least to calibrate the audit by")  # fmt: skip
    return Thresholds(
        identity=float(np.quantile(identity_distances(train, train)[different], rate)),
        picture=float(np.quantile(picture_distances(train, train)[different], rate)),
    )


def nearest(faces: Faces, train: Faces, limits: Thresholds) -> Nearest:
    """Compare every face with every training face."""
    starts = range(0, len(faces.identity), _BLOCK)
    parts = [_nearest(faces.rows(slice(start, start + _BLOCK)), train, limits) for start in starts]
    return Nearest(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _nearest(faces: Faces, train: Faces, limits: Thresholds) -> tuple[np.ndarray, ...]:
    identity, picture = identity_distances(faces, train), picture_distances(faces, train)
    both = np.maximum(identity / limits.identity, picture / limits.picture)
    copy = both.min(1) < 1
    return (identity.min(1), identity.argmin(1), picture.min(1), picture.argmin(1), copy,
            np.where(copy, both.argmin(1), identity.argmin(1)))  # fmt: skip


def share(hits: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Share of true values in hits [N] bool, and its exact binomial interval: value, low, high."""
    test = binomtest(int(hits.sum()), len(hits))
    interval = test.proportion_ci(confidence, method="exact")
    return float(hits.mean()), float(interval.low), float(interval.high)


def people_made(faces: Faces, threshold: float) -> float:
    """How many people the generator makes, judged by how often two of its faces are one person.

    1 / (share of pairs under the threshold): exact when all its people are equally likely. Cannot exceed
    1 / false_match_rate by much, where chance matches are all that is left; infinite when no pair matches.
    """
    same = identity_distances(faces, faces)[np.triu_indices(len(faces.identity), 1)] < threshold
    return float(1 / same.mean()) if same.any() else float("inf")
