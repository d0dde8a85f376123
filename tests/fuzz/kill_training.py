"""Training killed (SIGKILL) at random moments until it ends, again and again: `make kills`.

Whatever the moments, networks.safetensors, the progress pictures and the metrics must equal, byte for byte,
those of a run that nobody disturbed. A difference, or a run that does not end, stops with exit code 1.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from test_train import PARAMS  # noqa: E402
from training import faces, networks  # noqa: E402

from stylebot.checkpoints import save_networks  # noqa: E402
from stylebot.dataset import write_dataset  # noqa: E402
from stylebot.weights import Networks  # noqa: E402


def prepare(folder: Path, kimg: float) -> None:
    """Start weights, faces and params.yaml of a run of `kimg` with a restart state every 80 pictures."""
    G, D = networks()
    save_networks(folder / "start.safetensors", Networks(G=G, D=D, G_ema=networks()[0], meta={}))
    write_dataset(folder / "faces.zip", faces().permute(0, 2, 3, 1).numpy())
    train = {name: value for name, value in PARAMS.items() if name != "freeze_d"}
    train |= {"kimg": kimg, "tick_kimg": 0.04, "snap_ticks": 2}
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump({"freeze_d": PARAMS["freeze_d"], "train": train}, file)


def start(folder: Path, name: str) -> subprocess.Popen:
    """The training script with outputs and scratch folder `name`."""
    paths = {"generator": "start.safetensors", "dataset": "faces.zip", "heldout": "faces.zip",
             "inception": "faces.zip", "out": name, "metrics": f"{name}/metrics.json"}  # fmt: skip
    words = [word for option, path in paths.items() for word in (f"--{option}", path)]
    environment = os.environ | {"STYLEBOT_SCRATCH": str(folder / f"{name}-scratch"), "OMP_NUM_THREADS": "1",
                                "PYTHONPATH": str(ROOT / "src")}  # fmt: skip
    script = [sys.executable, str(ROOT / "src/train.py"), *words]
    return subprocess.Popen(script, cwd=folder, env=environment, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)  # fmt: skip


def delivered(folder: Path, name: str) -> dict[str, str]:
    """sha256 of each output by its path, but for the live curves, which hold the time of day."""
    paths = (p for p in sorted((folder / name).rglob("*")) if p.is_file() and "live" not in p.parts)
    return {str(p.relative_to(folder / name)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def disturbed(folder: Path, longest_sec: float, numbers: random.Random) -> int:
    """Run until it ends by itself, killed after at most `longest_sec` each time; the number of kills."""
    for name in ("killed", "killed-scratch"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for kills in range(1000):
        process = start(folder, "killed")
        try:
            code = process.wait(numbers.uniform(0, longest_sec))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            continue
        if code:
            raise SystemExit(f"the run ended with exit code {code} after {kills} kills")
        return kills
    raise SystemExit("the run does not end: killed 1000 times")


def main() -> None:
    """Kill until --kills are reached; each run that has ended is compared."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kimg", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, numbers, done = Path(name), random.Random(given.seed), 0
        prepare(folder, given.kimg)
        begun = time.monotonic()
        if start(folder, "whole").wait():
            raise SystemExit("the undisturbed run failed")
        took_sec = time.monotonic() - begun
        wanted = delivered(folder, "whole")
        print(f"undisturbed: {took_sec:.0f} s, {len(wanted)} files")
        while done < given.kills:
            kills = disturbed(folder, took_sec, numbers)
            found = delivered(folder, "killed")
            if found != wanted:
                names = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
                raise SystemExit(f"after {kills} kills other bytes in {', '.join(names)}")
            done += kills
            print(f"{kills} kills, then the same bytes; {done} kills so far")


if __name__ == "__main__":
    main()
