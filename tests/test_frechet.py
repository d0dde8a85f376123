"""Distances of feature sets against closed forms, second implementations and clean-fid's own functions."""

import numpy as np
import pytest
from scipy import linalg
from scipy.stats import ortho_group

from stylebot import frechet

EYE, RNG = np.eye(3), np.random.default_rng


def spread(rows: int, columns: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Correlated features with fading variances, as Inception's are."""
    rng = RNG(seed)
    mixing = rng.normal(size=(columns, columns)) * np.exp(-np.arange(columns) / columns * 3)[:, None]
    return rng.normal(size=(rows, columns)) @ mixing + shift


def test_frechet_distance_of_equal_gaussians_is_zero() -> None:
    assert frechet.frechet_distance(np.ones(3), 2 * EYE, np.ones(3), 2 * EYE) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_of_commuting_gaussians() -> None:
    turn = ortho_group.rvs(5, random_state=0)
    a, b = np.array([1.0, 4, 9, 0, 2]), np.array([4.0, 1, 1, 3, 0])
    cov_a, cov_b = (turn @ np.diag(values) @ turn.T for values in (a, b))
    found = frechet.frechet_distance(np.zeros(5), cov_a, np.full(5, 2.0), cov_b)
    assert found == pytest.approx(5 * 4 + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rel=1e-7)


@pytest.mark.parametrize(("rows_x", "rows_y"), [(300, 200), (30, 200), (300, 12), (9, 7), (41, 40)])
def test_fid_equals_the_complex_matrix_root(rows_x: int, rows_y: int) -> None:
    x, y = spread(rows_x, 40, 1), spread(rows_y, 40, 2, 0.3)
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(cov_x @ cov_y).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(cov_x + cov_y - 2 * root)
    assert frechet.fid(x, y) == pytest.approx(expected, rel=1e-5)
    real_root = frechet.frechet_distance(x.mean(0), cov_x, y.mean(0), cov_y)
    assert real_root == pytest.approx(frechet.fid(x, y), rel=1e-6)


def weighted_fid(x: np.ndarray, y: np.ndarray, weights_x: np.ndarray, weights_y: np.ndarray) -> float:
    moments = []
    for data, w in ((x, weights_x), (y, weights_y)):
        covariance = np.cov(data, rowvar=False, aweights=w, ddof=0) * w.sum() / (w.sum() - 1)
        moments += [np.average(data, axis=0, weights=w), covariance]
    return frechet.frechet_distance(*moments)


@pytest.mark.parametrize(("rows_x", "rows_y", "columns"), [(60, 50, 8), (60, 12, 20), (15, 50, 20)])
def test_influence_is_the_derivative_by_the_weights(rows_x: int, rows_y: int, columns: int) -> None:
    x, y = spread(rows_x, columns, 3), spread(rows_y, columns, 4, 0.2)
    found = frechet.fid_influence(x, y)
    assert abs(found.x.sum()) < 1e-9 and abs(found.y.sum()) < 1e-9
    ones, step = [np.ones(rows_x), np.ones(rows_y)], 1e-3
    for side, claimed in enumerate((found.x, found.y)):
        slopes = []
        for row in step * np.eye(len(claimed)):
            ends = []
            for move in (row, -row):
                weights = [ones[0] + move, ones[1]] if side == 0 else [ones[0], ones[1] + move]
                ends.append(weighted_fid(x, y, *weights))
            slopes.append((ends[0] - ends[1]) / (2 * step))
        assert np.allclose(claimed, slopes - np.mean(slopes), atol=1e-3 * np.ptp(slopes))


def test_compact_keeps_every_distance() -> None:
    x, y, z = spread(20, 500, 5), spread(30, 500, 6, 0.1), spread(5, 500, 7)
    parts = frechet.compact(x, y, z)
    assert [p.shape for p in parts] == [(20, 55), (30, 55), (5, 55)]
    assert np.allclose(parts[0] @ parts[1].T, x @ y.T)
    assert frechet.fid(parts[0], parts[1]) == pytest.approx(frechet.fid(x, y), rel=1e-9)
    assert frechet.compact(x[:, :9], y[:, :9])[0].shape == (20, 9)


def test_fid_infinity_removes_the_bias_of_few_pictures() -> None:
    rng, d = RNG(8), 12
    small, infinite = [], []
    for _ in range(12):
        x, y = rng.normal(size=(200, d)), rng.normal(size=(150, d)) * 1.2
        small.append(frechet.fid(x, y))
        infinite.append(frechet.fid_infinity(x, y, 0).value)
    truth = d * 0.2**2
    assert np.mean(small) - truth > 0.2
    assert abs(np.mean(infinite) - truth) < 0.15 * (np.mean(small) - truth)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_kid_of_clean_fid() -> None:
    cleanfid = pytest.importorskip("cleanfid.fid")
    x, y = (spread(n, 64, n).astype(np.float32) for n in (120, 70))
    np.random.seed(0)  # noqa: NPY002  the library draws from numpy's global state
    theirs = cleanfid.kernel_distance(y, x)
    assert frechet.kid_subsets(x, y, seed=0) == pytest.approx(theirs, rel=1e-4)
    assert frechet.fid(x, y) == pytest.approx(float(cleanfid.fid_from_feats(x, y)), rel=1e-4)


def test_kid_over_all_pairs_is_what_subsets_tend_to() -> None:
    x, y = spread(40, 16, 9), spread(30, 16, 10, 0.3)
    within = [((p @ p.T / 16 + 1) ** 3)[~np.eye(len(p), dtype=bool)].mean() for p in (x, y)]
    across = ((x @ y.T / 16 + 1) ** 3).mean()
    assert frechet.kid(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-9)
    assert frechet.kid(x, y) == pytest.approx(frechet.kid_subsets(x, y, 0, subsets=4000, most=25), rel=0.05)


def test_kid_draws_count_rows_and_never_pair_a_row_with_itself() -> None:
    x, y = spread(8, 4, 11), spread(7, 4, 12)
    whole = frechet.kid_draws(x, y, np.ones((1, 8)), np.ones((1, 7)), 4)[0]
    assert whole == pytest.approx(frechet.kid(x, y))
    part = frechet.kid_draws(x, y, np.array([[1, 1, 1, 1, 0, 0, 0, 0.0]]), np.ones((1, 7)), 4)[0]
    assert part == pytest.approx(frechet.kid(x[:4], y))
    doubled = frechet.kid_draws(x, y, np.full((1, 8), 2.0), np.full((1, 7), 2.0), 4)[0]
    assert doubled == pytest.approx(whole)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = spread(23, 6, 13), spread(17, 6, 14, 0.2)
    weights = frechet.resamples(23, 5, 0), frechet.resamples(17, 5, 1)
    whole = frechet.kid_draws(x, y, *weights, 6)
    monkeypatch.setattr(frechet, "_BLOCK", 5)
    assert np.allclose(whole, frechet.kid_draws(x, y, *weights, 6))


@pytest.mark.slow
def test_intervals_hold_the_truth() -> None:
    """Of 95 % intervals at least 90 % hold the population's KID, the mean FID, the ratio of two KIDs."""
    rng, d, n, m, repeats = RNG(18), 12, 120, 80, 80
    scale, near, far = np.exp(-np.arange(d) / 4), np.full(d, 0.15), np.full(d, 0.5)

    def sample(rows: int, shift: np.ndarray) -> np.ndarray:
        return rng.normal(size=(rows, d)) * scale + shift * scale

    big = sample(3000, 0 * near)
    kid_near, kid_far = (frechet.kid(sample(3000, s), big) for s in (near, far))
    fids, intervals = [], {"kid": [], "fid": [], "ratio": []}
    for i in range(repeats):
        x, x_far, y = sample(n, near), sample(n, far), sample(m, 0 * near)
        wx, wy = frechet.resamples(n, 200, 2 * i), frechet.resamples(m, 200, 2 * i + 1)
        value, value_far = frechet.kid(x, y), frechet.kid(x_far, y)
        draws, draws_far = frechet.kid_draws(x, y, wx, wy, d), frechet.kid_draws(x_far, y, wx, wy, d)
        intervals["kid"].append(frechet.around(value, draws, 0.95))
        intervals["ratio"].append(frechet.between(value / value_far, draws / draws_far, 0.95))
        found = frechet.fid_influence(x_far, y)
        fids.append(found.value)
        intervals["fid"].append(frechet.around(found.value, found.draws(wx, wy), 0.95))
    truth = {"kid": kid_near, "fid": np.mean(fids), "ratio": kid_near / kid_far}
    held = {what: np.mean([e.low <= truth[what] <= e.high for e in many]) for what, many in intervals.items()}
    assert min(held.values()) >= 0.9, held


def test_twins_are_not_compared_with_one_another() -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(size=(30, 6))
    x = y + 0.1 * rng.normal(size=y.shape)  # made from y, row by row
    ones = np.ones((1, 30))
    off = ~np.eye(30, dtype=bool)
    kernels = [(a @ b.T / 6 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    within, theirs, across = (kernel[off].mean() for kernel in kernels)
    found = frechet.kid_draws(x, y, ones, ones, 6, twins=True)
    assert found[0] == pytest.approx(within + theirs - 2 * across)
    plain = frechet.kid_draws(x, y, ones, ones, 6)
    assert plain[0] < found[0]
    # a resample by itself: rows with their copies, of which none is compared with its own original
    rows = np.array([0, 0, 1, 3, 3, 3, 7])
    counts = np.bincount(rows, minlength=30)[None].astype(float)
    strangers = rows[:, None] != rows
    parts = [kernel[np.ix_(rows, rows)][strangers].mean() for kernel in kernels]
    drawn = frechet.kid_draws(x, y, counts, counts, 6, twins=True)[0]
    assert drawn == pytest.approx(parts[0] + parts[1] - 2 * parts[2])
