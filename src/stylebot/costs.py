"""What a training step costs, counted on the real networks without computing anything: memory, operations.

The networks are built on torch's meta device, whose tensors have shapes but no numbers, and every phase of
the trainer runs on them. What is counted are therefore this code's own tensors and multiplications, not a
formula about them.
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from stylebot.augment import AugmentPipe
from stylebot.discriminator import freeze_d
from stylebot.encoder import Encoder
from stylebot.generator import Generator
from stylebot.trainer import PHASES, Recipe, TrainState, due, learning_rates
from stylebot.weights import skeleton

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class PhaseCost:
    """Of one phase and one round of `batch_gpu` pictures: operations, and bytes beyond the weights."""

    flops: int  # 2 per multiplication and addition
    peak_bytes: int  # most bytes alive at once: activations and gradients


@dataclass(frozen=True)
class StepCost:
    """What the trainer needs per device for given networks and a given recipe."""

    phases: dict[str, PhaseCost]
    parameters_G: int
    parameters_D: int
    trainable_D: int
    recipe: Recipe

    @property
    def fixed_bytes(self) -> int:
        """Weights of G, D and G_ema, and Adam's two averages of what is trained."""
        trained = self.parameters_G + self.trainable_D
        return _FLOAT_BYTES * (2 * self.parameters_G + self.parameters_D + 2 * trained)

    @property
    def peak_bytes(self) -> int:
        """Most bytes beyond `fixed_bytes`, over all phases."""
        return max(phase.peak_bytes for phase in self.phases.values())

    @property
    def flops_per_kimg(self) -> float:
        """Operations per thousand real pictures, lazy regularisation in its intervals."""
        every = due(self.recipe, 0)
        per_round = sum(cost.flops / every[name] for name, cost in self.phases.items())
        return per_round / self.recipe.batch_gpu * 1000

    @property
    def network_bytes(self) -> int:
        """Size of networks.safetensors: G, D and G_ema."""
        return _FLOAT_BYTES * (2 * self.parameters_G + self.parameters_D)


class Meter(TorchDispatchMode):
    """Within it every new tensor is counted while it lives (`now` and at `most`, bytes), and every operation.

    size: bytes of a tensor that is the first to use its storage
    """

    def __init__(self, size: Callable[[Tensor], int]) -> None:
        super().__init__()
        self.size, self.now, self.most, self.flops = size, 0, 0, 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> object:
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and id(tensor.untyped_storage()) not in given:
                self._count(tensor)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage, size = tensor.untyped_storage(), self.size(tensor)
        key = id(storage)
        if key in self._known:
            return

        def gone(_: weakref.ref) -> None:
            self.now -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


class _Shapes:
    """Stands for randomness.Draw: right shapes, no numbers; augmentation by one fixed draw at its p."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def first(self, count: int) -> Self:
        return type(self)(count)

    def randn(self, purpose: str) -> Callable[[tuple[int, ...]], Tensor]:
        return lambda shape: torch.empty(shape, device="meta")

    def cutoff(self, probability: float, num_ws: int) -> int | None:
        return num_ws // 2 if probability > 0 else None

    def augmented(self, pipe: AugmentPipe | None, img: Tensor, purpose: str) -> Tensor:
        if pipe is None or float(pipe.p) == 0:
            return img
        drawn = pipe.draw(tuple(img.shape), torch.Generator().manual_seed(0))
        return pipe(img, draws=drawn)


def _sizer(G: Generator) -> Callable[[Tensor], int]:
    """Bytes of a tensor on a GPU: there the `num_fp16_res` highest resolutions have float16 maps."""
    half = G.config["num_fp16_res"]
    half_from = max(2 * G.img_resolution >> half, 8) if half else G.img_resolution + 1

    def size(tensor: Tensor) -> int:
        maps = tensor.ndim == 4 and tensor.shape[1] > G.img_channels and tensor.shape[2] >= half_from
        return tensor.untyped_storage().nbytes() // (2 if maps and tensor.dtype == torch.float32 else 1)

    return size


def step_cost(config_G: Mapping[str, object], config_D: Mapping[str, object], recipe: Recipe) -> StepCost:
    """Run each phase of `recipe` once, without numbers, on networks of these constructor arguments.

    Augmentation is counted at the recipe's largest p. Raises StylebotError for a freeze_d beyond D's layers.
    """
    G, G_ema, D = skeleton("G", config_G), skeleton("G", config_G), skeleton("D", config_D)
    trainable = freeze_d(D, recipe.freeze_d)
    pipe = None if recipe.augment == "none" else AugmentPipe(recipe.augment)
    if pipe is not None:
        pipe.p.fill_(recipe.p_max)
    moving = [p for parameters, _ in learning_rates(G, recipe) for p in parameters]
    zero, pair = torch.zeros([], device="meta"), torch.zeros(2, device="meta")
    state = TrainState(0, G, D, G_ema, None, None, moving, trainable, pipe, zero, pair, pair, pair.clone())
    wanted = due(recipe, 0)
    phases = {name: _phase_cost(name, compute, state, recipe) for name, compute in PHASES if name in wanted}
    counts = [sum(p.numel() for p in part) for part in (G.parameters(), D.parameters(), trainable)]
    return StepCost(phases, *counts, recipe)


def _phase_cost(name: str, compute: Callable, state: TrainState, recipe: Recipe) -> PhaseCost:
    mine, others = state.trainable_G, state.trainable_D
    if name.startswith("D"):
        mine, others = others, mine
    for p in others:
        p.requires_grad_(False)
    for p in mine:
        p.requires_grad_(True)
    side = state.G.img_resolution
    with Meter(_sizer(state.G)) as meter:
        real = None
        if name.startswith("D"):
            real = torch.empty(recipe.batch_gpu, state.G.img_channels, side, side, device="meta")
        loss = compute(state, _Shapes(recipe.batch_gpu), recipe, real)
        loss.mean().backward()
        del loss, real
    for p in mine:
        p.grad = None
    return PhaseCost(meter.flops, meter.most)


@dataclass(frozen=True)
class EncoderCost:
    """What training the encoder needs on its one device, without the perceptual network."""

    parameters: int
    parameters_G: int
    batch: int
    peak_bytes: int  # beyond fixed_bytes
    flops_per_kimg: float

    @property
    def fixed_bytes(self) -> int:
        """Weights of encoder and generator, and Adam's two averages."""
        return _FLOAT_BYTES * (3 * self.parameters + self.parameters_G)


def encoder_cost(config_G: Mapping[str, object], variant: str, batch: int, real_share: float) -> EncoderCost:
    """One step of the encoder without numbers: styles of `batch` pictures, of real ones also their picture.

    variant: "light" or "psp"; real_share: of the batch, the others are judged by their styles alone
    """
    G = skeleton("G", config_G).requires_grad_(False)
    with torch.device("meta"):
        encoder = Encoder(variant, G.img_resolution, G.w_dim, G.img_channels).train()
    side, real = G.img_resolution, round(batch * real_share)
    with Meter(_sizer(G)) as meter:
        codes = encoder(torch.empty(batch, G.img_channels, side, side, device="meta"))
        loss = codes[real:].square().sum()
        if real:
            loss = loss + G.synthesis(codes[:real], noise_mode="const").square().mean()
        loss.backward()
        del codes, loss
    counts = [sum(p.numel() for p in net.parameters()) for net in (encoder, G)]
    return EncoderCost(*counts, batch, meter.most, meter.flops / batch * 1000)
