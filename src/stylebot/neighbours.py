"""How two sets of features lie among each other: precision, recall, density, coverage, with intervals.

Feature sets are float arrays [N, d], one row per picture; distances are squared and Euclidean.
"""

from collections.abc import Iterable, Iterator

import numpy as np

_BLOCK = 2048  # rows of a distance matrix held at a time
_MOST = 1000  # rows of either set that the spread is measured on
K, K_DENSITY = 3, 5

Scores = dict[str, np.ndarray]


def _distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of rows of x against all rows of y: (rows, [block, M])."""
    y2 = np.sum(y * y, axis=1)
    for start in range(0, len(x), _BLOCK):
        part = x[start : start + _BLOCK]
        yield slice(start, start + len(part)), np.sum(part * part, axis=1)[:, None] + y2 - 2 * part @ y.T


def _kth(distances: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    """The k-th smallest of each row [n] of distances [n, N], without the row itself, in column own [n]."""
    others = distances.copy()
    others[np.arange(len(others)), own] = np.inf
    return np.partition(others, k - 1, axis=1)[:, k - 1]


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """Distance [N] of each row to its k-th nearest other row."""
    return np.concatenate([_kth(d, np.arange(rows.start, rows.stop), k) for rows, d in _distances(x, x)])


def _scores(
    across: Iterable[tuple[slice, np.ndarray]],
    fake_k: np.ndarray,
    real_k: np.ndarray,
    real_density: np.ndarray,
) -> Scores:
    """`scores` from blocks of the distances of fakes [N] to reals [M], and the radii of both."""
    precision, density = np.empty(len(fake_k)), np.empty(len(fake_k))
    recall, nearest = np.zeros(len(real_k), bool), np.full(len(real_k), np.inf)
    for rows, distance in across:
        precision[rows] = (distance <= real_k).any(1)
        density[rows] = (distance <= real_density).sum(1) / K_DENSITY
        recall |= (distance <= fake_k[rows, None]).any(0)
        nearest = np.minimum(nearest, distance.min(0))
    coverage = (nearest <= real_density).astype(float)
    return {"precision": precision, "density": density, "recall": recall.astype(float), "coverage": coverage}


def scores(fake: np.ndarray, real: np.ndarray) -> Scores:
    """Per-picture values whose means are precision, density (over fakes), recall, coverage (over reals).

    precision: the fake lies within the third neighbour's distance of some real one, 0 or 1
    recall: the real one lies within the third neighbour's distance of some fake, 0 or 1
    density: within how many reals' fifth neighbours' distances the fake lies, over 5; not bounded by 1
    coverage: some fake lies within the real one's fifth neighbour's distance, 0 or 1
    Both sets need more than five rows.
    Source: Kynkaanniemi et al. 2019 (k = 3); Naeem et al. 2020 (k = 5).
    """
    return _scores(_distances(fake, real), _radii(fake, K), _radii(real, K), _radii(real, K_DENSITY))


def spread(fake: np.ndarray, real: np.ndarray, draws: int, seed: int) -> Scores:
    """How far the means of `scores` stray from one pair of sets to another: deviations [draws] by name.

    Each picture's value hangs on its neighbours in both sets, so that averaging values anew is not enough,
    and a bootstrap with replacement would give pictures copies at distance 0. Instead halves are drawn
    without replacement, of one set and then of the other, and the neighbours looked for again; for a mean
    the halves stray as the wholes do. Of larger sets 1000 rows are used and the deviations scaled.
    Both sets need at least 10 rows.
    Source: half-sampling, Politis, Romano and Wolf 1999, section 2; for these scores ours.
    """
    rng = np.random.default_rng(seed)
    x, y = (part[rng.permutation(len(part))[:_MOST]] for part in (fake, real))
    across, among_x, among_y = (
        np.concatenate([d for _, d in _distances(a, b)]) for a, b in ((x, y), (x, x), (y, y))
    )

    def means(i: np.ndarray, j: np.ndarray, radii_x: tuple, radii_y: tuple) -> list[float]:
        found = _scores([(slice(0, len(i)), across[np.ix_(i, j)])], *radii_x, *radii_y)
        return [values.mean() for values in found.values()]

    def of_x(i: np.ndarray) -> tuple[np.ndarray]:
        return (_kth(among_x[np.ix_(i, i)], np.arange(len(i)), K),)

    def of_y(j: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(_kth(among_y[np.ix_(j, j)], np.arange(len(j)), k) for k in (K, K_DENSITY))

    all_x, all_y = np.arange(len(x)), np.arange(len(y))
    radii_x, radii_y, total = of_x(all_x), of_y(all_y), 0.0
    for rows, whole, one in (
        (len(x), len(fake), lambda i: means(i, all_y, of_x(i), radii_y)),
        (len(y), len(real), lambda j: means(all_x, j, radii_x, of_y(j))),
    ):
        half = max(rows // 2, K_DENSITY + 2)
        drawn = np.array([one(rng.permutation(rows)[:half]) for _ in range(draws)])
        total = total + (drawn - drawn.mean(0)) * np.sqrt(half / (rows - half) * rows / whole)
    return dict(zip(("precision", "density", "recall", "coverage"), np.transpose(total), strict=True))
