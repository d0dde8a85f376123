"""The stage: what it delivers, that it goes on where it was, and each refusal in one line."""

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from training import faces, networks

from stylebot import losses
from stylebot import train as stage
from stylebot.checkpoints import load_networks, save_networks
from stylebot.dataset import write_dataset
from stylebot.errors import StylebotError, TrainingDiverged
from stylebot.schedules import lr_factor
from stylebot.train import TrainParams, train
from stylebot.weights import Networks

PARAMS = {
    "freeze_d": 3, "kimg": 0.064, "batch": 8, "batch_gpu": 8, "lr_g": 0.002, "lr_d": 0.002, "r1_gamma": 1.0,
    "pl_weight": 2.0, "style_mixing_prob": 0.9, "G_reg_interval": 2, "D_reg_interval": 3, "ema_kimg": 0.05,
    "augment": "bgc", "ada_target": 0.6, "ada_kimg": 0.5, "p_initial": 0.4, "p_max": 0.8, "mirror": True,
    "compile": "auto", "tick_kimg": 0.016, "snap_ticks": 2, "seed": 3, "allow_missing": False,
    "lr_schedule": "cosine", "lr_mapping": 1.0, "lr_noise": 1.0, "lecam_weight": 0.0,
    "eval_snaps": 0, "eval_images": 10, "keep": "last", "patience": 0, "amp": "never",
}  # fmt: skip
UNREAD = Path("not-read")  # held-out faces and Inception of a run that does not look at KID
Run = Callable[..., dict[str, float]]


def test_learning_rates_follow_the_schedule(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = stage.train_step, []

    def noted(state, *rest) -> None:
        groups = (state.opt_G.param_groups[0], state.opt_D.param_groups[0])
        seen.append([group["lr"] / group["initial_lr"] for group in groups])
        real(state, *rest)

    monkeypatch.setattr(stage, "train_step", noted)
    run("a")
    assert seen == [[pytest.approx(lr_factor("cosine", i / 8))] * 2 for i in range(8)]
    seen.clear()
    run("b", lr_schedule="constant")
    assert seen == [[1, 1]] * 8


class Killed(BaseException):
    """The end of the process, with nobody to tidy up."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with start.safetensors and faces.zip."""
    folder = tmp_path_factory.mktemp("inputs")
    G, D = networks()
    save_networks(folder / "start.safetensors", Networks(G=G, D=D, G_ema=networks()[0], meta={}))
    write_dataset(folder / "faces.zip", faces().permute(0, 2, 3, 1).numpy())
    return folder


@pytest.fixture(scope="module")
def whole(inputs: Path) -> tuple[Path, dict[str, float]]:
    """An undisturbed run: its output folder and its metrics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLEBOT_SCRATCH", str(inputs / "scratch"))
        out = inputs / "whole"
        given = inputs / "start.safetensors", inputs / "faces.zip", UNREAD, UNREAD, out
        return out, train(*given, TrainParams(**PARAMS))


@pytest.fixture
def run(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("a", kimg=…)`: the stage with its outputs in tmp_path / a; restart states are shared by a test."""
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))

    def go(name: str, **changes) -> dict[str, float]:
        generator = changes.pop("generator", inputs / "start.safetensors")
        dataset = changes.pop("dataset", inputs / "faces.zip")
        heldout, inception = changes.pop("watched_by", (UNREAD, UNREAD))
        return train(generator, dataset, heldout, inception, tmp_path / name, TrainParams(**PARAMS | changes))

    return go


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Do `act` in the middle of training step number `step` of each run from here on."""
    real, seen = stage.train_step, []

    def train_step(*arguments) -> None:
        seen.append(1)
        if len(seen) == step:
            act()
        real(*arguments)

    monkeypatch.setattr(stage, "train_step", train_step)


def kill() -> None:
    raise Killed


def result(folder: Path) -> dict[str, Tensor]:
    nets = load_networks(folder / "networks.safetensors", need=("G", "D", "G_ema"))
    return {f"{role}.{k}": tensor for role in ("G", "D", "G_ema")
            for k, tensor in getattr(nets, role).state_dict().items()}  # fmt: skip


def same(one: Path, other: Path) -> bool:
    a, b = result(one), result(other)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_phases_are_compiled_when_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(stage, "compile_phases", lambda state, recipe: asked.append(recipe.batch))
    found = [run(s, compile=s, kimg=0.008) and len(asked) for s in ("auto", "never", "always")]
    assert found == [0, 0, 1]  # auto: on a GPU


def test_what_is_delivered(whole: tuple[Path, dict[str, float]], inputs: Path) -> None:
    out, metrics = whole
    assert metrics.keys() == {f"train_{name}" for name in (
        "kimg", "faces", "frozen_layers", "skipped_steps", "loss_g", "loss_d", "r_t", "fake_sign", "p",
        "r1_penalty", "pl_penalty")}  # fmt: skip
    assert (metrics["train_kimg"], metrics["train_faces"], metrics["train_frozen_layers"]) == (0.064, 20, 3)
    before, after = networks(), result(out)
    frozen = ("b16.fromrgb", "b16.conv0", "b16.conv1")
    for k, tensor in before[1].state_dict().items():
        assert torch.equal(after[f"D.{k}"], tensor) == k.startswith(frozen), k
    assert not torch.equal(after["G.synthesis.b4.const"], after["G_ema.synthesis.b4.const"])
    assert not torch.equal(before[0].synthesis.b4.const, after["G_ema.synthesis.b4.const"])
    meta = load_networks(out / "networks.safetensors", need=("G_ema",)).meta
    assert meta["kimg"] == 0.064 and meta["recipe"]["r1_gamma"] == 1.0 and len(meta["parents"][0]) == 64
    grids = sorted((out / "progress").iterdir())
    assert [g.name for g in grids] == ["000000000.png", "000000032.png", "000000064.png"]
    with Image.open(grids[-1]) as grid:
        assert grid.mode == "RGB" and grid.width > 8 * 96 and grid.text["Comment"].startswith("Synthetic")
    curve = (out / "live" / "plots" / "metrics" / "loss_g.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in curve] == ["step", "16", "32", "48", "64"]
    assert not list((inputs / "scratch").rglob("*.pt"))  # success deletes the restart state


def test_killed_and_run_again_ends_the_same(
    run: Run, whole: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    """Killed at 48 of 64 pictures, after a state at 32; DVC removes outputs before it runs a stage again."""
    interrupt(monkeypatch, 7, kill)
    with pytest.raises(Killed):
        run("cut")
    assert "going on" not in capsys.readouterr().err
    monkeypatch.setattr(stage, "train_step", count := Counting(stage.train_step))
    assert run("again") == whole[1]
    assert "going on from 0.03 kimg" in capsys.readouterr().err
    assert count.calls == 4 and same(tmp_path / "again", whole[0])
    assert shown(tmp_path / "again") == shown(whole[0])


def shown(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the progress pictures, and the live curves."""
    curves = {p.name: p.read_text().splitlines() for p in (folder / "live/plots/metrics").iterdir()}
    assert curves
    return sorted(p.name for p in (folder / "progress").iterdir()), curves


class Counting:
    """A function that counts its calls."""

    def __init__(self, function: Callable) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *arguments) -> object:
        self.calls += 1
        return self.function(*arguments)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_goes_on(
    number: int, run: Run, whole: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        interrupt(patch, 3, lambda: os.kill(os.getpid(), number))
        with pytest.raises(StylebotError, match=r"stopped at 0\.02 kimg; the same command goes on"):
            run("cut")
    assert signal.getsignal(number) is handler
    monkeypatch.setattr(stage, "train_step", count := Counting(stage.train_step))
    run("again")
    assert count.calls == 5 and same(tmp_path / "again", whole[0])
    assert shown(tmp_path / "again") == shown(whole[0])


def test_a_damaged_state_falls_back_to_the_one_before(
    run: Run, whole: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        interrupt(patch, 7, kill)
        with pytest.raises(Killed):
            run("cut")
    newest = sorted((tmp_path / "scratch").rglob("*.pt"))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    run("again")
    said = capsys.readouterr().err
    assert f"restart state {newest.name} is damaged" in said and "going on from 0.00 kimg" in said
    assert same(tmp_path / "again", whole[0])


def test_killed_before_delivery_it_delivers_all(
    run: Run, whole: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stage, "_deliver", lambda *a: kill())
        with pytest.raises(Killed):
            run("cut")
    assert run("again") == whole[1] and same(tmp_path / "again", whole[0])


def test_other_parameters_start_anew_and_say_so(
    run: Run, whole: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        interrupt(patch, 7, kill)
        with pytest.raises(Killed):
            run("cut", lr_g=0.001)
    run("other")
    assert "other parameters, data or weights; starting anew" in capsys.readouterr().err
    assert same(tmp_path / "other", whole[0])
    monkeypatch.setattr(stage, "train_step", count := Counting(stage.train_step))
    run("again", lr_g=0.001)
    assert count.calls == 4  # the first run's state has stayed


def test_states_hold_no_code(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read with weights_only, whatever lies in the scratch folder."""
    interrupt(monkeypatch, 2, kill)
    with pytest.raises(Killed):
        run("cut")
    saved = next((tmp_path / "scratch").rglob("*.pt")).read_bytes()[32:]
    assert torch.load(io.BytesIO(saved), weights_only=True)["cur_nimg"] == 0


def test_too_few_faces(run: Run, tmp_path: Path) -> None:
    write_dataset(tmp_path / "few.zip", faces(7).permute(0, 2, 3, 1).numpy())
    with pytest.raises(StylebotError, match=r"few\.zip: 7 faces are too few for train\.batch 8"):
        run("a", dataset=tmp_path / "few.zip")


def test_faces_of_another_resolution(run: Run, tmp_path: Path) -> None:
    write_dataset(tmp_path / "large.zip", faces(9, 32).permute(0, 2, 3, 1).numpy())
    with pytest.raises(StylebotError, match=r"16 px and cannot start 32 px.* pack\.resolution may be 16"):
        run("a", dataset=tmp_path / "large.zip")


def test_grey_faces(run: Run, tmp_path: Path) -> None:
    write_dataset(tmp_path / "grey.zip", faces(9)[:, 0].numpy())
    with pytest.raises(StylebotError, match="16 px and 1 channels; the start weights make 16 px RGB"):
        run("a", dataset=tmp_path / "grey.zip")


def test_start_weights_without_a_discriminator(run: Run, tmp_path: Path) -> None:
    save_networks(tmp_path / "half.safetensors", Networks(G=None, D=None, G_ema=networks()[0], meta={}))
    with pytest.raises(StylebotError, match=r"half\.safetensors"):
        run("a", generator=tmp_path / "half.safetensors")


@pytest.mark.parametrize(("changes", "said"), [
    ({"freeze_d": 8}, "freeze_d = 8: this discriminator has 0 to 7 layers"),
    ({"batch": 12}, "train.batch 12 is not a multiple of 1 processes x train.batch_gpu 8")])  # fmt: skip
def test_numbers_that_do_not_fit(changes: dict, said: str, run: Run) -> None:
    with pytest.raises(StylebotError, match=said):
        run("a", **changes)


def test_divergence_ends_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "generator_loss", lambda logits: logits[:, 0] * torch.nan)
    monkeypatch.setattr(stage, "MAX_SKIPPED", 3)
    with pytest.raises(TrainingDiverged, match=r"no finite gradient at 0\.02 kimg; lower train\.lr_g"):
        run("a")


def test_a_non_finite_loss_stays_out_of_the_metrics(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = losses.generator_loss, []

    def once(logits: Tensor) -> Tensor:
        calls.append(1)
        return real(logits) * (torch.nan if len(calls) == 4 else 1)

    monkeypatch.setattr(losses, "generator_loss", once)
    metrics = run("a", kimg=0.032)
    assert metrics["train_skipped_steps"] == 1 and "train_loss_g" not in metrics and "train_loss_d" in metrics
