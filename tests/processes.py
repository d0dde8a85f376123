"""What test_dist.py runs under torchrun: a few steps of training; every process writes what it got."""

import sys
from pathlib import Path

import torch
from training import faces, start, weights

from stylebot import dist
from stylebot.trainer import read_stats, train_step

STEPS = 5


def train(batch: int, batch_gpu: int, saved: dict | None = None, steps: int = STEPS) -> dict:
    """Weights, statistics and restart state after a few steps (on from `saved`) on this process's share."""
    state, numbers = start(batch=batch, batch_gpu=batch_gpu)
    if saved is not None:
        state.load_state_dict(saved)
    for _ in range(steps):
        train_step(state, faces(), numbers)
    return {"weights": weights(state), "stats": read_stats(state), "state": state.state_dict()}


def collectives() -> dict:
    """What the helpers of dist give in this process, whose number is the input."""
    rank = dist.rank()
    a, b = torch.full((2, 3), float(rank)), torch.tensor(10.0 * rank)
    dist.all_reduce_mean([a, b])
    votes = [dist.anywhere(rank == 1), dist.anywhere(False), dist.anywhere(True)]
    dist.barrier()
    return {"rank": rank, "world": dist.world(), "mean": [a.tolist(), float(b)], "anywhere": votes}


if __name__ == "__main__" and not dist.launch(__file__):
    torch.set_num_threads(1)
    dist.init()
    folder, batch, batch_gpu, *going_on_from = sys.argv[1:]
    saved = [torch.load(path, weights_only=True) for path in going_on_from]
    out = collectives() | train(int(batch), int(batch_gpu), *saved)
    torch.save(out, Path(folder) / f"{dist.rank()}.pt")
    dist.finish()
