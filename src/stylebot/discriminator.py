"""StyleGAN2's discriminator under the official PyTorch state-dict keys, and Freeze-D (arXiv 2002.10964)."""

import math

import torch
from torch import Tensor, nn

from stylebot import ops
from stylebot.errors import StylebotError
from stylebot.generator import MAIN_MEMORY_FORMAT, FullyConnected, Mapping, PlainConv, _check_shape


def minibatch_stddev(x: Tensor, group: int, channels: int) -> Tensor:
    """x [N, C, H, W] with `channels` maps appended that hold the mean standard deviation within groups.

    Sample n belongs to the group of all samples equal to n modulo N / group.
    Source: arXiv 1710.10196, section 3.
    Raises StylebotError when N is not a multiple of the group.
    """
    n, c, h, w = x.shape
    group = min(group, n)
    if n % group:
        raise StylebotError(f"minibatch stddev: a batch of {n} does not divide into groups of {group}")
    y = x.reshape(group, -1, channels, c // channels, h, w)
    y = y - y.mean(dim=0)
    y = (y.square().mean(dim=0) + 1e-8).sqrt().mean(dim=[2, 3, 4])
    y = y.reshape(-1, channels, 1, 1).repeat(group, 1, h, w)
    return torch.cat([x, y], dim=1)


class DiscriminatorBlock(nn.Module):
    """The layers of one resolution: [N, inputs, r, r] to [N, outputs, r/2, r/2]."""

    def __init__(self, inputs: int, hidden: int, outputs: int, img_channels: int, architecture: str,
                 conv_clamp: float | None, fp16: bool, filter_taps: tuple):  # fmt: skip
        super().__init__()
        self.architecture, self.fp16 = architecture, fp16
        self.register_buffer("resample_filter", ops.blur_filter(filter_taps), persistent=False)
        act = {"act": "lrelu", "conv_clamp": conv_clamp}
        if inputs == 0 or architecture == "skip":
            self.fromrgb = PlainConv(img_channels, hidden, 1, **act)
        self.conv0 = PlainConv(hidden, hidden, 3, **act)
        self.conv1 = PlainConv(hidden, outputs, 3, down=2, filter_taps=filter_taps, **act)
        if architecture == "resnet":
            self.skip = PlainConv(hidden, outputs, 1, bias=False, down=2, filter_taps=filter_taps)

    def forward(self, x: Tensor | None, img: Tensor | None) -> tuple[Tensor, Tensor | None]:
        have = img if x is None else x
        dtype = torch.float32 if have.dtype == torch.float16 else have.dtype
        dtype = torch.float16 if self.fp16 and have.is_cuda else dtype
        if hasattr(self, "fromrgb"):
            y = self.fromrgb(img.to(dtype))
            x = y if x is None else x.to(dtype) + y
            img = ops.downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        x = x.to(dtype)
        if self.architecture == "resnet":
            y = self.skip(x, gain=math.sqrt(0.5))
            return y + self.conv1(self.conv0(x), gain=math.sqrt(0.5)), img
        return self.conv1(self.conv0(x)), img


class Epilogue(nn.Module):
    """The last layers at 4x4: minibatch stddev, conv, two fully connected; never frozen, never in float16."""

    def __init__(
        self, inputs: int, cmap_dim: int, img_channels: int, architecture: str, mbstd_group_size: int,
        mbstd_num_channels: int, conv_clamp: float | None,
    ):  # fmt: skip
        super().__init__()
        self.cmap_dim, self.architecture = cmap_dim, architecture
        self.mbstd_group_size, self.mbstd_num_channels = mbstd_group_size, mbstd_num_channels
        if architecture == "skip":
            self.fromrgb = PlainConv(img_channels, inputs, 1, act="lrelu")
        self.conv = PlainConv(inputs + mbstd_num_channels, inputs, 3, act="lrelu", conv_clamp=conv_clamp)
        self.fc = FullyConnected(inputs * 16, inputs, "lrelu")
        self.out = FullyConnected(inputs, max(cmap_dim, 1))

    def forward(self, x: Tensor, img: Tensor | None, cmap: Tensor | None) -> Tensor:
        x = x.float() if x.dtype == torch.float16 else x
        if self.architecture == "skip":
            x = x + self.fromrgb(img)
        if self.mbstd_num_channels:
            x = minibatch_stddev(x, self.mbstd_group_size, self.mbstd_num_channels)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        return x if cmap is None else (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)


class Discriminator(nn.Module):
    """StyleGAN2: img [N, img_channels, R, R] in [-1, 1] and labels c [N, c_dim] to logits [N, 1], real > 0.

    `config` holds the constructor's arguments as plain values.
    """

    def __init__(
        self, c_dim: int = 0, img_resolution: int = 256, img_channels: int = 3, architecture: str = "resnet",
        channel_base: int = 32768, channel_max: int = 512, conv_clamp: float | None = None,
        num_fp16_res: int = 0, cmap_dim: int | None = None, mapping_layers: int = 8,
        mbstd_group_size: int = 4, mbstd_num_channels: int = 1,
        lr_multiplier: float = 0.01, embed_features: int | None = None, layer_features: int | None = None,
        filter_taps: tuple[float, ...] = ops.BLUR,
    ):  # fmt: skip
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        _check_shape(img_resolution, architecture)
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.resolutions = [2**i for i in range(int(math.log2(img_resolution)), 2, -1)]
        width = {r: min(channel_base // r, channel_max) for r in [*self.resolutions, 4]}
        cmap = (width[4] if cmap_dim is None else cmap_dim) if c_dim else 0
        half_from = max(2 ** (int(math.log2(img_resolution)) + 1 - num_fp16_res), 8)
        for r in self.resolutions:
            block = DiscriminatorBlock(
                width[r] if r < img_resolution else 0, width[r], width[r // 2], img_channels, architecture,
                conv_clamp, r >= half_from, tuple(filter_taps),
            )  # fmt: skip
            setattr(self, f"b{r}", block)
        if c_dim:
            self.mapping = Mapping(0, c_dim, cmap, None, mapping_layers, lr_multiplier, None, embed_features,
                                   layer_features)  # fmt: skip
        self.b4 = Epilogue(width[4], cmap, img_channels, architecture, mbstd_group_size, mbstd_num_channels,
                           conv_clamp)  # fmt: skip

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        x, img = None, img.contiguous(memory_format=MAIN_MEMORY_FORMAT)
        for r in self.resolutions:
            x, img = getattr(self, f"b{r}")(x, img)
        cmap = self.mapping(None, c) if self.c_dim else None
        return self.b4(img if x is None else x, img, cmap)


def freeze_order(D: Discriminator) -> list[str]:
    """Names of the layers that Freeze-D may freeze, first frozen first: from the picture towards the logit.

    Source: Mo et al. 2020, arXiv 2002.10964; layer counting as in stylegan2-ada-pytorch's `--freezed`.
    """
    return [f"b{r}.{layer}" for r in D.resolutions for layer in ("fromrgb", "conv0", "conv1", "skip")
            if hasattr(getattr(D, f"b{r}"), layer)]  # fmt: skip


def freeze_d(D: Discriminator, layers: int) -> list[nn.Parameter]:
    """Freeze the first `layers` layers of D and return the parameters that stay trainable.

    The optimiser, gradient toggling and all-reduce are to use the returned list alone.
    Raises StylebotError when `layers` is negative or more than there are, naming the maximum.
    """
    order = freeze_order(D)
    if not 0 <= layers <= len(order):
        raise StylebotError(f"freeze_d = {layers}: this discriminator has 0 to {len(order)} layers to freeze")
    frozen = tuple(f"{name}." for name in order[:layers])
    trainable = []
    for name, parameter in D.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen) if frozen else True)
        if parameter.requires_grad:
            trainable.append(parameter)
    return trainable
