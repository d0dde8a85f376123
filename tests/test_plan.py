"""Named recipes: what the README says is what plan.py checks, before hours are spent."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from workspaces import ROOT

from stylebot.costs import step_cost
from stylebot.doctor import RECIPES
from stylebot.errors import StylebotError
from stylebot.plan import (
    Photos,
    architecture,
    checked,
    encoder_cost,
    estimate,
    experiments,
    nearest,
    photos_here,
    plan,
)
from stylebot.recipes import named_recipes

NAMED = named_recipes(ROOT / "README.md")
KNOWN: dict[str, object] = {}


def once(cost: Callable, *given: object) -> object:
    """`cost(*given)`, which is always the same and takes seconds, computed once for all tests."""
    key = f"{cost.__name__}{given}"
    if key not in KNOWN:
        KNOWN[key] = cost(*given)
    return KNOWN[key]


@pytest.fixture(autouse=True)
def _costs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for cost in (step_cost, encoder_cost):
        monkeypatch.setattr(f"stylebot.plan.{cost.__name__}", partial(once, cost))


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The parameters and the README, without data."""
    for name in ("params.yaml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "stages/photos").mkdir(parents=True)
    for path in (ROOT / "stages/photos").glob("*.dvc"):
        shutil.copy(path, tmp_path / "stages/photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_recipes_are_those_of_the_readme() -> None:
    assert list(NAMED) == ["laptop", "ffhq256-8gpu", "ffhq1024-8gpu", "seed-paper"]
    assert NAMED["laptop"].settings == () and NAMED["laptop"].gpus is None
    assert [NAMED[name].gpus for name in list(NAMED)[1:]] == [8, 8, 1]


def test_the_papers_recipe_is_the_papers() -> None:
    p = checked(NAMED["seed-paper"].settings, 1)
    train = p["train"]
    assert (p["pack"].resolution, train.kimg, train.freeze_d, train.mirror) == (256, 300, 10, True)


@pytest.mark.parametrize("name", NAMED)
def test_every_recipe_is_valid(name: str) -> None:
    recipe = NAMED[name]
    for settings in experiments(recipe.settings):
        p = checked(settings, recipe.gpus or 0)
        assert p["train"].batch % max(recipe.gpus or 1, 1) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_every_recipe_is_planned(name: str) -> None:
    """Before hours are spent: memory, speed, hours and disk of each, and none of them nothing."""
    said = "\n".join(plan(name, [], None, None, Photos(70_000, 70_000 * 2_000_000)))
    assert f"recipe    {name}: parameters valid" in said
    for what in (r"memory    train ([\d.]+) GiB", r"encode ([\d.]+) GiB", r"train ([\d.e+]+) sec/kimg",
                 r"time      ([\d.]+) hours, 70000 photos", r"disk      ([\d.]+) GiB"):  # fmt: skip
        found = re.search(what, said)
        assert found and float(found[1]) > 0, f"{what} in\n{said}"
    assert float(found[1]) > 2 * 70_000 * 2_000_000 / 2**30


def test_sums_are_taken_of_files_that_are_here(workspace: Path) -> None:
    assert named_recipes()["ffhq256-8gpu"].absent == ("weights/ffhq256.pkl",)
    (workspace / "weights").mkdir()
    (workspace / "weights/ffhq256.pkl").write_bytes(b"weights")
    recipe = named_recipes()["ffhq256-8gpu"]
    said = subprocess.run(["sha256sum", "weights/ffhq256.pkl"], check=True, capture_output=True, text=True)
    assert recipe.absent == ()
    assert checked(recipe.settings, 8)["fetch"].generator.sha256 == said.stdout[:64]


@pytest.mark.parametrize(("settings", "gpus", "said"), [
    (["train.kimgs=3"], 0, "kimgs"),
    (["train.kimg=-3", "freeze_d=abc"], 0, "train.kimg = -3.*|freeze_d"),
    (["freeze_d=abc", "pack.seed=x"], 0, "freeze_d = 'abc'.*pack.seed|pack.seed.*freeze_d = 'abc'"),
    (["pack.resolution=512"], 0, "pack.resolution 512 is above align.resolution 256"),
    ([], 3, "train.batch 8 is not a multiple of 3 processes x train.batch_gpu 8"),
    (["superres.factors=[32]"], 0, "superres.factors go to 32"),
    (["superres.mode=faithful"], 0, "mode is faithful, but encode.faithful.kimg is 0"),
])  # fmt: skip
def test_what_is_wrong_is_named(settings: list[str], gpus: int, said: str) -> None:
    with pytest.raises(StylebotError, match=said):
        checked(settings, gpus)


def test_sweeps_are_several_experiments() -> None:
    assert experiments(["freeze_d=0,4", "train.kimg=3"]) == [["freeze_d=0", "train.kimg=3"],
                                                             ["freeze_d=4", "train.kimg=3"]]  # fmt: skip
    assert experiments([]) == [[]]
    with pytest.raises(StylebotError, match="-S freeze_d"):
        experiments(["freeze_d=[1,"])
    with pytest.raises(StylebotError, match="no recipe 'nope' in the README; there are laptop"):
        list(plan("nope", [], None, None, Photos(1, 1)))
    with pytest.raises(StylebotError, match="cpu goes with 0"):
        list(plan("laptop", [], 8, "cpu", Photos(1, 1)))


def test_unknown_weights_mean_the_published_networks() -> None:
    G, D, source = architecture(checked(NAMED["ffhq1024-8gpu"].settings, 8)["fetch"], 1024)
    assert G["channel_base"] == D["channel_base"] == 32768 and "not here" in source
    assert architecture(checked([], 0)["fetch"], 64)[0]["channel_base"] == 2048


def test_the_nearest_measured_speed_is_taken() -> None:
    assert nearest("a100", 8, 256).sec_per_kimg == 2.47 and nearest("v100", 1, 1024).sec_per_kimg == 141.83
    assert nearest("a100", 4, 300).units == 8 or nearest("a100", 2, 300).units == 1
    assert nearest("cpu", 16, 64).source.startswith("this project")


def test_photos_are_counted_by_dvc_files() -> None:
    assert photos_here() == Photos(340, 14748298)


def test_the_screen_of_the_sample() -> None:
    """As a command, with a parameter changed; twice the kimg are twice the hours."""
    words = [sys.executable, str(ROOT / "src/plan.py"), "laptop", "-S", "train.kimg=12"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    for part in ("laptop: parameters valid", "64 px", "sec/kimg on", "12 kimg", "hours", "GiB", "Estimates"):
        assert part in done.stdout, done.stdout


def test_estimates_follow_what_they_depend_on() -> None:
    p = checked([], 0)
    networks = architecture(p["fetch"], 64)[:2]
    few, many = (estimate(p, 0, "cpu", Photos(n, n * 1000), networks) for n in (100, 1000))
    assert many.hours["align"] == pytest.approx(10 * few.hours["align"])
    assert many.disk_bytes["photos and their copy in the cache"] == 2_000_000
    hours = few.sec_per_kimg * p["train"].kimg / 3600
    assert few.hours["train"] == many.hours["train"] == pytest.approx(hours)
    step = once(step_cost, *networks, p["train"].recipe())
    assert few.memory_gib(step) > (step.fixed_bytes + step.peak_bytes) / 2**30 + 1


@pytest.mark.slow
def test_the_doctor_asks_for_what_the_plan_says() -> None:
    wanted = {recipe.name.split(",")[0]: recipe for recipe in RECIPES}["ffhq256-8gpu"]
    p = checked(NAMED[wanted.name.split(",")[0]].settings, 8)
    G, D, _ = architecture(p["fetch"], 256)
    found = estimate(p, 8, "a100", Photos(1, 1), (G, D))
    coder = once(encoder_cost, G, p["encode"].variant, p["encode"].batch, 1 - p["encode"].synthetic_share)
    assert found.memory_gib(found.train) < found.memory_gib(coder) < wanted.gpu_gib
    train = once(step_cost, G, D, p["train"].recipe())
    frozen = train.flops_per_kimg / 411.4e12  # 10 layers of D save a quarter
    assert found.sec_per_kimg == pytest.approx(2.47 * frozen, rel=0.01) and frozen < 0.8
