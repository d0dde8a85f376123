"""Exponential moving average of a generator's weights."""

import torch
from torch import nn


def ema_beta(batch: int, ema_kimg: float, cur_nimg: int | None = None, rampup: float | None = None) -> float:
    """Weight kept of the old average after `batch` pictures, for a half-life of `ema_kimg` thousand pictures.

    With `rampup` the half-life is at most rampup · cur_nimg, so that early averages forget quickly.
    Source: Karras et al. 2018, arXiv 1710.10196, appendix A, in half-life form.
    """
    half_life_nimg = ema_kimg * 1000
    if rampup is not None and cur_nimg is not None:
        half_life_nimg = min(half_life_nimg, cur_nimg * rampup)
    return 0.5 ** (batch / max(half_life_nimg, 1e-8))


@torch.no_grad()
def update_ema(G_ema: nn.Module, G: nn.Module, beta: float) -> None:
    """G_ema's parameters become beta · themselves + (1 - beta) · G's; buffers are copied."""
    average, new = list(G_ema.parameters()), list(G.parameters())
    torch._foreach_lerp_(average, new, 1.0 - beta)
    for mine, theirs in zip(G_ema.buffers(), G.buffers(), strict=True):
        mine.copy_(theirs)
