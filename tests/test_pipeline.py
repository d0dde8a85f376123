"""The whole pipeline on a toy setting, in a clone of the working tree, driven by DVC as a user would."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stylebot.files import read_json
from stylebot.params import STAGES

ROOT = Path(__file__).parents[1]
PHOTOS = {"celebrity": 11, "id": 11}  # of each source one photo in so many
MODELS = {"dlib68": "landmarks.dat", "identity": "identity.dat", "inception": "inception.pt",
          "perceptual": "perceptual.pth"}
TOY = {
    "pack": {"min_train": 8, "min_heldout": 4, "heldout_share": 0.4},
    "filter": {"sheet_faces": 12},
    "train": {"kimg": 0.032, "batch": 8, "batch_gpu": 8, "tick_kimg": 0.016, "snap_ticks": 1},
    "encode": {"kimg": 0.016, "batch": 4, "synthetic_faces": 8},
    "superres": {"factors": [4], "sheet_faces": 2, "base_faces": 16},
    "fid": {"images": 10, "bootstrap": 50},
    "audit": {"images": 10},
    "report": {"seeds": 2},
}

pytestmark = pytest.mark.slow


def dvc(folder: Path, *arguments: str) -> str:
    """Standard output of a DVC command that must succeed in `folder`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment["STYLEBOT_SCRATCH"] = str(folder / ".scratch")
    environment["DVC_SITE_CACHE_DIR"] = str(folder.parent / "site")
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment, text=True,
                          capture_output=True, timeout=1800)
    assert done.returncode == 0, f"dvc {' '.join(arguments)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, text=True,
                          capture_output=True).stdout


def change(folder: Path, changes: dict) -> None:
    """Set values in params.yaml, comments kept."""
    yaml, path = YAML(), folder / "params.yaml"
    params = yaml.load(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        if isinstance(value, dict):
            params[key].update(value)
        else:
            params[key] = value
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def ran(output: str) -> set[str]:
    """Stages that a `dvc repro` really ran."""
    return set(re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, model_file: Callable[[str], Path]) -> Path:
    """A repository of its own with this working tree's files, few photos and the toy setting."""
    folder = tmp_path_factory.mktemp("pipeline") / "clone"
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "clone")
    dvc(folder, "pull", "-q", "stages/photos/celebrity.dvc", "stages/photos/id.dvc", "stages/weights.dvc")
    for source, each in PHOTOS.items():
        for index, photo in enumerate(sorted((folder / "stages" / "photos" / source).iterdir())):
            if index % each:
                photo.unlink()
    dvc(folder, "add", "-q", "stages/photos/celebrity", "stages/photos/id")
    change(folder, TOY)
    for model, name in MODELS.items():
        change(folder, {"fetch": {model: read_model(folder, model) | {"sources": [str(model_file(name))]}}})
    return folder


def read_model(folder: Path, model: str) -> dict:
    return YAML(typ="safe").load((folder / "params.yaml").read_text(encoding="utf-8"))["fetch"][model]


def test_the_pipeline_runs_once_and_only_what_changed_runs_again(clone: Path) -> None:
    first = ran(dvc(clone, "repro"))
    assert {name.split("@")[0] for name in first} == set(STAGES)
    numbers = [read_json(path) for path in sorted((clone / "metrics").glob("*.json"))]
    assert len(numbers) == len(STAGES) - 2 and all(numbers)
    page = (clone / "stages" / "report" / "report.html").read_text(encoding="utf-8")
    assert "http-equiv" in page and page.count("<img") > 10
    git(clone, "add", "-A")
    git(clone, "commit", "-qm", "ran")

    assert ran(dvc(clone, "repro")) == set()
    assert "up to date" in dvc(clone, "status")

    before = YAML(typ="safe").load((clone / "params.yaml").read_text(encoding="utf-8"))["freeze_d"]
    change(clone, {"freeze_d": before + 3})
    again = ran(dvc(clone, "repro"))
    assert again == {"train", "encode", "superres", "fid", "audit", "report"}
    assert "train_frozen_layers" in dvc(clone, "metrics", "diff", "--md")
    assert "freeze_d" in dvc(clone, "params", "diff", "--md")


@pytest.mark.experiments
def test_the_same_experiment_twice_has_the_same_lock(clone: Path) -> None:
    """Every stage from nothing: no run cache, no remembered faces, no restart states."""
    locks = []
    for _ in range(2):
        shutil.rmtree(clone / ".scratch", ignore_errors=True)
        assert {name.split("@")[0] for name in ran(dvc(clone, "repro", "--force"))} == set(STAGES)
        locks.append((clone / "dvc.lock").read_text(encoding="utf-8"))
    assert locks[0] == locks[1]
