"""Work on a real dask cluster of two worker processes, one of them killed midway, and a photo that kills."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from aligned_faces import align_params
from cluster_work import deadly_work, slow_square

from stylebot import align as stage
from stylebot.errors import StylebotError
from stylebot.workers import Crash, each

pytest.importorskip("distributed", reason="the optional extra is not installed: pip install distributed")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PARAMS = align_params(faces="all")


def started(*arguments: str, path: str, **more) -> subprocess.Popen:
    """A dask command in a session of its own."""
    environment = os.environ | {"PYTHONPATH": path, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **more,
    )


def ended(process: subprocess.Popen) -> None:
    """Kill a dask command with all of its children, as a machine that loses its power."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen]]:
    """Two single-threaded workers in separate processes, with STYLEBOT_DASK pointing at their scheduler."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    file = tmp_path / "scheduler.json"
    scheduler = started(
        "scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
        "--scheduler-file",
        str(file),
        path=path,
    )
    workers = []
    try:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        workers += [
            started(
                "worker",
                "--scheduler-file",
                str(file),
                "--nthreads",
                "1",
                "--no-dashboard",
                "--local-directory",
                str(tmp_path / name),
                path=path,
            )
            for name in "ab"
        ]
        from distributed import Client

        with Client(scheduler_file=str(file), timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=90)
            monkeypatch.setenv("STYLEBOT_DASK", client.scheduler.address)
        yield workers
    finally:
        for process in (*workers, scheduler):
            if process.poll() is None:
                ended(process)


def test_a_lost_worker_costs_nothing_and_a_deadly_item_itself(cluster: list, tmp_path: Path) -> None:
    jobs = [(number, tmp_path) for number in range(30)]
    results, lost = {}, False
    for index, result in each(slow_square, jobs, "squares"):
        assert index not in results
        results[index] = result
        if not lost and len(results) >= 6:
            ended(cluster[0])
            lost = True
    assert lost and sorted(results) == list(range(30))
    assert isinstance(results[13], Crash) and "SIGSEGV" in results[13].how
    assert all(results[n][0] == n * n for n in range(30) if n != 13)
    assert len({results[n][1] for n in range(30) if n != 13}) >= 2, "both workers took part"
    assert cluster[1].poll() is None


def test_align_is_the_same_on_machines(
    cluster: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_file: Callable[[str], Path]
) -> None:
    """The same bytes as on one machine; a photo that kills decoders is named with its reason."""
    photos = tmp_path / "photos" / "celebrity"
    photos.mkdir(parents=True)
    for path in sorted((ROOT / "tests" / "data" / "faces").glob("*.jpg"))[:4]:
        shutil.copy(path, photos)
    (photos / "0deadly.jpg").write_bytes(b"x" * 666)
    run_each = stage.each
    monkeypatch.setattr(stage, "each", lambda _, jobs, title: run_each(deadly_work, jobs, title))
    landmarks, files = model_file("landmarks.dat"), ("celebrity.zip", "faces.parquet", "photos.parquet")
    made = []
    for where in ("there", "here"):
        monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / f"scratch-{where}"))
        stage.align(tmp_path / "photos", landmarks, tmp_path / where, PARAMS)
        made.append([(tmp_path / where / name).read_bytes() for name in files])
        monkeypatch.delenv("STYLEBOT_DASK", raising=False)
        monkeypatch.setenv("STYLEBOT_WORKERS", "2")
    assert made[0] == made[1]
    table = pd.read_parquet(tmp_path / "there" / "photos.parquet").set_index("photo")
    assert table.outcome["0deadly.jpg"] == "crashed" and "SIGSEGV" in table.detail["0deadly.jpg"]
    assert (table.outcome.drop("0deadly.jpg") == "faces").all()


def test_errors_of_the_function_arrive(cluster: list) -> None:
    with pytest.raises(ZeroDivisionError):
        list(each((1).__truediv__, [1, 0, 2], "shares"))


def test_no_cluster_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylebot.machines._PATIENCE_SEC", 1)
    monkeypatch.setenv("STYLEBOT_DASK", "tcp://127.0.0.1:9")
    with pytest.raises(StylebotError, match="no dask scheduler answers"):
        list(each(abs, [1], "numbers"))
