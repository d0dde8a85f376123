"""What DVC calls clean and is not: damaged objects in the cache and on a remote, found, removed, healed."""

import hashlib
import shutil
from pathlib import Path

import pytest
from servers import flip
from workspaces import PHOTOS, Workspace, new_workspace

from stylebot.errors import StylebotError
from stylebot.verify import verify


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Two photos, pushed to a remote in a folder; the test stands in the workspace."""
    found = new_workspace(tmp_path / "ours", count=2)
    found.dvc("push", "-q")
    monkeypatch.chdir(found.root)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", found.environment()["DVC_SITE_CACHE_DIR"])
    return found


def first(workspace: Workspace) -> tuple[str, str]:
    """A photo's path and its object below a store."""
    name, content = next(iter(workspace.photos().items()))
    digest = hashlib.md5(content).hexdigest()
    return f"{PHOTOS}/{name}", f"files/md5/{digest[:2]}/{digest[2:]}"


def test_a_damaged_cache_is_named_and_heals(ours: Workspace, capsys: pytest.CaptureFixture) -> None:
    verify(cloud=True, remotes=[], all_commits=True, remove=False)
    said = capsys.readouterr().out
    assert "cache: 3 of 3 objects are whole" in said and "sample: 3 of 3 objects are whole" in said
    before, (name, path) = ours.photos(), first(ours)
    flip(ours.root / ".dvc/cache" / path)
    shutil.rmtree(ours.root / PHOTOS / "celebrity")
    ours.dvc("checkout")
    assert ours.photos() != before and "up to date" in ours.dvc("status")
    with pytest.raises(StylebotError, match=r"1 in cache; delete them with --remove, then `dvc pull`$"):
        verify(cloud=False, remotes=[], all_commits=False, remove=False)
    with pytest.raises(StylebotError, match=r"deleted, now `dvc pull`$"):
        verify(cloud=False, remotes=[], all_commits=False, remove=True)
    assert f"cache: damaged {name} (" in capsys.readouterr().out
    ours.dvc("pull")
    assert ours.photos() == before, "DVC kept what it had made of the damaged object"


def test_a_damaged_remote_is_named_and_heals(ours: Workspace, capsys: pytest.CaptureFixture) -> None:
    name, path = first(ours)
    flip(ours.root / ".dvc/sample" / path)
    for remove in (False, True):
        with pytest.raises(StylebotError, match="1 in sample; .* now `dvc push" if remove else "1 in sample"):
            verify(cloud=True, remotes=["sample"], all_commits=False, remove=remove)
    assert f"sample: damaged {name} (" in capsys.readouterr().out
    assert "files pushed" in ours.dvc("push")
    verify(cloud=False, remotes=["sample"], all_commits=False, remove=False)
    assert "sample: 3 of 3" in capsys.readouterr().out


def test_mistakes_are_one_line(ours: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StylebotError, match="no remote 'tema'; configured: sample"):
        verify(cloud=False, remotes=["tema"], all_commits=False, remove=False)
    ours.dvc("remote", "add", "-q", "bucket", "gs://bucket/photos")
    with pytest.raises(StylebotError, match=r"^bucket: gs is supported, but requires 'dvc-gs'[^\n]*$"):
        verify(cloud=False, remotes=["bucket"], all_commits=False, remove=False)
    monkeypatch.chdir(tmp_path)
    outside = "not inside of a DVC repository|/ is not a git repository"  # the latter below a stray /.dvc
    with pytest.raises(StylebotError, match=rf"^[^\n]*({outside})[^\n]*$"):
        verify(cloud=False, remotes=[], all_commits=False, remove=False)
