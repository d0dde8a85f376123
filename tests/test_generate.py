"""The generate tool: seeds, files, grid, provenance, bad options."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stylebot.checkpoints import save_networks
from stylebot.errors import StylebotError
from stylebot.files import sha256_file
from stylebot.generate import generate, parse_seeds
from stylebot.generator import Generator
from stylebot.weights import Networks

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    g = Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, mapping_layers=2, channel_base=64)
    path = tmp_path_factory.mktemp("g") / "networks.safetensors"
    save_networks(path, Networks(G=None, D=None, G_ema=g, meta={}))
    return path


@given(st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 20)), min_size=1, max_size=6))
def test_seeds_are_read_as_they_are_written(parts: list[tuple[int, int]]) -> None:
    text = ",".join(str(first) if not more else f"{first}-{first + more}" for first, more in parts)
    wanted = [s for first, more in parts for s in range(first, first + more + 1)]
    assert parse_seeds(text) == sorted(set(wanted), key=wanted.index)


def test_seeds_of_the_readme() -> None:
    assert parse_seeds("0-35,100") == [*range(36), 100]
    assert parse_seeds(" 4 - 5 , 4294967295") == [4, 5, 2**32 - 1]


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-3", "5-3", "1.5", "1-2-3", "4294967296", "0-4294967295"])
def test_bad_seeds_are_one_clear_line(text: str) -> None:
    with pytest.raises(StylebotError, match="--seeds"):
        parse_seeds(text)


def test_files_say_what_they_are(networks: Path, tmp_path: Path) -> None:
    generate(networks, [3, 11, 4], tmp_path / "faces", tmp_path / "grid.png", psi=0.6, cutoff=2, batch=2)
    assert {p.name for p in (tmp_path / "faces").iterdir()} == {f"seed00{n}.png" for n in ("03", "04", "11")}
    with Image.open(tmp_path / "faces" / "seed0011.png") as face:
        assert (face.size, face.mode) == ((16, 16), "RGB")
        assert face.text["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
        assert face.text["Seed"] == "11" and face.text["Psi"] == "0.6" and face.text["Cutoff"] == "2"
        assert face.text["Model"] == sha256_file(networks)
        assert "does not exist" in face.text["Comment"]
        assert b"trainedAlgorithmicMedia" in face.info["xmp"]
    with Image.open(tmp_path / "grid.png") as grid:
        assert json.loads(grid.text["Seeds"]) == [3, 11, 4]
        assert grid.width > 2 * 16 and grid.height > 2 * 16


@pytest.mark.parametrize("noise_mode", ["const", "random"])
def test_the_same_seed_gives_the_same_picture(networks: Path, tmp_path: Path, noise_mode: str) -> None:
    generate(networks, [1, 2, 3, 8], tmp_path / "a", None, noise_mode=noise_mode, batch=4)
    generate(networks, [8], tmp_path / "b", None, noise_mode=noise_mode, batch=1)
    a, b = (np.asarray(Image.open(tmp_path / d / "seed0008.png")).astype(int) for d in "ab")
    assert np.abs(a - b).max() <= 1


@pytest.mark.parametrize(("options", "said"), [
    ({"psi": float("nan")}, "--psi"), ({"cutoff": -1}, "--cutoff"), ({"noise_mode": "loud"}, "--noise-mode"),
    ({"batch": 0}, "--batch"), ({"label": 0}, "class 0"),
])  # fmt: skip
def test_options_out_of_range(networks: Path, tmp_path: Path, options: dict, said: str) -> None:
    with pytest.raises(StylebotError, match=said):
        generate(networks, [0], tmp_path / "faces", None, **options)
    assert not (tmp_path / "faces").exists()


def test_from_the_command_line(networks: Path, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "src" / "generate.py", "--generator", networks, "--seeds", "0-1"]
    done = subprocess.run([*command, "--out", tmp_path / "f"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "f").iterdir())) == 2
    bad = subprocess.run(command, capture_output=True, text=True)
    assert (bad.returncode, bad.stderr) == (
        1, "generate: say where to: --out FOLDER, --grid FILE.png, or both\n")  # fmt: skip
