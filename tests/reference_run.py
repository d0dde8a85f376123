"""Our training steps fed with the random numbers of a recorded run of the reference."""

from collections.abc import Iterator

import pytest
import torch
from oracle import with_weights
from torch import Tensor
from training import recipe

from stylebot import trainer
from stylebot.discriminator import Discriminator
from stylebot.generator import Generator
from stylebot.randomness import Draw, shares
from stylebot.trainer import start_state, train_step

KEPT = ("batch", "batch_gpu", "ema_kimg", "ema_rampup", "G_reg_interval", "D_reg_interval", "r1_gamma",
        "pl_weight")  # fmt: skip


class Reference:
    """One recorded run: its options, its random numbers in place of ours, and what our steps then compute.

    options: G and D (our arguments), lr, KEPT; arrays: "G/…" and "D/…" to start from, "in/…".
    gradients: norms by "STEP/PHASE/NAME", of sums over rounds; betas of the running average by step.
    """

    def __init__(self, options: dict, arrays: dict[str, Tensor], dtype: torch.dtype = torch.float64) -> None:
        self.options, self.arrays, self.dtype, o = options, arrays, dtype, options
        self.rounds = o["batch"] // o["batch_gpu"]
        self.recipe = recipe(**{k: o[k] for k in KEPT}, lr_g=o["lr"], lr_d=o["lr"], style_mixing_prob=0.0,
                             augment="none", mirror=False)  # fmt: skip
        self.order = torch.cat(shares(o["batch"], o["batch_gpu"], 4))  # ours deals rounds out in columns
        self.pl_noise = sorted(k for k in self.arrays if k.startswith("in/pl_noise_raw/"))
        self.gradients: dict[str, Tensor] = {}
        self.betas: list[float] = []

    def steps(self, count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, trainer.TrainState]]:
        """Do `count` training steps; give the number and the state after each."""
        state, apply, beta = self.start(), trainer._apply, trainer.ema_beta

        def spy(state, optimiser, params) -> None:
            net, phase = (state.G, "G") if optimiser is state.opt_G else (state.D, "D")
            step = state.cur_nimg // self.recipe.batch
            named = f"{step}/{phase}main/{next(iter(net.state_dict()))}"
            phase += "reg" if named in self.gradients else "main"
            for k, p in net.named_parameters():
                norm = torch.zeros([]).to(self.dtype) if p.grad is None else p.grad.norm()
                self.gradients[f"{step}/{phase}/{k}"] = norm * self.rounds
            apply(state, optimiser, params)

        monkeypatch.setattr(trainer, "Draw", self.draw(state.G))
        monkeypatch.setattr(trainer, "real_batch", self.real_batch)
        monkeypatch.setattr(trainer, "_apply", spy)
        monkeypatch.setattr(trainer, "ema_beta", lambda *a: self.betas.append(beta(*a)) or self.betas[-1])
        for step in range(count):
            train_step(state, torch.empty(0), self.recipe)
            yield step, state

    def start(self) -> trainer.TrainState:
        """The state before the first step."""
        G = with_weights(Generator(**self.options["G"]), self.arrays, "G/").to(self.dtype)
        D = with_weights(Discriminator(**self.options["D"]), self.arrays, "D/").to(self.dtype)
        state = start_state(G, D, None, self.recipe)
        state.pl_mean = state.pl_mean.to(self.dtype)
        for group in (*state.opt_G.param_groups, *state.opt_D.param_groups):
            group["eps"] /= self.rounds  # the reference adds rounds up where we take their mean
        return state

    def here(self, which: Tensor) -> slice:
        """Rows of a recorded batch that the samples `which` are."""
        first = int((self.order == which[0]).nonzero())
        return slice(first, first + len(which))

    def real_batch(self, reals: Tensor, nimg: int, which: Tensor, seed: int, mirror: bool) -> Tensor:
        """In place of randomness.real_batch: the recorded pictures."""
        levels = self.arrays["in/real_img_u8"][nimg // self.recipe.batch][self.here(which)]
        return levels.to(self.dtype) / 127.5 - 1

    def draw(self, G: Generator) -> type[Draw]:
        """In place of randomness.Draw: the recorded numbers."""
        reference, names = self, [name for name, _ in trainer.PHASES]

        class Recorded(Draw):
            def randn(self, purpose: str):
                if purpose == "z":
                    z = reference.arrays["in/gen_z"][self.nimg // self.batch].unflatten(0, (4, self.batch))
                    return lambda shape: z[names.index(self.phase)][reference.here(self.which)]
                if purpose == "pl":
                    return lambda shape: reference.arrays[reference.pl_noise.pop(0)]
                noise = iter([b for name, b in G.named_buffers() if name.endswith("noise_const")])
                return lambda shape: next(noise).expand(shape)

        return Recorded
