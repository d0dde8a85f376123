"""The README's recipes for sharing, run word by word in small repositories; only addresses are replaced."""

from pathlib import Path

import pytest
from guide import block
from workspaces import PHOTOS, Workspace, fill, new_workspace

SHARE = "Share with your team"


def follow(workspace: Workspace, text: str, **addresses: Path) -> None:
    """Run a block as a shell would, each line to succeed."""
    replaced = {
        "https://git.example.org/registry": addresses.get("registry"),
        "s3://bucket/incoming": addresses.get("incoming"),
    }
    for old, new in replaced.items():
        if new is not None:
            assert old in text
            text = text.replace(old, str(new))
    workspace.run("bash", "-euc", text)


@pytest.fixture
def ours(tmp_path: Path) -> Workspace:
    found = new_workspace(tmp_path / "ours", count=3)
    found.dvc("remote", "add", "-q", "-d", "team", str(tmp_path / "store"))
    found.commit("Our remote")
    found.dvc("push", "-q")
    return found


@pytest.mark.parametrize("scheme", ["s3", "ssh", "webdavs"])
def test_each_remote_is_set_up_without_secrets_in_git(scheme: str, tmp_path: Path) -> None:
    from stylebot.guard import faults

    found = new_workspace(tmp_path / "ours", count=1)
    follow(found, block(SHARE, f"dvc remote add -d team {scheme}://"))
    text = (found.root / ".dvc/config").read_text(encoding="utf-8")
    assert faults(text) == [] and "remote = team" in text and f"{scheme}://" in text
    assert ".dvc/config.local" not in found.git("status", "--porcelain", "-uall")


def test_photos_come_from_a_registry_and_follow_it(ours: Workspace, tmp_path: Path) -> None:
    registry = new_workspace(tmp_path / "registry", count=1)
    fill(registry.root / "faces", 2, 500, seed=7)
    registry.dvc("add", "-q", "faces")
    registry.commit("Faces")
    registry.dvc("push", "-q")
    lines = block(SHARE, "dvc import ").splitlines()
    follow(ours, lines[0], registry=registry.root)
    assert len(list((ours.root / PHOTOS / "registry").glob("*.jpg"))) == 2
    fill(registry.root / "faces", 5, 500, seed=8)
    registry.dvc("add", "-q", "faces")
    registry.commit("More faces")
    registry.dvc("push", "-q")
    follow(ours, lines[1])
    assert len(list((ours.root / PHOTOS / "registry").glob("*.jpg"))) == 7


def test_photos_come_from_a_bucket_and_follow_it(ours: Workspace, tmp_path: Path) -> None:
    fill(tmp_path / "bucket", 2, 500, seed=7)
    lines = block(SHARE, "dvc import-url").splitlines()
    follow(ours, lines[0], incoming=tmp_path / "bucket")
    assert len(list((ours.root / PHOTOS / "incoming").glob("*.jpg"))) == 2
    fill(tmp_path / "bucket", 1, 500, seed=8)
    follow(ours, lines[1])
    assert len(list((ours.root / PHOTOS / "incoming").glob("*.jpg"))) == 3
