"""Faces from the fine-tuned generator: `python src/generate.py --seeds 0-35 --grid faces.png`."""

from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Option

from stylebot.cli import Dep, run
from stylebot.generate import Fit, Target, generate
from stylebot.lookalikes import Guard
from stylebot.plans import Look, Source
from stylebot.provenance import Signer

STAGES = Path("stages")


def main(
    seeds: Annotated[str | None, Option(help="faces by number, such as 0-35,100")] = None,
    mix: Annotated[str | None, Option(help="style mixing, ROWSxCOLUMNS, such as 0-3x10-14")] = None,
    latents: Annotated[Path | None, Option(help=".npz with an array w, as --project writes it")] = None,
    project: Annotated[Path | None, Option(help="photo to imitate: writes w and w+ to --out")] = None,
    out: Annotated[Path | None, Option(help="folder for one picture per face")] = None,
    grid: Annotated[Path | None, Option(help="one PNG, JPEG or WebP with all faces")] = None,
    film: Annotated[Path | None, Option(help="MP4 or WebP that goes round through the faces")] = None,
    kind: Annotated[str, Option(help="of the pictures in --out: png, jpg or webp")] = "png",
    psi: Annotated[float | None, Option(help="0 average face … 1 whole variety [seeds: 0.7]")] = None,
    cutoff: Annotated[int | None, Option(help="truncate only so many of the coarsest layers")] = None,
    noise_mode: Annotated[str, Option(help="const, random or none")] = "const",
    label: Annotated[int | None, Option(help="class, for a network that has classes")] = None,
    directions: Annotated[int | None, Option(help="strips along so many found directions (SeFa)")] = None,
    strength: Annotated[float, Option(help="of directions; 1: as far as a face is from the average")] = 0.3,
    layers: Annotated[str | None, Option(help="that are mixed or moved, such as 0-3 (coarse)")] = None,
    frames: Annotated[int, Option(help="of the film, from face to face")] = 60,
    fps: Annotated[int, Option(help="frames of the film in a second")] = 30,
    steps: Annotated[int, Option(help="of --project, for w and for w+")] = 500,
    cropped: Annotated[bool, Option("--cropped", help="the photo is a face crop already")] = False,
    audited: Annotated[bool, Option("--audited", help="withhold faces too near to a training face")] = False,
    certificate: Annotated[Path | None, Option(help="PEM chain to sign with (C2PA), needs --key")] = None,
    key: Annotated[Path | None, Option(help="PEM key of the certificate")] = None,
    batch: Annotated[int | None, Option(help="pictures at a time [default: what fits into memory]")] = None,
    generator: Dep = Dep(STAGES / "train/networks.safetensors"),  # noqa: B008
    stages: Annotated[Path, Option(help="folder of the models and of the audit")] = STAGES,
) -> None:
    """Write faces that say of themselves that they are synthetic, and of which network and seed.

    generator: networks to generate with, any checkpoint of the family
    """
    signer = Signer.of(certificate, key)
    guard = partial(Guard, stages) if audited else None
    generate(
        generator, Source(seeds, mix, latents, project),
        Look(psi, cutoff, noise_mode, label, layers, directions, strength),
        Target(out, grid, film, kind, frames, fps, guard, signer),
        Fit(stages / "fetch/landmarks.dat", stages / "fetch/perceptual.pth", steps, cropped), batch,
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
