"""Who is like whom: distances, thresholds, copies."""

import numpy as np
import pytest
from PIL import Image

from stylebot import likeness
from stylebot.errors import StylebotError
from stylebot.likeness import (
    Chance,
    Faces,
    Thresholds,
    calibrate,
    identity_distances,
    nearest,
    people_made,
    share,
)

RNG = np.random.default_rng


def grey(count: int, seed: int) -> np.ndarray:
    """Luminance [count, 32, 32]: one common face and what is each one's own."""
    rng = RNG(seed)
    common = RNG(99).uniform(60, 200, (32, 32))
    common = (common + common[:, ::-1]) / 2
    return (common + rng.normal(0, 30, (count, 8, 8)).repeat(4, 1).repeat(4, 2)).astype(np.float32)


def limits(rate: float = 0.001) -> Thresholds:
    """As if strangers were 0.5 to 1.5 apart by identity and 0.2 to 1.2 by picture."""
    levels = np.geomspace(1e-3, 1, 50)
    return Thresholds(0.5, 0.2, Chance(0.5 + levels, levels, 0.0), Chance(0.2 + levels, levels, 4.0), rate)


def faces(count: int, seed: int, luminance: np.ndarray | None = None) -> Faces:
    identity = RNG(seed).normal(size=(count, 128)).astype(np.float32)
    return likeness.prepare(grey(count, seed) if luminance is None else luminance,
                            identity / np.linalg.norm(identity, axis=1, keepdims=True), grey(400, 0).mean(0))


def test_luminance_is_small_and_by_area() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[:2, :2] = 255
    rgb[2, 2] = (0, 255, 0)
    small = likeness.luminance(rgb)
    assert small.shape == (32, 32) and small[0, 0] == 255 and small.sum() == pytest.approx(255 + 38, abs=2)


def test_identity_distances_are_euclidean() -> None:
    a, b = faces(4, 1), faces(3, 2)
    expected = [[np.linalg.norm(x - y) for y in b.identity] for x in a.identity]
    assert np.allclose(identity_distances(a, b), expected, atol=1e-5)
    assert np.diag(identity_distances(a, a)).max() < 1e-3


def test_picture_distance_ignores_light_mirroring_and_small_moves() -> None:
    own = grey(5, 3)
    original, other = faces(5, 3), faces(5, 4)
    moved = np.pad(own, ((0, 0), (1, 0), (0, 1)), mode="edge")[:, :32, 1:]
    for edited in (own * 0.6, own + 30, own[:, :, ::-1], 1.4 * own - 20, moved, moved[:, :, ::-1]):
        distances = likeness.picture_distances(faces(5, 3, edited), original)
        assert np.diag(distances).max() < 0.05
        assert (distances + np.eye(5)).min() > 0.15
    assert likeness.picture_distances(other, original).min() > 0.15


@pytest.mark.parametrize("zoom", [0.9, 0.93, 1.07, 1.1])
def test_picture_distance_ignores_zoom(zoom: float) -> None:
    own, side = grey(5, 3), 32 / zoom
    spare = np.pad(own, ((0, 0), (4, 4), (4, 4)), mode="edge")
    box = (20 - side / 2, 20 - side / 2, 20 + side / 2, 20 + side / 2)
    zoomed = np.stack([Image.fromarray(one).resize((32, 32), Image.Resampling.BICUBIC, box) for one in spare])
    distances = likeness.picture_distances(faces(5, 3, zoomed), faces(5, 3))
    assert np.diag(distances).max() < 0.1 and (distances + np.eye(5)).min() > 0.15


def test_thresholds_are_quantiles_over_different_people() -> None:
    train, people = faces(40, 5), np.arange(40) // 2
    train.identity[1::2] = train.identity[::2]  # two pictures each of 20 people
    found = calibrate(train, people, 0.05)
    distances = identity_distances(train, train)
    pairs = distances[np.triu_indices(40, 1)][(people[:, None] != people)[np.triu_indices(40, 1)]]
    assert found.identity == pytest.approx(np.quantile(pairs, 0.05))
    assert np.mean(pairs < found.identity) == pytest.approx(0.05, abs=0.01)
    wider = calibrate(train, np.where(np.arange(40) < 4, -1, people), 0.05)
    assert wider.identity == pytest.approx(found.identity, rel=0.2)


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(StylebotError, match="0 pairs of different people, 100 are"):
        calibrate(faces(30, 6), np.zeros(30, int), 0.01)
    with pytest.raises(StylebotError, match="pairs of different people"):
        calibrate(faces(30, 6), np.full(30, -1), 0.01)


def test_large_sets_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    train, people = faces(60, 7), np.arange(60)
    whole = calibrate(train, people, 0.01)
    monkeypatch.setattr(likeness, "_MOST", 40)
    part = calibrate(train, people, 0.01)
    again = calibrate(train, people, 0.01)
    assert part.identity == again.identity != whole.identity and part.picture == again.picture
    assert part.identity == pytest.approx(whole.identity, rel=0.1)


def test_chance_is_the_share_of_strangers_that_are_nearer() -> None:
    distances = RNG(1).uniform(0, 1, 20_000)
    flat, steep = (likeness._chance(distances, falls) for falls in (False, True))
    at = np.array([0.01, 0.1, 0.5])
    assert np.allclose(flat.below(at), at, rtol=0.15) and np.allclose(steep.below(at), at, rtol=0.15)
    assert flat.below(np.array(0.0)) == flat.below(distances.min()) == pytest.approx(1 / 20_000)
    assert steep.power == pytest.approx(1, abs=0.2) and steep.below(distances.min() / 100) < 1e-6
    assert (np.diff(steep.below(np.linspace(0, 1, 500))) >= 0).all()


@pytest.mark.parametrize("count", [1, 250, 50_000])
def test_the_false_alarm_rate_is_kept(count: int) -> None:
    """The share of pairs of uniform numbers with so small a product, times the faces, is the rate."""
    limit = limits(0.01).copy_limit(count)
    assert count * limit * (1 - np.log(limit)) == pytest.approx(0.01)
    if count == 1:
        products = RNG(0).random(400_000) * RNG(1).random(400_000)
        assert np.mean(products < limit) == pytest.approx(0.01, rel=0.1)


def test_a_copy_is_near_one_face_by_both_looks_together(monkeypatch: pytest.MonkeyPatch) -> None:
    train = faces(30, 8)
    identity, luminance = RNG(9).normal(size=(4, 128)).astype(np.float32), grey(4, 9)
    identity /= np.linalg.norm(identity, axis=1, keepdims=True)
    own = grey(30, 8)
    identity[0], luminance[0] = train.identity[3], own[3, :, ::-1]  # a mirrored copy of 3
    identity[1] = train.identity[4]  # the person of 4, another picture
    luminance[2] = own[5]  # the very picture of 5, whatever the recogniser says
    probe = likeness.prepare(luminance, identity, grey(400, 0).mean(0))
    for block in (1024, 3):
        monkeypatch.setattr(likeness, "_BLOCK", block)
        found = nearest(probe, train, limits())
        assert found.copy.tolist() == [True, False, True, False]
        assert found.copy_at[:3].tolist() == [3, 4, 5] and found.identity_at[:2].tolist() == [3, 4]
        assert found.picture_at[[0, 2]].tolist() == [3, 5]
        assert (found.identity[:2] < 1e-3).all() and (found.picture[[0, 2]] < 0.05).all()


def test_person_and_softer_likeness_of_two_different_faces_are_no_copy() -> None:
    train, own = faces(30, 8), grey(30, 8)
    softer = own[3:4] + RNG(4).normal(0, 40, (1, 8, 8)).repeat(4, 1).repeat(4, 2)
    alone = likeness.prepare(softer, train.identity[4:5], grey(400, 0).mean(0))
    both = likeness.prepare(softer, train.identity[3:4], grey(400, 0).mean(0))
    assert 0.05 < likeness.picture_distances(alone, train)[0, 3] < 0.5
    assert not nearest(alone, train, limits()).copy[0]
    assert nearest(both, train, limits(0.05)).copy[0]


def test_share_has_an_exact_interval() -> None:
    assert share(np.zeros(100, bool)) == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 100)))
    value, low, high = share(np.arange(100) < 20)
    assert (value, low, high) == (0.2, pytest.approx(0.1267, abs=1e-3), pytest.approx(0.2918, abs=1e-3))


def test_how_many_people_a_generator_makes() -> None:
    pool = faces(25, 10).identity
    drawn = pool[RNG(11).integers(0, 25, 600)]
    made = Faces(drawn, drawn, drawn, drawn[0])
    assert people_made(made, 0.3)[0] == pytest.approx(25, rel=0.1)
    assert people_made(Faces(pool, pool, pool, pool[0]), 0.3) == (float("inf"), 100, float("inf"))


def test_the_interval_of_people_holds_how_many_there_are() -> None:
    """Of 95 % intervals at least 90 %, with few coincidences (300 people) and with many (25)."""
    for count, drawn in ((25, 60), (300, 150)):
        pool, held = np.eye(count, dtype=np.float32), []
        for seed in range(60):
            who = pool[RNG(seed).integers(0, count, drawn)]
            _, low, high = people_made(Faces(who, who, who, who[0]), 0.3)
            held.append(low <= count <= high)
        assert np.mean(held) >= 0.9, (count, np.mean(held))
