"""More looks at how near pictures are: bits of perceptual hashes, and distances of Inception features.

They stand beside the audit's verdict, which `likeness` gives: neither takes off what all faces share.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stylebot.duplicates import perceptual_hash

SHARES = (0.5, 0.05, 0.95)  # the quantiles that tables hold: value, low, high
_BLOCK = 1024  # faces compared at once with the whole training set


@dataclass(frozen=True)
class Look:
    """One way to compare: what is known of each kind of faces, and how far two of them are apart.

    known: by kind ("training", "heldout", "generated") one row per face; apart: of rows [N, …] and [M, …],
    distances [N, M]
    """

    name: str
    known: Mapping[str, np.ndarray]
    apart: Callable[[np.ndarray, np.ndarray], np.ndarray]


def hashes(rgbs: Sequence[np.ndarray]) -> np.ndarray:
    """Perceptual hashes uint64 [N, 2] of faces [R, R, 3] uint8 and of their mirror images."""
    pairs = [(perceptual_hash(rgb), perceptual_hash(np.ascontiguousarray(rgb[:, ::-1]))) for rgb in rgbs]
    return np.array(pairs, np.uint64)


def hash_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Bits of 64 in which hashes [N, 2] and [M, 2] differ, straight or mirrored if better: uint8 [N, M]."""
    return np.minimum(*(np.bitwise_count(a[:, side, None] ^ b[None, :, 0]) for side in (0, 1)))


def feature_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances [N, M] of features [N, D] and [M, D]."""
    squared = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0))


def nearest_by(look: Look, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each face of `kind` the distance to the nearest training face, and which that is: [N] and [N]."""
    faces, found = look.known[kind], []
    for start in range(0, len(faces), _BLOCK):
        apart = look.apart(faces[start : start + _BLOCK], look.known["training"])
        found.append((apart.min(1), apart.argmin(1)))
    return tuple(np.concatenate(column) for column in zip(*found, strict=True))


def rows_of(
    look: Look, near: Mapping[str, np.ndarray], different: tuple[np.ndarray, np.ndarray]
) -> list[tuple]:
    """(name, faces, median, low, high) of the distances to the nearest training face, and of strangers'.

    near: by kind the distances [N] that `nearest_by` found
    different: some training faces, and which pairs of them show two people (`likeness.pairs_apart`)
    """
    rows = [(look.name, kind, *np.quantile(distances, SHARES)) for kind, distances in near.items()]
    some, pairs = different
    strangers = look.apart(look.known["training"][some], look.known["training"][some])[pairs]
    return [*rows, (look.name, "strangers", *np.quantile(strangers, SHARES))]

