"""Seconds per generated picture, ours against the plain operations, in one run.

    python bench/inference.py [--resolutions 256,1024] [--seconds 20] [--clock cpu]

G of the reference's configuration (channel_base 16384 below 512 px, else 32768; channel_max 512), random
weights, batch 1 and 4, constant noise, float32 on a CPU. Both sides get the same latents in turns, so that a
machine that slows down slows both; the medians are compared. Before anything is timed, the pictures of both
sides are checked to be the same. On a busy machine, OMP_NUM_THREADS=1 and the processor's time (--clock cpu).
"""

import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from typing import Annotated

import torch
import typer
from plain import nchw, plain_operations

from stylebot import dist, generator
from stylebot.generator import Generator

_AGREE = 1e-3  # of pictures about -1..1: the two orders of summation differ in rounding


def network(resolution: int, plain: bool) -> Generator:
    """The reference's G with random weights, the same for both sides."""
    generator.MAIN_MEMORY_FORMAT = torch.contiguous_format if plain else torch.channels_last
    torch.manual_seed(0)
    G = Generator(img_resolution=resolution, channel_base=32768 if resolution >= 512 else 16384)
    G = G.eval().requires_grad_(False).to(dist.device())
    return nchw(G) if plain else G


def drawer(resolution: int, z: torch.Tensor, plain: bool) -> Callable[[], torch.Tensor]:
    """A function that makes the pictures of z [N, 512] from start to end."""
    G = network(resolution, plain)
    layout = generator.MAIN_MEMORY_FORMAT

    @torch.inference_mode()
    def draw() -> torch.Tensor:
        generator.MAIN_MEMORY_FORMAT = layout
        with plain_operations() if plain else nullcontext():
            img = G(z, truncation_psi=0.7, noise_mode="const").cpu()
        return img

    return draw


def compare(resolution: int, batch: int, seconds: float, clock: Callable[[], float]) -> tuple[float, float]:
    """Median seconds per picture, ours and plain, from alternating calls for about `seconds` altogether.

    Raises RuntimeError when the two do not make the same pictures.
    """
    z = torch.randn(batch, 512, generator=torch.Generator().manual_seed(1)).to(dist.device())
    draws = [drawer(resolution, z, plain) for plain in (False, True)]
    ours, plain = (draw() for draw in draws)
    gap = float((ours - plain).abs().max())
    if not gap < _AGREE:
        raise RuntimeError(f"{resolution} px: the two sides' pictures differ by {gap:.3g}")
    times: list[list[float]] = [[], []]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[1]) < 3:
        for draw, taken in zip(draws, times, strict=True):
            started = clock()
            draw()
            taken.append((clock() - started) / batch)
    return statistics.median(times[0]), statistics.median(times[1])


def main(resolutions: Annotated[str, typer.Option(help="comma separated, px")] = "256,1024",
         batches: Annotated[str, typer.Option(help="comma separated")] = "1,4",
         seconds: Annotated[float, typer.Option(help="per row of the table")] = 20,
         clock: Annotated[str, typer.Option(help="wall or cpu")] = "wall") -> None:  # fmt: skip
    """Print one row per resolution and batch."""
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    where = dist.device()
    cpu = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    machine = cpu if where.type == "cpu" else torch.cuda.get_device_name()
    print(f"{date.today()}, {machine}, torch {torch.__version__}, python bench/inference.py, {clock} time\n")
    print("| resolution px | batch | ours sec/picture | plain sec/picture | ratio |\n|---|---|---|---|---|")
    for resolution in [int(r) for r in resolutions.split(",")]:
        for batch in [int(b) for b in batches.split(",")]:
            ours, plain = compare(resolution, batch, seconds, clocks[clock])
            print(f"| {resolution} | {batch} | {ours:.3f} | {plain:.3f} | {plain / ours:.2f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
