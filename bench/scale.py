"""Cost per photo of align and filter for a thousand to fifty thousand photos, of adding some, of nothing new.

    python bench/scale.py --photos stages/photos --models stages/fetch --folder FOLDER [--count 1000]

FOLDER is filled with `count` photos, made from those of the sample by turning, stretching, brightening and
re-encoding them, each in its own way, and kept: a larger count goes on from a smaller one. The stages run as
`dvc repro` runs them, with the params of this workspace. 50,000 photos need about 20 GB and, on two cores,
some hours. Copy the table into bench/RESULTS.md with machine and date.
"""

import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from joblib import Parallel, delayed
from PIL import Image, UnidentifiedImageError

from stylebot.files import atomic

ROOT = Path(__file__).parents[1]
SIDE_PX = 640  # longest side of the photos


def make_photo(source: Path, out: Path, seed: int) -> None:
    """One photo: `source` turned, stretched, brightened, mirrored, re-encoded as `seed` says."""
    if out.exists():
        return
    rng = np.random.default_rng(seed)
    picture = Image.open(source).convert("RGB")
    scale = SIDE_PX / max(picture.size)
    width, height = round(picture.width * scale), round(picture.height * scale)
    corners = np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * picture.size
    corners = corners + rng.uniform(-0.03, 0.03, (4, 2)) * picture.size
    quad = tuple(corners.ravel())
    picture = picture.transform((width, height), Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)
    picture = picture.rotate(rng.uniform(-6, 6), Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    gain = rng.uniform(0.85, 1.15)
    picture = picture.point(lambda value: value * gain)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as part:
        picture.save(part, "JPEG", quality=int(rng.integers(70, 96)))


def make_photos(originals: list[tuple[str, Path]], folder: Path, numbers: range) -> None:
    """Photos of these numbers in FOLDER/photos, each in the folder of its original's source."""
    jobs = []
    for number in numbers:
        source, path = originals[number % len(originals)]
        jobs.append((path, folder / "photos" / source / f"{number:06d}.jpg", number))
    Parallel(n_jobs=-1)(delayed(make_photo)(*job) for job in jobs)


def readable(photos: Path) -> list[tuple[str, Path]]:
    """(source, file) of every picture of the sample that Pillow opens."""
    found = []
    for path in sorted(p for p in photos.glob("*/*") if p.is_file()):
        try:
            Image.open(path).load()
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
            continue
        found.append((path.parent.name, path))
    return found


@dataclass(frozen=True)
class Cost:
    """What one run of a stage took: seconds, CPU seconds of all processes, memory of the largest (GB)."""

    wall: float
    cpu: float
    peak_gb: float


def stage(name: str, folder: Path, arguments: list[str]) -> Cost:
    """Run a stage's script in FOLDER; only its own processes count. Ends the benchmark when it fails."""
    environment = os.environ | {"STYLEBOT_SCRATCH": str(folder / "scratch"), "PYTHONPATH": str(ROOT / "src")}
    script = ROOT / "src" / f"{name}.py"
    command = [sys.executable, str(Path(__file__)), "--measured", str(script), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{name} failed")
    return Cost(*map(float, done.stdout.split()[-3:]))


def measured(command: list[str]) -> int:
    """Run a script in a process of its own and print wall seconds, CPU seconds and peak memory in GB."""
    started = time.perf_counter()
    code = subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL).returncode
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6)
    return code


def both(folder: Path, models: Path) -> tuple[Cost, Cost]:
    """Run align and filter over FOLDER/photos."""
    paths = {name: f"{folder}/{name}" for name in ("photos", "align", "filter")}
    align = stage(
        "align",
        folder,
        [
            "--photos",
            paths["photos"],
            "--landmarks",
            f"{models}/landmarks.dat",
            "--out",
            paths["align"],
            "--metrics",
            f"{folder}/align.json",
        ],
    )
    sheets = [
        part
        for name in ("accepted", "refused", "borderline", "duplicates", "identities")
        for part in (f"--{name}", f"{paths['filter']}/{name}.png")
    ]
    judged = stage(
        "filter",
        folder,
        [
            "--aligned",
            paths["align"],
            "--photos",
            paths["photos"],
            "--identity",
            f"{models}/identity.dat",
            "--table",
            f"{paths['filter']}/faces.parquet",
            *sheets,
            "--metrics",
            f"{folder}/filter.json",
        ],
    )
    return align, judged


def row(what: str, photos: int, costs: tuple[Cost, Cost], whole: tuple[Cost, Cost]) -> str:
    """One line of the table; `whole` is the run that shares are of."""
    share = sum(c.wall for c in costs) / sum(c.wall for c in whole)
    per_photo = [f"{1e3 * c.cpu / photos:.1f}" for c in costs]
    cells = [
        what,
        str(photos),
        *(f"{c.wall:.0f}" for c in costs),
        *per_photo,
        *(f"{c.peak_gb:.2f}" for c in costs),
        f"{share:.2%}",
    ]
    return f"| {' | '.join(cells)} |"


def main(
    photos: Annotated[Path, typer.Option(help="folder of photo folders to make photos from")],
    models: Annotated[Path, typer.Option(help="folder with landmarks.dat and identity.dat")],
    folder: Annotated[Path, typer.Option(help="where photos and results go")],
    count: Annotated[int, typer.Option(help="photos", min=10)] = 1000,
    add: Annotated[int, typer.Option(help="photos added afterwards", min=1)] = 100,
) -> None:
    """Print a table: everything, nothing new, some more."""
    folder, models = folder.absolute(), models.absolute()
    originals = readable(photos)
    for name in ("align", "filter", "scratch"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in (folder / "photos").glob("*/*"):
        if int(path.stem) >= count:
            path.unlink()
    make_photos(originals, folder, range(count))
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    print(
        f"{date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"python bench/scale.py --count {count} --add {add}\n"
    )
    print(
        "| run | photos | align s | filter s | align CPU ms/photo | filter CPU ms/photo | align GB "
        "| filter GB | of everything |\n|---|---|---|---|---|---|---|---|---|"
    )
    whole = both(folder, models)
    print(row("everything", count, whole, whole), flush=True)
    print(row("nothing new", count, both(folder, models), whole), flush=True)
    make_photos(originals, folder, range(count, count + add))
    print(row(f"{add} more", add, both(folder, models), whole), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measured"]:
        sys.exit(measured(sys.argv[2:]))
    typer.run(main)
