"""Who is who: identities clustered from embeddings, with further signals where distance alone is unsure."""

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from stylebot.errors import StylebotError

MOST = 20_000  # distances of 20,000 faces are 1.6 GB twice; more need approximate neighbours
_SURE = 0.22  # nearer pairs are one person even in a region that the recogniser hardly tells apart
_TOLD_APART = 0.6  # median distance from which the recogniser tells a region's people apart by itself
_KNOWN_FACES, _KNOWN_VARIETY = 100, 12.0  # from here the region's statistics are known (about 20 people)
_SHRINKAGE = 3.0
_APART = 1e6  # keeps two clusters apart however many near pairs it is averaged with


def contrast(embeddings: np.ndarray) -> tuple[np.ndarray, float]:
    """Distances 0-2 of embeddings [N,128] in the region's own terms, condensed [N(N-1)/2]; and its variety.

    What all faces here have in common is taken off, and directions in which they differ much count less:
    cosine distance after subtracting the mean and dividing by roots of the covariance's shrunk eigenvalues.
    The variety is the participation ratio of the eigenvalues: how many directions the faces differ in. Ours.
    """
    centred = embeddings - embeddings.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(centred.T))
    values = values.clip(0)
    whitened = centred @ vectors / np.sqrt(values + _SHRINKAGE * values.mean() + 1e-12)
    variety = float(values.sum() ** 2 / max(float((values**2).sum()), 1e-24))
    return pdist(whitened, "cosine"), variety


def distances(embeddings: np.ndarray, max_distance: float, max_contrast: float) -> np.ndarray:
    """Condensed distances, 1 at the limit, of embeddings [N,128]; N at least 2.

    dlib's Euclidean distance over `max_distance`. Where it is unsure, the `contrast` over `max_contrast` must
    be small too: where the region's statistics are known, or its people look alike to dlib, whose 0.6 merges
    many different East Asians. Pairs nearer than 0.22 are one person anyway. Ours.
    """
    embeddings = embeddings.astype(np.float64)
    plain = pdist(embeddings)
    told, variety = contrast(embeddings)
    known = len(embeddings) >= _KNOWN_FACES and variety >= _KNOWN_VARIETY
    if not known and float(np.median(plain)) > _TOLD_APART:
        return plain / max_distance
    both = np.maximum(plain / max_distance, told / max_contrast)
    return np.minimum(both, plain / min(_SURE, max_distance))


def cluster(embeddings: np.ndarray, photos: Sequence[str], max_distance: float,
            max_contrast: float) -> np.ndarray:
    """Identity int [N], numbered by first appearance, of faces with embeddings [N,128] in given photos.

    Average linkage of `distances`, cut at 1: single links would chain a region's people to one. Two faces in
    one photo are two people, however near their embeddings. Raises StylebotError beyond 20,000 faces.
    """
    count = len(embeddings)
    if count > MOST:
        raise StylebotError(f"identities of {count} faces: at most {MOST} can be clustered in one run")
    if count < 2:
        return np.zeros(count, dtype=np.int64)
    apart = distances(embeddings, max_distance, max_contrast)
    together: dict[str, list[int]] = {}
    for index, photo in enumerate(photos):
        together.setdefault(photo, []).append(index)
    for members in together.values():
        for position, i in enumerate(members):
            for j in members[position + 1 :]:
                apart[count * i - i * (i + 1) // 2 + j - i - 1] = _APART
    labels = fcluster(linkage(apart, "average"), 1.0, "distance")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
