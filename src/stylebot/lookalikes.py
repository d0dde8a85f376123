"""The training faces that new ones are compared with, and what the audit learnt to tell likeness by."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from stylebot.dataset import Dataset
from stylebot.errors import StylebotError
from stylebot.faces import Identity
from stylebot.files import Memo, atomic, sha256_file
from stylebot.likeness import Chance, Thresholds, luminance, nearest, prepare
from stylebot.parquet import read_table

_BATCH = 16
_VERSION = 1  # of what is remembered; raise it when the same faces give other identities
_GUARD = ("pack/dataset.zip", "fetch/identity.dat", "audit/limits.npz")
_CURVES = ("by_identity", "by_picture")


def embed(identity: Identity, sha256: str, rgbs: Sequence[np.ndarray], title: str, keep: bool) -> np.ndarray:
    """Identities [N, 128] of rgbs, each [H, W, 3] uint8; with `keep` remembered by pixels and model."""
    memo = Memo("identities", {"model": sha256, "version": _VERSION})
    rows = np.zeros((len(rgbs), 128), np.float32)
    for start in track(range(0, len(rgbs), _BATCH), title):
        part = range(start, min(start + _BATCH, len(rgbs)))
        keys = {i: hashlib.sha256(str(rgbs[i].shape).encode() + rgbs[i].tobytes()).hexdigest() for i in part}
        known = {i: content for i in part if keep and (content := memo.get(keys[i])) is not None}
        absent = [i for i in part if i not in known]
        for i, row in zip(absent, identity.embed([rgbs[i] for i in absent]) if absent else [], strict=True):
            rows[i] = row
            if keep:
                memo.put(keys[i], row.astype("<f4").tobytes())
        for i, content in known.items():
            rows[i] = np.frombuffer(content, "<f4")
    return rows


def as_rgb(data: Dataset) -> list[np.ndarray]:
    """The dataset's pictures, each [R, R, 3] uint8."""
    shape = (3, data.resolution, data.resolution)
    planes = (np.broadcast_to(data.read(i), shape) for i in range(len(data)))
    return [np.ascontiguousarray(rgb.transpose(1, 2, 0)) for rgb in planes]


def people_of(table: Path, data: Dataset) -> np.ndarray:
    """Who each training face shows, [N] int, from pack's table.

    Raises StylebotError when the table lists other faces.
    """
    rows = read_table(table, columns=["file", "split", "identity"])
    who = rows[rows["split"] == "train"].set_index("file")["identity"]
    if set(who.index) != set(data.names):
        raise StylebotError(f"{table} does not list the faces of {data.path}: run pack again")
    return who.loc[data.names].to_numpy()


def save_limits(path: Path, limits: Thresholds, dataset: str, identity: str) -> None:
    """Write the thresholds as .npz, with the dataset's fingerprint and the sha256 of the identity model."""
    arrays = {"numbers": np.array([limits.identity, limits.picture, limits.rate]),
              "made_with": np.array([dataset, identity])}  # fmt: skip
    for name in _CURVES:
        chance = getattr(limits, name)
        arrays |= {f"{name}_distances": chance.distances, f"{name}_probabilities": chance.probabilities,
                   f"{name}_power": np.array(chance.power)}  # fmt: skip
    with atomic(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def read_limits(path: Path, dataset: str, identity: str) -> Thresholds:
    """What `save_limits` wrote.

    Raises StylebotError for a missing or damaged file, and for one made with another dataset or model.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            made_with = file["made_with"].tolist()
            identity_at, picture_at, rate = file["numbers"].tolist()
            curves = {name: Chance(file[f"{name}_distances"], file[f"{name}_probabilities"],
                                   float(file[f"{name}_power"])) for name in _CURVES}  # fmt: skip
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise StylebotError(f"{path} is not what `dvc repro audit` writes ({error}); run it again") from None
    if made_with != [dataset, identity]:
        raise StylebotError(f"{path} was made with another training set or identity model: audit again")
    return Thresholds(identity_at, picture_at, rate=rate, **curves)


class Guard:
    """Tells new faces from those that are too near to somebody in the training set.

    `stages` holds pack/dataset.zip, fetch/identity.dat and audit/limits.npz.
    Raises StylebotError when one is missing, and when the audit does not belong to this training set.
    """

    def __init__(self, stages: Path) -> None:
        dataset, identity, limits = (stages / name for name in _GUARD)
        missing = [str(path) for path in (dataset, identity, limits) if not path.exists()]
        if missing:
            raise StylebotError(f"--audited needs {', '.join(missing)}; `dvc repro audit` brings it")
        training = Dataset(dataset)
        self._sha256 = sha256_file(identity)
        self.limits = read_limits(limits, training.fingerprint, self._sha256)
        self._model = Identity(identity)
        rgbs = as_rgb(training)
        who = embed(self._model, self._sha256, rgbs, "who: training faces", keep=True)
        grey = np.stack([luminance(rgb) for rgb in rgbs])
        self._mean = grey.mean(0)
        self._training = prepare(grey, who, self._mean)

    def too_near(self, rgbs: Sequence[np.ndarray]) -> np.ndarray:
        """Whether each of rgbs [H, W, 3] uint8 is to be withheld, [N] bool.

        It is when its nearest training identity is under the audit's threshold, or when it is a copy.
        """
        grey = np.stack([luminance(rgb) for rgb in rgbs])
        faces = prepare(grey, self._model.embed(list(rgbs)), self._mean)
        near = nearest(faces, self._training, self.limits)
        return (near.identity < self.limits.identity) | near.copy
