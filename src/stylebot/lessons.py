"""What an encoder learns from: real faces, and generated ones with the styles that made them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from stylebot import dist
from stylebot.degrade import to_rgb
from stylebot.dist import device
from stylebot.generator import Generator


@dataclass(frozen=True)
class Faces:
    """Everything an encoder learns from, on the CPU: real faces, and generated ones with their styles."""

    real: torch.Tensor  # [M,3,R,R] uint8
    fake: torch.Tensor  # [K,3,R,R] uint8
    fake_w: torch.Tensor  # [K,w_dim] float32

    @cached_property
    def w_variance(self) -> float:
        """Mean variance of a number in `fake_w`."""
        return float(self.fake_w.var(0, correction=0).mean())


@dataclass(frozen=True)
class Batch:
    """One step's pictures: the first `n_real` rows are real faces, the others generated ones."""

    target: torch.Tensor  # [N,3,R,R] float, [-1,1]
    small: torch.Tensor  # the same, degraded
    w: torch.Tensor  # [N - n_real,w_dim]
    n_real: int
    w_variance: float = 1.0  # of w over all generated faces
    factors: tuple[int, ...] = ()  # by which each picture was shrunk

    def share(self) -> "Batch":
        """This process's part: as many real and as many generated faces as every other process has."""
        if (world := dist.world()) == 1:
            return self
        n, k = self.n_real // world, len(self.w) // world
        fakes = range(dist.rank() * k, (dist.rank() + 1) * k)
        rows = [*range(dist.rank() * n, (dist.rank() + 1) * n), *(self.n_real + i for i in fakes)]
        return Batch(self.target[rows], self.small[rows], self.w[list(fakes)], n, self.w_variance,
                     tuple(self.factors[i] for i in rows))


def frozen(generator: Generator) -> Generator:
    """`generator` for evaluation only, its weights out of every gradient."""
    return generator.eval().requires_grad_(False).to(device())


@torch.no_grad()
def make_faces(generator: Generator, count: int, psi: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` generated faces [K,3,R,R] uint8 and their w [K,w_dim], a function of the arguments alone."""
    rgbs, styles, where = [], [], device()
    for first in range(0, count, 32):
        rng = np.random.default_rng([seed, 1, first])
        n = min(32, count - first)
        z = torch.from_numpy(rng.standard_normal((n, generator.z_dim), dtype=np.float32)).to(where)
        c = None
        if generator.c_dim:
            labels = torch.from_numpy(rng.integers(0, generator.c_dim, n))
            c = F.one_hot(labels, generator.c_dim).float().to(where)
        ws = generator.mapping(z, c, truncation_psi=psi)
        rgbs.append(to_rgb(generator.synthesis(ws, noise_mode="const")).cpu())
        styles.append(ws[:, 0].float().cpu())
    return torch.cat(rgbs), torch.cat(styles)
