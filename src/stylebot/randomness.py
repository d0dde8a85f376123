"""The randomness of training: a function of (seed, progress, place in the global batch) and of nothing else.

So a run is the same on any number of processes, and the same when it goes on after an interruption.
"""

import hashlib
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from stylebot import dist
from stylebot.augment import AugmentPipe


def drawer(seed: int, nimg: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of random numbers that depends on (seed, progress, purpose) alone."""
    digest = hashlib.sha256(f"{seed}/{nimg}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def shares(batch: int, batch_gpu: int, group: int) -> list[Tensor]:
    """Indices into the global batch of each round on this process, [batch_gpu] each.

    Columns of a [group, batch/group] table are dealt out, so that minibatch-stddev groups are the same
    samples whatever the number of processes and rounds.
    """
    table = torch.arange(batch).reshape(group, batch // group)
    columns, first = batch_gpu // group, dist.rank() * (batch // dist.world() // group)
    rounds = batch // dist.world() // batch_gpu
    return [table[:, first + r * columns : first + (r + 1) * columns].reshape(-1) for r in range(rounds)]


def real_batch(reals: Tensor, nimg: int, which: Tensor, seed: int, mirror: bool) -> Tensor:
    """Pictures [len(which), C, R, R] float32 [-1, 1] at places nimg + which of an endless shuffled reading.

    reals [M, C, R, R] uint8; each epoch is a new permutation; with `mirror` it holds each one flipped too.
    """
    total = len(reals) * (2 if mirror else 1)
    orders: dict[int, Tensor] = {}
    chosen = []
    for position in (nimg + which).tolist():
        epoch, offset = divmod(position, total)
        if epoch not in orders:
            orders[epoch] = torch.randperm(total, generator=drawer(seed, epoch, "epoch"))
        chosen.append(int(orders[epoch][offset]))
    index = torch.tensor(chosen)
    picked = reals[(index % len(reals)).to(reals.device)].to(dist.device())
    flipped = (index >= len(reals)).to(picked.device)[:, None, None, None]
    return torch.where(flipped, picked.flip(3), picked).float() / 127.5 - 1


class Draw:
    """Random numbers of one phase: drawn for the global batch, handed out for the samples of one round.

    which [n]: the samples' indices in the global batch of `batch` pictures, whose first is picture `nimg`
    """

    def __init__(self, seed: int, nimg: int, phase: str, batch: int, which: Tensor) -> None:
        self.seed, self.nimg, self.phase, self.batch, self.which = seed, nimg, phase, batch, which
        self._streams: dict[tuple[str, str], torch.Generator] = {}

    def __len__(self) -> int:
        return len(self.which)

    def first(self, count: int) -> Self:
        """The draw of the first `count` samples of this round alone."""
        return type(self)(self.seed, self.nimg, self.phase, self.batch, self.which[:count])

    def stream(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """The generator for `purpose`, started afresh by every Draw and then read in order."""
        key = (purpose, str(device))
        if key not in self._streams:
            self._streams[key] = drawer(self.seed, self.nimg, f"{self.phase}/{purpose}", device)
        return self._streams[key]

    def randn(self, purpose: str) -> Callable[[tuple[int, ...]], Tensor]:
        """A function from a local shape [n, …] to standard normal numbers of this round's samples."""

        def draw(shape: tuple[int, ...]) -> Tensor:
            where = dist.device()
            whole = torch.randn((self.batch, *shape[1:]), generator=self.stream(purpose, where), device=where)
            return whole[self.which.to(where)]

        return draw

    def cutoff(self, probability: float, num_ws: int) -> int | None:
        """Where style mixing changes styles, evenly in 1 … num_ws - 1, or None; one for the batch."""
        chance, place = torch.rand(2, generator=self.stream("mixing")).tolist()
        return 1 + int(place * (num_ws - 1)) if chance < probability else None

    def augmented(self, pipe: AugmentPipe | None, img: Tensor, purpose: str) -> Tensor:
        """`img` [n, C, R, R] through the pipe."""
        if pipe is None or float(pipe.p) == 0:
            return img
        drawn = pipe.draw((self.batch, *img.shape[1:]), self.stream(purpose))
        return pipe(img, draws=drawn.rows(self.which.numpy()))
