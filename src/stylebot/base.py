"""Tool `base`: small start weights for the sample, distilled from a public face generator, then GAN-trained.

First G's synthesis learns the pictures that the public generator makes of the same w (its mapping network is
taken over whole); then the project's own trainer goes on with a discriminator, the same pictures as reals.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stylebot.ema import ema_beta, update_ema
from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.randomness import drawer
from stylebot.trainer import Recipe

RECIPE = Recipe(
    batch=8, batch_gpu=8, lr_g=0.002, lr_d=0.002, r1_gamma=0.3, pl_weight=0.0, style_mixing_prob=0.0,
    G_reg_interval=4, D_reg_interval=16, ema_kimg=2.0, ema_rampup=0.1, freeze_d=0, augment="face",
    ada_target=0.6, ada_kimg=50.0, p_initial=0.0, p_max=0.5, mirror=True, seed=0,
)  # fmt: skip
CONFIG = {"z_dim": 512, "w_dim": 512, "img_resolution": 64, "mapping_layers": 8, "channel_base": 2048,
          "channel_max": 128}  # fmt: skip


@dataclass
class Pairs:
    """ws [M, w_dim] float32 (already truncated) and the pictures made of them [M, 3, R, R] uint8."""

    ws: Tensor
    imgs: Tensor
    fingerprint: str


def take_mapping(G: Generator, ir: Path) -> None:
    """Put the fully connected layers of the OpenVINO mapping network `ir` (.xml, .bin) into G.mapping."""
    import openvino

    matrices, biases = [], []
    for op in openvino.Core().read_model(ir).get_ordered_ops():
        constants = [op.input_value(i).get_node() for i in range(op.get_input_size())]
        constants = [np.asarray(c.data, np.float32) for c in constants if c.get_type_name() == "Constant"]
        if op.get_type_name() == "MatMul":
            matrices.append(constants[0] if op.get_attributes()["transpose_b"] else constants[0].T)
        elif op.get_type_name() == "Add" and constants[0].size == G.w_dim:
            biases.append(constants[0].ravel())
    if len(matrices) != G.mapping.num_layers or len(biases) != G.mapping.num_layers:
        raise StylebotError(f"{ir}: {len(matrices)} layers, {G.mapping.num_layers} wanted")
    for i, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
        layer = getattr(G.mapping, f"fc{i}")
        layer.weight.data = torch.from_numpy(matrix / layer.weight_gain).contiguous()
        layer.bias.data = torch.from_numpy(bias / layer.bias_gain)


@torch.no_grad()
def fold_truncation(G: Generator, psi: float, w_avg: Tensor) -> None:
    """Scale G.mapping's output by psi, so that ordinary sampling draws what truncation by psi drew.

    Leaky ReLU commutes with positive factors, so scaling the last layer does it; the constant
    (1 - psi) w_avg is left to the affine layers' biases, which learn it.
    """
    last = getattr(G.mapping, f"fc{G.mapping.num_layers - 1}")
    last.weight *= psi
    last.bias *= psi
    G.mapping.w_avg.copy_(w_avg * psi)


def read_pairs(folder: Path, G: Generator) -> Pairs:
    """The pictures of base_faces_128.zip at G's resolution and w of the latents that they were made from.

    The i-th picture belongs to row i of default_rng(1).standard_normal((16000, 512)), as float32.
    """
    z = np.random.default_rng(1).standard_normal((16000, 512)).astype(np.float32)
    archive = folder / "base_faces_128.zip"
    try:
        with zipfile.ZipFile(archive) as file:
            names = sorted(n for n in file.namelist() if n.endswith(".jpg"))
            pictures = [Image.open(io.BytesIO(file.read(n))).convert("RGB") for n in names]
    except (OSError, zipfile.BadZipFile) as error:
        raise StylebotError(f"{archive}: {error}") from None
    edge = (G.img_resolution, G.img_resolution)
    pictures = [np.asarray(p.resize(edge, Image.Resampling.LANCZOS)) for p in pictures]
    imgs = torch.from_numpy(np.stack(pictures))
    with torch.no_grad():
        rows = torch.from_numpy(z[[int(Path(n).stem) for n in names]])
        ws = torch.cat([G.mapping(part)[:, 0] for part in rows.split(500)])
    fingerprint = hashlib.sha256(imgs.numpy().tobytes()).hexdigest()
    return Pairs(ws, imgs.permute(0, 3, 1, 2).contiguous(), fingerprint)


def picture_loss(img: Tensor, target: Tensor) -> Tensor:
    """Mean absolute and squared error, and absolute error at a quarter of the resolution; scalar."""
    coarse = F.avg_pool2d(img, 4) - F.avg_pool2d(target, 4)
    return (img - target).abs().mean() + (img - target).square().mean() + coarse.abs().mean()


def distil(
    G: Generator, pairs: Pairs, kimg: float, batch: int = 16, lr: float = 3e-3
) -> Iterator[tuple[int, Generator, float]]:
    """Teach G.synthesis the pictures of `pairs`; yields (pictures seen, average of G, loss) per batch."""
    G_ema, total = deepcopy(G), int(kimg * 1000)
    opt = torch.optim.Adam(G.synthesis.parameters(), lr=lr, betas=(0.0, 0.99), eps=1e-8, fused=True)
    for nimg in range(0, total, batch):
        falling = 1.0 if nimg < 0.7 * total else max(0.05, (total - nimg) / (0.3 * total))
        for group in opt.param_groups:
            group["lr"] = lr * min(1.0, (nimg + batch) / 1000) * falling
        loss = distil_step(G, pairs, opt, nimg, batch)
        update_ema(G_ema, G, ema_beta(batch, 1.5, nimg + batch, 0.1))
        yield nimg + batch, G_ema, loss


def distil_step(G: Generator, pairs: Pairs, opt: torch.optim.Optimizer, nimg: int, batch: int) -> float:
    """One step on `batch` pairs chosen by (seed, nimg); returns the loss."""
    which = torch.randint(len(pairs.ws), (batch,), generator=drawer(RECIPE.seed, nimg, "distil"))
    img = G.synthesis(pairs.ws[which].unsqueeze(1).repeat(1, G.num_ws, 1))
    loss = picture_loss(img, pairs.imgs[which].float() / 127.5 - 1)
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
    opt.zero_grad(set_to_none=True)
    return float(loss)
