"""Tool `base`: small start weights for the sample, distilled from a public face generator, then GAN-trained.

First G's synthesis learns the pictures that the public generator makes of the same w (its mapping network is
taken over whole); then it goes on against a discriminator that sees the same pictures as reals.
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

from stylebot.augment import AugmentPipe
from stylebot.discriminator import Discriminator
from stylebot.ema import ema_beta, update_ema
from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.losses import discriminator_loss, generator_loss, r1_penalty
from stylebot.randomness import drawer
from stylebot.weights import Networks

CONFIG = {"z_dim": 512, "w_dim": 512, "img_resolution": 64, "mapping_layers": 8,
          "channel_base": 2048, "channel_max": 128}
# No low-pass before D's strided convolutions: at this width D does not see pixel-sized grain through the blur
# (after 120 steps on grainy pictures: loss 1.38 with it, 0.3 without), and G covers faces with it.
CONFIG_D = {"img_resolution": 64, "channel_base": 2048, "channel_max": 128, "filter_taps": (1.0,)}
W_STD = 0.373  # of the public generator's w at psi 0.8; dividing by it makes G's w of unit variance
SEED = 0


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


class Duel(NamedTuple):
    """One part of the GAN training: blocks up to `resolution` px of G and D, `kimg` thousand pictures."""

    resolution: int
    kimg: float
    batch: int
    lr_g: float
    lr_d: float
    falls_from: float  # share of the duel after which both lr fall, linearly, to 5 % of themselves
    r1_gamma: float
    p: float  # of each augmentation of the preset "face"


DUELS = (
    Duel(32, 3.1, 8, 5e-4, 4e-3, 1.0, 0.2, 0.0), Duel(32, 10, 8, 8e-4, 4e-3, 1.0, 0.2, 0.0),
    Duel(64, 29.7, 8, 8e-4, 4e-3, 0.65, 0.2, 0.0), Duel(64, 14.4, 8, 6e-4, 3e-3, 1.0, 0.1, 0.0),
    Duel(64, 5.2, 8, 6e-4, 3e-3, 1.0, 0.3, 0.3), Duel(64, 25.9, 8, 6e-4, 3e-3, 0.6, 0.3, 0.3),
)  # fmt: skip
R1_INTERVAL, EMA_KIMG = 16, 2.0


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


def pictures_at(pairs: Pairs, resolution: int) -> Tensor:
    """The pictures of `pairs` [M, 3, r, r] float32 in [-1, 1] at r = `resolution` px: means of squares."""
    return F.interpolate(pairs.imgs.float() / 127.5 - 1, size=(resolution, resolution), mode="area")


def distil(G: Generator, pairs: Pairs, lesson: Lesson) -> Iterator[tuple[int, Generator, float]]:
    """Teach G's low blocks the pictures of `pairs`; yields (pictures seen, average of G, loss)."""
    target = pictures_at(pairs, lesson.resolution)
    G_ema, total = deepcopy(G), int(lesson.kimg * 1000)
    opt = torch.optim.Adam(G.synthesis.parameters(), lr=lesson.lr, betas=(0.9, 0.99), eps=1e-8, fused=True)
    for nimg in range(0, total, lesson.batch):
        opt.param_groups[0]["lr"] = lesson.lr * _rise(nimg, lesson) * _fall(nimg, total, lesson, 0.04)
        which = torch.randint(len(target), (lesson.batch,), generator=drawer(SEED, nimg, f"{lesson}"))
        loss = picture_loss(pictures_up_to(G, pairs.ws[which], lesson.resolution), target[which])
        _step(opt, loss)
        update_ema(G_ema, G, ema_beta(lesson.batch, 1.0, nimg + lesson.batch, 0.1))
        yield nimg + lesson.batch, G_ema, float(loss.detach())


def looked_at(D: Discriminator, img: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits [N, 1] and the output of each of D's blocks before 4 px."""
    x, found = None, []
    for r in D.resolutions:
        x, img = getattr(D, f"b{r}")(x, img)
        found.append(x)
    return D.b4(x, img, None), found


def feature_gap(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Sum over D's blocks of the mean absolute difference, relative to the mean absolute value; scalar.

    Source: Larsen et al. 2016, arXiv 1512.09300, section 2.2 (distance in the discriminator's features).
    """
    return sum((a - b).abs().mean() / (b.abs().mean() + 1e-4) for a, b in zip(fake, real, strict=True))


def grown(D: Discriminator | None, resolution: int) -> Discriminator:
    """A discriminator of `resolution` px with the layers that a smaller one has in common with it."""
    larger = Discriminator(**CONFIG_D | {"img_resolution": resolution})
    if D is not None:
        own = larger.state_dict()
        larger.load_state_dict(own | {k: v for k, v in D.state_dict().items() if k in own})
    return larger


def fight(G: Generator, G_ema: Generator, D: Discriminator, pairs: Pairs, duel: Duel) -> Iterator[int]:
    """GAN training in which G also has to match each picture of `pairs` in D's features and in pixels.

    Both pictures of a pair are augmented alike, so that their features still match. lr_g rises over the first
    thousand. Mapping and higher blocks stay as they are. Yields the pictures shown.
    """
    reals, pipe = pictures_at(pairs, duel.resolution), AugmentPipe("face")
    pipe.p.fill_(duel.p)
    shape = (duel.batch, *reals.shape[1:])
    adam = {"betas": (0.0, 0.99), "eps": 1e-8, "fused": True}
    opt_G = torch.optim.Adam(G.synthesis.parameters(), lr=duel.lr_g, **adam)
    opt_D = torch.optim.Adam(D.parameters(), lr=duel.lr_d, **adam)
    total = int(duel.kimg * 1000) // duel.batch * duel.batch
    for nimg in range(0, total, duel.batch):
        fall = _fall(nimg, total, duel, 0.05)
        opt_G.param_groups[0]["lr"] = duel.lr_g * fall * _rise(nimg, duel)
        opt_D.param_groups[0]["lr"] = duel.lr_d * fall
        draw = drawer(SEED, nimg, f"{duel}")
        which, other = (torch.randint(len(reals), (duel.batch,), generator=draw) for _ in range(2))
        fake = pictures_up_to(G, pairs.ws[which], duel.resolution)
        D.requires_grad_(False)
        alike = pipe.draw(shape, draw)
        with torch.no_grad():
            wanted = looked_at(D, pipe(reals[which], draws=alike))[1]
        logits, seen = looked_at(D, pipe(fake, draws=alike))
        gap = fake - reals[which]
        loss = generator_loss(logits).mean() + feature_gap(seen, wanted)
        loss = loss + gap.abs().mean() + F.avg_pool2d(gap, 4).abs().mean()
        _step(opt_G, loss)
        D.requires_grad_(True)
        flips = torch.rand(2, generator=draw) < 0.5
        real = reals[other].flip(3) if flips[0] else reals[other]
        fake = fake.detach().flip(3) if flips[1] else fake.detach()
        real_logits, fake_logits = (D(pipe(img, draws=pipe.draw(shape, draw))) for img in (real, fake))
        on_real, on_fake = discriminator_loss(real_logits, fake_logits)
        _step(opt_D, on_real.mean() + on_fake.mean())
        if nimg // duel.batch % R1_INTERVAL == 0:
            penalty, _ = r1_penalty(D, lambda img: img, real)
            _step(opt_D, penalty.mean() * (duel.r1_gamma / 2 * R1_INTERVAL))
        update_ema(G_ema, G, ema_beta(duel.batch, EMA_KIMG, nimg + duel.batch, 0.1))
        yield nimg + duel.batch


def _rise(nimg: int, part: Lesson | Duel) -> float:
    """Factor of a learning rate that rises over the first thousand pictures."""
    return min(1.0, (nimg + part.batch) / 1000)


def _fall(nimg: int, total: int, part: Lesson | Duel, least: float) -> float:
    """Factor that falls linearly to `least` from the share `part.falls_from` of `total` pictures on."""
    return min(1.0, max(least, (total - nimg) / max(total * (1 - part.falls_from), 1e-9)))


def _step(opt: torch.optim.Optimizer, loss: Tensor) -> None:
    loss.backward()
    opt.step()
    opt.zero_grad(set_to_none=True)


def make(pairs_folder: Path, ir: Path) -> Networks:
    """The start weights, from pairs and the public mapping network; hours on a laptop.

    Raises StylebotError when pairs or the mapping network cannot be read.
    """
    torch.manual_seed(SEED)
    G = Generator(**CONFIG)
    take_mapping(G, ir)
    given = np.load(pairs_folder / "base_faces_w.npz")
    fold_truncation(G, float(given["psi"]) / W_STD, torch.from_numpy(given["w_avg"]))
    pairs = read_pairs(pairs_folder, G)
    G.mapping.w_avg.copy_(pairs.ws.mean(dim=0))
    for lesson in LESSONS:
        steps = int(lesson.kimg * 1000) // lesson.batch
        for nimg, average, loss in track(distil(G, pairs, lesson), f"{lesson.resolution} px", steps):
            G_ema = average
            if nimg % 2000 < lesson.batch:
                print(f"{lesson.resolution} px {nimg / 1000:.0f} kimg loss {loss:.3f}")
    G, D = deepcopy(G_ema), None
    for duel in DUELS:
        D = grown(D, duel.resolution)
        steps = int(duel.kimg * 1000) // duel.batch
        for _ in track(fight(G, G_ema, D, pairs, duel), f"GAN, {duel.resolution} px", steps):
            pass
    meta = {"kimg": sum(d.kimg for d in DUELS), "distilled_kimg": sum(lesson.kimg for lesson in LESSONS),
            "pairs": pairs.fingerprint,
            "source": "mapping and pictures of random-face 2021.7.21.1 (MobileStyleGAN of FFHQ)",
            "licence": "Apache-2.0, distilled from NVIDIA's FFHQ network: not for commercial use"}
    return Networks(*(net.half().float() for net in (G, D, G_ema)), meta=meta)
