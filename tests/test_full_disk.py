"""A disk that fills up during `dvc push` and `dvc pull`: what is said, what is left, that space mends it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from workspaces import PHOTOS, ROOT, Workspace, new_workspace

COUNT, SIZE_BYTES = 8, 1_000_000
SMALL, LARGE = "5m", "64m"  # of the disk: less than the photos, and more than they need
ROOT_ONLY = "only root may mount a small disk"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason=ROOT_ONLY)]


def mount(folder: Path, options: str) -> None:
    """A file system in memory. Skips the test where that is not allowed, as in most containers."""
    words = ["mount", "-t", "tmpfs", "-o", options, "none", folder]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, f"size={SMALL}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def ours(tmp_path: Path) -> Workspace:
    """Photos of 8 MB on a disk that is large enough; the remote is named by the test."""
    return new_workspace(tmp_path / "ours", COUNT, SIZE_BYTES)


def fill_up(path: Path) -> None:
    """A file that takes all the space there is."""
    with pytest.raises(OSError, match="No space left"), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))


def use(workspace: Workspace, store: Path) -> None:
    workspace.dvc("remote", "add", "-q", "-d", "team", str(store))
    workspace.dvc("remote", "modify", "team", "verify", "true")
    workspace.commit("Our remote")


def said_when_full(workspace: Workspace, *words: str) -> str:
    done = workspace.call("dvc", *words)
    assert done.returncode != 0 and "No space left on device" in done.stdout, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


def undamaged(workspace: Workspace, *words: str) -> None:
    """Every object that is there has the bytes that its name says."""
    done = workspace.tool("verify", *words)
    assert done.returncode == 0 and "damaged" not in done.stdout, done.stdout


def test_push_onto_a_full_disk(ours: Workspace, disk: Path, tmp_path: Path) -> None:
    use(ours, disk / "store")
    assert "failed to upload" in said_when_full(ours, "push")
    undamaged(ours, "--cloud")
    mount(disk, f"remount,size={LARGE}")
    ours.dvc("push")
    done = ours.tool("verify", "--cloud")
    assert f"team: {COUNT + 1} of {COUNT + 1} objects are whole" in done.stdout, done.stdout
    theirs = ours.clone(tmp_path / "theirs")
    theirs.dvc("pull")
    assert theirs.photos() == ours.photos() and len(theirs.photos()) == COUNT


def test_pull_onto_a_full_disk(ours: Workspace, disk: Path, tmp_path: Path) -> None:
    use(ours, tmp_path / "store")
    ours.dvc("push")
    theirs = ours.clone(disk / "theirs")
    theirs.env["DVC_SITE_CACHE_DIR"] = str(tmp_path / "site")
    said_when_full(theirs, "pull")
    undamaged(theirs)
    whole = ours.photos()
    assert all(whole[name] == content for name, content in theirs.photos().items())
    mount(disk, f"remount,size={LARGE}")
    theirs.dvc("pull")
    assert theirs.photos() == whole and len(whole) == COUNT
    assert "up to date" in theirs.dvc("status") and theirs.git("status", "--porcelain") == ""


def test_our_own_command_on_a_full_disk_is_one_line(disk: Path) -> None:
    card = disk / "CARD.md"
    card.write_text("as it was")
    here = Workspace(ROOT)
    fill_up(disk / "rest")
    done = here.tool("card", "--out", str(card))
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 1), done.stdout
    assert done.stdout.startswith("card: the disk is full (") and "run the same command again" in done.stdout
    assert card.read_text() == "as it was"
    (disk / "rest").unlink()
    assert here.tool("card", "--out", str(card)).returncode == 0 and PHOTOS in card.read_text()
