"""Precision, recall, density and coverage by brute force, and intervals that hold what they should."""

import numpy as np
import pytest

from stylebot import frechet, neighbours


def features(rows: int, seed: int, shift: float = 0.0, columns: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)) + shift


def test_neighbourhoods_by_brute_force() -> None:
    fake, real = features(25, 15), features(20, 15, 0.5)

    def gap(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(a - b))

    def radius(points: np.ndarray, i: int, k: int) -> float:
        return sorted(gap(points[i], p) for j, p in enumerate(points) if j != i)[k - 1]

    radii = {(name, k): [radius(points, i, k) for i in range(len(points))]
             for name, points in (("real", real), ("fake", fake)) for k in (3, 5)}  # fmt: skip
    found = {name: values.tolist() for name, values in neighbours.scores(fake, real).items()}
    within = [[gap(f, r) for r in real] for f in fake]
    columns = list(zip(*within, strict=True))

    def inside(row: list[float], limits: list[float]) -> list[bool]:
        return [g <= limit for g, limit in zip(row, limits, strict=True)]

    assert found["precision"] == [any(inside(row, radii["real", 3])) for row in within]
    assert found["density"] == [sum(inside(row, radii["real", 5])) / 5 for row in within]
    assert found["recall"] == [any(inside(column, radii["fake", 3])) for column in columns]
    assert found["coverage"] == inside([min(column) for column in columns], radii["real", 5])


def test_neighbourhoods_of_far_and_of_collapsed_fakes() -> None:
    real = np.random.default_rng(16).normal(size=(60, 4))
    means = {k: v.mean() for k, v in neighbours.scores(real + 100, real).items()}
    assert means == {"precision": 0, "density": 0, "recall": 0, "coverage": 0}
    collapsed = real[7] + 1e-3 * np.random.default_rng(17).normal(size=(60, 4))
    means = {k: v.mean() for k, v in neighbours.scores(collapsed, real).items()}
    assert means["precision"] == 1 and means["recall"] < 0.1 and means["coverage"] < 0.3


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = features(23, 13), features(17, 14, 0.2)
    whole = neighbours.scores(x, y)
    monkeypatch.setattr(neighbours, "_BLOCK", 5)
    assert all(np.array_equal(values, neighbours.scores(x, y)[name]) for name, values in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize("most", [1000, 60])
def test_intervals_hold_the_truth(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 95 % intervals at least 90 % hold the mean over pairs of sets; with few rows used, too."""
    monkeypatch.setattr(neighbours, "_MOST", most)
    rng, scale, found = np.random.default_rng(18), np.exp(-np.arange(12) / 4), {}
    for i in range(80):
        x, y = rng.normal(0.3, 1, (120, 12)) * scale, rng.normal(0, 1, (80, 12)) * scale
        strays = neighbours.spread(x, y, 100, i)
        for name, values in neighbours.scores(x, y).items():
            estimate = frechet.around(values.mean(), values.mean() + strays[name], 0.95)
            found.setdefault(name, []).append(estimate)
    for name, many in found.items():
        truth = np.mean([e.value for e in many])
        assert np.mean([e.low <= truth <= e.high for e in many]) >= 0.9, name
        strayed = np.std([e.value for e in many])
        assert np.mean([e.high - e.low for e in many]) < 2.5 * 2 * 1.96 * strayed, f"{name}: wide for nothing"


def test_spread_of_the_fewest_rows() -> None:
    found = neighbours.spread(features(10, 1), features(10, 2), 50, 0)
    assert set(found) == {"precision", "density", "recall", "coverage"}
    assert all(len(v) == 50 and np.isfinite(v).all() and abs(v.mean()) < 1e-9 for v in found.values())
    again = neighbours.spread(features(10, 1), features(10, 2), 50, 0)
    assert all(np.array_equal(v, again[name]) for name, v in found.items())
