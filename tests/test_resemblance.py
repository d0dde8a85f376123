"""More looks at how near pictures are: against slow second implementations, and on planted copies."""

import io
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist
from test_audit import photos

from stylebot import audit as stage
from stylebot import resemblance
from stylebot.dataset import Dataset, write_dataset
from stylebot.likeness import pairs_apart
from stylebot.resemblance import Look, feature_distances, hash_bits, hashes, nearest_by, rows_of


def jpeg(rgb: np.ndarray) -> np.ndarray:
    """The picture [R, R, 3] uint8 after JPEG of quality 60."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer))


def test_bits_are_counted_straight_and_mirrored() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**63, (5, 2), np.uint64), rng.integers(0, 2**63, (7, 2), np.uint64)
    slow = [[min(bin(int(x) ^ int(other[0])).count("1") for x in one) for other in b] for one in a]
    assert hash_bits(a, b).tolist() == slow


def test_features_are_apart_by_their_euclidean_distance() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(6, 9)), rng.normal(size=(4, 9))
    np.testing.assert_allclose(feature_distances(a, b), cdist(a, b), rtol=1e-12)


def test_rows_are_quantiles_of_the_nearest_and_of_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    known = {kind: rng.normal(size=(n, 3)) for kind, n in (("training", 9), ("heldout", 5), ("generated", 4))}
    people = np.array([0, 0, 1, 2, 2, -1, 3, 3, 4])
    look = Look("far", known, cdist)
    monkeypatch.setattr(resemblance, "_BLOCK", 2)
    near = {kind: nearest_by(look, kind) for kind in ("generated", "heldout")}
    rows = rows_of(look, {kind: distances for kind, (distances, _) in near.items()}, pairs_apart(people))
    found = {row[1]: row[2:] for row in rows}
    train = known["training"]
    strangers = [np.linalg.norm(train[i] - train[j]) for i, j in combinations(range(9), 2)
                 if -1 not in (people[i], people[j]) and people[i] != people[j]]  # fmt: skip
    wanted = {kind: [min(np.linalg.norm(t - x) for t in train) for x in known[kind]]
              for kind in ("generated", "heldout")} | {"strangers": strangers}  # fmt: skip
    assert found.keys() == wanted.keys()
    for kind, distances in wanted.items():
        np.testing.assert_allclose(found[kind], np.quantile(distances, [0.5, 0.05, 0.95]))
    assert near["generated"][1].tolist() == cdist(known["generated"], train).argmin(1).tolist()


def test_planted_copies_are_nearest_to_their_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_file: Callable[[str], Path]
) -> None:
    """By hash all copies, new faces are farther; by Inception those not mirrored, yet JPEG moves them far."""
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    every = photos()
    for name, rgbs in (("training", every[:24]), ("heldout", every[24:30])):
        write_dataset(tmp_path / f"{name}.zip", rgbs)
    real = {name: Dataset(tmp_path / f"{name}.zip") for name in ("training", "heldout")}
    copies = [every[0], *(jpeg(rgb) for rgb in every[1:3])] + [jpeg(rgb[:, ::-1]) for rgb in every[3:6]]
    pictures = {"training": every[:24], "heldout": every[24:30], "generated": copies + every[30:36]}
    bits, features = stage.second_looks(pictures, model_file("inception.pt"), real)
    names = real["training"].names
    by_hash, by_features = (nearest_by(look, "generated") for look in (bits, features))
    assert [names[i] for i in by_hash[1][:6]] == names[:6]
    assert max(by_hash[0][:6]) <= 8 < min(by_hash[0][6:])
    assert [names[i] for i in by_features[1][:3]] == names[:3]
    assert by_features[0][0] < 0.2 < 5 < min(by_features[0][1:])
    assert np.array_equal(hashes(every[:2])[:, 0], hashes([rgb[:, ::-1] for rgb in every[:2]])[:, 1])
