"""The README's "On 8 GPUs" and "Many machines", word by word in a fresh clone (see guide.py)."""

import csv
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from guide import ROOT, Place, block, blocks, follow
from ruamel.yaml import YAML
from servers import HOST, free_port, listens
from workspaces import Workspace

GPUS, MACHINES = "On 8 GPUs", "Many machines"
SOME = 4  # photos


def queued(ours: Workspace) -> dict:
    """Parameters of the experiment that was queued last."""
    return YAML(typ="safe").load(ours.git("show", "refs/exps/celery/stash:params.yaml"))


def finished(ours: Workspace) -> int:
    """How many experiments have a result; a start of DVC takes seconds from them, this does not."""
    return len(ours.git("for-each-ref", f"refs/exps/{ours.git('rev-parse', 'HEAD')[:2]}").splitlines())


@pytest.mark.experiments
def test_on_8_gpus(place: Place) -> None:
    """Plans are made; recipes are queued instead of run, so that DVC takes every setting; a sweep runs."""
    ours = place.workspace()
    said = follow(ours, block(GPUS, "python src/plan.py"))
    assert said.count("parameters valid") == 3 and "sweep     4 experiments, all valid" in said
    (ours.root / "weights").mkdir()
    wanted = {"ffhq256": (256, 1000, 8, 10), "ffhq1024": (1024, 1000, 4, 10)}
    for name in wanted:
        (ours.root / f"weights/{name}.pkl").write_text(name)
    recipes = [text for text in blocks(GPUS) if " -n " in text]
    assert len(recipes) == 4
    for text in recipes[1:]:
        follow(ours, text.replace("dvc exp run", "dvc exp run --queue"))
        p, (weights,) = queued(ours), re.findall(r"sources=\[weights/(\w+)\.pkl\]", text)
        train = p["train"]
        expected = (256, 300, 8, 10) if "seed-paper" in text else wanted[weights]
        assert (p["pack"]["resolution"], train["kimg"], train["batch_gpu"], p["freeze_d"]) == expected
        assert p["fetch"]["generator"]["sources"] == [f"weights/{weights}.pkl"]
    ours.dvc("queue", "remove", "--all")
    assert "Reproducing experiment 'laptop'" in follow(ours, recipes[0])


@pytest.mark.experiments
def test_a_sweep_and_what_to_do_with_its_best(place: Place, tmp_path: Path) -> None:
    ours, store = place.workspace(), place.folder / "store"
    follow(ours, f"dvc remote add -d team {store}")
    ours.commit("Our remote")
    *start, show = block(GPUS, "dvc exp run --queue").splitlines()
    assert start[1] == "dvc queue start -j 1"
    follow(ours, "\n".join(start).replace("-j 1", "-j 2"))
    end = time.monotonic() + 500
    while finished(ours) < 4 or ours.dvc("queue", "status").count("Success") < 4:
        assert time.monotonic() < end, ours.dvc("queue", "status")
        time.sleep(0.5)
    rows = list(csv.DictReader(follow(ours, show.replace("dvc exp show", "dvc exp show --csv")).splitlines()))
    values = [float(row["kid_tuned"]) for row in rows[2:]]  # after the work tree and main
    assert len(values) == 4 and values == sorted(values), rows
    table = follow(ours, show)
    assert max(map(len, table.splitlines())) <= 80 and "kid_tuned" in table and "freeze_d" in table, table
    found = {row["freeze_d"]: row["Experiment"] for row in rows[2:]}
    for name, frozen in (("brave-run", "4"), ("bold-run", "13")):
        ours.dvc("exp", "rename", "-q", found[frozen], name)
    follow(ours, block(GPUS, "dvc plots diff"))
    page = (ours.root / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert "brave-run" in page and "bold-run" in page and "loss_g" in page
    assert len(list((ours.root / "dvc_plots").rglob("*fid*sheet.png"))) == 2
    assert YAML(typ="safe").load((ours.root / "params.yaml").read_text())["freeze_d"] == 4
    assert "brave" in ours.git("branch") and "brave-run" in ours.dvc("exp", "list", "origin")
    networks = hashlib.md5((ours.root / "stages/train/networks.safetensors").read_bytes()).hexdigest()
    assert (store / "files/md5" / networks[:2] / networks[2:]).is_file()


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen]]:
    """Shells whose whole process groups are killed in the end."""
    found: list[subprocess.Popen] = []
    yield found
    for process in found:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_many_machines(place: Place, started: list, model_file: Callable[[str], Path]) -> None:
    """A scheduler and a worker as the README starts them do the real work of `align` and `filter`."""
    pytest.importorskip("distributed", reason="the optional extra is not installed: pip install distributed")
    ours, port = place.workspace(), free_port()
    keep = sorted((ours.root / "stages/photos/celebrity").iterdir())[:SOME]
    for path in (ours.root / "stages/photos").glob("*/*"):
        if path not in keep:
            path.unlink()
    shutil.copy(keep[0], ours.root / "stages/photos/id")
    follow(ours, "dvc add -q stages/photos/celebrity stages/photos/id")
    for name in ("landmarks.dat", "identity.dat"):
        (ours.root / "stages/fetch" / name).unlink()
        shutil.copy(model_file(name), ours.root / "stages/fetch")
    follow(ours, "dvc commit -q -f fetch@landmarks fetch@identity")
    here = f"{HOST}:{port}"
    text = block(MACHINES, "pip install").replace("10.0.0.1:8786", here)
    install, scheduler, worker = text.replace("--host 10.0.0.1", f"--host {HOST} --port {port}").splitlines()
    follow(ours, install)
    ours.env["GENUINE"] = "align filter"
    dvc = block(MACHINES, "STYLEBOT_DASK").replace("10.0.0.1:8786", here)
    for line, ready in ((scheduler, lambda: listens(port)), (worker, lambda: True)):
        words = ["bash", "-c", line.rstrip("& ")]
        process = subprocess.Popen(words, cwd=ours.root, env=ours.environment(), start_new_session=True)
        started.append(process)
        end = time.monotonic() + 90
        while not ready():
            assert time.monotonic() < end and started[-1].poll() is None
            time.sleep(0.1)
    said = follow(ours, dvc)
    assert "Running stage 'align'" in said and "Running stage 'filter'" in said
    found = pd.read_parquet(ours.root / "stages/align/photos.parquet").outcome
    assert len(found) == SOME + 1 and "faces" in set(found) and "crashed" not in set(found)
    assert done_by_workers(here) >= SOME + 1


def done_by_workers(address: str) -> int:
    """How many pieces of work the cluster's workers have finished."""
    code = (
        "from distributed import Client\n"
        f"with Client('tcp://{address}') as c:\n"
        "    print(sum(c.run(lambda dask_worker: dask_worker.state.executed_count).values()))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-c", code]
    return int(subprocess.run(words, check=True, capture_output=True, text=True, env=env).stdout)
