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
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import track
from torch import Tensor

from stylebot.discriminator import Discriminator
from stylebot.ema import ema_beta, update_ema
from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.randomness import drawer
from stylebot.trainer import Recipe, TrainState, read_stats, start_state, train_step
from stylebot.weights import Networks

CONFIG = {"z_dim": 512, "w_dim": 512, "img_resolution": 64, "mapping_layers": 8,
          "channel_base": 2048, "channel_max": 128}
W_STD = 0.373  # of the public generator's w at psi 0.8; dividing by it makes G's w of unit variance
RECIPE = Recipe(
    batch=16, batch_gpu=16, lr_g=0.0004, lr_d=0.002, r1_gamma=0.1, pl_weight=0.0, style_mixing_prob=0.0,
    G_reg_interval=4, D_reg_interval=16, ema_kimg=1.0, ema_rampup=0.1, freeze_d=0, augment="face",
    ada_target=0.6, ada_kimg=50.0, p_initial=0.0, p_max=0.5, mirror=True, seed=0,
)  # fmt: skip


class Lesson(NamedTuple):
    """One part of the distillation: the blocks up to `resolution` px learn `kimg` thousand pictures."""

    resolution: int
    kimg: float
    batch: int
    lr: float
    falls_from: float  # share of the lesson after which lr falls, linearly, to 4 % of itself


LESSONS = (
    Lesson(16, 32, 4, 3e-3, 1.0), Lesson(32, 14, 8, 4e-3, 1.0), Lesson(64, 22, 8, 4e-3, 0.7),
    Lesson(64, 10, 4, 4e-3, 1.0), Lesson(64, 10, 4, 2.5e-3, 0.0), Lesson(64, 9, 4, 1.6e-3, 0.0),
)  # fmt: skip


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
    """Mean absolute and squared error, and half the absolute error at a quarter of the resolution; scalar."""
    coarse = F.avg_pool2d(img, 4) - F.avg_pool2d(target, 4)
    return (img - target).abs().mean() + (img - target).square().mean() + 0.5 * coarse.abs().mean()


def pictures_up_to(G: Generator, w: Tensor, resolution: int) -> Tensor:
    """The RGB sum [N, 3, r, r] of G's blocks up to r = `resolution` for w [N, w_dim] (skip architecture)."""
    x = img = None
    for r in G.synthesis.resolutions[: G.synthesis.resolutions.index(resolution) + 1]:
        block = getattr(G.synthesis, f"b{r}")
        x, img = block(x, img, [w] * (block.num_conv + block.num_torgb), noise_mode="random", randn=None)
    return img


def distil(G: Generator, pairs: Pairs, lesson: Lesson) -> Iterator[tuple[int, Generator, float]]:
    """Teach G's low blocks the pictures of `pairs`; yields (pictures seen, average of G, loss)."""
    target = pairs.imgs.float() / 127.5 - 1
    if lesson.resolution < G.img_resolution:
        target = F.interpolate(target, size=(lesson.resolution, lesson.resolution), mode="area")
    G_ema, total = deepcopy(G), int(lesson.kimg * 1000)
    opt = torch.optim.Adam(G.synthesis.parameters(), lr=lesson.lr, betas=(0.9, 0.99), eps=1e-8, fused=True)
    for nimg in range(0, total, lesson.batch):
        left = (total - nimg) / max(total * (1 - lesson.falls_from), 1e-9)
        for group in opt.param_groups:
            group["lr"] = lesson.lr * min(1.0, (nimg + lesson.batch) / 1000) * min(1.0, max(0.04, left))
        which = torch.randint(len(target), (lesson.batch,), generator=drawer(RECIPE.seed, nimg, f"{lesson}"))
        loss = picture_loss(pictures_up_to(G, pairs.ws[which], lesson.resolution), target[which])
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        update_ema(G_ema, G, ema_beta(lesson.batch, 1.0, nimg + lesson.batch, 0.1))
        yield nimg + lesson.batch, G_ema, float(loss.detach())


def compete(
    state: TrainState, pairs: Pairs, warm_kimg: float, kimg: float, cool_kimg: float
) -> Iterator[int]:
    """GAN training of the distilled G: D alone for `warm_kimg`, both, D alone for the last `cool_kimg`.

    lr_g rises from 0 over two kimg, so that a D that is still learning does not spoil G; every fourth step G
    also repeats eight of its pairs. Yields the pictures shown to D.
    """
    rise, full, reals = 2000, state.opt_G.param_groups[0]["lr"], pairs.imgs.to(state.pl_mean.device)
    anchor = torch.optim.Adam(state.G.synthesis.parameters(), lr=2e-4, betas=(0.9, 0.99), eps=1e-8)
    while state.cur_nimg < kimg * 1000:
        nimg = state.cur_nimg
        active = warm_kimg * 1000 <= nimg < (kimg - cool_kimg) * 1000
        for group in state.opt_G.param_groups:
            group["lr"] = full * min(1.0, (nimg - warm_kimg * 1000) / rise) if active else 0.0
        train_step(state, reals, RECIPE)
        if active and (nimg // RECIPE.batch) % 4 == 0:
            which = torch.randint(len(reals), (8,), generator=drawer(RECIPE.seed, nimg, "anchor"))
            state.G.requires_grad_(True)
            img = pictures_up_to(state.G, pairs.ws[which].to(reals.device), state.G.img_resolution)
            anchor.zero_grad(set_to_none=True)
            (img - (reals[which].float() / 127.5 - 1)).abs().mean().backward()
            anchor.step()
        yield state.cur_nimg


def make(pairs_folder: Path, ir: Path, warm_kimg: float, kimg: float, cool_kimg: float) -> Networks:
    """The start weights, from pairs and the public mapping network; hours on a laptop, minutes on a GPU.

    Raises StylebotError when pairs or the mapping network cannot be read.
    """
    torch.manual_seed(RECIPE.seed)
    G, D = Generator(**CONFIG), Discriminator(img_resolution=64, channel_base=2048, channel_max=128)
    take_mapping(G, ir)
    given = np.load(pairs_folder / "base_faces_w.npz")
    fold_truncation(G, float(given["psi"]) / W_STD, torch.from_numpy(given["w_avg"]))
    pairs = read_pairs(pairs_folder, G)
    G.mapping.w_avg.copy_(pairs.ws.mean(dim=0))
    average = G
    for lesson in LESSONS:
        steps = int(lesson.kimg * 1000) // lesson.batch
        for nimg, current, loss in track(distil(G, pairs, lesson), f"{lesson.resolution} px", steps):
            average = current
            if nimg % 2000 < lesson.batch:
                print(f"{lesson.resolution} px {nimg / 1000:.0f} kimg loss {loss:.3f}")
    state = start_state(average, D, deepcopy(average), RECIPE)
    steps = int(kimg * 1000) // RECIPE.batch
    for nimg in track(compete(state, pairs, warm_kimg, kimg, cool_kimg), "GAN", steps):
        if nimg % 512 == 0:
            print(f"GAN {nimg / 1000:.1f} kimg", {k: round(v, 3) for k, v in read_stats(state).items()})
    distilled_kimg = sum(lesson.kimg for lesson in LESSONS)
    meta = {"kimg": kimg, "distilled_kimg": distilled_kimg, "pairs": pairs.fingerprint,
            "source": "mapping and pictures of random-face 2021.7.21.1 (MobileStyleGAN of FFHQ)",
            "licence": "Apache-2.0, distilled from NVIDIA's FFHQ network: not for commercial use"}
    return Networks(*(net.cpu().half().float() for net in (state.G, state.D, state.G_ema)), meta=meta)
