"""One training step of StyleGAN2 with ADA and Freeze-D: everything that changes is in TrainState.

The caller owns the loop: it calls `train_step`, then `read_stats`, saves and logs. The networks, the average,
the optimisers, pl_mean, ADA's p and its signs are the same in every process after each step.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from stylebot import dist, losses
from stylebot.augment import AugmentPipe, ada_update
from stylebot.compiled import Eager, compiled_phases
from stylebot.discriminator import Discriminator, freeze_d
from stylebot.ema import ema_beta, update_ema
from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.randomness import Draw, real_batch, shares


@dataclass(frozen=True)
class Recipe:
    """Numbers of a training run; units in the names, defaults nowhere."""

    batch: int  # pictures per step over all processes
    batch_gpu: int  # pictures at once on one device; the rest is accumulated
    lr_g: float
    lr_d: float
    r1_gamma: float
    pl_weight: float
    style_mixing_prob: float
    G_reg_interval: int
    D_reg_interval: int
    ema_kimg: float
    ema_rampup: float | None
    freeze_d: int
    augment: str  # a preset of AugmentPipe, or "none"
    ada_target: float
    ada_kimg: float
    p_initial: float
    p_max: float
    mirror: bool
    seed: int
    lr_mapping: float = 1.0  # factor of lr_g for the mapping network; 0 freezes it
    lr_noise: float = 1.0  # the same for the strengths of the noise inputs
    lecam_weight: float = 0.0
    lecam_decay: float = 0.99
    pl_batch_shrink: int = 2
    pl_decay: float = 0.01
    ada_interval: int = 4


@dataclass
class TrainState:
    """Everything that a run is; `cur_nimg` (pictures shown to D so far) is its progress."""

    cur_nimg: int
    G: Generator
    D: Discriminator
    G_ema: Generator
    opt_G: torch.optim.Optimizer
    opt_D: torch.optim.Optimizer
    trainable_G: list[nn.Parameter]
    trainable_D: list[nn.Parameter]
    augment: AugmentPipe | None
    pl_mean: Tensor
    anchors: Tensor  # [mean D(real), mean D(fake)]: running means for LeCam
    logits: Tensor  # [D(real), D(fake)]: sums over this step's rounds of their means; nothing between steps
    signs: Tensor  # [sum of sign(D(real)), count] since ADA's last update, mean over processes
    stats: dict[str, Tensor] = field(default_factory=dict)  # name: [sum, count], float64 on the device
    skipped_steps: int = 0  # optimiser steps left out because a gradient was not finite
    half: bool = False  # Gmain and Dmain compute in bfloat16: not weights, sums, losses, regularisers
    passes: dict[str, Eager] = field(init=False)  # phase: its passes through the networks

    def __post_init__(self) -> None:
        self.passes = dict.fromkeys((name for name, _ in PHASES), Eager(self.G, self.D, self.half))

    def state_dict(self) -> dict:
        """What a restart needs, as tensors and plain numbers."""
        nets = {name: getattr(self, name).state_dict() for name in ("G", "D", "G_ema", "opt_G", "opt_D")}
        p = float(self.augment.p) if self.augment else 0.0
        rest = {name: getattr(self, name) for name in ("cur_nimg", "pl_mean", "anchors", "signs")}
        return nets | rest | {"p": p, "skipped_steps": self.skipped_steps, "stats": dict(self.stats)}

    def load_state_dict(self, saved: dict) -> None:
        """Continue from what `state_dict` gave."""
        for name in ("G", "D", "G_ema", "opt_G", "opt_D"):
            getattr(self, name).load_state_dict(saved[name])
        if self.augment:
            self.augment.p.fill_(saved["p"])
        self.cur_nimg, self.skipped_steps = saved["cur_nimg"], saved["skipped_steps"]
        self.stats = {name: pair.to(self.pl_mean.device) for name, pair in saved["stats"].items()}
        for name in ("pl_mean", "anchors", "signs"):
            getattr(self, name).copy_(saved[name])


def adam(groups: list[tuple[list[nn.Parameter], float]], interval: int) -> torch.optim.Adam:
    """Adam with betas (0, 0.99) for groups of (parameters, lr), corrected for a regulariser's extra steps.

    interval: steps between those, 0 for none.
    Source: arXiv 1912.04958, appendix B (lazy regularisation).
    """
    c = interval / (interval + 1) if interval else 1.0
    named = [{"params": params, "lr": lr * c, "initial_lr": lr * c} for params, lr in groups if params]
    return torch.optim.Adam(named, betas=(0.0, 0.99**c), eps=1e-8, fused=True)


def set_lr(state: TrainState, factor: float) -> None:
    """Both learning rates become `factor` times what the recipe says."""
    for group in (*state.opt_G.param_groups, *state.opt_D.param_groups):
        group["lr"] = group["initial_lr"] * factor


def start_state(G: Generator, D: Discriminator, G_ema: Generator | None, recipe: Recipe,
                half: bool = False) -> TrainState:  # fmt: skip
    """A run at picture 0 from given networks (on the CPU); they are moved to this process's device.

    half: see TrainState.
    Raises StylebotError for a batch that does not divide evenly or a freeze_d beyond D's layers.
    """
    check_batch(recipe, D)
    where = dist.device()
    G, D = G.train().to(where), D.train().to(where)
    G_ema = (deepcopy(G) if G_ema is None else G_ema.to(where)).eval().requires_grad_(False)
    trainable = freeze_d(D, recipe.freeze_d)
    groups = learning_rates(G, recipe)
    opt_G = adam(groups, recipe.G_reg_interval)
    opt_D = adam([(trainable, recipe.lr_d)], recipe.D_reg_interval)
    pipe = None
    if recipe.augment != "none":
        pipe = AugmentPipe(recipe.augment).to(where)
        pipe.p.fill_(recipe.p_initial)
    zero, pair = torch.zeros([], device=where), torch.zeros(2, device=where)
    nets = (G, D, G_ema, opt_G, opt_D, [p for params, _ in groups for p in params], trainable)
    return TrainState(0, *nets, pipe, zero, pair, pair.clone(), pair.clone(), half=half)


def compile_phases(state: TrainState, recipe: Recipe, backend: str = "inductor") -> None:
    """Compile what the recipe's phases compute; the numbers stay the same but for rounding."""
    few = max(recipe.batch_gpu // recipe.pl_batch_shrink, 1)
    counts = {name: few if name == "Greg" else recipe.batch_gpu for name in due(recipe, 0)}
    trainable = {"G": state.trainable_G, "D": state.trainable_D}
    state.passes |= compiled_phases(state.G, state.D, trainable, counts, backend)


def learning_rates(G: Generator, recipe: Recipe) -> list[tuple[list[nn.Parameter], float]]:
    """G's parameters by learning rate: mapping, noise strengths, the rest; those with rate 0 are frozen."""
    factors = {"mapping": recipe.lr_mapping, "noise": recipe.lr_noise, "rest": 1.0}
    parts: dict[str, list[nn.Parameter]] = {part: [] for part in factors}
    for name, parameter in G.named_parameters():
        part = "mapping" if name.startswith("mapping.") else "noise" if "noise_strength" in name else "rest"
        parameter.requires_grad_(factors[part] > 0)
        parts[part].append(parameter)
    return [(parts[part], recipe.lr_g * factor) for part, factor in factors.items() if factor]


def check_batch(recipe: Recipe, D: Discriminator) -> None:
    """Raise StylebotError unless the batch splits evenly into processes, rounds and minibatch groups."""
    if recipe.batch % (recipe.batch_gpu * dist.world()):
        wanted = f"{dist.world()} processes x train.batch_gpu {recipe.batch_gpu}"
        raise StylebotError(f"train.batch {recipe.batch} is not a multiple of {wanted}")
    group = min(D.b4.mbstd_group_size, recipe.batch_gpu)
    if recipe.batch_gpu % group:
        wanted = f"minibatch-stddev groups of {group}"
        raise StylebotError(f"train.batch_gpu {recipe.batch_gpu} does not divide into {wanted}")


def phase_gmain(state: TrainState, draw: Draw, recipe: Recipe, real: Tensor | None) -> Tensor:
    """Loss [n] of G against D."""
    passes = state.passes["Gmain"]
    fake = passes.fakes(draw, recipe.style_mixing_prob)
    logits = passes.logits(draw.augmented(state.augment, fake, "augment"))
    loss = losses.generator_loss(logits)
    note(state, "loss_g", loss)
    return loss


def phase_greg(state: TrainState, draw: Draw, recipe: Recipe, real: Tensor | None) -> Tensor:
    """Path length regularisation [n / pl_batch_shrink] of this round's first samples."""
    draw = draw.first(max(len(draw) // recipe.pl_batch_shrink, 1))
    lengths = state.passes["Greg"].path_lengths(draw, recipe.style_mixing_prob)
    average = lengths.detach().mean()
    dist.all_reduce_mean([average])
    penalty, mean = losses.path_length_penalty(lengths, state.pl_mean, recipe.pl_decay, average)
    state.pl_mean.copy_(torch.where(mean.isfinite(), mean, state.pl_mean))
    note(state, "pl_penalty", penalty)
    return penalty * recipe.pl_weight


def phase_dmain(state: TrainState, draw: Draw, recipe: Recipe, real: Tensor | None) -> Tensor:
    """Loss [n] of D on fakes and reals."""
    passes = state.passes["Dmain"]
    with torch.no_grad():
        fake = passes.fakes(draw, recipe.style_mixing_prob)
    fake_logits = passes.logits(draw.augmented(state.augment, fake, "augment_fake"))
    real_logits = passes.logits(draw.augmented(state.augment, real, "augment_real"))
    of_real, of_fake = losses.discriminator_loss(real_logits, fake_logits)
    _note_signs(state, real_logits)
    note(state, "real_sign", real_logits.sign())
    note(state, "fake_sign", fake_logits.sign())
    note(state, "loss_d", of_real + of_fake)
    if not recipe.lecam_weight:
        return of_real + of_fake
    penalty = losses.lecam_penalty(real_logits, fake_logits, state.anchors)
    note(state, "lecam_penalty", penalty)
    state.logits += torch.stack([x.detach().mean() for x in (real_logits, fake_logits)])
    return of_real + of_fake + penalty * recipe.lecam_weight


def phase_dreg(state: TrainState, draw: Draw, recipe: Recipe, real: Tensor | None) -> Tensor:
    """R1 regularisation [n]."""
    augment = partial(draw.augmented, state.augment, purpose="augment_real")
    penalty, logits = state.passes["Dreg"].r1_penalty(augment, real)
    _note_signs(state, logits)
    note(state, "r1_penalty", penalty)
    return penalty * (recipe.r1_gamma / 2)


PHASES = (("Gmain", phase_gmain), ("Greg", phase_greg), ("Dmain", phase_dmain), ("Dreg", phase_dreg))


def _note_signs(state: TrainState, real_logits: Tensor) -> None:
    signs = real_logits.detach().sign().nan_to_num()
    state.signs += torch.stack([signs.sum(), signs.new_tensor(signs.numel())])


def note(state: TrainState, name: str, values: Tensor) -> None:
    """Add values to the running mean `name`; nothing is read back from the device."""
    values = values.detach().double()
    pair = torch.stack([values.sum(), values.new_tensor(values.numel())])
    state.stats[name] = state.stats[name] + pair if name in state.stats else pair


def read_stats(state: TrainState) -> dict[str, float]:
    """Means since the last call, over all processes."""
    dist.all_reduce_mean(state.stats.values())
    means = {name: float(pair[0] / pair[1]) for name, pair in sorted(state.stats.items())}
    state.stats.clear()
    return means


def due(recipe: Recipe, step: int) -> dict[str, int]:
    """Phases of this step (all, in step 0) and the intervals that their gradients make up for."""
    every = {"Gmain": 1, "Greg": recipe.G_reg_interval if recipe.pl_weight else 0,
             "Dmain": 1, "Dreg": recipe.D_reg_interval if recipe.r1_gamma else 0}  # fmt: skip
    return {name: steps for name, steps in every.items() if steps and step % steps == 0}


def train_step(state: TrainState, reals: Tensor, recipe: Recipe) -> None:
    """Show `recipe.batch` reals to D: every phase that is due, the average, ADA. Advances state.cur_nimg.

    reals [M, C, R, R] uint8, on any device.
    """
    nimg, step = state.cur_nimg, state.cur_nimg // recipe.batch
    group = min(state.D.b4.mbstd_group_size, recipe.batch_gpu)
    rounds = shares(recipe.batch, recipe.batch_gpu, group)
    for name, interval in due(recipe, step).items():
        of_G = name.startswith("G")
        params, others = state.trainable_G, state.trainable_D
        params, others = (params, others) if of_G else (others, params)
        for p in others:
            p.requires_grad_(False)
        for p in params:
            p.requires_grad_(True)
        for which in rounds:
            real = None if of_G else real_batch(reals, nimg, which, recipe.seed, recipe.mirror)
            loss = dict(PHASES)[name](state, Draw(recipe.seed, nimg, name, recipe.batch, which), recipe, real)
            (loss.mean() * (interval / len(rounds))).backward()
        _apply(state, state.opt_G if of_G else state.opt_D, params)
    dist.all_reduce_mean([state.G.mapping.w_avg, state.signs, state.logits])
    if recipe.lecam_weight and bool(state.logits.isfinite().all()):
        state.anchors.lerp_(state.logits / len(rounds), 1 - recipe.lecam_decay)
    state.logits.zero_()
    update_ema(state.G_ema, state.G, ema_beta(recipe.batch, recipe.ema_kimg, nimg, recipe.ema_rampup))
    state.cur_nimg += recipe.batch
    if state.augment is not None and (step + 1) % recipe.ada_interval == 0:
        _adapt(state, recipe)


def _apply(state: TrainState, optimiser: torch.optim.Optimizer, params: list[nn.Parameter]) -> None:
    for p in params:  # a regulariser may not reach every tensor; for Adam that too is a step, with gradient 0
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    grads = [p.grad for p in params]
    dist.all_reduce_mean(grads)
    if bool(torch.stack(torch._foreach_norm(grads)).sum().isfinite()):
        optimiser.step()
    else:
        state.skipped_steps += 1
    optimiser.zero_grad(set_to_none=True)


def _adapt(state: TrainState, recipe: Recipe) -> None:
    mean = float(state.signs[0] / state.signs[1])
    p = ada_update(float(state.augment.p), mean, recipe.ada_target, recipe.batch, recipe.ada_interval,
                   recipe.ada_kimg, recipe.p_max)  # fmt: skip
    state.augment.p.fill_(p)
    state.signs.zero_()
