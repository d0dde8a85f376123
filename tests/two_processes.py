"""What test_dist.py runs under torchrun: a few steps of training; every process writes what it got."""

import sys
from pathlib import Path

import torch
from training import faces, start, weights

from stylebot import dist
from stylebot.trainer import read_stats, train_step

STEPS = 5


def train(**changes) -> dict:
    """Weights, statistics and restart state after a few steps on this process's share."""
    state, numbers = start(**changes)
    for _ in range(STEPS):
        train_step(state, faces(), numbers)
    rest = {k: v for k, v in state.state_dict().items() if k in ("p", "pl_mean", "signs", "cur_nimg")}
    return {"weights": weights(state), "stats": read_stats(state), "rest": rest}


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
    out = collectives() | train(batch_gpu=int(sys.argv[2]))
    torch.save(out, Path(sys.argv[1]) / f"{dist.rank()}.pt")
    dist.finish()
