"""Who is who: identities clustered from embeddings, with a second signal where the first is unsure."""

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from stylebot.errors import StylebotError

MOST = 30_000  # condensed distances of 30,000 faces are 3.6 GB; more need approximate neighbours
_APART = 1e6  # keeps two clusters apart however many near pairs it is averaged with


def cluster(embeddings: np.ndarray, photos: Sequence[str], max_distance: float) -> np.ndarray:
    """Identity int [N], numbered by first appearance, of faces with the given embeddings [N,128].

    Average linkage, cut where the mean distance between two clusters passes `max_distance`: single links
    would chain a region's people into one. The second signal: two faces in one photo (equal `photos`) are two
    people, however near their embeddings. dlib's own 0.6 merges many East Asians; 0.45 is where to start.
    Raises StylebotError beyond 30,000 faces.
    """
    count = len(embeddings)
    if count > MOST:
        raise StylebotError(f"identities of {count} faces: at most {MOST} can be clustered in one run")
    if count < 2:
        return np.zeros(count, dtype=np.int64)
    distances = pdist(embeddings.astype(np.float32))
    together: dict[str, list[int]] = {}
    for index, photo in enumerate(photos):
        together.setdefault(photo, []).append(index)
    for members in together.values():
        for position, i in enumerate(members):
            for j in members[position + 1 :]:
                distances[count * i - i * (i + 1) // 2 + j - i - 1] = _APART
    labels = fcluster(linkage(distances, "average"), max_distance, "distance")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
