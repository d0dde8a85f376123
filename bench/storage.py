"""What DVC costs for many photos: a folder of files against one zip per delivery, on this disk.

    PYTHONPATH=src python bench/storage.py [--files 50000] [--kb 10] [--per-zip 1000]

Random files (nothing compresses) in a repository of its own with this project's .dvc/config and a remote
that is a folder, all below $TMPDIR. Each step is one `dvc` process, by the clock and, in brackets, in seconds
of CPU; on a busy machine compare the latter. Each is told on stderr when it is done.
A remote with a network in between costs more per object, never less.
"""

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from stylebot.files import write_zip

ROOT = Path(__file__).parents[1]
MORE = "one delivery more"
STEPS = ("add", "status", "push", f"{MORE}: add", f"{MORE}: push", "pull into a new clone")


def contents(count: int, size_bytes: int, seed: int) -> Iterable[tuple[str, bytes]]:
    """`count` named photos that are none."""
    numbers = random.Random(seed)
    return ((f"{seed:04}-{i:06}.jpg", numbers.randbytes(size_bytes)) for i in range(count))


def deliver(photos: Path, count: int, size_bytes: int, seed: int, zipped: bool) -> None:
    """One delivery: files into the folder `celebrity`, or a zip of them beside the others."""
    photos.mkdir(parents=True, exist_ok=True)
    if zipped:
        write_zip(photos / f"delivery-{seed:04}.zip", contents(count, size_bytes, seed))
        return
    (photos / "celebrity").mkdir(exist_ok=True)
    for name, content in contents(count, size_bytes, seed):
        (photos / "celebrity" / name).write_bytes(content)


class Timed:
    """Commands in one repository, timed one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "DVC_SITE_CACHE_DIR": str(folder.parent / f"site-{folder.name}"), "DVC_NO_ANALYTICS": "1",
            "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org"}  # fmt: skip

    def run(self, *words: str) -> None:
        """A command that must succeed. Raises RuntimeError with what it said."""
        done = subprocess.run(words, cwd=self.folder, env=self.environment, text=True, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")

    def dvc(self, *words: str) -> tuple[float, float]:
        """(seconds by the clock, seconds of CPU) of a DVC command, also told on stderr."""
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        self.run(sys.executable, "-m", "dvc", *words, "-q")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        wall = time.perf_counter() - started
        told = f"{self.folder.name}: dvc {words[0]}: {wall:.1f} s ({cpu:.1f} s of CPU)"
        print(told, file=sys.stderr, flush=True)
        return wall, cpu


def measure(
    folder: Path, files: int, size_bytes: int, per_zip: int, zipped: bool
) -> list[tuple[float, float]]:
    """(clock, CPU) seconds of STEPS for `files` photos in deliveries of `per_zip`."""
    ours = folder / "ours"
    (ours / ".dvc").mkdir(parents=True)
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, ours / name)
    here = Timed(ours)
    here.run("git", "init", "-q", "-b", "main")
    here.dvc("remote", "add", "-d", "team", str(folder / "store"))
    full, rest = divmod(files, per_zip)
    for seed, count in enumerate([per_zip] * full + [rest] * bool(rest)):
        deliver(ours / "stages/photos", count, size_bytes, seed, zipped)
    photos = "stages/photos"
    times = [here.dvc("add", photos), here.dvc("status"), here.dvc("push")]
    deliver(ours / photos, per_zip, size_bytes, 9999, zipped)
    times += [here.dvc("add", photos), here.dvc("push")]
    here.run("git", "add", "-A")
    here.run("git", "commit", "-q", "-m", "Photos")
    here.run("git", "clone", "-q", str(ours), str(folder / "theirs"))
    times.append(Timed(folder / "theirs").dvc("pull"))
    return times


def main(
    files: Annotated[int, typer.Option(min=1, help="photos")] = 50_000,
    kb: Annotated[float, typer.Option(min=0.1, help="of one photo")] = 10,
    per_zip: Annotated[int, typer.Option(min=1, help="photos of one delivery, and so of one zip")] = 1000,
) -> None:
    """Print a table; needs three times the photos' space for each of the two ways, one after the other."""
    found = []
    for zipped in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(Path(folder), files, round(kb * 1000), per_zip, zipped))
    size = f"{files} photos of {kb:g} kB, {per_zip} to a delivery"
    print(f"{date.today()}, {os.cpu_count()} cores, {size}, python bench/storage.py --files {files}\n")
    print("| `dvc` | folder of files, s (CPU) | a zip per delivery, s (CPU) | times |\n|---|---|---|---|")
    for step, (wall, cpu), (wall_zip, cpu_zip) in zip(STEPS, *found, strict=True):
        ratio = f"{wall / wall_zip:.1f} ({cpu / cpu_zip:.1f})"
        print(f"| {step} | {wall:.1f} ({cpu:.1f}) | {wall_zip:.1f} ({cpu_zip:.1f}) | {ratio} |")


if __name__ == "__main__":
    typer.run(main)
