"""What JPEG does to pictures, as tensor operations: the loss of quality without the file."""

import math
from functools import cache

import torch
import torch.nn.functional as F

_SIDE = 8
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


@cache
def _cosines() -> torch.Tensor:
    """The orthonormal DCT-II matrix [8, 8]: rows are frequencies."""
    k, n = torch.arange(_SIDE)[:, None], torch.arange(_SIDE)
    matrix = torch.cos(math.pi * (2 * n + 1) * k / (2 * _SIDE)) * math.sqrt(2 / _SIDE)
    matrix[0] /= math.sqrt(2)
    return matrix


def tables(quality: torch.Tensor, base: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    """Quantisation steps [N, 8, 8], whole numbers 1..255, for qualities [N], 1..100.

    Source: ITU-T T.81, tables K.1 and K.2, scaled as the Independent JPEG Group's library does.
    """
    q = quality.double().round().clamp(1, 100)
    scale = torch.where(q < 50, torch.floor(5000 / q), 200 - 2 * q)
    steps = torch.tensor(base, dtype=torch.float64, device=q.device)
    return torch.floor((steps * scale[:, None, None] + 50) / 100).clamp(1, 255).float()


def _coded(plane: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """plane [N, H, W], 0..255, after its blocks' frequencies were rounded to `steps` [N, 8, 8]."""
    n, height, width = plane.shape
    pad = (0, -width % _SIDE, 0, -height % _SIDE)
    whole = F.pad(plane[:, None], pad, mode="replicate")[:, 0] - 128
    rows, columns = whole.shape[1] // _SIDE, whole.shape[2] // _SIDE
    blocks = whole.reshape(n, rows, _SIDE, columns, _SIDE).transpose(2, 3)
    cosines, steps = _cosines().to(plane.device), steps[:, None, None]
    found = torch.round(cosines @ blocks @ cosines.T / steps) * steps
    back = (cosines.T @ found @ cosines).transpose(2, 3).reshape(whole.shape)
    return (back + 128).round().clamp(0, 255)[:, :height, :width]


def jpeg(rgb: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Pictures as a JPEG file of the given quality gives them back, whole levels 0..255, float32.

    rgb [N, 3, H, W] float, levels 0..255; quality [N], 1..100. Colours have half the resolution (4:2:0), as
    in nearly every photo; they come back by a triangle filter.
    Source: ITU-T T.81, T.871 (JFIF).
    """
    to_ycc, to_rgb = (torch.tensor(m, device=rgb.device) for m in (_TO_YCC, _TO_RGB))
    height, width = rgb.shape[2:]
    ycc = torch.einsum("cd,ndhw->nchw", to_ycc, rgb.float())
    y = _coded(ycc[:, 0].round(), tables(quality, _LUMINANCE))
    even = F.pad(ycc[:, 1:] + 128, (0, width % 2, 0, height % 2), mode="replicate").round()
    half = F.avg_pool2d(even, 2).round().flatten(0, 1)
    coded = _coded(half, tables(quality, _CHROMINANCE).repeat_interleave(2, 0))
    colours = F.interpolate(coded[:, None], scale_factor=2, mode="bilinear", align_corners=False)
    colours = colours.reshape(len(rgb), 2, *colours.shape[2:])[..., :height, :width].round() - 128
    back = torch.einsum("cd,ndhw->nchw", to_rgb, torch.cat([y[:, None], colours], 1))
    return back.round().clamp(0, 255)
