"""Distances between two sets of features: FID and KID, each with an interval.

Feature sets are float arrays [N, d], one row per picture. Everything is computed in float64 and depends on
the arguments alone (the randomness of subsets and of the bootstrap comes from a seed).
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_BLOCK = 2048  # rows of a kernel held at a time


@dataclass(frozen=True)
class Estimate:
    """A number and the interval about it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Influence:
    """A number and how much each row of x [N] and of y [M] moves it, per unit of weight; both sum to zero."""

    value: float
    x: np.ndarray
    y: np.ndarray

    def draws(self, weights_x: np.ndarray, weights_y: np.ndarray) -> np.ndarray:
        """The number under resample counts [B, N] and [B, M], to first order: [B]."""
        return self.value + weights_x @ self.x + weights_y @ self.y


def compact(*sets: np.ndarray) -> list[np.ndarray]:
    """The sets [N_i, d], rotated together and cut to as many columns as their rows span, float64.

    Distances between Gaussians and between rows do not change under a rotation, and a few hundred rows of
    2048 columns span a few hundred dimensions: what follows becomes several times cheaper.
    """
    both = np.concatenate(sets).astype(np.float64)
    if len(both) < both.shape[1]:
        both = np.linalg.qr(both.T, mode="r").T
    return np.split(both, np.cumsum([len(part) for part in sets])[:-1])


# ---------------------------------------------------------------- FID


def frechet_distance(mu_x: np.ndarray, cov_x: np.ndarray, mu_y: np.ndarray, cov_y: np.ndarray) -> float:
    """Squared Frechet distance of two Gaussians, >= 0 up to rounding, from means [d] and covariances [d, d].

    |mu_x - mu_y|^2 + tr(Cx + Cy - 2 (Cx^1/2 Cy Cx^1/2)^1/2). The trace of the root is the sum of the roots of
    the eigenvalues of a symmetric matrix, which never needs a complex matrix root.
    Source: Heusel et al. 2017, equation 6; Dowson and Landau 1982.
    """
    values, vectors = np.linalg.eigh(cov_x)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ cov_y @ root)
    overlap = np.sqrt(np.maximum(inner, 0)).sum()
    return float(np.sum((mu_x - mu_y) ** 2) + np.trace(cov_x) + np.trace(cov_y) - 2 * overlap)


def _centred(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Mean [d], A with A^T A = covariance [N, d], and A = Q R, with Q None (the identity) when N <= d."""
    mean = x.mean(0)
    rows = (x - mean) / np.sqrt(len(x) - 1)
    if len(x) <= x.shape[1]:
        return mean, rows, rows, None
    q, r = np.linalg.qr(rows)
    return mean, rows, r, q


def fid_influence(x: np.ndarray, y: np.ndarray) -> Influence:
    """FID of x [N, d] and y [M, d] (unbiased covariances; N, M >= 2) and each row's share in it.

    With A^T A and B^T B the covariances, the trace of the root is the nuclear norm of A B^T = U S V^T, which
    costs min(N, d) x min(M, d) instead of d x d. Its derivative by the weight of row i is half of
    sum_k S_k U_ik^2 and enters twice, against |A_i|^2; what is equal for all rows drops out by centring.
    Source: Heusel et al. 2017, equation 6, with this derivative by us; tests differentiate it numerically.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    mean_x, rows_x, core_x, q_x = _centred(x)
    mean_y, rows_y, core_y, q_y = _centred(y)
    u, s, vt = np.linalg.svd(core_x @ core_y.T, full_matrices=False)
    shift = mean_x - mean_y
    value = float(shift @ shift + np.sum(rows_x**2) + np.sum(rows_y**2) - 2 * s.sum())

    def shares(data: np.ndarray, rows: np.ndarray, side: np.ndarray, towards: np.ndarray) -> np.ndarray:
        raw = 2 * (data @ towards) / len(data) + np.sum(rows**2, axis=1) - side**2 @ s
        return raw - raw.mean()

    side_x, side_y = u if q_x is None else q_x @ u, vt.T if q_y is None else q_y @ vt.T
    return Influence(value, shares(x, rows_x, side_x, shift), shares(y, rows_y, side_y, -shift))


def fid(x: np.ndarray, y: np.ndarray) -> float:
    """FID of x [N, d] and y [M, d]; see `fid_influence`."""
    return fid_influence(x, y).value


def fid_infinity(x: np.ndarray, y: np.ndarray, seed: int, points: int = 12) -> Influence:
    """FID continued to infinitely many pictures on both sides, and each row's share in it.

    FID falls with the number of pictures about as 1/N. It is measured on random shares f in [1/2, 1] of both
    sets, and the least-squares line over 1/f is read at 1/f = 0. It can be slightly negative. It removes most
    of the bias when there are more rows than dimensions, about half of it when there are fewer.
    Source: Chong and Forsyth 2020, who vary the generated set only; varying both is ours.
    """
    rng = np.random.default_rng(seed)
    inverse = np.linspace(1, 2, points)
    at_zero = np.linalg.pinv(np.stack([np.ones(points), inverse], 1))[0]
    value, share_x, share_y = 0.0, np.zeros(len(x)), np.zeros(len(y))
    for weight, f in zip(at_zero, 1 / inverse, strict=True):
        pick_x, pick_y = (rng.permutation(len(part))[: max(2, round(f * len(part)))] for part in (x, y))
        one = fid_influence(x[pick_x], y[pick_y])
        value += weight * one.value
        share_x[pick_x] += weight * one.x
        share_y[pick_y] += weight * one.y
    return Influence(float(value), share_x, share_y)


# ---------------------------------------------------------------- KID


def _kernel(x: np.ndarray, y: np.ndarray, width: int) -> np.ndarray:
    """KID's polynomial kernel (x . y / width + 1)^3; width is that of the features before `compact`."""
    return (x @ y.T / width + 1) ** 3


def kid_subsets(x: np.ndarray, y: np.ndarray, seed: int, subsets: int = 100, most: int = 1000) -> float:
    """KID as clean-fid computes it: the mean over random subsets of at most 1000 rows of each side.

    Equal to cleanfid.fid.kernel_distance(y, x) after numpy.random.seed(seed), up to its float32.
    Source: Binkowski et al. 2018, section 4.
    """
    rng = np.random.RandomState(seed)  # the library's generator, so that these are its very subsets
    x, y, width = np.asarray(x, np.float64), np.asarray(y, np.float64), x.shape[1]
    m = min(len(x), len(y), most)
    total = 0.0
    for _ in range(subsets):
        a, b = (part[rng.choice(len(part), m, replace=False)] for part in (x, y))
        within = sum(k.sum() - np.trace(k) for k in (_kernel(a, a, width), _kernel(b, b, width)))
        total += within / (m * (m - 1)) - 2 * _kernel(a, b, width).sum() / m**2
    return total / subsets


def kid_draws(
    x: np.ndarray,
    y: np.ndarray,
    weights_x: np.ndarray,
    weights_y: np.ndarray,
    width: int,
    twins: bool = False,
) -> np.ndarray:
    """Unbiased KID (over all pairs) under weights: [B] for weights_x [B, N] and weights_y [B, M].

    A row of ones gives the estimate itself, counts of a resample a bootstrap draw. A row is never paired with
    itself, so that draws are centred on the estimate. `width` is the features' width before `compact`.
    `twins`: row i of x was made from row i of y (N = M), and the two are not compared with one another, which
    would make x look nearer than new pictures are.
    """
    within = _within(x, weights_x, width) + _within(y, weights_y, width)
    return within - 2 * _across(x, y, weights_x, weights_y, width, twins)


def _within(x: np.ndarray, weights: np.ndarray, width: int) -> np.ndarray:
    total = np.zeros(len(weights))
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        kernel = _kernel(x[part], x, width)
        rows = np.arange(len(kernel))
        kernel[rows, start + rows] = 0
        total += np.sum(weights[:, part] * (weights @ kernel.T), axis=1)
    return total / (weights.sum(1) ** 2 - (weights**2).sum(1))


def _across(
    x: np.ndarray, y: np.ndarray, wx: np.ndarray, wy: np.ndarray, width: int, twins: bool
) -> np.ndarray:
    total = np.zeros(len(wx))
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        kernel = _kernel(x[part], y, width)
        if twins:
            rows = np.arange(len(kernel))
            kernel[rows, start + rows] = 0
        total += np.sum(wx[:, part] * (wy @ kernel.T), axis=1)
    return total / (wx.sum(1) * wy.sum(1) - (np.sum(wx * wy, axis=1) if twins else 0))


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased KID over all pairs: what `kid_subsets` would give with infinitely many subsets."""
    ones = np.ones((1, len(x))), np.ones((1, len(y)))
    return float(kid_draws(np.asarray(x, np.float64), np.asarray(y, np.float64), *ones, x.shape[1])[0])


# ---------------------------------------------------------------- intervals


def resamples(rows: int, draws: int, seed: int) -> np.ndarray:
    """Counts [draws, rows] float64 of bootstrap resamples: how often each row is in each; sums are `rows`."""
    return np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), draws).astype(np.float64)


def around(value: float, draws: np.ndarray, confidence: float) -> Estimate:
    """`value` and a normal interval about it, as wide as the draws [B] spread."""
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * float(np.std(draws, ddof=1))
    return Estimate(value, value - half, value + half)


def between(value: float, draws: np.ndarray, confidence: float) -> Estimate:
    """`value` and the percentile interval of the draws [B] (for shares and ratios: bounded or skewed)."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))
