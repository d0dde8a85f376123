"""The randomness of augmentation, drawn before it is used: one row of numbers per sample."""

from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

# Columns of Draws: first the values, then the gates ("is it applied?"), which are named with a question mark.
UNIFORM = {name: i for i, name in enumerate((
    "xflip", "rotate90", "xint_x", "xint_y", "rotate_pre", "rotate_post", "lumaflip", "hue", "cutout_x",
    "cutout_y", "xflip?", "rotate90?", "xint?", "scale?", "rotate_pre?", "aniso?", "rotate_post?", "xfrac?",
    "brightness?", "contrast?", "lumaflip?", "hue?", "saturation?", "imgfilter0?", "imgfilter1?",
    "imgfilter2?", "imgfilter3?", "noise?", "cutout?"))}
NORMAL = {name: i for i, name in enumerate((
    "scale", "aniso", "xfrac_x", "xfrac_y", "brightness", "contrast", "saturation", "imgfilter0",
    "imgfilter1", "imgfilter2", "imgfilter3", "noise"))}


class Draws(NamedTuple):
    """Everything random about one batch; rows belong to samples, so a slice is the draws of those samples.

    uniform [N, len(UNIFORM)] float64 in [0, 1); normal [N, len(NORMAL)] float64; pixels [N, C, H, W] or None
    """

    uniform: np.ndarray
    normal: np.ndarray
    pixels: Tensor | None

    def u(self, name: str) -> np.ndarray:
        """Column `name` of `uniform`, [N]."""
        return self.uniform[:, UNIFORM[name]]

    def n(self, name: str) -> np.ndarray:
        """Column `name` of `normal`, [N]."""
        return self.normal[:, NORMAL[name]]

    def rows(self, which: slice | np.ndarray) -> Self:
        """The draws of some of the samples, such as one rank's share of the global batch."""
        pixels = None if self.pixels is None else self.pixels[which]
        return Draws(self.uniform[which], self.normal[which], pixels)


def random_draws(shape: tuple[int, ...], generator: torch.Generator | None, pixels: bool) -> Draws:
    """Draws for a batch of `shape` [N, C, H, W]: a function of the generator's state (None: torch's own)."""
    where = generator.device if generator is not None else torch.device("cpu")
    uniform = torch.rand(shape[0], len(UNIFORM), generator=generator, device=where, dtype=torch.float64)
    normal = torch.randn(shape[0], len(NORMAL), generator=generator, device=where, dtype=torch.float64)
    noise = torch.randn(shape, generator=generator, device=where) if pixels else None
    return Draws(uniform.cpu().numpy(), normal.cpu().numpy(), noise)


def percentile_draws(percentile: float, shape: tuple[int, ...], pixels: Tensor | None) -> Draws:
    """Draws that apply everything, each at `percentile` of its distribution (to compare implementations)."""
    uniform = np.full((shape[0], len(UNIFORM)), float(percentile))
    uniform[:, UNIFORM["rotate_post"]] = 0.5
    for name, column in UNIFORM.items():
        if name.endswith("?"):
            uniform[:, column] = -1.0
    quantile = torch.tensor(2 * percentile - 1, dtype=torch.float64).erfinv().item()
    normal = np.full((shape[0], len(NORMAL)), quantile)
    normal[:, NORMAL["noise"]] = torch.tensor(percentile, dtype=torch.float64).erfinv().item()
    return Draws(uniform, normal, pixels)
