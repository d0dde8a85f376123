"""A training run small enough for tests: 16 px, a few thousand weights."""

import torch
from torch import Tensor

from stylebot.discriminator import Discriminator
from stylebot.generator import Generator
from stylebot.trainer import Recipe, TrainState, start_state

RECIPE = {
    "batch": 8, "batch_gpu": 8, "lr_g": 0.002, "lr_d": 0.002, "r1_gamma": 1.0, "pl_weight": 2.0,
    "style_mixing_prob": 0.9, "G_reg_interval": 2, "D_reg_interval": 3, "ema_kimg": 0.05, "ema_rampup": 0.05,
    "freeze_d": 0, "augment": "bgc", "ada_target": 0.6, "ada_kimg": 0.5, "p_initial": 0.4, "p_max": 0.8,
    "mirror": True, "seed": 3, "ada_interval": 2,
}  # fmt: skip


def recipe(**changes) -> Recipe:
    """The recipe of these tests with some numbers changed."""
    return Recipe(**RECIPE | changes)


def networks(resolution: int = 16) -> tuple[Generator, Discriminator]:
    """The same untrained networks every time, every bias and noise strength non-zero."""
    torch.manual_seed(11)
    shape = {"img_resolution": resolution, "channel_base": 128, "channel_max": 8}
    G, D = Generator(z_dim=8, w_dim=8, mapping_layers=2, **shape), Discriminator(**shape)
    with torch.no_grad():
        for net in (G, D):
            for name, tensor in net.named_parameters():
                if name.endswith(("noise_strength", "bias")):
                    tensor += torch.randn(tensor.shape) * 0.3
    return G, D


def start(resolution: int = 16, **changes) -> tuple[TrainState, Recipe]:
    """(state, recipe) at picture 0."""
    numbers = recipe(**changes)
    return start_state(*networks(resolution), None, numbers), numbers


def faces(count: int = 20, resolution: int = 16) -> Tensor:
    """Pictures [count, 3, R, R] uint8, always the same."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, 3, resolution, resolution), generator=generator, dtype=torch.uint8)


def weights(state: TrainState) -> dict[str, Tensor]:
    """Copies of every tensor of the three networks."""
    return {f"{role}.{name}": tensor.detach().clone() for role in ("G", "D", "G_ema")
            for name, tensor in getattr(state, role).state_dict().items()}  # fmt: skip
