"""Secrets and data stay out of git: the guard, and the hooks that `make hooks` sets up."""

import shutil
from pathlib import Path

import pytest
from workspaces import ROOT, Workspace, new_workspace

from stylebot.guard import faults

GOOD = "[core]\n    remote = team\n['remote \"team\"']\n    url = s3://bucket/faces\n    verify = true\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A repository with our hooks, code and rules."""
    found = new_workspace(tmp_path / "ws", count=2)
    for name in (".githooks", "src", "pyproject.toml", ".gitignore"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, found.root / name)
    found.commit("Code")
    found.git("config", "core.hooksPath", ".githooks")
    return found


def test_harmless_settings_pass() -> None:
    assert faults(GOOD) == []
    assert faults(GOOD.replace("s3://bucket", "ssh://faces@nas.example.org:2222/srv")) == []
    assert faults((ROOT / ".dvc/config").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "    secret_access_key = x\n", "secret_access_key belongs into .dvc/config.local"),
        (GOOD + "    PASSWORD = x\n", "password belongs into"),
        (GOOD + "    keyfile = x\n", "keyfile belongs into"),
        (GOOD + "    connection_string = x\n", "connection_string belongs into"),
        (GOOD.replace("s3://bucket", "ssh://me:x@nas"), "url carries a password"),
        (GOOD.replace("faces", "faces?sig=x"), "url carries a password"),
        (GOOD.replace("    verify = true\n", ""), "dvc remote modify team verify true"),
        (GOOD.replace("true", "false"), "lacks verify = true"),
        (GOOD + "[[nested]]\n    token = x\n", "token belongs into"),
        ("not a config", "cannot be read"),
    ],
)
def test_anything_else_is_named(text: str, said: str) -> None:
    assert any(said in fault for fault in faults(text)), faults(text)


def test_a_forgotten_local_cannot_be_committed(workspace: Workspace) -> None:
    workspace.dvc("remote", "add", "nas", "webdavs://nas.example.org/dvc")
    workspace.dvc("remote", "modify", "nas", "password", "hunter2")  # DVC says nothing, autostage stages it
    done = workspace.call("git", "commit", "-am", "Remote")
    assert done.returncode != 0 and '[remote "nas"] password belongs into .dvc/config.local' in done.stdout
    assert "hunter2" not in done.stdout and "Traceback" not in done.stdout
    workspace.dvc("remote", "remove", "nas")
    (workspace.root / "README.md").write_text("Ours")
    workspace.git("add", "README.md")
    workspace.git("commit", "-m", "Readme")


def test_photos_and_bad_code_cannot_be_committed(workspace: Workspace) -> None:
    (workspace.root / "stages/delivery.zip").write_bytes(bytes(3 << 20))
    (workspace.root / ".dvc/config.local").touch()
    workspace.git("add", "-f", "stages/delivery.zip", ".dvc/config.local")
    done = workspace.call("git", "commit", "-m", "Delivery")
    assert done.returncode != 0 and "stages/delivery.zip is 3 MiB" in done.stdout
    assert ".dvc/config.local holds credentials" in done.stdout
    workspace.git("rm", "-q", "--cached", "stages/delivery.zip", ".dvc/config.local")
    (workspace.root / "src/mine.py").write_text("import os\n")
    workspace.git("add", "src/mine.py")
    done = workspace.call("git", "commit", "-m", "Code")
    assert done.returncode != 0 and "F401" in done.stdout


def test_data_goes_before_code_but_not_into_the_sample(workspace: Workspace) -> None:
    for name in ("origin.git", "store"):
        workspace.git("init", "-q", "--bare", f"../{name}")
    workspace.git("remote", "add", "origin", "../origin.git")
    workspace.git("push", "-q", "origin", "main")
    assert not (workspace.root / ".dvc/sample").exists()
    workspace.dvc("remote", "add", "-d", "team", str(workspace.root.parent / "store"))
    workspace.dvc("remote", "modify", "team", "verify", "true")
    workspace.commit("Remote")
    workspace.git("push", "-q", "origin", "main")
    assert len(list((workspace.root.parent / "store/files/md5").rglob("*/*"))) == 3  # two photos, one folder


def test_another_branch_brings_its_photos(workspace: Workspace) -> None:
    before = workspace.photos()
    workspace.git("checkout", "-q", "-b", "fewer")
    next((workspace.root / "stages/photos/celebrity").glob("*.jpg")).unlink()
    workspace.dvc("add", "-q", "stages/photos/celebrity")
    workspace.commit("Fewer")
    workspace.git("checkout", "main")
    assert workspace.photos() == before
