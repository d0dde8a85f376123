"""Pictures from a generator by seed: what fid, audit and the generate tool share."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from stylebot.checkpoints import load_networks
from stylebot.errors import StylebotError
from stylebot.generator import Generator

NOISE_MODES = ("const", "random", "none")


def load_generator(path: Path, device: torch.device) -> Generator:
    """The averaged generator (G_ema) of any checkpoint of the family, frozen, on `device`."""
    return load_networks(path, need=("G_ema",)).G_ema.eval().requires_grad_(False).to(device)


def latents(seeds: Sequence[int], z_dim: int) -> torch.Tensor:
    """z [N, z_dim] float32, one row per seed, the same row in whatever company.

    Row s is numpy.random.RandomState(s).randn(1, z_dim), so that a seed means here what it means with
    NVIDIA's generate.py.
    """
    rows = [np.random.RandomState(seed).randn(1, z_dim) for seed in seeds]
    return torch.from_numpy(np.concatenate(rows)).float()


def labels(seeds: Sequence[int], c_dim: int, label: int | None) -> torch.Tensor | None:
    """One-hot classes [N, c_dim] float32, or None for a network without classes.

    label: the class of all pictures; None: the classes take turns (seed modulo c_dim).
    Raises StylebotError for a class that the network does not have.
    """
    if label is not None and not 0 <= label < c_dim:
        raise StylebotError(f"class {label}: the network has {c_dim or 'no'} classes"
                            + (f", 0 to {c_dim - 1}" if c_dim else ""))
    if c_dim == 0:
        return None
    chosen = torch.tensor([seed % c_dim if label is None else label for seed in seeds])
    return torch.nn.functional.one_hot(chosen, c_dim).float()


def to_rgb(img: torch.Tensor) -> torch.Tensor:
    """img [N, C, R, R] float in about [-1, 1] to levels [N, 3, R, R] uint8, as the official code quantises.

    floor(127.5 img + 128), clipped to 0..255; one channel is repeated to three.
    """
    levels = (img * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return levels.expand(-1, 3, -1, -1) if levels.shape[1] == 1 else levels


def noise_of(seeds: Sequence[int], device: torch.device) -> Callable[[tuple[int, ...]], torch.Tensor]:
    """For noise_mode "random": draws [N, ...] whose row i depends on seed i and the kind of device."""
    sources = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def randn(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.stack([torch.randn(shape[1:], device=device, generator=source) for source in sources])

    return randn


@torch.inference_mode()
def render(
    g: Generator,
    seeds: Sequence[int],
    psi: float = 1.0,
    cutoff: int | None = None,
    noise_mode: str = "const",
    label: int | None = None,
) -> torch.Tensor:
    """Pictures [N, 3, R, R] uint8 of the seeds, on the generator's device.

    The picture of a seed is the same in every batch, to the rounding of one level in 255.
    """
    where = g.mapping.w_avg.device
    c = labels(seeds, g.c_dim, label)
    c = c if c is None else c.to(where)
    ws = g.mapping(latents(seeds, g.z_dim).to(where), c, truncation_psi=psi, truncation_cutoff=cutoff)
    return to_rgb(g.synthesis(ws, noise_mode=noise_mode, randn=noise_of(seeds, where)))


def stream(g: Generator, seeds: Sequence[int], batch: int, **how) -> Iterator[torch.Tensor]:
    """`render` in batches; `how` are its options."""
    for start in range(0, len(seeds), batch):
        yield render(g, seeds[start : start + batch], **how)


def weights_sha256(g: torch.nn.Module) -> str:
    """Hex sha256 of a network's names and values: the same network from any file has the same one."""
    digest = hashlib.sha256()
    for name, value in sorted(g.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
