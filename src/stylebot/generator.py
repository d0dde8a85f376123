"""StyleGAN2's generator under the official PyTorch state-dict keys (arXiv 1912.04958)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from stylebot import ops
from stylebot.errors import StylebotError

MAIN_MEMORY_FORMAT = torch.channels_last
Randn = Callable[[tuple[int, ...]], Tensor]  # shape to standard normal numbers


class FullyConnected(nn.Module):
    """x [N, I] to [N, O] with equalised learning rate: weights ~ N(0, 1/lr_multiplier²), scaled at use."""

    def __init__(
        self, inputs: int, outputs: int, act: str = "linear", lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.act = act
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([outputs], float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight.to(x.dtype) * self.weight_gain
        return ops.bias_act(x @ w.t(), self.bias * self.bias_gain, self.act)


class Mapping(nn.Module):
    """z [N, z_dim] and labels c [N, c_dim] to ws [N, num_ws, w_dim] (or [N, w_dim] when num_ws is None).

    `w_avg` [w_dim] follows the mean of w with `w_avg_beta` in training mode; it is the centre of truncation.
    """

    def __init__(
        self, z_dim: int, c_dim: int, w_dim: int, num_ws: int | None, num_layers: int = 8,
        lr_multiplier: float = 0.01, w_avg_beta: float | None = 0.995, embed_features: int | None = None,
        layer_features: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.w_avg_beta = num_layers, w_avg_beta
        embed = (w_dim if embed_features is None else embed_features) if c_dim else 0
        hidden = w_dim if layer_features is None else layer_features
        widths = [z_dim + embed] + [hidden] * (num_layers - 1) + [w_dim]
        if c_dim:
            self.embed = FullyConnected(c_dim, embed)
        for i in range(num_layers):
            setattr(self, f"fc{i}", FullyConnected(widths[i], widths[i + 1], "lrelu", lr_multiplier))
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self, z: Tensor | None, c: Tensor | None = None, truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None, skip_w_avg_update: bool = False,
    ) -> Tensor:  # fmt: skip
        parts = []
        if self.z_dim:
            parts.append(ops.normalize_2nd_moment(z.float() if z.dtype != torch.float64 else z))
        if self.c_dim:
            if c is None:
                raise StylebotError(f"this network wants labels of {self.c_dim} numbers per picture")
            parts.append(ops.normalize_2nd_moment(self.embed(c.to(self.embed.weight.dtype))))
        x = torch.cat(parts, dim=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        if self.training and not skip_w_avg_update and hasattr(self, "w_avg"):
            self.w_avg.copy_(x.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
        if self.num_ws is None:
            return x
        x = x.unsqueeze(1).repeat(1, self.num_ws, 1)
        if truncation_psi == 1:
            return x
        cut = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([self.w_avg.lerp(x[:, :cut], truncation_psi), x[:, cut:]], dim=1)


class SynthesisLayer(nn.Module):
    """One modulated 3x3 convolution with noise, bias and leaky ReLU: [N, I, r/up, r/up] to [N, O, r, r]."""

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, resolution: int, up: int = 1, use_noise: bool = True,
        conv_clamp: float | None = None, filter_taps: tuple = ops.BLUR,
    ):  # fmt: skip
        super().__init__()
        self.resolution, self.up, self.use_noise, self.conv_clamp = resolution, up, use_noise, conv_clamp
        self.register_buffer("resample_filter", ops.blur_filter(filter_taps), persistent=False)
        self.affine = FullyConnected(w_dim, inputs, bias_init=1)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3).to(memory_format=MAIN_MEMORY_FORMAT))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, noise_mode: str = "random", gain: float = 1.0,
                randn: Randn | None = None) -> Tensor:  # fmt: skip
        noise = None
        if self.use_noise and noise_mode == "random":
            shape = (x.shape[0], 1, self.resolution, self.resolution)
            drawn = torch.randn(shape) if randn is None else randn(shape)
            noise = drawn.to(self.noise_const) * self.noise_strength
        elif self.use_noise and noise_mode == "const":
            noise = self.noise_const * self.noise_strength
        total = ops.ACTIVATION_GAIN["lrelu"] * gain
        x = ops.modulated_conv2d(x, self.weight, self.affine(w), self.resample_filter, self.up, noise=noise,
                                 bias=self.bias, gain=total)  # fmt: skip
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return ops.activate(x, "lrelu", clamp, owned=True)


class ToRGB(nn.Module):
    """One modulated 1x1 convolution to picture channels, not demodulated."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, conv_clamp: float | None = None):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnected(w_dim, inputs, bias_init=1)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1).to(memory_format=MAIN_MEMORY_FORMAT))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weight_gain = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        s = self.affine(w) * self.weight_gain
        x = ops.modulated_conv2d(x, self.weight, s, demodulate=False, bias=self.bias)
        return ops.activate(x, "linear", self.conv_clamp)


class PlainConv(nn.Module):
    """Unmodulated 1x1 or 3x3 convolution with equalised learning rate, optionally resampling by 2."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, bias: bool = True, act: str = "linear", up: int = 1,
        down: int = 1, conv_clamp: float | None = None, filter_taps: tuple = ops.BLUR,
    ):  # fmt: skip
        super().__init__()
        self.act, self.up, self.down, self.conv_clamp = act, up, down, conv_clamp
        self.register_buffer("resample_filter", ops.blur_filter(filter_taps), persistent=False)
        weight = torch.randn(outputs, inputs, kernel, kernel)
        self.weight = nn.Parameter(weight.to(memory_format=MAIN_MEMORY_FORMAT))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.weight_gain = 1 / math.sqrt(inputs * kernel**2)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        total = ops.ACTIVATION_GAIN[self.act] * gain
        w = (self.weight * (self.weight_gain * total)).to(x.dtype)
        b = None if self.bias is None else (self.bias * total).to(x.dtype)
        if self.up == 2:
            x = ops.conv_up2(x, w, self.resample_filter)  # only the skip of a resnet G, which has no bias
        elif self.down == 2:
            x = ops.conv_down2(x, w, self.resample_filter, b)
        else:
            x = nn.functional.conv2d(x, w, b, padding=w.shape[2] // 2)
        return ops.activate(x, self.act, None if self.conv_clamp is None else self.conv_clamp * gain)


class SynthesisBlock(nn.Module):
    """The layers of one resolution: constant or conv0, conv1, and torgb where the architecture has one."""

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, resolution: int, img_channels: int, is_last: bool,
        architecture: str, conv_clamp: float | None, fp16: bool, use_noise: bool, filter_taps: tuple,
    ):  # fmt: skip
        super().__init__()
        self.architecture, self.fp16, self.inputs = architecture, fp16, inputs
        self.register_buffer("resample_filter", ops.blur_filter(filter_taps), persistent=False)
        layer = {"use_noise": use_noise, "conv_clamp": conv_clamp, "filter_taps": filter_taps}
        self.num_conv = 1 if inputs == 0 else 2
        if inputs == 0:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, resolution, up=2, **layer)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, **layer)
        self.num_torgb = int(is_last or architecture == "skip")
        if self.num_torgb:
            self.torgb = ToRGB(outputs, img_channels, w_dim, conv_clamp)
        if inputs and architecture == "resnet":
            self.skip = PlainConv(inputs, outputs, 1, bias=False, up=2, filter_taps=filter_taps)

    def forward(
        self, x: Tensor | None, img: Tensor | None, ws: list[Tensor], **noise
    ) -> tuple[Tensor, Tensor | None]:
        """x [N, inputs, r/2, r/2], img [N, C, r/2, r/2], ws: num_conv + num_torgb of [N, w_dim]."""
        dtype = torch.float16 if self.fp16 and ws[0].is_cuda else ws[0].dtype
        if self.inputs == 0:
            x = self.const.to(dtype).unsqueeze(0).expand(ws[0].shape[0], -1, -1, -1)
            x = self.conv1(x.contiguous(memory_format=MAIN_MEMORY_FORMAT), ws[0], **noise)
        elif self.architecture == "resnet":
            x = x.to(dtype)
            y = self.skip(x, gain=math.sqrt(0.5))
            x = y + self.conv1(self.conv0(x, ws[0], **noise), ws[1], gain=math.sqrt(0.5), **noise)
        else:
            x = self.conv1(self.conv0(x.to(dtype), ws[0], **noise), ws[1], **noise)
        if img is not None:
            img = ops.upsample2d(img, self.resample_filter)
        if self.num_torgb:
            y = self.torgb(x, ws[self.num_conv]).to(ws[0].dtype)
            img = y if img is None else img + y
        return x, img


class Synthesis(nn.Module):
    """ws [N, num_ws, w_dim] to img [N, img_channels, R, R], about [-1, 1]."""

    def __init__(
        self, w_dim: int, img_resolution: int, img_channels: int, channel_base: int, channel_max: int,
        num_fp16_res: int, architecture: str, conv_clamp: float | None, use_noise: bool, filter_taps: tuple,
    ):  # fmt: skip
        super().__init__()
        self.resolutions = [2**i for i in range(2, int(math.log2(img_resolution)) + 1)]
        width = {r: min(channel_base // r, channel_max) for r in self.resolutions}
        half_from = max(2 ** (int(math.log2(img_resolution)) + 1 - num_fp16_res), 8)
        self.num_ws = 0
        for r in self.resolutions:
            last = r == img_resolution
            block = SynthesisBlock(
                width[r // 2] if r > 4 else 0, width[r], w_dim, r, img_channels, last, architecture,
                conv_clamp, r >= half_from, use_noise, filter_taps,
            )  # fmt: skip
            self.num_ws += block.num_conv + (block.num_torgb if last else 0)
            setattr(self, f"b{r}", block)

    def forward(self, ws: Tensor, noise_mode: str = "random", randn: Randn | None = None) -> Tensor:
        x = img = None
        styles, first = ws.unbind(dim=1), 0
        for r in self.resolutions:
            block = getattr(self, f"b{r}")
            mine = list(styles[first : first + block.num_conv + block.num_torgb])
            x, img = block(x, img, mine, noise_mode=noise_mode, randn=randn)
            first += block.num_conv
        return img


class Generator(nn.Module):
    """StyleGAN2: z [N, z_dim] ~ N(0, I) and labels c [N, c_dim] to img [N, img_channels, R, R].

    `config` holds the constructor's arguments as plain values: enough, with the state dict, to rebuild it.
    float16 is used in the `num_fp16_res` highest resolutions on a GPU only.
    """

    def __init__(
        self, z_dim: int = 512, c_dim: int = 0, w_dim: int = 512, img_resolution: int = 256,
        img_channels: int = 3, mapping_layers: int = 8, channel_base: int = 32768, channel_max: int = 512,
        architecture: str = "skip", conv_clamp: float | None = None, num_fp16_res: int = 0,
        use_noise: bool = True, lr_multiplier: float = 0.01, w_avg_beta: float = 0.995,
        embed_features: int | None = None, layer_features: int | None = None,
        filter_taps: tuple[float, ...] = ops.BLUR,
    ):  # fmt: skip
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        _check_shape(img_resolution, architecture)
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.synthesis = Synthesis(
            w_dim, img_resolution, img_channels, channel_base, channel_max, num_fp16_res, architecture,
            conv_clamp, use_noise, tuple(filter_taps),
        )  # fmt: skip
        self.num_ws = self.synthesis.num_ws
        self.mapping = Mapping(z_dim, c_dim, w_dim, self.num_ws, mapping_layers, lr_multiplier, w_avg_beta,
                               embed_features, layer_features)  # fmt: skip

    def forward(self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0,
                truncation_cutoff: int | None = None, noise_mode: str = "random",
                randn: Randn | None = None) -> Tensor:  # fmt: skip
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, noise_mode=noise_mode, randn=randn)


def _check_shape(img_resolution: int, architecture: str) -> None:
    if img_resolution < 4 or img_resolution & (img_resolution - 1):
        raise StylebotError(f"resolution {img_resolution} is not a power of two from 4 up")
    if architecture not in ("orig", "skip", "resnet"):
        raise StylebotError(f"architecture {architecture!r} is none of orig, skip, resnet")
