"""Who is who: identities clustered from embeddings, with further signals where distance alone is unsure."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MOST = 10_000  # faces clustered at once: their distances are 400 MB, and twice that while they are linked
_SURE = 0.22  # nearer pairs are one person even in a region that the recogniser hardly tells apart
_TOLD_APART = 0.6  # median distance from which the recogniser tells a region's people apart by itself
_KNOWN_FACES, _KNOWN_VARIETY = 100, 12.0  # from here the region's statistics are known (about 20 people)
_SHRINKAGE = 3.0
_APART = 1e6  # keeps two clusters apart however many near pairs it is averaged with
_ROWS = 512  # rows of distances at once: 512 x 50,000 are 200 MB, and a few times that on the way
_SAMPLE = 2000  # faces whose median distance stands for all
_TIGHTER = 0.85  # factor of the limit at which a chain of too many faces is cut into pieces


def contrast(embeddings: np.ndarray) -> tuple[np.ndarray, float]:
    """Directions of embeddings [N,128] in the region's own terms, unit length [N,128]; and their variety.

    What all faces here have in common is taken off, and directions in which they differ much count less:
    the mean is subtracted, roots of the covariance's shrunk eigenvalues divide. 1 minus a dot product is a
    cosine distance 0-2. The variety is the participation ratio of the eigenvalues: how many directions the
    faces differ in. Ours.
    """
    centred = embeddings - embeddings.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(centred.T))
    values = values.clip(0)
    whitened = centred @ vectors / np.sqrt(values + _SHRINKAGE * values.mean() + 1e-12)
    lengths = np.linalg.norm(whitened, axis=1, keepdims=True)
    variety = float(values.sum() ** 2 / max(float((values**2).sum()), 1e-24))
    return whitened / np.maximum(lengths, 1e-12), variety


def _euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances [n,m] of rows [n,128] and [m,128]."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * (a @ b.T)
    return np.sqrt(squares.clip(0))


class Distances:
    """Distances of faces with embeddings [N,128], N at least 2; 1 is the limit of one person.

    dlib's Euclidean distance over `max_distance`. Where it is unsure, the `contrast` over `max_contrast` must
    be small too: where the region's statistics are known, or its people look alike to dlib, whose 0.6 merges
    many different East Asians. Pairs nearer than 0.22 are one person anyway. Two faces in one photo are two
    people, however near. Ours.
    """

    def __init__(self, embeddings: np.ndarray, photos: Sequence[str], max_distance: float,
                 max_contrast: float) -> None:
        self._embeddings = embeddings.astype(np.float64)
        self._directions, variety = contrast(self._embeddings)
        self._photos = np.unique(np.array(photos), return_inverse=True)[1]
        self._max_distance, self._max_contrast = max_distance, max_contrast
        some = self._embeddings[:: -(-len(embeddings) // _SAMPLE)]
        median = float(np.median(_euclidean(some, some)[np.triu_indices(len(some), 1)]))
        known = len(embeddings) >= _KNOWN_FACES and variety >= _KNOWN_VARIETY
        self._plain = not known and median > _TOLD_APART

    def __len__(self) -> int:
        return len(self._embeddings)

    def between(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Distances [n,m] of the faces with indices a [n] and b [m]."""
        plain = _euclidean(self._embeddings[a], self._embeddings[b])
        if self._plain:
            apart = plain / self._max_distance
        else:
            told = (1.0 - self._directions[a] @ self._directions[b].T) / self._max_contrast
            apart = np.maximum(plain / self._max_distance, told)
            apart = np.minimum(apart, plain / min(_SURE, self._max_distance))
        apart[self._photos[a][:, None] == self._photos[b]] = _APART
        return apart

    def condensed(self, faces: np.ndarray) -> np.ndarray:
        """Distances of all pairs of `faces` [n], in scipy's order [n(n-1)/2]."""
        rows = []
        for first in range(0, len(faces), _ROWS):
            block = self.between(faces[first : first + _ROWS], faces[first:])
            rows += [block[i, i + 1 :] for i in range(len(block))]
        return np.concatenate(rows)


def _chains(apart: Distances, faces: np.ndarray, limit: float) -> list[np.ndarray]:
    """`faces` [n] in parts; faces of different parts are farther apart than `limit`. Memory grows with n."""
    part = np.arange(len(faces))
    for first in range(0, len(faces), _ROWS):
        i, j = np.nonzero(apart.between(faces[first : first + _ROWS], faces[first:]) <= limit)
        ends = np.unique(np.stack([part[i + first], part[j + first]]), axis=1)
        graph = coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(len(faces), len(faces)))
        part = connected_components(graph, directed=False)[1][part]
    order = np.argsort(part, kind="stable")
    return np.split(faces[order], np.flatnonzero(np.diff(part[order])) + 1)


def _parts(apart: Distances, faces: np.ndarray, limit: float = 1.0) -> Iterator[np.ndarray]:
    """Parts of `faces` that can be clustered one by one.

    Average linkage cut at 1 joins nobody across chains of pairs within 1, so nothing is lost by looking at
    the chains one by one. Only a chain of more than `MOST` faces is cut where its links are weakest, which
    may tell a person of very many faces twice.
    """
    for chain in _chains(apart, faces, limit):
        if len(chain) <= MOST:
            yield chain
        elif limit > 0.05:
            yield from _parts(apart, chain, limit * _TIGHTER)
        else:  # that near are copies only
            yield from np.array_split(chain, -(-len(chain) // MOST))


def cluster(embeddings: np.ndarray, photos: Sequence[str], max_distance: float,
            max_contrast: float) -> np.ndarray:
    """Identity int [N], numbered by first appearance, of faces with embeddings [N,128] in given photos.

    Average linkage of `Distances`, cut at 1: single links would chain a region's people to one. Time grows
    with N squared (matrix products: minutes for 50,000 faces), memory with N.
    """
    count = len(embeddings)
    if count < 2:
        return np.zeros(count, dtype=np.int64)
    apart = Distances(embeddings, photos, max_distance, max_contrast)
    labels = np.zeros(count, dtype=np.int64)
    used = 0
    for part in _parts(apart, np.arange(count)):
        found = fcluster(linkage(apart.condensed(part), "average"), 1.0, "distance") if len(part) > 1 else [1]
        labels[part] = used + np.asarray(found)
        used += int(np.max(found))
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
