"""Training killed at random moments (kill -9), again and again, against the same training left alone.

    python bench/kill.py [--kills 50] [--seed 0]

Small networks on the CPU, in a temporary folder. Ends with exit code 1 unless weights and curves are the same
bytes. Copy the last lines into bench/RESULTS.md with machine and date.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from ruamel.yaml import YAML

from stylebot.checkpoints import save_networks
from stylebot.dataset import write_dataset
from stylebot.discriminator import Discriminator
from stylebot.generator import Generator
from stylebot.weights import Networks

ROOT = Path(__file__).parents[1]
SMALL = {"kimg": 3.0, "batch": 8, "batch_gpu": 8, "tick_kimg": 0.064, "snap_ticks": 2, "pl_weight": 2,
         "style_mixing_prob": 0.9, "augment": "bgc", "p_initial": 0.3, "lecam_weight": 0.3}  # fmt: skip


def prepare(folder: Path) -> None:
    """params.yaml with a small `train`, start weights of 16 px and random faces."""
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["train"] |= SMALL
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    torch.manual_seed(0)
    shape = {"img_resolution": 16, "channel_base": 128, "channel_max": 8}
    G, D = Generator(z_dim=8, w_dim=8, mapping_layers=2, **shape), Discriminator(**shape)
    save_networks(folder / "start.safetensors", Networks(G=G, D=D, G_ema=G, meta={}))
    write_dataset(folder / "faces.zip", torch.randint(256, (40, 16, 16, 3), dtype=torch.uint8).numpy())


def start(folder: Path, name: str) -> subprocess.Popen:
    """The stage in its own process group; outputs in `name`, restart states beside it."""
    options = {"generator": "start.safetensors", "dataset": "faces.zip", "heldout": "faces.zip",
               "inception": "faces.zip", "out": name, "metrics": f"{name}.json"}  # fmt: skip
    command = [sys.executable, str(ROOT / "src" / "train.py")]
    command += [part for option, value in options.items() for part in (f"--{option}", value)]
    environment = os.environ | {"STYLEBOT_SCRATCH": str(folder / f"{name}.scratch")}
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log,
                                start_new_session=True)  # fmt: skip


def kill_at_random(folder: Path, kills: int, longest_s: float, chance: random.Random) -> int:
    """Start and kill `kills` times, each after up to `longest_s`; returns how many came before the end."""
    for done in range(kills):
        process = start(folder, "killed")
        deadline = time.monotonic() + chance.uniform(0, longest_s)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        if process.poll() is not None:
            return done
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return kills


def digests(folder: Path, name: str) -> dict[str, str]:
    """sha256 of the delivered networks and of every curve (their time stamps left out)."""
    files = [folder / name / "networks.safetensors", *sorted((folder / name / "live").rglob("*.tsv"))]
    return {str(f.relative_to(folder / name)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def main(
    kills: Annotated[int, typer.Option(help="times that the training is killed")] = 50,
    seed: Annotated[int, typer.Option(help="of the moments")] = 0,
) -> None:
    """Compare a training that is killed `kills` times with one that is not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        began = time.monotonic()
        if start(folder, "whole").wait():
            raise SystemExit((folder / "whole.log").read_text())
        alone_s = time.monotonic() - began
        survived = kill_at_random(folder, kills, min(alone_s / 3, 20.0), random.Random(seed))
        if start(folder, "killed").wait():
            raise SystemExit((folder / "killed.log").read_text()[-2000:])
        log = (folder / "killed.log").read_text()
        whole, killed = digests(folder, "whole"), digests(folder, "killed")
        different = sorted(k for k in whole | killed if whole.get(k) != killed.get(k))
        states = log.count("going on from")
        damaged = log.count("is damaged")
        print(f"{survived} kills, {states} starts from a saved state, {damaged} damaged states; "
              f"{len(whole)} files compared, different: {', '.join(different) or 'none'}")  # fmt: skip
        raise SystemExit(1 if different else 0)


if __name__ == "__main__":
    typer.run(main)
