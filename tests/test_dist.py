"""One process alone, and two and eight under torchrun that must train like one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import STEPS, collectives, train

from stylebot import dist

ROOT = Path(__file__).parents[1]


def test_alone() -> None:
    assert (dist.rank(), dist.world(), dist.under_torchrun()) == (0, 1, False)
    mean, votes = [[[0.0] * 3] * 2, 0.0], [False, False, True]
    assert collectives() == {"rank": 0, "world": 1, "mean": mean, "anywhere": votes}
    dist.init()
    assert dist.world() == 1
    dist.finish()


@pytest.mark.parametrize(("said", "wanted"), [("3", 3), ("1", 1), ("gpu", 1), ("", 1)])
def test_processes_wanted(said: str, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("PET_NPROC_PER_NODE", said)
    assert dist.processes_wanted() == wanted


def test_one_process_per_gpu_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PET_NPROC_PER_NODE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert dist.processes_wanted() == 8


def test_each_process_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert dist.device() == torch.device("cuda", 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dist.device() == torch.device("cpu")


def test_launch_leaves_the_work_to_a_lone_or_launched_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_NPROC_PER_NODE", "1")
    assert dist.launch("train.py") is False
    monkeypatch.setenv("PET_NPROC_PER_NODE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert dist.launch("train.py") is False


@pytest.mark.parametrize(("environment", "wanted"), [
    ({"PET_NPROC_PER_NODE": "2"}, ["--standalone", "--nproc-per-node=2", "train.py", "--out", "x"]),
    ({"PET_NPROC_PER_NODE": "1", "PET_NNODES": "2"}, ["--nproc-per-node=1", "train.py", "--out", "x"])])
def test_launch_passes_the_command_on(
    environment: dict, wanted: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch.distributed.run

    given: list = []
    monkeypatch.setattr(torch.distributed.run, "main", given.extend)
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", "x"])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert dist.launch("train.py") is True and given == wanted


def together(count: int, folder: Path, batch: int, *going_on_from: Path) -> list[dict]:
    """What each of `count` processes got that train in batches of `batch`, four samples at once each."""
    environment = os.environ | {"PET_NPROC_PER_NODE": str(count), "OMP_NUM_THREADS": "1",
                                "PYTHONPATH": str(ROOT / "src")}  # fmt: skip
    script = Path(__file__).with_name("processes.py")
    command = [sys.executable, script, folder, str(batch), "4", *going_on_from]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes got."""
    return together(2, tmp_path_factory.mktemp("pair"), 8)


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of eight processes got."""
    return together(8, tmp_path_factory.mktemp("eight"), 32)


def assert_alike(found: dict, wanted: dict) -> None:
    for k, tensor in wanted["weights"].items():
        torch.testing.assert_close(found["weights"][k], tensor, atol=1e-5, rtol=1e-5, msg=k)
    for k in ("cur_nimg", "p", "skipped_steps"):
        assert found["state"][k] == wanted["state"][k], k
    torch.testing.assert_close(found["state"]["pl_mean"], wanted["state"]["pl_mean"])


def test_two_processes_reduce(pair: list[dict]) -> None:
    for rank, found in enumerate(pair):
        assert (found["rank"], found["world"]) == (rank, 2)
        assert found["mean"] == [[[0.5] * 3] * 2, 5.0] and found["anywhere"] == [True, False, True]


def test_two_processes_hold_the_same_state(pair: list[dict]) -> None:
    """Bit for bit: a restart loads what the first has saved into all."""
    for k, tensor in pair[0]["weights"].items():
        assert torch.equal(pair[1]["weights"][k], tensor), k
    for k in ("p", "pl_mean", "signs", "cur_nimg"):
        one, other = (torch.as_tensor(found["state"][k]) for found in pair)
        assert torch.equal(one, other), k
    assert pair[0]["stats"] == pair[1]["stats"]


def test_two_processes_train_like_one(pair: list[dict]) -> None:
    """Path lengths, ADA, mixing, mirrored reals, minibatch stddev and w_avg included."""
    alone = train(8, 8)
    assert alone["state"]["cur_nimg"] == 8 * STEPS and alone["state"]["p"] != 0.4
    assert_alike(pair[0], alone)
    assert pair[0]["stats"] == pytest.approx(alone["stats"], rel=1e-4, abs=1e-6)
    torch.testing.assert_close(pair[0]["state"]["signs"] * 2, alone["state"]["signs"])  # a mean, then a sum


def test_eight_processes_train_like_one_and_one_goes_on_where_they_were(eight: list[dict]) -> None:
    assert_alike(eight[0], train(32, 32))
    assert_alike(train(32, 32, eight[0]["state"], 2), train(32, 32, steps=STEPS + 2))


def test_two_processes_go_on_where_one_was(tmp_path: Path) -> None:
    torch.save(train(8, 8, steps=2)["state"], tmp_path / "state.pt")
    assert_alike(together(2, tmp_path, 8, tmp_path / "state.pt")[0], train(8, 8, steps=STEPS + 2))
