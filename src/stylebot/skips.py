"""Skip connections from a small, blurred face into a frozen generator: super-resolution's mode "faithful"."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from stylebot.errors import StylebotError
from stylebot.generator import Generator

PREFIX = "skips."  # of these tensors in an encoder's file
_NARROWEST, _WIDEST = 16, 128
_SLOPE = 0.2
_LOWEST = 8  # px of the first features that are changed


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(_SLOPE))


class Skips(nn.Module):
    """A U-Net on the blurred face whose every level predicts scale and shift of generator features.

    channels: of the generator's features at 8, 16, … R px. The first half of them stays as the generator
    made it, the second half is scaled and shifted pixel by pixel. The last convolution of every level begins
    at zero: what is rebuilt is then what the generator makes without any of this.
    Source: Wang et al. 2021 (GFPGAN), arXiv 2101.04061, section 3.3, channel-split spatial feature transform.
    """

    def __init__(self, channels: Sequence[int], img_channels: int = 3) -> None:
        super().__init__()
        self.config = {"channels": list(channels), "img_channels": img_channels}
        self.sides = [_LOWEST << i for i in range(len(channels))]
        width = [min(max(c // 2, _NARROWEST), _WIDEST) for c in channels]
        self.stem = _conv(img_channels, width[-1])
        self.down = nn.ModuleList(nn.Sequential(_conv(above, here, 2), _conv(here, here))
                                  for here, above in pairwise(width))
        self.middle = _conv(width[0], width[0])
        self.narrow = nn.ModuleList(_conv(here, above) for here, above in pairwise(width))
        self.up = nn.ModuleList(_conv(w, w) for w in width[1:])
        self.heads = nn.ModuleList(nn.Sequential(_conv(w, w), nn.Conv2d(w, 2 * (c // 2), 3, 1, 1))
                                   for w, c in zip(width, channels, strict=True))
        for head in self.heads:
            nn.init.zeros_(head[1].weight)
            nn.init.zeros_(head[1].bias)

    @property
    def resolution(self) -> int:
        """Side of the generator's pictures, px."""
        return self.sides[-1]

    def forward(self, img: Tensor) -> dict[int, Tensor]:
        """`img` [N,C,R,R] float, [-1,1] to scale and shift [N,2·(channels//2),r,r] by side r = 8 … R."""
        levels = [self.stem(img)]
        for down in reversed(self.down):
            levels.append(down(levels[-1]))
        x = self.middle(levels.pop())
        found = [self.heads[0](x)]
        for narrow, up, head in zip(self.narrow, self.up, self.heads[1:], strict=True):
            x = up(F.interpolate(narrow(x), scale_factor=2, mode="bilinear") + levels.pop())
            found.append(head(x))
        return dict(zip(self.sides, found, strict=True))


def skips_for(generator: Generator) -> Skips:
    """New skip connections for `generator`, drawn from torch's global generator.

    Raises: StylebotError for one of less than 8 px, which has nothing to connect to.
    """
    if generator.img_resolution < _LOWEST:
        raise StylebotError(f"skip connections need a generator of {_LOWEST} px or more, "
                            f"not {generator.img_resolution} px")  # fmt: skip
    return Skips(_channels(generator), generator.img_channels)


def _channels(generator: Generator) -> list[int]:
    blocks = (getattr(generator.synthesis, f"b{r}") for r in generator.synthesis.resolutions if r >= _LOWEST)
    return [block.conv0.weight.shape[0] for block in blocks]


def changed(x: Tensor, condition: Tensor) -> Tensor:
    """Features x [N,C,r,r] whose last C//2 channels are times 1 + scale plus shift.

    condition [N,2·(C//2),r,r]: scale and shift; at zero the result equals x in every bit.
    """
    half = condition.shape[1] // 2
    scale, shift = condition.to(x.dtype).split(half, 1)
    return torch.cat([x[:, :-half], x[:, -half:] * (1 + scale) + shift], 1)


@contextmanager
def _steered(generator: Generator, conditions: Mapping[int, Tensor]) -> Iterator[None]:
    handles = []
    try:
        for side, condition in conditions.items():
            layer = getattr(generator.synthesis, f"b{side}").conv0
            handles.append(layer.register_forward_hook(lambda _, __, x, condition=condition:
                                                       changed(x, condition)))  # fmt: skip
        yield
    finally:
        for handle in handles:
            handle.remove()


def synthesise(generator: Generator, ws: Tensor, conditions: Mapping[int, Tensor]) -> Tensor:
    """Pictures [N,C,R,R] that `generator` makes of ws [N,num_ws,w_dim], its features changed on the way.

    conditions: what `Skips` predicts. They act on the first convolution of each resolution, before the second
    and the picture see it; noise is the constant one, as without skips.
    """
    with _steered(generator, conditions):
        return generator.synthesis(ws, noise_mode="const")


def load_skips(path: Path, generator: Generator) -> Skips:
    """The frozen skip connections in an encoder's file that `load_encoder` has read.

    Raises: StylebotError when the file has none, when they are damaged or for another generator.
    """
    with safe_open(path, "pt") as file:
        described = json.loads(file.metadata()["stylebot_encoder"]).get("skips")
        state = {key.removeprefix(PREFIX): file.get_tensor(key)
                 for key in file.keys() if key.startswith(PREFIX)}  # fmt: skip # noqa: SIM118 (not a mapping)
    if described is None:
        raise StylebotError(f"{path} was trained without skip connections: run `encode` with "
                            "encode.faithful.kimg above 0, or set superres.mode to pure")  # fmt: skip
    wanted = {"channels": _channels(generator), "img_channels": generator.img_channels}
    if described != wanted:
        raise StylebotError(f"{path}: its skip connections are for a generator with {str(described)[:120]}, "
                            f"this one has {wanted}: run `encode` against it")  # fmt: skip
    net = skips_for(generator)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise StylebotError(f"{path}: its skip connections do not fit their description ({reason})") from None
    return net.eval().requires_grad_(False)
