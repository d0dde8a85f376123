"""What stage fid spends besides Inception's own forward pass, in one run.

    python bench/fid.py [--images 64] [--repeats 9] [--clock cpu]

Three passes over equally many pictures, in turns, each in batches of 32: Inception alone on pictures that lie
ready at 299 px; the stage's own pass over held-out faces (PNG, resize, Inception); its own pass over fakes
(generator, uint8, resize, Inception). The generator as the stage calls it is timed besides, so that what is
ours can be told from what it costs to make a picture. Medians over the rounds; ratios are to Inception alone
in the same round, whose order turns, so that a machine that slows down slows both. Progress bars are left
out: they redraw by the clock, however slow a busy machine is. There, OMP_NUM_THREADS=1 and --clock cpu.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Annotated

import torch
import typer

from stylebot import dist, features, fid
from stylebot.dataset import Dataset
from stylebot.features import read_batches
from stylebot.fid import FidParams
from stylebot.inception import Inception, features_of, resized
from stylebot.params import load_params
from stylebot.render import load_generator

STAGES = Path("stages")
_CLEAN = ("clean",)


def exhausted(batches: Iterable[torch.Tensor]) -> int:
    """Draw all batches, keep none; how many pictures they held."""
    return sum(len(batch) for batch in batches)


def alone(network: Inception, ready: list[torch.Tensor]) -> int:
    """Inception's forward pass, set as in the stage, on batches [n, 3, 299, 299] float32, -1..1."""
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        return sum(len(network.net(batch).float().cpu()) for batch in ready)


def rounds(
    passes: dict[str, Callable[[], int]], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds per picture of each pass in each round; a round to warm up is left out."""
    taken: dict[str, list[float]] = {name: [] for name in passes}
    for i in range(repeats + 1):
        for name in [*passes][i % len(passes) :] + [*passes][: i % len(passes)]:
            started = clock()
            pictures = passes[name]()
            if i:
                taken[name].append((clock() - started) / pictures)
    return taken


def main(images: Annotated[int, typer.Option(help="fakes per pass")] = 64,
         repeats: Annotated[int, typer.Option(help="rounds, in turns")] = 9,
         clock: Annotated[str, typer.Option(help="wall or cpu")] = "wall",
         generator: Annotated[Path, typer.Option()] = STAGES / "fetch/generator.safetensors",
         heldout: Annotated[Path, typer.Option()] = STAGES / "pack/heldout.zip",
         inception: Annotated[Path, typer.Option()] = STAGES / "fetch/inception.pt") -> None:  # fmt: skip
    """Print a row per pass."""
    fid.track = features.track = lambda steps, *_: steps
    where, data = dist.device(), Dataset(heldout)
    params = load_params("fid", FidParams).model_copy(update={"images": images})
    g, network = load_generator(generator, where), Inception(inception, where)

    def fakes() -> Iterable[torch.Tensor]:
        return fid._fakes(g, params, data.resolution, "fakes")

    ready = [(resized(rgb.to(where), "clean") - 128) / 128 for rgb in fakes()]
    found = rounds({
        "Inception alone": lambda: alone(network, ready),
        "generator alone": lambda: exhausted(fakes()),
        "stage, held-out faces": lambda: len(features_of(network, read_batches(data), _CLEAN)["clean"]),
        "stage, fakes": lambda: len(features_of(network, fakes(), _CLEAN)["clean"]),
    }, repeats, {"wall": time.perf_counter, "cpu": time.process_time}[clock])  # fmt: skip
    both = zip(found["stage, fakes"], found["generator alone"], strict=True)
    found["stage, fakes, less generator"] = [whole - made for whole, made in both]
    cpu = f"CPU, {torch.get_num_threads()} threads"
    machine = cpu if where.type == "cpu" else torch.cuda.get_device_name()
    print(f"{date.today()}, {machine}, torch {torch.__version__}, {clock} time, {g.img_resolution} px\n")
    print("| pass | ms/picture | times Inception alone |\n|---|---|---|")
    for name, seconds in found.items():
        ratios = [one / base for one, base in zip(seconds, found["Inception alone"], strict=True)]
        print(f"| {name} | {1000 * statistics.median(seconds):.1f} | {statistics.median(ratios):.3f} |")


if __name__ == "__main__":
    typer.run(main)
