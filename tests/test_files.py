"""Files are whole or absent; the same content gives the same bytes."""

import errno
import hashlib
import json
import math
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebot.files import Memo, atomic, read_json, scratch, sha256_file, write_bytes, write_json, write_zip


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic(path) as part:
        part.write_bytes(b"half of the n")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("free", "error", "becomes"), [
    (0, RuntimeError("unexpected pos 576 vs 534"), errno.ENOSPC),
    (1 << 30, OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
    (1 << 30, RuntimeError("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
    (1 << 30, RuntimeError("a mistake of ours"), None),
    (0, PermissionError(errno.EACCES, "Permission denied"), errno.EACCES),
])
def test_a_full_disk_is_told_with_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int,
                                           error: Exception, becomes: int | None) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises((OSError, RuntimeError)) as caught, atomic(tmp_path / "a.bin") as part:
        part.write_bytes(b"half")
        raise error
    assert getattr(caught.value, "errno", None) == becomes
    if becomes == errno.ENOSPC:
        assert caught.value.filename == str(tmp_path / "a.bin") and caught.value.__cause__ is error
    assert not list(tmp_path.iterdir())


def test_nobody_sees_a_file_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic(path) as part:
        part.write_bytes(b"new")
        assert not path.exists() and part.parent == path.parent
    assert path.read_bytes() == b"new"


def test_metrics_are_sorted_rounded_and_end_with_a_newline(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "m.json"
    write_json(path, {"b": np.float64(1 / 3), "a": 123456, "c": True, "d": "얼굴"})
    assert path.read_text() == '{\n  "a": 123456,\n  "b": 0.33333,\n  "c": true,\n  "d": "얼굴"\n}\n'
    assert read_json(path) == {"a": 123456, "b": 0.33333, "c": True, "d": "얼굴"}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_json_lacks_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "m.json", {"kid": value})
    assert not (tmp_path / "m.json").exists()


@given(value=st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300))
@settings(max_examples=50, deadline=None)
def test_rounding_keeps_five_digits(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    path = tmp_path_factory.mktemp("json") / "m.json"
    write_json(path, {"x": value})
    assert math.isclose(json.loads(path.read_text())["x"], value, rel_tol=1e-4, abs_tol=1e-300)


def test_zips_depend_on_their_members_alone(tmp_path: Path) -> None:
    members = [("b.png", b"1" * 1000), ("a/얼굴.png", b"")]
    write_zip(tmp_path / "x.zip", members)
    os.utime(tmp_path / "x.zip", (1, 1))
    write_zip(tmp_path / "y.zip", iter(members))
    assert (tmp_path / "x.zip").read_bytes() == (tmp_path / "y.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.testzip() is None
        assert [(i.filename, archive.read(i)) for i in archive.infolist()] == members
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"stylebot" * 200_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"stylebot" * 200_000).hexdigest()


def test_experiments_in_clones_share_the_scratch_of_the_main_tree(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STYLEBOT_SCRATCH", raising=False)
    for inside in (".", ".dvc/tmp/exps/standalone/tmpabc", ".dvc/tmp/exps/tmpdef"):
        folder = tmp_path / "main" / inside
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        assert scratch() == tmp_path / "main" / ".scratch"
    (tmp_path / "exps" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "exps" / "mine")
    assert scratch() == tmp_path / "exps" / "mine" / ".scratch"
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "elsewhere"))
    assert scratch() == tmp_path / "elsewhere"


@pytest.fixture
def memo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memo:
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path))
    return Memo("align", {"resolution": 256, "model": "abc"})


def test_memo_remembers_by_key_and_identity(memo: Memo) -> None:
    memo.put("aa11", b"a face")
    memo.put("aa12", b"")
    assert (memo.get("aa11"), memo.get("aa12"), memo.get("bb")) == (b"a face", b"", None)
    assert Memo("align", {"model": "abc", "resolution": 256}).get("aa11") == b"a face"
    for other in (Memo("align", {"resolution": 128, "model": "abc"}),
                  Memo("filter", {"resolution": 256, "model": "abc"})):
        assert other.get("aa11") is None


@pytest.mark.parametrize("position", [0, 31, 32, -1])
def test_a_damaged_entry_is_a_miss(memo: Memo, position: int) -> None:
    memo.put("aa11", b"a face")
    path = next(p for p in memo.folder.rglob("aa11"))
    stored = bytearray(path.read_bytes())
    stored[position] ^= 1
    path.write_bytes(stored)
    assert memo.get("aa11") is None
    path.write_bytes(b"short")
    assert memo.get("aa11") is None
