"""`make bench`: seconds per thousand pictures of training, ours against the plain operations, in one run.

    python bench/speed.py [--resolutions 64] [--steps 16]

On a CPU: 64 px, batch 8, channel_base 4096, channel_max 128, all four phases, no augmentation. On a GPU the
reference's settings for the resolution. Copy the table into bench/RESULTS.md with machine and date.
"""

import platform
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from typing import Annotated

import torch
import typer
from plain import nchw, plain_operations

from stylebot import discriminator, dist, generator
from stylebot.discriminator import Discriminator
from stylebot.generator import Generator
from stylebot.trainer import Recipe, start_state, train_step

RECIPE = Recipe(
    batch=8, batch_gpu=8, lr_g=0.0025, lr_d=0.0025, r1_gamma=1.0, pl_weight=2.0, style_mixing_prob=0.9,
    G_reg_interval=4, D_reg_interval=16, ema_kimg=10, ema_rampup=None, freeze_d=0, augment="none",
    ada_target=0.6, ada_kimg=100, p_initial=0.0, p_max=0.8, mirror=False, seed=0,
)  # fmt: skip


def networks(resolution: int, gpu: bool) -> tuple[Generator, Discriminator]:
    """The sizes that are compared: small ones on a CPU, the reference's own on a GPU."""
    base, widest = (32768 if resolution >= 512 else 16384, 512) if gpu else (4096, 128)
    shared = {"img_resolution": resolution, "channel_base": base, "channel_max": widest}
    shared |= {"num_fp16_res": 4, "conv_clamp": 256.0} if gpu else {}
    torch.manual_seed(0)
    return Generator(**shared), Discriminator(**shared)


def sec_per_kimg(resolution: int, steps: int, plain: bool) -> float:
    """Time of `steps` steps (a multiple of 16, so that every phase has its share) after 4 to warm up."""
    where = dist.device()
    layout = torch.contiguous_format if plain else torch.channels_last
    generator.MAIN_MEMORY_FORMAT = discriminator.MAIN_MEMORY_FORMAT = layout
    G, D = networks(resolution, where.type != "cpu")
    if plain:
        G, D = nchw(G), nchw(D)
    batch = 8 if where.type == "cpu" else (64 if resolution < 1024 else 32)
    recipe = replace(RECIPE, batch=batch, batch_gpu=min(batch, 32 if resolution < 512 else 8))
    reals = torch.randint(0, 256, (64, 3, resolution, resolution), dtype=torch.uint8, device=where)
    with plain_operations() if plain else nullcontext():
        state = start_state(G, D, None, recipe)
        for _ in range(4):
            train_step(state, reals, recipe)
        state.cur_nimg = 0
        float(state.pl_mean)
        started = time.perf_counter()
        for _ in range(steps):
            train_step(state, reals, recipe)
        float(state.pl_mean)
        return (time.perf_counter() - started) / (steps * recipe.batch) * 1000


def main(resolutions: Annotated[str, typer.Option(help="comma separated, px")] = "",
         steps: Annotated[int, typer.Option(help="timed steps, a multiple of 16")] = 16) -> None:  # fmt: skip
    """Print one row per resolution."""
    gpu = dist.device().type != "cpu"
    chosen = [int(r) for r in resolutions.split(",") if r] or ([64, 256, 512, 1024] if gpu else [64])
    cpu = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    machine = torch.cuda.get_device_name() if gpu else cpu
    print(f"{date.today()}, {machine}, torch {torch.__version__}, python bench/speed.py --steps {steps}\n")
    print("| resolution px | ours sec/kimg | plain sec/kimg | ratio |\n|---|---|---|---|")
    for resolution in chosen:
        ours, baseline = (sec_per_kimg(resolution, steps, plain) for plain in (False, True))
        print(f"| {resolution} | {ours:.1f} | {baseline:.1f} | {baseline / ours:.2f} |")


if __name__ == "__main__":
    typer.run(main)
