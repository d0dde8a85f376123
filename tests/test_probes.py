"""The ruler between two domains: its ends, its honesty, and that a known drift is measured in order."""

from itertools import pairwise

import numpy as np
import pytest

from stylebot.frechet import kid_draws
from stylebot.probes import order, ruler

WIDE = 40


def domains(apart: float, seed: int = 0, count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, held-out and base faces: clouds of one shape, the base `apart` standard deviations off."""
    rng = np.random.default_rng(seed)
    shape = rng.normal(size=(WIDE, WIDE)) / np.sqrt(WIDE)
    shift = apart * shape[:, 0]
    region = rng.normal(size=(2 * count, WIDE)) @ shape.T + shift
    base = rng.normal(size=(count, WIDE)) @ shape.T
    return region[:count], region[count:], base


def test_its_ends_are_the_domains() -> None:
    training, heldout, base = domains(4)
    found = ruler(training, heldout, base)
    assert found.positions(heldout).mean() == pytest.approx(1)
    assert found.positions(base).mean() == pytest.approx(0, abs=0.1)
    assert found.clear > 0.95
    halfway = (heldout.mean(0) + base.mean(0)) / 2
    assert found.positions(halfway[None])[0] == pytest.approx(0.5, abs=0.05)


def test_the_same_domain_twice_is_not_told_apart() -> None:
    """By heart it would be: 30 base faces in 40 dimensions can always be told from 60 others."""
    clear = [ruler(*domains(0, seed)).clear for seed in range(6)]
    assert 0.4 < np.mean(clear) < 0.6


@pytest.mark.parametrize("apart", [2.5, 5.0])
def test_moving_faces_to_the_base_domain_drifts_in_order(apart: float) -> None:
    """Results pulled to the base domain's mean, as a decoder without the region pulls them."""
    training, heldout, base = domains(apart)
    found, rng = ruler(training, heldout, base), np.random.default_rng(1)
    noise = 0.05 * rng.normal(size=heldout.shape)
    steps = [base.mean(0) + keep * (heldout - base.mean(0)) + noise for keep in (1, 0.8, 0.6, 0.4, 0.2)]
    drifts = [found.drift(heldout, moved, 0) for moved in steps]
    assert [d.value for d in drifts] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8], abs=0.25)
    assert all(d.low <= d.value <= d.high for d in drifts)
    assert all(a.high < b.low for a, b in pairwise(drifts))
    ones = np.ones((1, len(heldout))), np.ones((1, len(heldout)))
    kids = [kid_draws(moved, heldout, *ones, WIDE, twins=True)[0] for moved in steps]
    assert kids == sorted(kids)


def test_the_interval_holds_the_true_drift() -> None:
    held = 0
    for seed in range(60):
        training, heldout, base = domains(4, seed, count=80)
        rng = np.random.default_rng(100 + seed)
        found = ruler(training, heldout, base)
        keep = 0.7 + 0.1 * rng.normal(size=(len(heldout), 1))  # each face drifts by its own share, mean 0.3
        moved = base.mean(0) + keep * (heldout - base.mean(0))
        d = found.drift(heldout, moved, 0)
        held += d.low <= 0.3 <= d.high
    assert held >= 0.85 * 60


def test_order_counts_pairs() -> None:
    high, low = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])
    assert order(high, low) == pytest.approx((1 + 1 + 1 + 0.5 + 1 + 0) / 6)
