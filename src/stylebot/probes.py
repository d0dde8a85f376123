"""A ruler from one domain of faces to another: 0 where the base generator's faces are, 1 at the region's."""

from dataclasses import dataclass

import numpy as np

from stylebot.frechet import Estimate, between, resamples

CLEAR = 0.75  # the least share of pairs in the right order for which positions mean something
_SHRINKAGE = 0.1  # of the covariance towards a sphere: 128 numbers of a few dozen faces
_DRAWS = 1000


@dataclass(frozen=True)
class Axis:
    """A direction [d] among embeddings; `origin` and `unit` make it 0 at one domain and 1 at the other."""

    direction: np.ndarray
    origin: float
    unit: float

    def positions(self, faces: np.ndarray) -> np.ndarray:
        """Where faces [N, d] lie: [N]."""
        return (faces @ self.direction - self.origin) / self.unit


@dataclass(frozen=True)
class Ruler:
    """Two axes, each learnt from one half of the base faces and made a scale by the other.

    clear: of pairs of a region's face and a base face, none of which taught the axis, the share that it puts
    in the right order; 0.5 is chance, 1 is perfect.
    """

    axes: tuple[Axis, Axis]
    clear: float

    def positions(self, faces: np.ndarray) -> np.ndarray:
        """Where faces [N, d] lie, mean over both axes: [N]; not bounded by 0 and 1."""
        return np.mean([axis.positions(faces) for axis in self.axes], axis=0)

    def drift(self, originals: np.ndarray, results: np.ndarray, seed: int) -> Estimate:
        """How far results moved from their originals [N, d] towards the base domain, mean over faces.

        0: not at all, 1: the whole way. With the 95 % bootstrap interval over faces, each kept with its
        original.
        """
        moved = self.positions(originals) - self.positions(results)
        draws = resamples(len(moved), _DRAWS, seed) @ moved / len(moved)
        return between(float(moved.mean()), draws, 0.95)


def direction(region: np.ndarray, base: np.ndarray) -> np.ndarray:
    """The direction [d] that tells region [N, d] from base [M, d] best: linear discriminant.

    The covariance within the two is shrunk towards a sphere of the same size.
    Source: Fisher 1936; Friedman 1989 for the shrinkage.
    """
    within = np.concatenate([part - part.mean(0) for part in (region, base)])
    covariance = within.T @ within / (len(within) - 2)
    size = len(covariance)
    sphere = np.eye(size) * np.trace(covariance) / size
    shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * sphere
    return np.linalg.solve(shrunk, region.mean(0) - base.mean(0))


def order(high: np.ndarray, low: np.ndarray) -> float:
    """Share of the pairs of `high` [N] and `low` [M] in which the first is larger, ties half: the AUC."""
    difference = high[:, None] - low
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def ruler(training: np.ndarray, heldout: np.ndarray, base: np.ndarray) -> Ruler:
    """The ruler of embeddings: training [N, d] and heldout [M, d] of the region, base [K, d], K >= 4.

    Nobody in training may be in heldout: held-out faces, and of the base faces the half that did not teach,
    say where 1 and 0 are, so that a direction learnt by heart does not count. Blur moves faces along it, too
    (blurred copies in the teaching did not cure that): compare results that are equally sharp.
    """
    training, heldout, base = (np.asarray(part, np.float64) for part in (training, heldout, base))
    axes, clear = [], []
    for first in (0, 1):
        taught, new = base[first::2], base[1 - first :: 2]
        towards = direction(training, taught)
        ends = heldout @ towards, new @ towards
        axes.append(Axis(towards, float(ends[1].mean()), float(ends[0].mean() - ends[1].mean())))
        clear.append(order(*ends))
    return Ruler((axes[0], axes[1]), float(np.mean(clear)))
