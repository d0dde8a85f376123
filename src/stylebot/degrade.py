"""Small pictures out of large ones and back, as super-resolution is trained and measured."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def to_img(rgb: torch.Tensor) -> torch.Tensor:
    """`rgb` uint8 of any shape as float32 in [-1,1]."""
    return rgb.float() / 127.5 - 1


def to_rgb(img: torch.Tensor) -> torch.Tensor:
    """`img` float of any shape, [-1,1] (clipped), as uint8."""
    return ((img + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def resize(img: torch.Tensor, px: int, mode: str = "bicubic") -> torch.Tensor:
    """`img` [N,C,H,H] to [N,C,px,px], antialiased, clipped to [-1,1]; bicubic has a = -0.5 (Pillow)."""
    if img.shape[2] == px:
        return img
    return F.interpolate(img, (px, px), mode=mode, align_corners=False, antialias=True).clamp(-1, 1)


def shrink(img: torch.Tensor, factor: int) -> torch.Tensor:
    """`img` [N,C,R,R] float, [-1,1] made `factor` times smaller, to 8 bit: [N,C,R/factor,R/factor]."""
    return to_img(to_rgb(resize(img, img.shape[2] // factor)))


def degrade(img: torch.Tensor, factors: Sequence[int]) -> torch.Tensor:
    """Each picture of `img` [N,C,R,R] shrunk by its own factor (1: untouched) and enlarged again, bilinearly.

    Source: Richardson et al. 2021 (pSp), the published super-resolution recipe; borders are Pillow's.
    """
    out = img.clone()
    for factor in sorted(set(factors) - {1}):
        here = [i for i, f in enumerate(factors) if f == factor]
        out[here] = resize(shrink(img[here], factor), img.shape[2], "bilinear")
    return out
