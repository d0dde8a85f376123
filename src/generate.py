"""Faces from the fine-tuned generator: `python src/generate.py --seeds 0-35,100 --out faces`."""

from pathlib import Path
from typing import Annotated

from typer import Option

from stylebot.cli import Dep, run
from stylebot.generate import generate, parse_seeds


def main(
    seeds: Annotated[str, Option(help="numbers and ranges, such as 0-35,100")],
    generator: Dep = Dep(Path("stages/train/networks.safetensors")),  # noqa: B008
    out: Annotated[Path | None, Option(help="folder for seed0000.png …")] = None,
    grid: Annotated[Path | None, Option(help="one PNG with all faces")] = None,
    psi: Annotated[float, Option(help="truncation: 0 the average face, 1 the whole variety")] = 0.7,
    cutoff: Annotated[int | None, Option(help="truncate only so many of the coarsest layers")] = None,
    noise_mode: Annotated[str, Option(help="const, random or none")] = "const",
    label: Annotated[int | None, Option(help="class, for a network that has classes")] = None,
    batch: Annotated[int, Option(help="pictures at a time; less needs less memory")] = 8,
) -> None:
    """Write generated faces as PNG files that say that they are synthetic, and of which network and seed.

    generator: networks to generate with, any checkpoint of the family
    """
    generate(generator, parse_seeds(seeds), out, grid, psi, cutoff, noise_mode, label, batch)


if __name__ == "__main__":
    run(main)
