"""How alike faces are: by identity and by picture, with thresholds from the people at hand.

Two independent looks: the distance of identities (dlib's 128 numbers) and the correlation of small, softened
luminance pictures without what all faces share, also mirrored, moved and zoomed. Pairs of different people
tell how often chance brings two faces so near by either look. A copy is so near to one and the same training
face, by both together, that chance does that to a share of `rate` of new faces. A limit for each look alone
would lose copies: JPEG shakes the identities of small pictures, and moving a picture shakes them more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.optimize import brentq
from scipy.stats import binomtest

from stylebot.errors import StylebotError

_SIDE_PX = 32  # of the luminance that pictures are compared by: fine enough for eyes and mouth
_CELLS = 12  # across the middle that is compared, each of 2 px: the edges may be moved out of the picture
_ZOOMS = (0.9, 0.95, 1.0, 1.05, 1.1)
_SHIFTS_PX = np.arange(-2, 2.5, 0.5)  # an eighth of the picture from end to end
_SOFT = (0.25, 0.5, 0.25)
_FEWEST_PAIRS = 100
_LEVELS = 200  # of probability at which the distances of strangers are remembered
_MOST = 4000  # faces that thresholds are calibrated on: 8 million pairs
_BLOCK = 1024
_DRAWS = 1000


@dataclass(frozen=True)
class Faces:
    """Faces ready to be compared, all float32.

    identity [N, 128]; grey [N, 32, 32]: luminance; picture [N, 144]: the middle as it is;
    common [144]: what the training faces share there
    """

    identity: np.ndarray
    grey: np.ndarray
    picture: np.ndarray
    common: np.ndarray

    def rows(self, which: slice | np.ndarray) -> "Faces":
        """Some of the faces."""
        return Faces(self.identity[which], self.grey[which], self.picture[which], self.common)


@dataclass(frozen=True)
class Chance:
    """How often the distance of two different people is below a value.

    `distances`, rising, are reached with `probabilities`, rising, 1/pairs … 1. Nearer than the nearest the
    probability falls as distance**power (power 0: it stays).
    """

    distances: np.ndarray
    probabilities: np.ndarray
    power: float

    def below(self, distance: np.ndarray) -> np.ndarray:
        """Probability of a distance so small, of any shape."""
        known = np.interp(distance, self.distances, self.probabilities)
        share = np.clip(distance / self.distances[0], 1e-6, 1.0)
        return known * share**self.power


@dataclass(frozen=True)
class Thresholds:
    """What tells likeness from chance, calibrated on people that differ.

    identity, picture: greatest distances at which two faces count as one person and as one picture;
    by_identity, by_picture: the chance of any distance; rate: share of new faces that may pass for copies
    """

    identity: float
    picture: float
    by_identity: Chance
    by_picture: Chance
    rate: float

    def copy_limit(self, faces: int) -> float:
        """Product of the two chances under which a face copies one of `faces` training faces.

        With independent looks the product of both falls below t with the probability t (1 - ln t), for each
        of the training faces: together that is `rate`.
        """
        wanted = self.rate / faces
        return float(np.exp(brentq(lambda u: u + np.log1p(-u) - np.log(wanted), -80, -1e-9)))


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


def _standard(views: np.ndarray) -> np.ndarray:
    """Vectors [N, n] with mean 0 and length 1."""
    flat = views - views.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _sampler(zoom: float, shift_px: float) -> np.ndarray:
    """Matrix [12, 32] that reads one axis of a picture: softened, moved, zoomed, two px to a cell.

    The middle of 24 px is stretched to 24 zoom px around a centre moved by shift_px, bilinear; beyond the
    edge the last pixel goes on.
    """
    inner = np.arange(2 * _CELLS) - _CELLS + 0.5
    at = np.clip(_SIDE_PX / 2 - 0.5 + shift_px + inner * zoom, 0, _SIDE_PX - 1)
    hats = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(_SIDE_PX)))
    soft = np.zeros((_SIDE_PX, _SIDE_PX))
    for by, weight in zip((-1, 0, 1), _SOFT, strict=True):
        soft[np.arange(_SIDE_PX), np.clip(np.arange(_SIDE_PX) + by, 0, _SIDE_PX - 1)] += weight
    return (hats.reshape(_CELLS, 2, _SIDE_PX).mean(1) @ soft).astype(np.float32)


_SAMPLERS = {zoom: [_sampler(zoom, shift) for shift in _SHIFTS_PX] for zoom in _ZOOMS}
_AS_IT_IS = _sampler(1.0, 0.0)


def _own(grey: np.ndarray, rows: np.ndarray, columns: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Views [N, 144] of grey [N, 32, 32] by two samplers: what each has beyond `common`, of length 1."""
    return _standard(_standard((rows @ grey @ columns.T).reshape(len(grey), -1)) - common)


def _views(faces: Faces) -> Iterator[np.ndarray]:
    """Views [N, 144], mirrored or not, moved by up to 2 px of 32 in steps of a half, zoomed by up to 10 %."""
    for grey in (faces.grey, faces.grey[:, :, ::-1]):
        for samplers in _SAMPLERS.values():
            for rows in samplers:
                sampled = rows @ grey
                for columns in samplers:
                    flat = (sampled @ columns.T).reshape(len(grey), -1)
                    yield _standard(_standard(flat) - faces.common)


def prepare(grey: np.ndarray, identity: np.ndarray, mean: np.ndarray) -> Faces:
    """Faces from luminance [N, 32, 32] and identities [N, 128]; mean [32, 32]: of the training set.

    Of each view brightness and contrast are taken off, then what all faces share in that place: two faces
    correlate by what is their own.
    """
    symmetric = ((mean + mean[:, ::-1]) / 2)[None].astype(np.float32)
    common = _standard((_AS_IT_IS @ symmetric @ _AS_IT_IS.T).reshape(1, -1))[0]
    return Faces(identity, grey, _own(grey, _AS_IT_IS, _AS_IT_IS, common), common)


def identity_distances(a: Faces, b: Faces) -> np.ndarray:
    """Euclidean distances [N, M] of identities."""
    squared = np.sum(a.identity**2, 1)[:, None] + np.sum(b.identity**2, 1) - 2 * a.identity @ b.identity.T
    return np.sqrt(np.maximum(squared, 0))


def picture_distances(a: Faces, b: Faces) -> np.ndarray:
    """1 - correlation, 0..2, [N, M] of pictures: the best over the views of a."""
    best = np.full((len(a.grey), len(b.picture)), -1.0, np.float32)
    for view in _views(a):
        np.maximum(best, view @ b.picture.T, out=best)
    return 1 - best


def _chance(distances: np.ndarray, falls: bool) -> Chance:
    """The chance of distances [n] of strangers; `falls`: nearer than all of them it falls by a power law.

    The power is the slope between the chances p and p / 10, p = 1 % with enough pairs: single pairs that are
    one person after all do not weigh.
    """
    levels = np.geomspace(1 / len(distances), 1, _LEVELS)
    quantiles = np.quantile(distances, levels)
    power = 0.0
    if falls:
        upper = min(0.1, max(0.01, 100 / len(distances)))
        near, far = np.quantile(distances, [upper / 10, upper])
        power = float(np.log(10) / np.log(far / near)) if 0 < near < far else 0.0
    return Chance(quantiles, levels, power)


def pairs_apart(people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most 4000 faces of people [N] int, and which pairs of them [n, n] bool show two people, each once.

    -1 (unknown) is in no pair.
    """
    some = np.arange(len(people))
    if len(people) > _MOST:
        some = np.random.default_rng(0).permutation(len(people))[:_MOST]
    people = people[some]
    known = people >= 0
    return some, np.triu(known[:, None] & known & (people[:, None] != people), 1)


def calibrate(train: Faces, people: np.ndarray, rate: float) -> Thresholds:
    """Thresholds at which pairs of different people of the training set match with `rate`.

    people [N] int: who each face shows; -1 (unknown) stays out. People that pack could not tell apart are one
    here, so that the identity threshold is rather too wide than too narrow for look-alikes.
    Raises StylebotError with fewer than 100 pairs.
    """
    some, different = pairs_apart(people)
    train = train.rows(some)
    if different.sum() < _FEWEST_PAIRS:
        raise StylebotError(f"the training set gives {different.sum()} pairs of different people, "
                            f"{_FEWEST_PAIRS} are the least to calibrate the audit by")  # fmt: skip
    by_identity = identity_distances(train, train)[different]
    by_picture = picture_distances(train, train)[different]
    return Thresholds(
        identity=float(np.quantile(by_identity, rate)),
        picture=float(np.quantile(by_picture, rate)),
        by_identity=_chance(by_identity, falls=False),
        by_picture=_chance(by_picture, falls=True),
        rate=rate,
    )


def nearest(faces: Faces, train: Faces, limits: Thresholds) -> Nearest:
    """Compare every face with every training face."""
    starts = range(0, len(faces.identity), _BLOCK)
    parts = [_nearest(faces.rows(slice(start, start + _BLOCK)), train, limits) for start in starts]
    return Nearest(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _nearest(faces: Faces, train: Faces, limits: Thresholds) -> tuple[np.ndarray, ...]:
    identity, picture = identity_distances(faces, train), picture_distances(faces, train)
    both = limits.by_identity.below(identity) * limits.by_picture.below(picture)
    copy = both.min(1) < limits.copy_limit(len(train.identity))
    return (identity.min(1), identity.argmin(1), picture.min(1), picture.argmin(1), copy,
            np.where(copy, both.argmin(1), identity.argmin(1)))  # fmt: skip


def share(hits: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Share of true values in hits [N] bool, and its exact binomial interval: value, low, high."""
    test = binomtest(int(hits.sum()), len(hits))
    interval = test.proportion_ci(confidence, method="exact")
    return float(hits.mean()), float(interval.low), float(interval.high)


def people_made(faces: Faces, threshold: float) -> tuple[float, float, float]:
    """How many people the generator makes, by how often two of its faces are one person: value, low, high.

    1 / (share of pairs under the threshold): exact when all its people are equally likely. Cannot exceed
    1 / false_match_rate by much, where chance matches are all that is left; infinite when no pair matches.
    95 %: percentiles over resampled faces, no face paired with itself; without a match the rule of three.
    """
    same = identity_distances(faces, faces) < threshold
    np.fill_diagonal(same, False)
    count, pairs = len(same), len(same) * (len(same) - 1)
    if not same.any():
        return float("inf"), pairs / 2 / 3, float("inf")
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _DRAWS).astype(np.float32)
    shares = np.sum(drawn @ same * drawn, 1) / (count**2 - np.square(drawn).sum(1))
    few, many = np.quantile(shares, [0.025, 0.975])
    return float(pairs / same.sum()), float(1 / many), float(1 / few) if few > 0 else float("inf")
