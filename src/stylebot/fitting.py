"""Fitting a network step by step: restart states, learning rates, a progress bar, means of the last tenth."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from stylebot import dist
from stylebot.dist import device
from stylebot.errors import TrainingDiverged
from stylebot.restarts import Restarts
from stylebot.schedules import Schedule, lr_factor

_SAVE_EVERY = 50  # steps between two restart states


@dataclass(frozen=True)
class Pace:
    """How long and how fast: `kimg` thousand pictures in steps of `batch`, learning rate and its schedule."""

    kimg: float
    batch: int
    lr: float
    schedule: Schedule

    @property
    def total(self) -> int:
        """Pictures of the whole run, a multiple of the batch."""
        return math.ceil(self.kimg * 1000 / self.batch) * self.batch

    def lr_at(self, cur_nimg: int) -> float:
        """Learning rate after `cur_nimg` pictures: constant as published, or half a cosine to 1 %."""
        return self.lr * lr_factor(self.schedule, cur_nimg / self.total)


@dataclass
class State:
    """All that a restart needs: progress, network, optimiser, and the sums of the last tenth's losses.

    name: what messages call the run; lr_name: the parameter to lower when it diverges
    """

    name: str
    lr_name: str
    restarts: Restarts
    net: nn.Module
    opt: torch.optim.Optimizer
    cur_nimg: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    @classmethod
    def start(cls, name: str, lr_name: str, identity: Mapping[str, object], net: nn.Module,
              pace: Pace) -> Self:  # fmt: skip
        """Adam at picture 0, or where the interrupted run of the same `identity` was; says which.

        identity: plain data, everything that the run depends on
        """
        net.to(device())
        opt = torch.optim.Adam(net.parameters(), lr=pace.lr, betas=(0.9, 0.999))
        state = cls(name, lr_name, Restarts(name, identity), net, opt)
        saved = state.restarts.newest()
        for line in state.restarts.told(saved) if dist.rank() == 0 else ():
            print(f"{name}: {line}")
        if saved is not None:
            net.load_state_dict(saved["net"])
            opt.load_state_dict(saved["opt"])
            state.cur_nimg, state.sums = saved["cur_nimg"], saved["sums"]
        return state

    def save(self) -> None:
        """Write everything as the newest restart state; one process does, as all hold the same."""
        if dist.rank() != 0:
            return
        self.restarts.save(self.cur_nimg, {"cur_nimg": self.cur_nimg, "sums": self.sums,
                                           "net": self.net.state_dict(), "opt": self.opt.state_dict()})


def _step(state: State, parts: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, float]:
    state.opt.zero_grad(set_to_none=True)
    torch.stack([weights[name] * value for name, value in parts.items()]).sum().backward()
    found = torch.stack([value.detach() for value in parts.values()])
    dist.all_reduce_mean([p.grad for p in state.net.parameters() if p.grad is not None])
    dist.all_reduce_mean([found])
    state.opt.step()
    values = dict(zip(parts, found.tolist(), strict=True))
    if not all(math.isfinite(value) for value in values.values()):
        raise TrainingDiverged(f"{state.name}: losses {values} after {state.cur_nimg} faces; "
                               f"lower {state.lr_name}")  # fmt: skip
    return values


def fit(state: State, pace: Pace, losses: Callable[[int], Mapping[str, Tensor]],
        weights: Mapping[str, float]) -> dict[str, float]:  # fmt: skip
    """Train `state.net` to the end of `pace`, leaving a restart state now and then.

    losses: unweighted losses by name of the batch that follows so many pictures; each has its weight
    Returns their means over the last tenth. Raises: TrainingDiverged when a loss is no longer finite.
    """
    columns = TextColumn(state.name), BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn()
    with Progress(*columns, disable=dist.rank() != 0) as bar:
        task = bar.add_task("", total=pace.total, note="")
        while state.cur_nimg < pace.total:
            for group in state.opt.param_groups:
                group["lr"] = pace.lr_at(state.cur_nimg)
            values = _step(state, losses(state.cur_nimg), weights)
            state.cur_nimg += pace.batch
            if state.cur_nimg > 0.9 * pace.total:
                state.sums = {k: state.sums.get(k, 0.0) + v for k, v in {**values, "steps": 1.0}.items()}
            if state.cur_nimg // pace.batch % _SAVE_EVERY == 0:
                state.save()
            note = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
            bar.update(task, completed=state.cur_nimg, note=f"{state.cur_nimg / 1000:.2f} kimg  {note}")
    return {name: value / state.sums["steps"] for name, value in state.sums.items() if name != "steps"}
