"""What each training phase asks of the networks, operation by operation or compiled by torch.compile.

Compiled functions take tensors alone: random numbers are drawn before them, augmentation (whose shapes vary)
and messages between processes stay outside, parameters are the networks' own. torch.compile refuses a second
derivative from outside; the regularisers therefore take their first one within, by torch.func.grad, which is
right as long as no operation of the networks writes in place. What they differentiate a second time goes by
`convolutions`: torch's own formula would put several operations per channel into the graph.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.func import grad

from stylebot import convolutions, dist, losses
from stylebot.discriminator import Discriminator
from stylebot.generator import MAIN_MEMORY_FORMAT, Generator, Randn, SynthesisLayer
from stylebot.losses import Augment
from stylebot.randomness import Draw

MOST_APART = 0.05  # a compiled gradient further than this from the eager one, as a share of it, is refused


class Eager:
    """The passes through G and D that phases are made of; `mixing` is the probability of style mixing.

    half: pictures and logits are computed in bfloat16; the mapping and both regularisers never are
    """

    def __init__(self, G: Generator, D: Discriminator, half: bool = False) -> None:
        self.G, self.D, self.half = G, D, half

    def mapping(self, z: Tensor, c: None, skip_w_avg_update: bool = False) -> Tensor:
        """ws [N, num_ws, w_dim] of z; moves G's w_avg."""
        return self.G.mapping(z, c, skip_w_avg_update=skip_w_avg_update)

    def pictures(self, ws: Tensor, randn: Randn) -> Tensor:
        """img [N, C, R, R] of ws, `randn` draws the noise inputs."""
        with dist.halved(self.half):
            img = self.G.synthesis(ws, randn=randn)
        return img.float() if self.half else img

    def logits(self, img: Tensor) -> Tensor:
        """D's [N, 1] of img."""
        with dist.halved(self.half):
            logits = self.D(img)
        return logits.float() if self.half else logits

    def styles(self, draw: Draw, mixing: float) -> Tensor:
        """ws [n, num_ws, w_dim] of the draw's samples."""
        shape, cutoff = (len(draw), self.G.z_dim), draw.cutoff(mixing, self.G.num_ws)
        z_mix = None if cutoff is None else draw.randn("z_mix")(shape)
        return losses.mixed_ws(self.mapping, draw.randn("z")(shape), None, z_mix, cutoff)

    def fakes(self, draw: Draw, mixing: float) -> Tensor:
        """Generated pictures of the draw's samples, in G's current mode."""
        return self.pictures(self.styles(draw, mixing), draw.randn("noise"))

    def path_lengths(self, draw: Draw, mixing: float) -> Tensor:
        """As losses.path_lengths, of the draw's samples."""
        ws = self.styles(draw, mixing)
        return losses.path_lengths(self.G, ws, draw.randn("pl"), noise_randn=draw.randn("noise"))

    def r1_penalty(self, augment: Augment, real: Tensor) -> tuple[Tensor, Tensor]:
        """As losses.r1_penalty."""
        return losses.r1_penalty(self.D, augment, real)


def _ws(mapping: nn.Module, z: Tensor, skip_w_avg_update: bool) -> Tensor:
    return mapping(z, None, skip_w_avg_update=skip_w_avg_update)


def _pictures(synthesis: nn.Module, ws: Tensor, noise: list[Tensor]) -> Tensor:
    following = iter(noise)
    return synthesis(ws, randn=lambda shape: next(following))


def _logits(D: nn.Module, img: Tensor) -> Tensor:
    return D(img)


def _lengths(synthesis: nn.Module, ws: Tensor, y: Tensor, noise: list[Tensor]) -> Tensor:
    return losses.slope_length(grad(lambda at: (_pictures(synthesis, at, noise) * y).sum())(ws))


def _slope(D: nn.Module, img: Tensor) -> tuple[Tensor, Tensor]:
    def total(at: Tensor) -> tuple[Tensor, Tensor]:
        logits = D(at)
        return logits.sum(), logits

    return grad(total, has_aux=True)(img)


class Compiled(Eager):
    """The same numbers but for rounding, each pass one compiled function; `backend` is torch.compile's."""

    def __init__(self, G: Generator, D: Discriminator, backend: str = "inductor") -> None:
        super().__init__(G, D)
        functions = (_ws, _pictures, _logits, _lengths, _slope)
        self._run = {f: torch.compile(f, fullgraph=True, dynamic=False, backend=backend) for f in functions}
        self._noisy = [layer.resolution for layer in G.synthesis.modules()
                       if isinstance(layer, SynthesisLayer) and layer.use_noise]  # fmt: skip

    def _noise(self, ws: Tensor, randn: Randn) -> list[Tensor]:
        return [randn((len(ws), 1, side, side)).to(ws) for side in self._noisy]

    def mapping(self, z: Tensor, c: None, skip_w_avg_update: bool = False) -> Tensor:
        """ws [N, num_ws, w_dim] of z; moves G's w_avg."""
        return self._run[_ws](self.G.mapping, z, skip_w_avg_update)

    def pictures(self, ws: Tensor, randn: Randn) -> Tensor:
        """img [N, C, R, R] of ws, `randn` draws the noise inputs."""
        return self._run[_pictures](self.G.synthesis, ws, self._noise(ws, randn))

    def logits(self, img: Tensor) -> Tensor:
        """D's [N, 1] of img."""
        return self._run[_logits](self.D, img.contiguous(memory_format=MAIN_MEMORY_FORMAT))

    def path_lengths(self, draw: Draw, mixing: float) -> Tensor:
        """As losses.path_lengths, of the draw's samples."""
        ws = self.styles(draw, mixing)
        y = losses.path_direction(ws, self.G.img_channels, self.G.img_resolution, draw.randn("pl"))
        return self._run[_lengths](self.G.synthesis, ws, y, self._noise(ws, draw.randn("noise")))

    def r1_penalty(self, augment: Augment, real: Tensor) -> tuple[Tensor, Tensor]:
        """As losses.r1_penalty: D's gradient by what it sees, led back to the picture by the chain rule."""
        real = real.detach().requires_grad_(True)
        seen = augment(real)
        slope, logits = self._run[_slope](self.D, seen.detach().contiguous(memory_format=MAIN_MEMORY_FORMAT))
        (gradient,) = torch.autograd.grad(seen, real, slope, create_graph=True)
        return gradient.square().sum(dim=[1, 2, 3]), logits


def compiled_phases(
    G: Generator, D: Discriminator, trainable: Mapping[str, Sequence[nn.Parameter]],
    counts: Mapping[str, int], backend: str = "inductor",
) -> dict[str, Eager]:  # fmt: skip
    """The passes of each phase of `counts`, compiled if this platform can; stderr names those it cannot.

    trainable: {"G": parameters, "D": …}; counts: samples per round of each phase
    Everything is compiled here, before training, and its gradients of made-up samples are held against the
    eager ones. All processes decide alike. Nothing of the networks changes but `requires_grad`.
    """
    convolutions.install()
    fast, slow = Compiled(G, D, backend), Eager(G, D)
    chosen: dict[str, Eager] = {}
    if dist.rank() == 0:
        print("train: compiling; the first time on a machine this takes minutes", file=sys.stderr)
    for phase, count in counts.items():
        reason = _refusal(fast, slow, phase, trainable, count)
        refused = dist.anywhere(bool(reason))
        chosen[phase] = slow if refused else fast
        if refused and dist.rank() == 0:
            why = reason or "another process cannot compile it"
            print(f"train: phase {phase} runs without torch.compile: {why}", file=sys.stderr)
    return chosen


def _refusal(
    fast: Eager, slow: Eager, phase: str, trainable: Mapping[str, Sequence[nn.Parameter]], count: int
) -> str:
    """Why `phase` cannot be compiled, or ""."""
    average = fast.G.mapping.w_avg.clone()
    try:
        found = _gradient(fast, phase, trainable, count)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # the base of all that torch.compile and its backends raise
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    finally:
        fast.G.mapping.w_avg.copy_(average)
    wanted = _gradient(slow, phase, trainable, count)
    fast.G.mapping.w_avg.copy_(average)
    apart = float((found - wanted).norm() / wanted.norm())
    return "" if apart <= MOST_APART else f"its gradient is {apart:.2g} of its length off the eager one"


def _gradient(
    passes: Eager, phase: str, trainable: Mapping[str, Sequence[nn.Parameter]], count: int
) -> Tensor:
    """Of what `phase` computes for made-up samples, by all its trained parameters, in one row."""
    for net, parameters in trainable.items():
        for parameter in parameters:
            parameter.requires_grad_(phase.startswith(net))
    draw = Draw(0, 0, phase, count, torch.arange(count))
    side = passes.G.img_resolution
    real = draw.randn("real")((count, passes.G.img_channels, side, side))
    if phase == "Dreg":
        result = passes.r1_penalty(lambda img: img, real)[0]
    elif phase == "Greg":
        result = passes.path_lengths(draw, 1.0)
    else:
        with torch.no_grad() if phase == "Dmain" else nullcontext():
            fake = passes.fakes(draw, 1.0)
        result = passes.logits(fake)
        result = result if phase == "Gmain" else result - 2 * passes.logits(real)
    mine = list(trainable[phase[0]])
    pairs = zip(torch.autograd.grad(result.sum(), mine, allow_unused=True), mine, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1).float() for g, p in pairs])
