"""Orthogonal wavelets as plain matrices: mirrored doubling and halving of a row, and octave filters.

Applied from both sides of a picture, `M_y @ img @ M_x.T`, a matrix does padding and filtering in one product,
is differentiable any number of times, and on a CPU is several times faster than padding and convolving.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# Daubechies' least asymmetric orthogonal wavelets' low-pass filters (sum √2): sym6 and sym2.
SYM6 = np.array([0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
                 0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
                 -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148])
SYM2 = np.array([1 - math.sqrt(3), 3 - math.sqrt(3), 3 + math.sqrt(3), 1 + math.sqrt(3)]) / (4 * math.sqrt(2))


def _reflected(index: np.ndarray, length: int) -> np.ndarray:
    """Where `index` lands in a row of `length` samples continued by mirroring about its end samples."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index)


def upsampling(length: int, before: int, after: int) -> np.ndarray:
    """Matrix [2 (before + length + after), length]: mirror-pad a row, then double its rate with sym6."""
    padded = before + length + after
    out = np.zeros((2 * padded, length))
    k = np.arange(2 * padded)
    for tap, weight in enumerate(SYM6 * math.sqrt(2)):  # sum 2 over all taps: gain 1 after zero-stuffing
        source = k + len(SYM6) // 2 - 1 - tap
        on = (source % 2 == 0) & (source >= 0) & (source < 2 * padded)
        np.add.at(out, (k[on], _reflected(source[on] // 2 - before, length)), weight)
    return out


def downsampling(length: int) -> np.ndarray:
    """Matrix [length, 2 (length + 6)]: filter with sym6 mirrored, drop every other sample and the rims."""
    out = np.zeros((length, 2 * length + len(SYM6)))
    k = np.arange(length)
    for tap, weight in enumerate(SYM6 / math.sqrt(2)):
        out[k, 2 * k + 1 + tap] = weight
    return out


def octave_bands() -> np.ndarray:
    """Four zero-phase filters [4, 43] that split a signal into octaves, low to high; they sum to an impulse.

    Bands of an undecimated sym2 tree: with L = |low-pass|²/2, H = |high-pass|²/2 as polynomials in z, bands
    1…3 are H(z^m) · Π L(z^j) at m = 4, 2, 1 (j: the smaller powers of two), band 0 is L(z) L(z²) L(z⁴).
    """
    low = np.convolve(SYM2, SYM2[::-1]) / 2
    high = low * (-1.0) ** (np.arange(len(low)) - len(low) // 2)

    def spread(taps: np.ndarray, step: int) -> np.ndarray:
        out = np.zeros((len(taps) - 1) * step + 1)
        out[::step] = taps
        return out

    out = np.zeros((4, 1 + (len(low) - 1) * 7))
    path, centre = np.ones(1), out.shape[1] // 2
    for band, step in ((3, 1), (2, 2), (1, 4)):
        taps = np.convolve(path, spread(high, step))
        out[band, centre - len(taps) // 2: centre + len(taps) // 2 + 1] = taps
        path = np.convolve(path, spread(low, step))
    out[0] = path
    return out


@lru_cache(maxsize=4)
def _band_matrices(length: int) -> np.ndarray:
    """[4, length, length]: each octave filter on a mirror-continued row."""
    bands = octave_bands()
    out, k, half = np.zeros((4, length, length)), np.arange(length), bands.shape[1] // 2
    for tap in range(bands.shape[1]):
        for band in range(4):
            np.add.at(out[band], (k, _reflected(k + tap - half, length)), bands[band, tap])
    return out


@lru_cache(maxsize=16)
def matrix(kind: str, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The constant matrices, made once per picture size."""
    make = {"up": lambda n: upsampling(n, n - 1, n - 1), "down": downsampling, "bands": _band_matrices}[kind]
    return torch.as_tensor(make(length), dtype=dtype, device=device)
