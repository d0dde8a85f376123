"""Near duplicates among aligned faces: a perceptual hash finds candidates, the pixels decide."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

PRINT_PX = 48  # side of a fingerprint
_HASH_FRAME_PX, _HASH_SIDE = 32, 8
_BLOCK = 256  # rows compared at once: the differences of 256 x 50,000 hashes are 100 MB
_PAIRS = 4096  # pairs correlated at once: 75 MB


def _small(rgb: np.ndarray, side: int) -> np.ndarray:
    """Grey float32 [side,side] of `rgb` uint8 [N,N,3]."""
    grey = Image.fromarray(rgb).convert("L").resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(grey, np.float32)


def perceptual_hash(rgb: np.ndarray) -> int:
    """64 bits of an aligned face uint8 [N,N,3]: signs of its lowest cosine coefficients about the median.

    Unchanged but for a few bits by JPEG, resizing, brightness; the mirror image needs a hash of its own.
    Source: the DCT hash of pHash (Zauner 2010, 3.2).
    """
    low = dctn(_small(rgb, _HASH_FRAME_PX), norm="ortho")[: _HASH_SIDE, : _HASH_SIDE].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def fingerprint(rgb: np.ndarray) -> np.ndarray:
    """What copies of one photo share: float16 [48,48], of unit length, of an aligned face uint8 [N,N,3].

    Band-passed structure of the frame at 48 px, so that light, contrast and scale fall out; the dot product
    of two is their correlation, 1 for equal pictures. Ours.
    """
    grey = _small(rgb, PRINT_PX)
    band = gaussian_filter(grey, 0.7) - gaussian_filter(grey, 4.0)
    band -= band.mean()
    length = float(np.linalg.norm(band))
    return (band / length if length > 0 else band).astype(np.float16)  # a flat picture resembles nothing


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two fingerprints [48,48], one of them mirrored if it is better."""
    return float(_correlations(a[None], b[None])[0])


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float32 [n] of fingerprints [n,48,48] and [n,48,48]: the better of straight and mirrored."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    return np.maximum(np.einsum("nyx,nyx->n", a, b), np.einsum("nyx,nyx->n", a, b[..., ::-1]))


def candidate_pairs(hashes: np.ndarray, mirrored: np.ndarray, max_bits: int) -> np.ndarray:
    """Pairs i < j int64 [n,2] whose hashes, or hash and mirrored hash, differ in at most `max_bits` bits.

    hashes, mirrored: uint64 [N]. Exact; N^2 bit counts in blocks, so memory grows with N alone.
    """
    found = [np.empty((0, 2), np.int64)]
    for first in range(0, len(hashes), _BLOCK):
        rows = hashes[first : first + _BLOCK, None]
        near = (np.bitwise_count(rows ^ hashes[None]) <= max_bits) | (
            np.bitwise_count(rows ^ mirrored[None]) <= max_bits)
        i, j = np.nonzero(near)
        i = i + first
        found.append(np.stack([i, j], axis=1)[i < j])
    return np.concatenate(found)


def duplicate_groups(hashes: np.ndarray, mirrored: np.ndarray, prints: np.ndarray, max_bits: int,
                     min_correlation: float) -> np.ndarray:
    """Group number int [N] of each face: faces linked, directly or not, by being copies of one picture.

    hashes, mirrored: uint64 [N]; prints: fingerprints [N,48,48]
    A link needs both: hashes within `max_bits`, and fingerprints (one of them mirrored, if that fits better)
    correlated by at least `min_correlation`: two photos of one person on one day may pass the first alone.
    """
    pairs = candidate_pairs(hashes, mirrored, max_bits)
    linked = [np.empty(0, dtype=bool)]
    for first in range(0, len(pairs), _PAIRS):
        i, j = pairs[first : first + _PAIRS].T
        linked.append(_correlations(prints[i], prints[j]) >= min_correlation)
    return components(pairs[np.concatenate(linked)], len(hashes))


def components(pairs: np.ndarray, n: int) -> np.ndarray:
    """Number int [n] of the connected part of each of `n` things, given linked pairs [m,2]."""
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def best_of_groups(groups: np.ndarray, scores: Sequence[float]) -> np.ndarray:
    """Index int [N] of the best-scored face of each face's group; of equally good ones, the first."""
    scores = np.asarray(scores, np.float64)
    order = np.lexsort((np.arange(len(scores)), -scores, groups))
    first_of_group = order[np.unique(groups[order], return_index=True)[1]]
    best = dict(zip(groups[first_of_group].tolist(), first_of_group.tolist(), strict=True))
    return np.array([best[g] for g in groups.tolist()], dtype=np.int64)
