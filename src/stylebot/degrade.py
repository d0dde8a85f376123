"""Small pictures out of large ones and back, as super-resolution is trained and measured."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from stylebot.jpeg import jpeg

Degradation = Literal["bicubic", "photo"]

# What a photo's way through camera and network does to it; spans of even draws.
_BLUR_PX = (0.2, 1.2)  # sigma along either axis of the blur, in pixels of the small picture
_NOISE = (0.0, 15.0)  # standard deviation in levels of 255
_QUALITY = (60, 100)  # of JPEG
_KERNEL = 9
_REDUCERS = ("bicubic", "bilinear", "area")


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


def blurred(img: torch.Tensor, sigmas_px: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Each picture of `img` [N,C,H,W] under a Gaussian of its own, edges repeated.

    sigmas_px [N,2]: along the two axes of the Gaussian, which are turned by angles [N], radians.
    """
    n, c, _, _ = img.shape
    at = torch.arange(_KERNEL, device=img.device) - _KERNEL // 2
    y, x = (part.float() for part in torch.meshgrid(at, at, indexing="ij"))
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    u, v = x * cos + y * sin, y * cos - x * sin
    widths = 2 * sigmas_px.square()[..., None, None]
    kernels = torch.exp(-u.square() / widths[:, 0] - v.square() / widths[:, 1])
    kernels = (kernels / kernels.sum((1, 2), keepdim=True)).repeat_interleave(c, 0)[:, None]
    wide = F.pad(img, (_KERNEL // 2,) * 4, mode="replicate")
    return F.conv2d(wide.reshape(1, n * c, *wide.shape[2:]), kernels, groups=n * c).reshape(img.shape)


def _evenly(count: int, span: tuple[float, float], random: torch.Generator) -> torch.Tensor:
    return span[0] + (span[1] - span[0]) * torch.rand(count, generator=random)


def photographed(img: torch.Tensor, factor: int, random: torch.Generator) -> torch.Tensor:
    """`img` [N,3,R,R] float, [-1,1] as small pictures of the web, [N,3,R/factor,R/factor], 8 bit.

    Made smaller by one of three filters, blurred along one direction more than along the other, covered with
    noise (on every other picture the same in all colours), and saved as JPEG. What is drawn is a function of
    the state of `random`, a generator of the CPU, and, for the noise, of the kind of device. The blur is
    applied to the small picture: as the reducers are antialiased, it is the same and costs less.
    Source: Wang et al. 2021 (GFPGAN), the degradation model of training; the span of the blur is ours.
    """
    n, where, px = len(img), img.device, img.shape[2] // factor
    how = torch.randint(len(_REDUCERS), (n,), generator=random)
    sigmas = torch.stack([_evenly(n, _BLUR_PX, random), _evenly(n, _BLUR_PX, random)], 1).to(where)
    angles = _evenly(n, (0.0, math.pi), random).to(where)
    level = _evenly(n, _NOISE, random).to(where)[:, None, None, None]
    grey = (torch.rand(n, generator=random) < 0.5).to(where)[:, None, None, None]
    quality = torch.randint(_QUALITY[0], _QUALITY[1] + 1, (n,), generator=random).to(where)
    own = torch.Generator(where).manual_seed(int(torch.randint(2**62, (), generator=random)))
    small = img.new_empty(n, img.shape[1], px, px)
    for k, reducer in enumerate(_REDUCERS):
        here = (how == k).nonzero()[:, 0].to(where)
        if len(here):
            small[here] = _reduced(img[here], px, reducer)
    noise = torch.randn(small.shape, generator=own, device=where)
    noise = torch.where(grey, noise[:, :1], noise)
    levels = (blurred(small, sigmas, angles) + 1) * 127.5 + noise * level
    return jpeg(levels.round().clamp(0, 255), quality) / 127.5 - 1


def _reduced(img: torch.Tensor, px: int, how: str) -> torch.Tensor:
    return F.adaptive_avg_pool2d(img, px) if how == "area" else resize(img, px, how)


def reduced(img: torch.Tensor, factor: int, random: torch.Generator | None) -> torch.Tensor:
    """`img` [N,3,R,R] float, [-1,1] made smaller, 8 bit: by `shrink`, or with `random` as a photo."""
    return shrink(img, factor) if random is None else photographed(img, factor, random)


def degrade(img: torch.Tensor, factors: Sequence[int], random: torch.Generator | None = None) -> torch.Tensor:
    """Each picture of `img` [N,C,R,R] made smaller by its own factor and enlarged again, bilinearly.

    Without `random` by bicubic, and factor 1 leaves a picture as it is: the published recipe, with Pillow's
    borders. With `random` as a photo, and factor 1 blurs, disturbs and compresses at full size.
    Source: Richardson et al. 2021 (pSp), section 4.5; photo: see `photographed`.
    """
    out = img.clone()
    for factor in sorted(set(factors) - ({1} if random is None else set())):
        here = [i for i, f in enumerate(factors) if f == factor]
        out[here] = resize(reduced(img[here], factor, random), img.shape[2], "bilinear")
    return out
