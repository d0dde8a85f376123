"""The moving average of weights."""

import pytest
import torch
from torch import nn

from stylebot.ema import ema_beta, update_ema


@pytest.mark.parametrize(("batch", "ema_kimg"), [(32, 10), (16, 1), (1, 0.5), (64, 20.0)])
def test_half_life(batch: int, ema_kimg: float) -> None:
    steps = ema_kimg * 1000 / batch
    assert ema_beta(batch, ema_kimg) ** steps == pytest.approx(0.5)


def test_early_averages_forget_quickly() -> None:
    assert ema_beta(32, 10, 0, 0.05) == 0
    assert ema_beta(32, 10, 20_000, 0.05) == pytest.approx(0.5 ** (32 / 1000))
    assert ema_beta(32, 10, 10_000_000, 0.05) == ema_beta(32, 10, 0, None) == ema_beta(32, 10)


def test_no_half_life_is_no_average() -> None:
    assert ema_beta(16, 0) == 0


def test_parameters_are_averaged_buffers_copied() -> None:
    G_ema, G = nn.BatchNorm1d(3).requires_grad_(False), nn.BatchNorm1d(3)
    nn.init.constant_(G_ema.weight, 2.0)
    nn.init.constant_(G.weight, 10.0)
    G.running_mean.fill_(7)
    update_ema(G_ema, G, 0.75)
    assert G_ema.weight.tolist() == [4.0] * 3 and G_ema.running_mean.tolist() == [7.0] * 3
    assert G.weight.tolist() == [10.0] * 3 and G_ema.weight.grad_fn is None
    update_ema(G_ema, G, 0.0)
    assert torch.equal(G_ema.weight, G.weight)


def test_constant_weights_stay() -> None:
    G_ema, G = nn.Linear(4, 4), nn.Linear(4, 4)
    G_ema.load_state_dict(G.state_dict())
    for _ in range(10):
        update_ema(G_ema, G, 0.9)
    torch.testing.assert_close(G_ema.weight, G.weight)
