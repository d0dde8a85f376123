"""What the audit learnt travels to the guard of generate, and only with its own training set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stylebot import lookalikes
from stylebot.dataset import Dataset, write_dataset
from stylebot.errors import StylebotError
from stylebot.files import sha256_file
from stylebot.likeness import Chance, Thresholds
from stylebot.lookalikes import Guard, read_limits, save_limits

LEVELS = np.geomspace(1e-3, 1, 20)
LIMITS = Thresholds(0.3, 0.1, Chance(0.3 + LEVELS, LEVELS, 0.0), Chance(0.1 + LEVELS, LEVELS, 4.5), 0.001)


class First:
    """Instead of dlib: the first 128 numbers of a picture."""

    def __init__(self, *_: object) -> None:
        pass

    def embed(self, rgbs: Sequence[np.ndarray]) -> np.ndarray:
        rows = np.stack([rgb.astype(np.float32).ravel()[:128] - 127.5 for rgb in rgbs])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(lookalikes, "Identity", First)
    write_dataset(tmp_path / "pack" / "dataset.zip", noises(20))
    (tmp_path / "fetch").mkdir()
    (tmp_path / "fetch" / "identity.dat").write_bytes(b"model")
    dataset = Dataset(tmp_path / "pack" / "dataset.zip").fingerprint
    model = sha256_file(tmp_path / "fetch" / "identity.dat")
    save_limits(tmp_path / "audit" / "limits.npz", LIMITS, dataset, model)
    return tmp_path


def noises(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8))


def test_limits_come_back(stages: Path) -> None:
    path = stages / "audit" / "limits.npz"
    back = read_limits(path, Dataset(stages / "pack" / "dataset.zip").fingerprint, sha256_file(
        stages / "fetch" / "identity.dat"))  # fmt: skip
    at = np.linspace(0, 1, 30)
    assert (back.identity, back.picture, back.rate) == (0.3, 0.1, 0.001)
    assert np.array_equal(back.by_identity.below(at), LIMITS.by_identity.below(at))
    assert np.array_equal(back.by_picture.below(at), LIMITS.by_picture.below(at))
    with pytest.raises(StylebotError, match="another training set or identity model"):
        read_limits(path, "other", "other")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StylebotError, match=r"limits\.npz is not what `dvc repro audit` writes"):
        read_limits(path, "", "")


def test_lookalikes_and_copies_are_too_near(stages: Path) -> None:
    guard, train, new = Guard(stages), noises(20), noises(3, 1)
    person = new[1].copy()
    person[:2] = train[4][:2]  # the identity of 4 in another picture
    copy = train[7].copy()
    copy[:2] = new[2][:2]  # the picture of 7 with another identity
    assert guard.too_near([new[0], person, copy]).tolist() == [False, True, True]


def test_what_is_missing_is_named(stages: Path) -> None:
    (stages / "audit" / "limits.npz").unlink()
    with pytest.raises(StylebotError, match=r"--audited needs .*limits\.npz; `dvc repro audit`"):
        Guard(stages)
