"""StyleGAN2's operations the plain way, as the baseline of the benchmarks: written for this purpose only.

Per-sample weights by grouped convolution, upsampling by stuffing zeros and convolving, stride by slicing,
gains and biases as passes of their own, NCHW memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from stylebot import ops


def _blur(x: Tensor, f: Tensor, up: int, down: int, padding: int, extra: int) -> Tensor:
    """Stuff zeros, filter, slice: [N, C, H, W] to about [N, C, H·up/down, W·up/down]."""
    n, c, h, w = x.shape
    x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(n, c, h * up, w * up)
    x = F.pad(x, (padding, padding - extra, padding, padding - extra))
    return F.conv2d(x, (f * up * up).expand(c, 1, *f.shape), groups=c)[:, :, ::down, ::down]


def upsample2d(x: Tensor, f: Tensor) -> Tensor:
    """As ops.upsample2d."""
    return _blur(x, f, 2, 1, 2, 1)


def downsample2d(x: Tensor, f: Tensor) -> Tensor:
    """As ops.downsample2d."""
    return _blur(x, f, 1, 2, 1, 0)


def conv_up2(x: Tensor, w: Tensor, f: Tensor, groups: int = 1) -> Tensor:
    """As ops.conv_up2: convolve the stuffed picture after the filter."""
    if w.shape[2] == 1:
        return upsample2d(F.conv2d(x, w, groups=groups), f)
    x = _blur(x, f, 2, 1, 3, 1)
    return F.conv2d(x, w.flip([2, 3]), groups=groups)


def conv_down2(x: Tensor, w: Tensor, f: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ops.conv_down2: every pixel is computed, then every second one kept."""
    if w.shape[2] == 1:
        return F.conv2d(downsample2d(x, f), w, bias)
    return F.conv2d(_blur(x, f, 1, 1, 2, 0), w, bias)[:, :, ::2, ::2]


def modulated_conv2d(x, w, s, f=None, up=1, demodulate=True, noise=None, bias=None, gain=1.0):
    """As ops.modulated_conv2d, with one set of weights per sample and a grouped convolution."""
    n, o, k = len(x), len(w), w.shape[2]
    w = w[None] * s[:, None, :, None, None]
    if demodulate:
        w = w * (w.square().sum(dim=[2, 3, 4], keepdim=True) + 1e-8).rsqrt()
    w, x = w.reshape(n * o, -1, k, k), x.reshape(1, -1, *x.shape[2:])
    x = conv_up2(x, w, f, groups=n) if up == 2 else F.conv2d(x, w, padding=k // 2, groups=n)
    x = x.reshape(n, o, *x.shape[2:])
    x = x if noise is None else x + noise
    x = x if bias is None else x + bias[None, :, None, None]
    return x * gain


def activate(x, act, clamp=None, slope=ops.SLOPE, owned=False):
    """As ops.activate, into new memory."""
    x = F.leaky_relu(x, slope) if act == "lrelu" else x
    return x if clamp is None else x.clamp(-clamp, clamp)


@contextmanager
def plain_operations() -> Iterator[None]:
    """Within it the networks compute the plain way; the same functions, other cost."""
    mine = (upsample2d, downsample2d, conv_up2, conv_down2, modulated_conv2d, activate)
    mine = {f.__name__: f for f in mine}
    before = {name: getattr(ops, name) for name in mine}
    try:
        for name, function in mine.items():
            setattr(ops, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(ops, name, function)


def nchw(module: torch.nn.Module) -> torch.nn.Module:
    """The module with its weights in NCHW order."""
    return module.to(memory_format=torch.contiguous_format)
