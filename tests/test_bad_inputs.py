"""Inputs of fid and superres that do not fit each other, from the command line: one line and exit code 1."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from test_encode import faces_zip, tiny_generator

from stylebot.checkpoints import Networks, save_networks
from stylebot.encoder import Encoder, save_encoder

ROOT = Path(__file__).parents[1]


def network(path: Path, **how: int) -> Path:
    save_networks(path, Networks(G=None, D=None, G_ema=tiny_generator(**how)))
    return path


def encoder(path: Path, resolution: int) -> Path:
    save_encoder(path, Encoder("light", resolution, w_dim=8), {})
    return path


def called(folder: Path, stage: str, **given: Path) -> subprocess.CompletedProcess[str]:
    """A stage by hand in `folder`, where params.yaml lies; what a case does not give is an empty file."""
    every = {"fid": "generator base heldout inception",
             "superres": "encoder generator heldout dataset base perceptual identity inception"}  # fmt: skip
    for name in set(every[stage].split()) - given.keys():
        given[name] = folder / name
        given[name].touch()
    paths = given | {"out": folder / "out", "metrics": folder / "m.json"}
    words = [str(word) for name, path in paths.items() for word in (f"--{name}", path)]
    return subprocess.run([sys.executable, ROOT / "src" / f"{stage}.py", *words], cwd=folder, text=True,
                          capture_output=True, timeout=600)  # fmt: skip


def few_images(folder: Path) -> subprocess.CompletedProcess[str]:
    g = network(folder / "g")
    return called(folder, "fid", generator=g, base=g, heldout=faces_zip(folder / "few.zip", 9))


def encoder_of_another_resolution(folder: Path) -> subprocess.CompletedProcess[str]:
    return called(folder, "superres", encoder=encoder(folder / "e", 64), generator=network(folder / "g"))


def generator_of_another_width(folder: Path) -> subprocess.CompletedProcess[str]:
    return called(folder, "superres", encoder=encoder(folder / "e", 32),
                  generator=network(folder / "g", w_dim=16))  # fmt: skip


def unreadable_picture(folder: Path) -> subprocess.CompletedProcess[str]:
    own = folder / "own"
    own.mkdir()
    Image.new("RGB", (16, 16)).save(own / "good.png")
    (own / "bad.png").write_bytes(b"\x89PNG no picture")
    params = (folder / "params.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(params.replace("inputs: heldout", f"inputs: {own}"), encoding="utf-8")
    return called(folder, "superres", encoder=encoder(folder / "e", 32), generator=network(folder / "g"))


@pytest.mark.slow
@pytest.mark.parametrize(("case", "says"), [
    (few_images, "few.zip holds 9 pictures, 10 is the least"),
    (encoder_of_another_resolution, "64 px and w_dim 8, this one has 32 px and w_dim 8"),
    (generator_of_another_width, "32 px and w_dim 8, this one has 32 px and w_dim 16"),
    (unreadable_picture, "bad.png is no readable picture")], ids=lambda value: getattr(value, "__name__", ""))
def test_one_line_and_exit_1(
    tmp_path: Path, case: Callable[[Path], subprocess.CompletedProcess[str]], says: str
) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    done = case(tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 1 and len(lines) == 1 and says in lines[0], done.stderr
    assert not (tmp_path / "m.json").exists()
