"""From a picture to one style per layer of the generator: pSp as published, and a light encoder for CPUs."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from stylebot.errors import StylebotError
from stylebot.files import atomic
from stylebot.skips import PREFIX

VARIANTS = ("light", "psp")
PSP_STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # width and number of blocks, IR-SE50
_LIGHT_STAGES = ((32, 2), (64, 2), (128, 2), (192, 2))


def n_styles(resolution: int) -> int:
    """Styles of a generator of `resolution` px: two per doubling from 4 px, 10 for 64 px, 18 for 1024 px."""
    return 2 * int(math.log2(resolution)) - 2


class SqueezeExcite(nn.Module):
    """Channels weighted by a gate in (0, 1) computed from their means. Source: Hu et al. 2018, eq. 2-4."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [N,C,H,W] to the same shape."""
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class ResidualBlock(nn.Module):
    """IR-SE block: BN, conv, PReLU, conv of the given stride, BN, squeeze-and-excite, plus the shortcut.

    Source: Deng et al. 2019 (ArcFace), §3.1 "improved residual"; key names as in official pSp weights.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(channels_in), nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False),
            nn.PReLU(channels), nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels), SqueezeExcite(channels))
        if channels_in != channels:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False),
                                                nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [N,channels_in,H,W] to [N,channels,H/stride,W/stride]."""
        same = not hasattr(self, "shortcut_layer")
        shortcut = x[:, :, ::self.stride, ::self.stride] if same else self.shortcut_layer(x)
        return self.res_layer(x) + shortcut


class Trunk(nn.Module):
    """Stem and four stages of IR-SE blocks; each halves the picture, the first not after a strided stem."""

    def __init__(self, stages: Sequence[tuple[int, int]], img_channels: int, stem_stride: int) -> None:
        super().__init__()
        width = stages[0][0]
        self.input_layer = nn.Sequential(nn.Conv2d(img_channels, width, 3, stem_stride, 1, bias=False),
                                         nn.BatchNorm2d(width), nn.PReLU(width))
        blocks, ends = [], []
        for k, (channels, n) in enumerate(stages):
            first = 1 if stem_stride == 2 and k == 0 else 2
            blocks += [ResidualBlock(width if i == 0 else channels, channels, first if i == 0 else 1)
                       for i in range(n)]
            width = channels
            ends.append(len(blocks) - 1)
        self.body, self.tapped = nn.ModuleList(blocks), ends[1:]

    def taps(self, img: torch.Tensor) -> list[torch.Tensor]:
        """The outputs of stages 2, 3 and 4, fine to coarse, for `img` [N,C,r,r] float, [-1,1]."""
        x, found = self.input_layer(img), []
        for i, block in enumerate(self.body):
            x = block(x)
            if i in self.tapped:
                found.append(x)
        return found


class Heads(nn.Module):
    """All map2style heads of one pyramid level side by side, as grouped convolutions.

    A head is log2(spatial) times [3x3 convolution of stride 2, leaky ReLU of slope 0.01], which ends at
    1x1, and an equalised linear layer. `names` are the heads' places in the official pSp naming.
    Source: Richardson et al. 2021 (pSp), §3 and figure 2; vectorisation ours.
    """

    def __init__(self, names: Sequence[int], channels: int, spatial: int) -> None:
        super().__init__()
        g, self.names, self.channels = len(names), tuple(names), channels
        self.depth = int(math.log2(spatial))
        for i in range(self.depth):
            weights = [nn.Conv2d(channels, channels, 3) for _ in range(g)]
            self.register_parameter(f"conv{i}", nn.Parameter(torch.cat([w.weight.detach() for w in weights])))
            self.register_parameter(f"bias{i}", nn.Parameter(torch.cat([w.bias.detach() for w in weights])))
        self.linear = nn.Parameter(torch.randn(g, channels, channels))
        self.linear_bias = nn.Parameter(torch.zeros(g, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [N,channels,spatial,spatial] to styles [N,heads,channels]."""
        g = len(self.names)
        for i in range(self.depth):
            weight, bias = getattr(self, f"conv{i}"), getattr(self, f"bias{i}")
            x = F.leaky_relu(F.conv2d(x, weight, bias, stride=2, padding=1, groups=g if i else 1), 0.01)
        x = x.reshape(-1, g, self.channels)
        return torch.einsum("ngi,goi->ngo", x, self.linear / math.sqrt(self.channels)) + self.linear_bias

    def pairs(self, prefix: str) -> list[tuple[str, list[str]]]:
        """Each own key below `prefix` with the official keys whose tensors it holds, in order."""
        own = prefix.rpartition("heads.")[0]
        rows = []
        for i in range(self.depth):
            rows += [(f"{prefix}{kind}{i}", [f"{own}styles.{n}.convs.{2 * i}.{part}" for n in self.names])
                     for kind, part in (("conv", "weight"), ("bias", "bias"))]
        return [*rows, (f"{prefix}linear", [f"{own}styles.{n}.linear.weight" for n in self.names]),
                (f"{prefix}linear_bias", [f"{own}styles.{n}.linear.bias" for n in self.names])]


class PspEncoder(Trunk):
    """pSp's GradualStyleEncoder: IR-SE50 trunk, feature pyramid, 3 coarse, 4 middle heads and the fine ones.

    Takes 256 px pictures. Its state dict has the official key names, in both directions.
    """

    def __init__(self, resolution: int, w_dim: int = 512, img_channels: int = 3) -> None:
        if w_dim != 512 or resolution < 32:
            raise StylebotError("the psp encoder needs w_dim 512 and a generator of 32 px or more, "
                                f"not w_dim {w_dim} and {resolution} px: use the light one")
        super().__init__(PSP_STAGES, img_channels, stem_stride=1)
        self.n_styles, self.input_px = n_styles(resolution), 256
        self.latlayer1 = nn.Conv2d(256, 512, 1)
        self.latlayer2 = nn.Conv2d(128, 512, 1)
        self.heads = nn.ModuleList([Heads(range(3), 512, 16), Heads(range(3, 7), 512, 32),
                                    Heads(range(7, self.n_styles), 512, 64)])
        self.register_state_dict_post_hook(_split)
        self.register_load_state_dict_pre_hook(_join)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        """`img` [N,3,256,256] float, [-1,1] to codes [N,n_styles,512]."""
        fine, middle, coarse = self.taps(img)
        middle = _up(coarse, middle) + self.latlayer1(middle)
        fine = _up(middle, fine) + self.latlayer2(fine)
        return torch.cat([head(x) for head, x in zip(self.heads, (coarse, middle, fine), strict=True)], 1)


def _up(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)


def _split(module: PspEncoder, state: dict, prefix: str, _metadata: object) -> None:
    for i, head in enumerate(module.heads):
        for own, official in head.pairs(f"{prefix}heads.{i}."):
            whole = state.pop(own)
            parts = whole.unbind(0) if whole.shape[0] == len(official) else whole.chunk(len(official))
            state.update(zip(official, parts, strict=True))


def _join(module: PspEncoder, state: dict, prefix: str, *_rest: object) -> None:
    for i, head in enumerate(module.heads):
        for own, official in head.pairs(f"{prefix}heads.{i}."):
            if all(name in state for name in official):
                parts = [state.pop(name) for name in official]
                state[own] = (torch.stack if "linear" in own else torch.cat)(parts)


class LightEncoder(Trunk):
    """A small encoder of the same kind and interface, for generators of 16 to 256 px and CPUs (ours).

    IR-SE trunk with a stem of stride 2 (from 64 px) and pre-set widths, pSp's pyramid with 128 channels whose
    three levels are pooled to 4x4 x 24, and one linear head per style; a level's heads are one matrix.
    About 4 M parameters for 64 px; its codes start near zero, that is at the average face.
    """

    _FPN, _GRID, _SQUEEZED = 128, 4, 24
    HEAD_INPUTS = _SQUEEZED * _GRID**2

    def __init__(self, resolution: int, w_dim: int = 512, img_channels: int = 3) -> None:
        if resolution < 16:
            raise StylebotError(f"the light encoder needs a generator of 16 px or more, not {resolution} px")
        super().__init__(_LIGHT_STAGES, img_channels, stem_stride=2 if resolution >= 64 else 1)
        self.n_styles, self.w_dim, self.input_px = n_styles(resolution), w_dim, resolution
        counts = (3, min(4, self.n_styles - 3), max(self.n_styles - 7, 0))
        widths = [channels for channels, _ in _LIGHT_STAGES[:0:-1]]
        used = [(c, n) for c, n in zip(widths, counts, strict=True) if n]
        self.lateral = nn.ModuleList(nn.Conv2d(c, self._FPN, 1) for c, _ in used)
        self.squeeze = nn.ModuleList(nn.Sequential(nn.Conv2d(self._FPN, self._SQUEEZED, 3, 1, 1),
                                                   nn.PReLU(self._SQUEEZED)) for _ in used)
        self.heads = nn.ModuleList(nn.Linear(self.HEAD_INPUTS, n * w_dim) for _, n in used)
        for head in self.heads:
            nn.init.normal_(head.weight, std=0.1 / math.sqrt(head.in_features))
            nn.init.zeros_(head.bias)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        """`img` [N,C,r,r] float, [-1,1] to codes [N,n_styles,w_dim]."""
        codes, above = [], None
        levels = zip(reversed(self.taps(img)), self.lateral, self.squeeze, self.heads, strict=False)
        for x, lateral, squeeze, head in levels:
            x = lateral(x) if above is None else _up(above, x) + lateral(x)
            pooled = squeeze(F.adaptive_avg_pool2d(x, self._GRID)).flatten(1)
            codes.append(head(pooled).reshape(len(img), -1, self.w_dim))
            above = x
        return torch.cat(codes, 1)


class Encoder(nn.Module):
    """An encoder with what it starts from: codes = net(img) + latent_avg.

    `config` rebuilds it; `latent_avg` [n_styles,w_dim] is a buffer and travels with the weights.
    """

    def __init__(self, variant: str, resolution: int, w_dim: int = 512, img_channels: int = 3) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise StylebotError(f"encoder variant {variant!r} is not one of {', '.join(VARIANTS)}")
        net = PspEncoder if variant == "psp" else LightEncoder
        self.config = {"variant": variant, "resolution": resolution, "w_dim": w_dim,
                       "img_channels": img_channels}
        self.net = net(resolution, w_dim, img_channels)
        self.n_styles, self.input_px = self.net.n_styles, self.net.input_px
        self.register_buffer("latent_avg", torch.zeros(self.n_styles, w_dim))

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        """`img` [N,C,r,r] float, [-1,1], of any r (resized to the net's own) to codes [N,n_styles,w_dim]."""
        if img.shape[2] != self.input_px:
            img = F.interpolate(img, (self.input_px, self.input_px), mode="bilinear", align_corners=False,
                                antialias=img.shape[2] > self.input_px)
        return self.net(img) + self.latent_avg


def save_encoder(path: Path, encoder: Encoder, meta: dict, skips: nn.Module | None = None) -> None:
    """Write weights and `config` as safetensors; `meta` (plain data) travels as JSON beside them.

    skips: `Skips` that were trained for this encoder; `load_skips` reads them.
    """
    nets, extra = ({"": encoder, PREFIX: skips}, {"skips": skips.config}) if skips else ({"": encoder}, {})
    state = {prefix + key: value.detach().cpu().contiguous().clone()
             for prefix, net in nets.items() for key, value in net.state_dict().items()}
    text = json.dumps({"config": encoder.config, "meta": meta, **extra}, sort_keys=True)
    with atomic(path) as part:
        save_file(state, part, {"stylebot_encoder": text})


def load_encoder(path: Path) -> tuple[Encoder, dict]:
    """The frozen encoder, in evaluation mode, and the `meta` that `save_encoder` wrote.

    Raises: StylebotError when the file is damaged or not one of these encoders.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("stylebot_encoder")
            state = {k: file.get_tensor(k) for k in file.keys() if not k.startswith(PREFIX)}  # noqa: SIM118
    except OSError as error:
        raise StylebotError(f"{path}: {error.strerror or error}") from None
    except (SafetensorError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise StylebotError(f"{path} is not a readable safetensors file ({reason})") from None
    if text is None:
        raise StylebotError(f"{path} holds no encoder written by `encode`")
    try:
        described = json.loads(text)
        config, meta = dict(described["config"]), dict(described["meta"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise StylebotError(f"{path}: its description is not that of an encoder") from None
    encoder = _described(path, config, state)
    try:
        encoder.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise StylebotError(f"{path}: its weights do not fit its own description ({reason})") from None
    return encoder.eval().requires_grad_(False), meta


def _described(path: Path, config: dict, state: dict[str, torch.Tensor]) -> Encoder:
    """A new encoder as `config` says, if so large a one can be in the file at all.

    Raises: StylebotError, so that a lying description costs no memory.
    """
    sizes = [config.get(name) for name in ("resolution", "w_dim", "img_channels")]
    plain = all(type(size) is int and 0 < size <= 1 << 13 for size in sizes)
    if not plain or config.keys() != {"variant", "resolution", "w_dim", "img_channels"} or sizes[0] < 4:
        raise StylebotError(f"{path}: no encoder has the description {str(config)[:120]}")
    each = 4 * 9 * 512**2 if config["variant"] == "psp" else LightEncoder.HEAD_INPUTS * sizes[1]
    if sum(t.numel() for t in state.values()) < each * n_styles(sizes[0]):
        raise StylebotError(f"{path}: it holds fewer numbers than the encoder that it describes")
    try:
        return Encoder(**config)
    except StylebotError as error:
        raise StylebotError(f"{path}: {error}") from None
