"""`make bench`: seconds per thousand pictures of training, eager and compiled, against the plain operations.

    python bench/speed.py [--resolutions 64,256] [--ways eager,compiled,plain] [--steps 16]

On a CPU: 64 px, batch 8, channel_base 4096, channel_max 128, all four phases, no augmentation. On a GPU the
reference's settings for the resolution: batch 64 (1024 px: 32), at most 32 pictures at once (8 from 512 px),
float16 in the four highest resolutions. The ways run one after another, each in all its steps; phases are
timed in as many steps more. Compiling is not in the times. Copy the table into bench/RESULTS.md with machine
and date.
"""

import platform
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from typing import Annotated

import torch
import typer
from plain import nchw, plain_operations

from stylebot import discriminator, dist, generator, trainer
from stylebot.discriminator import Discriminator
from stylebot.generator import Generator
from stylebot.trainer import Recipe, compile_phases, start_state, train_step

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


def wait() -> float:
    """The time, once the device has done all it was given."""
    if dist.device().type != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def phase_shares(step: Callable[[], None], steps: int) -> dict[str, float]:
    """Share of the time of `steps` steps that each phase takes, its optimiser included."""
    spent, apply, due, running = Counter(), trainer._apply, trainer.due, []

    def noted_due(recipe: Recipe, number: int) -> dict[str, int]:
        phases = due(recipe, number)
        running[:] = [wait(), *phases]
        return phases

    def noted_apply(*given) -> None:
        apply(*given)
        started, name, *later = running
        running[:] = [wait(), *later]
        spent[name] += running[0] - started

    trainer._apply, trainer.due = noted_apply, noted_due
    try:
        for _ in range(steps):
            step()
    finally:
        trainer._apply, trainer.due = apply, due
    return {name: time / spent.total() for name, time in spent.items()}


def measure(resolution: int, steps: int, way: str) -> tuple[float, float, dict[str, float]]:
    """(sec/kimg, GB at most, share of each phase) of steps after 4 to warm up; fair in multiples of 16."""
    where = dist.device()
    gpu, plain = where.type != "cpu", way == "plain"
    layout = torch.contiguous_format if plain else torch.channels_last
    generator.MAIN_MEMORY_FORMAT = discriminator.MAIN_MEMORY_FORMAT = layout
    G, D = networks(resolution, gpu)
    if plain:
        G, D = nchw(G), nchw(D)
    batch = 8 if not gpu else (64 if resolution < 1024 else 32)
    recipe = replace(RECIPE, batch=batch, batch_gpu=min(batch, 32 if resolution < 512 else 8))
    reals = torch.randint(0, 256, (64, 3, resolution, resolution), dtype=torch.uint8, device=where)
    with plain_operations() if plain else nullcontext():
        state = start_state(G, D, None, recipe, half=way == "half")
        if way == "compiled":
            compile_phases(state, recipe)
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(4):
            train_step(state, reals, recipe)
        state.cur_nimg = 0
        started = wait()
        for _ in range(steps):
            train_step(state, reals, recipe)
        seconds = (wait() - started) / (steps * batch) * 1000
        most = torch.cuda.max_memory_allocated() / 1e9 if gpu else float("nan")
        state.cur_nimg = 0
        shares = phase_shares(lambda: train_step(state, reals, recipe), steps)
    return seconds, most, shares


def main(resolutions: Annotated[str, typer.Option(help="comma separated, px")] = "",
         ways: Annotated[str, typer.Option(help="of plain, eager, half, compiled; 1st: the measure")] = "",
         steps: Annotated[int, typer.Option(help="timed steps, a multiple of 16")] = 16) -> None:  # fmt: skip
    """Print one row per resolution and way; by default plain, eager and, on a GPU, compiled.

    half: eager, what `train.amp` is on a CPU; by default where the processor has bfloat16
    """
    gpu = dist.device().type != "cpu"
    chosen = [int(r) for r in resolutions.split(",") if r] or ([64, 256, 512, 1024] if gpu else [64])
    fast = "compiled" if gpu else "half" if dist.wants_half("auto") else ""
    todo = [w for w in (ways or f"plain,eager,{fast}").split(",") if w]
    cpu = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    machine = torch.cuda.get_device_name() if gpu else cpu
    print(f"{date.today()}, {machine}, torch {torch.__version__}, python bench/speed.py --steps {steps}\n")
    names = [name for name, _ in trainer.PHASES]
    heads = ["resolution px", "way", "sec/kimg", f"times {todo[0]}'s speed", "GB at most"]
    heads += [f"{name} %" for name in names]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for resolution in chosen:
        first = None
        for way in todo:
            seconds, most, shares = measure(resolution, steps, way)
            first = first or seconds
            row = [f"{resolution}", way, f"{seconds:.1f}", f"{first / seconds:.2f}", f"{most:.1f}",
                   *(f"{100 * shares[n]:.0f}" for n in names)]  # fmt: skip
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
