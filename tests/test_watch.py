"""KID while training runs: what a look finds, which networks are kept, when patience is at an end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import PARAMS, Killed, interrupt, kill, same
from training import faces, networks

from stylebot import frechet, inception
from stylebot import train as stage
from stylebot import watch as module
from stylebot.checkpoints import load_networks, save_networks
from stylebot.dataset import write_dataset
from stylebot.errors import StylebotError
from stylebot.files import sha256_file
from stylebot.render import render
from stylebot.train import TrainParams, train
from stylebot.watch import Watch, start_watch
from stylebot.weights import Networks

LOOKING = {"eval_snaps": 1, "eval_images": 12}  # a look at 32 and at 64 pictures


class Small(torch.nn.Module):
    """In Inception's place: 2048 fixed numbers of each picture, from 12 colours of it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Parameter(torch.randn(12, 2048, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1) @ self.mix


@pytest.fixture(scope="module")
def watched_by(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """(held-out faces, network)."""
    folder = tmp_path_factory.mktemp("watch")
    write_dataset(folder / "held.zip", faces(14).permute(0, 2, 3, 1).numpy())
    torch.jit.script(Small()).save(folder / "small.pt")
    patch = pytest.MonkeyPatch()
    patch.setattr(inception, "KNOWN", {sha256_file(folder / "small.pt")})
    yield folder / "held.zip", folder / "small.pt"
    patch.undo()


@pytest.fixture
def run(watched_by: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`run("a", kimg=…)`: a small training run with its outputs in tmp_path / a."""
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    G, D = networks()
    save_networks(tmp_path / "start.safetensors", Networks(G=G, D=D, G_ema=networks()[0], meta={}))
    write_dataset(tmp_path / "faces.zip", faces().permute(0, 2, 3, 1).numpy())

    def go(name: str, **changes) -> dict[str, float]:
        given = tmp_path / "start.safetensors", tmp_path / "faces.zip", *watched_by, tmp_path / name
        return train(*given, TrainParams(**PARAMS | LOOKING | changes))

    return go


def test_a_look_is_the_kid_of_the_average(watched_by: tuple[Path, Path], tmp_path: Path) -> None:
    watch = start_watch(*watched_by, fakes=12, snapshot=tmp_path / "best.safetensors")
    G, D = networks()
    found = watch.look(Networks(G, D, G, meta={}), 0.5)
    rgbs = render(G, range(12))
    assert found == pytest.approx(frechet.kid(watch.inception.features(rgbs), watch.real), rel=1e-6)
    assert watch.real.shape == (14, 2048) and watch.looks == [(0.5, found)]
    kept = load_networks(tmp_path / "best.safetensors", need=("G", "D", "G_ema"))
    assert torch.equal(kept.G_ema.synthesis.b4.const, G.synthesis.b4.const)


@pytest.mark.parametrize(("values", "patience", "risen"), [
    ([], 1, False), ([3.0], 1, False), ([3, 4], 0, False), ([3, 4], 1, True), ([3, 2], 1, False),
    ([3, 4, 5], 2, True), ([3, 4, 2], 2, False), ([3, 2, 2.5, 2.1], 2, True), ([3, 2, 2.5], 2, False),
])  # fmt: skip
def test_patience(values: list[float], patience: int, risen: bool) -> None:
    looks = [(float(i), value) for i, value in enumerate(values)]
    assert Watch(None, np.zeros((0, 2048)), 10, None, looks).has_risen(patience) is risen


def test_the_best_is_delivered(run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("short", kimg=0.032)
    given = iter([0.1, 0.2])
    monkeypatch.setattr(module.frechet, "kid", lambda x, y: next(given))
    metrics = run("whole", keep="best", lr_schedule="constant")
    assert (metrics["train_best_kimg"], metrics["train_best_kid"], metrics["train_kid"]) == (0.032, 0.1, 0.2)
    assert metrics["train_kimg"] == 0.064
    assert load_networks(tmp_path / "whole" / "networks.safetensors", need=("G_ema",)).meta["kimg"] == 0.032
    monkeypatch.setattr(module.frechet, "kid", lambda x, y: 0.0)
    run("until then", kimg=0.032, lr_schedule="constant")
    assert same(tmp_path / "whole", tmp_path / "until then")


def test_killed_it_keeps_its_looks(run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"a": iter([0.1, 0.2]), "b": iter([0.1, 0.2])}
    monkeypatch.setattr(module.frechet, "kid", lambda x, y: next(values[name]))
    name = "a"
    run("a", keep="best")
    name = "b"
    interrupt(monkeypatch, 7, kill)
    with pytest.raises(Killed):
        run("b", keep="best")
    assert run("b", keep="best")["train_best_kimg"] == 0.032
    assert same(tmp_path / "a", tmp_path / "b")
    assert not list((tmp_path / "scratch").rglob("*.safetensors"))


@pytest.mark.parametrize("at", [7, None])  # within the run, and when only its networks were missing
def test_damaged_best_networks_are_told_and_training_is_not_lost(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
    at: int | None,
) -> None:
    given = iter([0.1, 0.2, 0.3])
    monkeypatch.setattr(module.frechet, "kid", lambda x, y: next(given))
    with monkeypatch.context() as patch:
        if at is None:
            patch.setattr(stage, "_deliver", lambda *_: kill())
        else:
            interrupt(patch, at, kill)
        with pytest.raises(Killed):
            run("a", keep="best")
    (kept,) = (tmp_path / "scratch").rglob("networks.safetensors")
    kept.write_bytes(kept.read_bytes()[:-9])
    capsys.readouterr()
    metrics = run("a", keep="best")
    said = capsys.readouterr().err
    assert f"the best networks so far are lost: {kept}: not a whole safetensors file" in said
    assert f"going on from {'0.06' if at is None else '0.03'} kimg" in said
    assert (metrics["train_best_kimg"], metrics["train_best_kid"]) == (0.064, 0.3 if at is None else 0.2)
    assert load_networks(tmp_path / "a" / "networks.safetensors", need=("G_ema",)).meta["kimg"] == 0.064


def test_it_stops_when_kid_has_risen(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([0.1, 0.2, 0.3])
    monkeypatch.setattr(module.frechet, "kid", lambda x, y: next(given))
    assert run("a", kimg=0.128, patience=1)["train_kimg"] == 0.064


@pytest.mark.parametrize("changes", [{"keep": "best"}, {"patience": 2}])
def test_what_needs_looks_says_so(changes: dict) -> None:
    with pytest.raises(ValueError, match=r"needs train\.eval_snaps of at least 1"):
        TrainParams(**PARAMS | changes)


def test_too_few_heldout_faces(watched_by: tuple[Path, Path], tmp_path: Path) -> None:
    write_dataset(tmp_path / "few.zip", faces(9).permute(0, 2, 3, 1).numpy())
    with pytest.raises(StylebotError, match=r"few\.zip: 9 faces are too few for KID, 10 is the least"):
        start_watch(tmp_path / "few.zip", watched_by[1], 12, None)
