"""The generate tool: seeds, mixes, strips, latents, films, withheld faces, bad options."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stylebot.checkpoints import save_networks
from stylebot.errors import StylebotError
from stylebot.files import sha256_file
from stylebot.generate import Fit, Target, generate
from stylebot.generator import Generator
from stylebot.plans import Look, Source, parse_seeds
from stylebot.weights import Networks

ROOT = Path(__file__).parents[1]
FIT = Fit(Path("landmarks.dat"), Path("perceptual.pth"))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    g = Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, mapping_layers=2, channel_base=64)
    path = tmp_path_factory.mktemp("g") / "networks.safetensors"
    save_networks(path, Networks(G=None, D=None, G_ema=g, meta={}))
    return path


def make(
    networks: Path, target: Target, look: Look | None = None, batch: int | None = None, **source
) -> None:
    generate(networks, Source(**source), look or Look(), target, FIT, batch)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


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
    target = Target(tmp_path / "faces", tmp_path / "grid.png")
    make(networks, target, Look(psi=0.6, cutoff=2), 2, seeds="3,11,4")
    assert {p.name for p in target.out.iterdir()} == {f"seed00{n}.png" for n in ("03", "04", "11")}
    with Image.open(target.out / "seed0011.png") as face:
        assert (face.size, face.mode) == ((16, 16), "RGB")
        assert face.text["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
        assert face.text["Seed"] == "11" and face.text["Psi"] == "0.6" and face.text["Cutoff"] == "2"
        assert face.text["Model"] == sha256_file(networks)
        assert "does not exist" in face.text["Comment"]
        assert b"trainedAlgorithmicMedia" in face.info["xmp"]
    with Image.open(target.grid) as grid:
        assert json.loads(grid.text["Seeds"]) == [3, 11, 4]
        assert grid.width > 2 * 16 and grid.height > 2 * 16


@pytest.mark.parametrize("noise_mode", ["const", "random"])
def test_the_same_seed_gives_the_same_picture(networks: Path, tmp_path: Path, noise_mode: str) -> None:
    look = Look(noise_mode=noise_mode)
    for name, seeds, batch in (("a", "1-3,8", 4), ("b", "8", 1), ("c", "1-3,8", 4)):
        make(networks, Target(tmp_path / name), look, batch, seeds=seeds)
    a, b = (pixels(tmp_path / d / "seed0008.png") for d in "ab")
    assert np.abs(a - b).max() <= 1
    assert all((tmp_path / "c" / p.name).read_bytes() == p.read_bytes() for p in (tmp_path / "a").iterdir())


def test_mixes_have_their_sources_beside_and_above(networks: Path, tmp_path: Path) -> None:
    target = Target(tmp_path / "mix", tmp_path / "mix.webp", kind="webp")
    make(networks, target, Look(layers="0-5"), mix="0,1x7-9")
    make(networks, Target(tmp_path / "whole"), seeds="0,7")
    assert len(list(target.out.iterdir())) == 3 + 2 * (1 + 3)
    mixed = pixels(target.out / "mix0000-0007.webp")
    column = pixels(tmp_path / "whole" / "seed0007.png")
    assert np.abs(mixed - column).max() <= 1, "all layers of the column"
    with Image.open(target.grid) as sheet:
        cell = 16 + 4
        assert sheet.width == 4 * cell + 4
        assert np.asarray(sheet)[4:20, 4:20].min() == 255, "the corner is empty"
    make(networks, Target(tmp_path / "fine"), Look(layers="5"), mix="0x7")
    fine, row = (pixels(tmp_path / p) for p in ("fine/mix0000-0007.png", "whole/seed0000.png"))
    assert 0 < np.abs(fine - row).mean() < np.abs(mixed - row).mean()


def test_strips_run_through_the_face(networks: Path, tmp_path: Path) -> None:
    target = Target(tmp_path / "strips", tmp_path / "strips.jpg", kind="jpg")
    make(networks, target, Look(directions=2), seeds="4,6")
    assert len(list(target.out.iterdir())) == 2 * 2 * 7
    make(networks, Target(tmp_path / "plain"), seeds="4")
    steps = [pixels(target.out / f"seed0004-direction1-step{n}.jpg") for n in range(1, 8)]
    assert np.abs(steps[3] - pixels(tmp_path / "plain" / "seed0004.png")).mean() < 4  # JPEG
    assert np.abs(steps[0] - steps[6]).mean() > np.abs(steps[2] - steps[4]).mean() > 0
    with Image.open(target.grid) as sheet:
        told = json.loads(sheet.getexif()[0x010E])
        assert len(json.loads(told["Faces"])) == 28 and b"trainedAlgorithmicMedia" in sheet.info["xmp"]


@pytest.mark.parametrize("kind", ["mp4", "webp"])
def test_films_run_in_a_circle_and_say_so(networks: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"film.{kind}"
    make(networks, Target(film=path, frames=4, fps=10), seeds="0-2")
    if kind == "webp":
        with Image.open(path) as film:
            each = ((film.seek(n), film.convert("RGB"))[1] for n in range(film.n_frames))
            frames = [np.asarray(frame).astype(int) for frame in each]
            assert b"trainedAlgorithmicMedia" in film.info["xmp"]
    else:
        with av.open(str(path)) as film:
            assert "trainedAlgorithmicMedia" in film.metadata["comment"]
            assert film.streams.video[0].average_rate == 10
            frames = [f.to_ndarray(format="rgb24").astype(int) for f in film.decode(video=0)]
    assert len(frames) == 12
    seam = np.abs(frames[-1] - frames[0]).mean()
    assert seam < 2 * max(np.abs(a - b).mean() for a, b in pairwise(frames))
    again = tmp_path / f"again.{kind}"
    make(networks, Target(film=again, frames=4, fps=10), seeds="0-2")
    assert again.read_bytes() == path.read_bytes()


class Nobody:
    """A guard that withholds faces by their order."""

    def __init__(self, bad: set[int]) -> None:
        self.bad, self.seen = bad, 0

    def too_near(self, rgbs: list[np.ndarray]) -> np.ndarray:
        first, self.seen = self.seen, self.seen + len(rgbs)
        return np.array([i in self.bad for i in range(first, self.seen)])


def test_withheld_faces_are_not_written(networks: Path, tmp_path: Path, capfd) -> None:
    target = Target(tmp_path / "faces", tmp_path / "grid.png", guard=lambda: Nobody({1, 9}))
    make(networks, target, seeds="0-9")
    assert {p.name for p in target.out.iterdir()} == {f"seed000{n}.png" for n in (0, 2, 3, 4, 5, 6, 7, 8)}
    assert "2 of 10 faces withheld" in capfd.readouterr().err
    with Image.open(target.grid) as grid:
        assert json.loads(grid.text["Seeds"]) == [0, *range(2, 9)]
        assert (np.asarray(grid)[6:18, 26:38] == 160).all(), "the second cell is grey"
    none = Target(tmp_path / "none", tmp_path / "none.png", guard=lambda: Nobody(set(range(3))))
    with pytest.raises(StylebotError, match="all 3 faces are withheld"):
        make(networks, none, seeds="0-2")
    assert not none.out.exists() and not none.grid.exists()
    film = Target(film=tmp_path / "film.webp", frames=2, guard=lambda: Nobody({0}))
    make(networks, film, seeds="0-1")
    with Image.open(film.film) as made:
        assert made.n_frames == 3


@pytest.mark.parametrize(("look", "said"), [
    ({"psi": float("nan")}, "--psi"), ({"cutoff": -1}, "--cutoff"), ({"noise_mode": "loud"}, "--noise-mode"),
    ({"label": 0}, "class 0"), ({"directions": 9}, "--directions 9: 1 to 8"), ({"strength": 0}, "--strength"),
    ({"directions": 1, "layers": "6"}, "--layers"),
])  # fmt: skip
def test_looks_out_of_range(networks: Path, tmp_path: Path, look: dict, said: str) -> None:
    with pytest.raises(StylebotError, match=said):
        make(networks, Target(tmp_path / "faces"), Look(**look), seeds="0")
    assert not (tmp_path / "faces").exists()


@pytest.mark.parametrize(("target", "source", "said"), [
    ({"out": "f"}, {}, "say which faces"),
    ({"out": "f"}, {"seeds": "0", "mix": "0x1"}, "not --seeds and --mix"),
    ({}, {"seeds": "0"}, "say where to"), ({"grid": "g.gif"}, {"seeds": "0"}, r"g\.gif: pictures are"),
    ({"film": "f.mp4"}, {"seeds": "0"}, "two faces"), ({"film": "f.avi"}, {"seeds": "0-1"}, "a film is"),
    ({"film": "f.mp4", "fps": 0}, {"seeds": "0-1"}, "--fps 0"),
    ({"out": "f", "kind": "gif"}, {"seeds": "0"}, "--kind"),
    ({"out": "f"}, {"mix": "0-3"}, "--mix '0-3'"), ({"film": "f.mp4"}, {"mix": "0x1"}, "--mix goes with"),
    ({"grid": "f.png"}, {"project": Path("p.jpg")}, "--project writes to"),
    ({"out": "f"}, {"latents": Path("none.npz")}, r"none\.npz is no \.npz"),
    ({"film": "f.webp", "frames": 10**7}, {"seeds": "0-1"}, "do not fit into memory"),
])  # fmt: skip
def test_options_that_do_not_fit(
    networks: Path, tmp_path: Path, target: dict, source: dict, said: str
) -> None:
    paths = {k: tmp_path / v if k in ("out", "grid", "film") else v for k, v in target.items()}
    with pytest.raises(StylebotError, match=said):
        make(networks, Target(**paths), **source)
    assert not list(tmp_path.iterdir())


def test_from_the_command_line(networks: Path, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "src" / "generate.py", "--generator", networks, "--seeds", "0-1"]
    done = subprocess.run([*command, "--out", tmp_path / "f"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "f").iterdir())) == 2
    extra = ["--out", tmp_path / "f", "--audited", "--stages", tmp_path]
    bad = subprocess.run([*command, *extra], capture_output=True, text=True)
    assert bad.returncode == 1 and bad.stderr.startswith("generate: --audited needs ")
