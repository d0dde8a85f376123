"""Experiments as a team uses them: queued, in a temporary clone, killed and continued, compared, shared."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from test_train import PARAMS
from training import faces, networks
from workspaces import ROOT, Workspace, new_workspace

from stylebot.checkpoints import save_networks
from stylebot.dataset import write_dataset
from stylebot.weights import Networks

pytestmark = pytest.mark.experiments
STAGE = {
    "cmd": f"python {ROOT / 'src/train.py'} --generator start.safetensors --dataset faces.zip "
    "--heldout faces.zip --inception faces.zip --out stages/train --metrics metrics/train.json",
    "deps": ["start.safetensors", "faces.zip"],
    "params": ["freeze_d", "train"],
    "outs": ["stages/train/networks.safetensors", "stages/train/live"],
    "plots": ["stages/train/progress"],
    "metrics": [{"metrics/train.json": {"cache": False}}],
}
LOSS = {"y": {"stages/train/live/plots/metrics/loss_d.tsv": "loss_d"}, "x": "step"}
EVERY = 0.08  # kimg, ten steps: between two restart states
LONG = "train.kimg=0.8"  # a hundred steps: time enough to be killed in, on a fast machine too
QUICK = {"tick_kimg": EVERY, "snap_ticks": 1, "pl_weight": 0.0, "augment": "none"}


def write_yaml(path: Path, data: dict) -> None:
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(data, file)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose one stage is this project's training, of tiny networks; shared with others."""
    root = tmp_path_factory.mktemp("experiments")
    found = new_workspace(root / "ours", count=1)
    found.env = {"STYLEBOT_MARK": str(root), "OMP_NUM_THREADS": "1", "SHELL": "/bin/sh"}  # may outlive dvc
    G, D = networks()
    save_networks(found.root / "start.safetensors", Networks(G=G, D=D, G_ema=networks()[0], meta={}))
    write_dataset(found.root / "faces.zip", faces().permute(0, 2, 3, 1).numpy())
    train = {k: v for k, v in PARAMS.items() if k != "freeze_d"} | QUICK
    write_yaml(found.root / "params.yaml", {"freeze_d": 0, "train": train})
    write_yaml(found.root / "dvc.yaml", {"stages": {"train": STAGE}, "plots": [{"Losses": LOSS}]})
    (found.root / ".gitignore").write_text("/.scratch/\n")
    shutil.copy(ROOT / ".dvc/plots.html", found.root / ".dvc")
    found.dvc("remote", "add", "-q", "-d", "team", str(root / "store"))
    found.commit("Train")
    found.git("init", "-q", "--bare", "-b", "main", str(root / "origin"))
    found.git("remote", "add", "origin", str(root / "origin"))
    found.git("push", "-q", "origin", "main")
    return found


def wait(done: Callable[[], object], what: str, seconds: float = 280) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)


def training(ours: Workspace) -> list[int]:
    """Processes of this workspace's training that are alive."""
    mark, found = f"STYLEBOT_MARK={ours.env['STYLEBOT_MARK']}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes() and b"train.py" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended while we looked, or is somebody else's
    return found


@contextmanager
def held(processes: list[int]) -> Iterator[None]:
    """Processes that stand still meanwhile: they would be done before DVC has even started."""
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def states(ours: Workspace) -> list[Path]:
    """Restart states of runs that have begun, in the main work tree, whatever clone they run in."""
    found = (ours.root / ".scratch/restarts").glob("train-*/*.pt")
    return [path for path in found if not path.stem.startswith(".") and int(path.stem)]


def finished(ours: Workspace) -> dict[str, str]:
    """Name and commit of every experiment with a result."""
    lines = ours.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
    refs = (line.split() for line in lines)
    return {ref.split("/")[-1]: commit for ref, commit in refs if len(ref.split("/")) == 5}


def frozen(ours: Workspace, commit: str) -> int:
    """freeze_d of an experiment."""
    return YAML(typ="safe").load(ours.git("show", f"{commit}:params.yaml"))["freeze_d"]


def test_a_temporary_experiment_that_was_killed_goes_on(ours: Workspace) -> None:
    """DVC is killed without mercy; its training must neither stay behind nor lose what it had."""
    process = ours.start("dvc", "exp", "run", "--temp", "-n", "cut", "-S", LONG)
    wait(lambda: states(ours), "a restart state")
    assert training(ours)
    process.kill()
    process.communicate(timeout=60)
    wait(lambda: not training(ours), "the end of the orphan", 60)
    assert finished(ours) == {} and ours.git("status", "--porcelain") == ""
    clones = set((ours.root / ".dvc/tmp/exps/standalone").iterdir())
    said = ours.dvc("exp", "run", "--temp", "-n", "whole", "-S", LONG)
    assert "going on from" in said
    assert set((ours.root / ".dvc/tmp/exps/standalone").glob("tmp*")) <= clones, "not cleaned up"
    assert finished(ours).keys() == {"whole"} and not states(ours)
    assert ours.git("status", "--porcelain") == "" and not (ours.root / "stages/train").exists()


def test_an_interrupted_experiment_leaves_the_work_tree_usable(ours: Workspace) -> None:
    """Ctrl-C reaches every process of the terminal. The networks are in the end those of a run without it.

    Its curves and pictures are not: it looked once more when it was stopped.
    """
    networks = []
    for name in ("once", "twice"):
        words = ("dvc", "exp", "run", "--force", "-n", name, "-S", LONG, "-S", "freeze_d=2")
        process = ours.start("setsid", *words)
        if name == "once":
            wait(lambda: states(ours), "a restart state")
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=120)
            wait(lambda: not training(ours), "the end of training", 60)
            assert process.returncode and name not in finished(ours) and states(ours)
            assert "freeze_d" in ours.dvc("params", "diff") and "train" in ours.dvc("status")
            assert "going on from" in ours.dvc(*words[1:])
        else:
            said, _ = process.communicate(timeout=280)
            assert process.returncode == 0 and "going on from" not in said, said
        lock = YAML(typ="safe").load(ours.git("show", f"{finished(ours)[name]}:dvc.lock"))
        outs = {out["path"]: out["md5"] for out in lock["stages"]["train"]["outs"]}
        networks.append(outs["stages/train/networks.safetensors"])
    assert networks[0] == networks[1]
    ours.git("reset", "-q", "--hard")
    ours.git("clean", "-fdq")
    shutil.rmtree(ours.root / "stages/train", ignore_errors=True)
    for name in ("once", "twice"):
        ours.dvc("exp", "remove", "-q", name)


def running(ours: Workspace) -> list[str]:
    lines = ours.dvc("queue", "status").splitlines()
    return [line.split()[0] for line in lines if "Running" in line]


def test_a_queued_sweep_runs_and_a_killed_one_goes_on(ours: Workspace) -> None:
    before = set(finished(ours))
    ours.dvc("exp", "run", "--queue", "-S", "freeze_d=0,4", "-S", LONG)
    assert not training(ours)
    worker = ours.start("dvc", "queue", "start", "-j", "1")
    wait(lambda: states(ours), "a restart state")
    with held(training(ours)):
        worker.wait(timeout=280)
        (task,) = running(ours)
        ours.dvc("queue", "kill", "--force", task)
    wait(lambda: len(set(finished(ours)) - before) == 1, "the other experiment of the sweep")
    (other,) = set(finished(ours)) - before
    left = 4 - frozen(ours, finished(ours)[other])
    assert states(ours), "the killed one has lost its state"
    ours.dvc("exp", "run", "--queue", "-n", "again", "-S", f"freeze_d={left}", "-S", LONG)
    ours.dvc("queue", "start", "-j", "1")
    wait(lambda: "again" in finished(ours), "the continued experiment")
    wait(lambda: not training(ours), "the end of training", 60)
    assert "going on from" in ours.dvc("queue", "logs", "again")
    table = ours.dvc("exp", "show", "--csv", "--sort-by", "train_loss_d")
    assert all(name in table for name in (other, "again")) and "train_frozen_layers" in table


def test_two_experiments_are_compared_in_curves_and_pictures(ours: Workspace, tmp_path: Path) -> None:
    one, two = sorted(finished(ours))[:2]
    ours.dvc("plots", "diff", one, two, "-o", str(tmp_path / "plots"))
    page = (tmp_path / "plots/index.html").read_text(encoding="utf-8")
    assert all(f'"rev": "{name}"' in page or name in page for name in (one, two)) and "loss_d" in page
    pictures = {path.name.split("_")[0] for path in (tmp_path / "plots").rglob("*.png")}
    assert len(pictures) == 2, pictures
    assert "train_kimg" in ours.dvc("metrics", "diff", one, two, "--all")


def test_an_experiment_is_applied_branched_and_shared(ours: Workspace, tmp_path: Path) -> None:
    commit = finished(ours)["again"]
    ours.dvc("exp", "push", "origin", "again")
    ours.dvc("exp", "branch", "again", "better")
    assert ours.git("rev-parse", "better").strip() == commit
    theirs = Workspace(tmp_path / "theirs", dict(ours.env))
    ours.git("clone", "-q", str(ours.root.parent / "origin"), str(theirs.root))
    assert "again" in theirs.dvc("exp", "list", "origin")
    theirs.dvc("exp", "pull", "origin", "again")
    theirs.dvc("exp", "apply", "again")
    assert (theirs.root / "stages/train/networks.safetensors").stat().st_size > 10_000
    for name in ("params.yaml", "dvc.lock", "metrics/train.json"):
        assert (theirs.root / name).read_text() == ours.git("show", f"{commit}:{name}"), name
    assert "up to date" in theirs.dvc("status", "train")
