"""The four operations of StyleGAN2 in plain differentiable PyTorch: no compiled code.

Writes in place happen only where no gradient is asked for, and only into memory made here."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

BLUR = (1.0, 3.0, 3.0, 1.0)  # StyleGAN2, section 2.4 and its released networks
ACTIVATION_GAIN = {"linear": 1.0, "lrelu": math.sqrt(2.0)}  # name: gain that keeps the variance
SLOPE = 0.2  # of the leaky ReLU
_CACHE = 12 << 20  # bytes that stay near a CPU, by measurement
_CURVES: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {  # no published network has these
    "relu": (F.relu, math.sqrt(2.0)), "tanh": (torch.tanh, 1.0), "sigmoid": (torch.sigmoid, 1.0),
    "elu": (F.elu, 1.0), "selu": (F.selu, 1.0), "softplus": (F.softplus, 1.0),
    "swish": (F.silu, math.sqrt(2.0))}


def blur_filter(taps: tuple[float, ...] = BLUR) -> Tensor:
    """Separable low-pass filter as f [k, k] float32 with sum 1."""
    f = torch.tensor(taps)
    f = torch.outer(f, f)
    return f / f.sum()


def upfirdn2d(
    x: Tensor, f: Tensor, up: int | tuple[int, int] = 1, down: int | tuple[int, int] = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0), gain: float = 1.0,
) -> Tensor:  # fmt: skip
    """Zero-stuff by `up`, pad or crop, convolve with f, keep every `down`-th pixel.

    x [N, C, H, W]; f [kh, kw] or [k] (applied to rows and columns); up and down one number or (x, y); padding
    (left, right, top, bottom) in px of the stuffed picture, negative crops. Returns
    [N, C, (H·up + top + bottom - kh) // down + 1, …].
    Source: Karras et al. 2019, arXiv 1912.04958, section 2.4 (resampling filters).
    """
    n, c, h, w = x.shape
    (across, along), (right, below) = ((k, k) if isinstance(k, int) else k for k in (up, down))
    if across > 1 or along > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, across - 1, 0, 0, 0, along - 1))
        x = x.reshape(n, c, h * along, w * across)
    if any(padding):
        x = F.pad(x, padding)
    f = f.to(x.dtype)
    if f.ndim == 1:
        rows = (f * gain).flip(0).view(1, 1, 1, -1).expand(c, 1, 1, -1)
        columns = f.flip(0).view(1, 1, -1, 1).expand(c, 1, -1, 1)
        return F.conv2d(F.conv2d(x, rows, stride=(1, right), groups=c), columns, stride=(below, 1), groups=c)
    kernel = (f * gain).flip([0, 1]).expand(c, 1, *f.shape)
    return F.conv2d(x, kernel, stride=(below, right), groups=c)


def upsample2d(x: Tensor, f: Tensor) -> Tensor:
    """x [N, C, H, W] to [N, C, 2H, 2W] with the even filter f [k, k], brightness kept."""
    c, k = x.shape[1], f.shape[0]
    kernel = (f.to(x.dtype) * 4).expand(c, 1, k, k)
    return F.conv_transpose2d(x, kernel, stride=2, padding=(k - 2) // 2, groups=c)


def downsample2d(x: Tensor, f: Tensor) -> Tensor:
    """x [N, C, H, W] to [N, C, H/2, W/2] with the even filter f [k, k]; f [1, 1] takes every second pixel."""
    if f.shape[0] == 1:
        return x[:, :, ::2, ::2]
    return blur(x, f, padding=(f.shape[0] - 2) // 2, down=2)


def blur(
    x: Tensor, f: Tensor, padding: int, down: int = 1, gain: float = 1.0, bias: Tensor | None = None
) -> Tensor:
    """x [N, C, H, W] padded by `padding` zeros, filtered with symmetric f [k, k], every `down`-th pixel; plus
    bias [C]."""
    kernel = (f.to(x.dtype) * gain).expand(x.shape[1], 1, *f.shape)
    return F.conv2d(x, kernel, bias, padding=padding, stride=down, groups=x.shape[1])


def conv_up2(x: Tensor, w: Tensor, f: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution w [O, I, k, k] (k 1 or 3) of x [N, I, H, W] upsampled 2x: [N, O, 2H, 2W]; plus bias [O].

    A transposed convolution skips the stuffed zeros; the low-pass filter follows. Source: as upfirdn2d.
    """
    if w.shape[2] == 1:
        x = upsample2d(F.conv2d(x, w), f)
        return x if bias is None else x + bias[:, None, None]
    spread = _by_columns if _only_drawing(x) and _few_columns(x, w) else _transposed
    return blur(spread(x, w), f, padding=1, gain=4.0, bias=bias)


def _few_columns(x: Tensor, w: Tensor) -> bool:
    return w[:, 0].numel() * x[:, 0].numel() * x.element_size() < _CACHE


def _transposed(x: Tensor, w: Tensor) -> Tensor:
    """x [N, I, H, W] stuffed with zeros, convolved with w [O, I, 3, 3]: [N, O, 2H + 1, 2W + 1]."""
    return F.conv_transpose2d(x, w.transpose(0, 1), stride=2)


def _by_columns(x: Tensor, w: Tensor) -> Tensor:
    """As _transposed, for pictures only: a product of matrices gives nine columns a pixel, fold adds them up.

    On a CPU that takes half the time while the columns stay near it, and no copy of transposed weights."""
    high, wide = x.shape[2:]
    columns = w.permute(0, 2, 3, 1).flatten(0, 2) @ x.flatten(2)  # [N, 9 O, H W]
    y = F.fold(columns, (2 * high + 1, 2 * wide + 1), w.shape[2], stride=2)
    return y.contiguous(memory_format=torch.channels_last)


def conv_down2(x: Tensor, w: Tensor, f: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [N, I, H, W] low-passed, convolved with w [O, I, k, k] (k 1 or 3) at stride 2: [N, O, H/2, W/2].

    f [k, k] with k even, or [1, 1]: no low-pass.
    """
    if f.shape[0] == 1:
        return F.conv2d(x, w, bias, stride=2, padding=w.shape[2] // 2)
    if w.shape[2] == 1:
        return F.conv2d(downsample2d(x, f), w, bias)
    return F.conv2d(blur(x, f, padding=2), w, bias, stride=2)


def bias_act(
    x: Tensor, b: Tensor | None, act: str = "linear", gain: float = 1.0, clamp: float | None = None,
    slope: float = SLOPE,
) -> Tensor:  # fmt: skip
    """act(x + b) times the activation's own gain and `gain`, clamped to ±clamp.

    x [N, C] or [N, C, H, W]; b [C]; act "linear", "lrelu", "relu", "tanh", "sigmoid", "elu", "selu",
    "softplus" or "swish"; own gains √2 for lrelu, relu and swish, else 1; slope of lrelu below 0.
    """
    if b is not None:
        x = x + b.to(x.dtype).reshape(1, -1, *([1] * (x.ndim - 2)))
    if act in _CURVES:
        curve, own = _CURVES[act]
        return activate(curve(x) * (own * gain), "linear", clamp)
    total = ACTIVATION_GAIN[act] * gain
    return activate(x * total if total != 1.0 else x, act, clamp, slope)


def activate(
    x: Tensor, act: str, clamp: float | None = None, slope: float = SLOPE, owned: bool = False
) -> Tensor:
    """Leaky ReLU (or nothing) of x that already carries the gains, which may be applied before it: both
    commute with a positive factor. That lets callers fold them into small tensors. An `owned` x, which the
    caller has no other use for, is overwritten where no gradient is asked for."""
    owned = owned and not torch.is_grad_enabled()
    if act == "lrelu":
        x = F.leaky_relu(x, slope, inplace=owned)
    if clamp is None:
        return x
    return x.clamp_(-clamp, clamp) if owned else x.clamp(-clamp, clamp)


def modulated_conv2d(
    x: Tensor, w: Tensor, s: Tensor, f: Tensor | None = None, up: int = 1, demodulate: bool = True,
    noise: Tensor | None = None, bias: Tensor | None = None, gain: float = 1.0,
) -> Tensor:  # fmt: skip
    """Convolution with input channels scaled per sample, outputs normalised to unit variance, plus noise.

    x [N, I, H, W]; w [O, I, k, k]; s [N, I] scales; up 1 or 2 (needs f); noise broadcastable to the output;
    bias [O]; the whole sum is times `gain`. Computed as scale, convolve, rescale: one ordinary convolution
    shared by the batch, equal to the paper's per-sample weights because scaling commutes with convolution.
    In float16 weights and scales are normalised first so that nothing overflows; demodulation cancels it.
    Without gradients on a CPU, pictures larger than the weights get weights of their own instead, which saves
    passes over the picture.
    Source: arXiv 1912.04958, equations 1 and 3.
    """
    if _only_drawing(x):
        return _drawn(x, w, s, f, up, demodulate, noise, None if bias is None else bias * gain, gain)
    if x.dtype == torch.float16 and demodulate:
        w = w / (w.abs().amax(dim=[1, 2, 3], keepdim=True) * math.sqrt(w[0].numel()))
        s = s / s.abs().amax(dim=1, keepdim=True)
    d = (s.square() @ w.square().sum(dim=[2, 3]).t() + 1e-8).rsqrt() if demodulate else None
    x = x * s.to(x.dtype)[:, :, None, None]
    w = w.to(x.dtype)
    if d is None:
        return _conv(x, w * gain, f, up, bias=None if bias is None else bias * gain, noise=noise, gain=gain)
    x = _conv(x, w, f, up)
    d = (d * gain).to(x.dtype)[:, :, None, None]
    x = x * d if noise is None else torch.addcmul((noise * gain).to(x.dtype), x, d)
    return x if bias is None else x + (bias * gain).to(x.dtype)[None, :, None, None]


def _only_drawing(x: Tensor) -> bool:
    """Whether x is a picture on a CPU that nobody differentiates, compiles or exports."""
    busy = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.compiler.is_exporting()
    return x.device.type == "cpu" and x.dtype != torch.float16 and not busy


def _drawn(
    x: Tensor, w: Tensor, s: Tensor, f: Tensor | None, up: int, demodulate: bool, noise: Tensor | None,
    bias: Tensor | None, gain: float,
) -> Tensor:  # fmt: skip
    """modulated_conv2d for pictures only: in place, because new memory is what costs. bias has its gain."""
    w, s = w.to(x.dtype), s.to(x.dtype)
    d = (s.square() @ w.square().sum(dim=[2, 3]).t() + 1e-8).rsqrt() * gain if demodulate else None
    noise = None if noise is None else noise * gain
    n, o, pixels = len(x), len(w), x.shape[2] * x.shape[3]
    if w.numel() > pixels * (w.shape[1] + o * up**2):
        y = _conv(x * s[:, :, None, None], w, f, up)
        y = y.mul_(gain if d is None else d[:, :, None, None])
        y = y if noise is None else y.add_(noise)
        return y if bias is None else y.add_(bias[:, None, None])
    inputs_last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if inputs_last else torch.contiguous_format
    shape = (n, o, x.shape[2] * up, x.shape[3] * up)
    whole = None if n == 1 else torch.empty(shape, dtype=x.dtype, memory_format=layout)
    for i in range(n):
        scales = s[i] * gain if d is None else d[i, :, None] * s[i]
        y = _conv(x[i : i + 1], w * scales.view(-1, w.shape[1], 1, 1), f, up, bias)
        own = None if noise is None else noise[i : i + 1] if noise.ndim == 4 and len(noise) == n else noise
        if whole is None:
            return y if own is None else y.add_(own)
        if own is None:
            whole[i : i + 1].copy_(y)
        else:
            torch.add(y, own, out=whole[i : i + 1])
    return whole


def _conv(
    x: Tensor, w: Tensor, f: Tensor | None, up: int, bias: Tensor | None = None,
    noise: Tensor | None = None, gain: float = 1.0,
) -> Tensor:  # fmt: skip
    b = None if bias is None else bias.to(x.dtype)
    x = conv_up2(x, w, f, b) if up == 2 else F.conv2d(x, w, b, padding=w.shape[2] // 2)
    return x if noise is None else x + (noise * gain).to(x.dtype)


def normalize_2nd_moment(x: Tensor) -> Tensor:
    """x [N, C] scaled to mean square 1 per row."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
