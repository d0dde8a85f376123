"""Command lines: help that explains each path, one line and exit code 1 for what a user can fix."""

import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from stylebot.cli import _open_to_writing, one_line, path_help
from stylebot.errors import StylebotError

SRC = Path(__file__).parents[1] / "src"
SCRIPT = '''
import os, sys, time
from pathlib import Path
from stylebot.cli import Dep, Metric, Out, run
from stylebot.errors import StylebotError

def main(faces: Dep, out: Out, metrics: Metric, seed: int = 0) -> None:
    """Copy faces.

    faces: the faces to copy
    out: the copy
    metrics: how many
    """
    BODY

if __name__ == "__main__":
    run(main)
'''


def script(folder: Path, body: str = "out.write_bytes(faces.read_bytes())") -> Path:
    path = folder / "copy_faces.py"
    path.write_text(SCRIPT.replace("BODY", textwrap.indent(textwrap.dedent(body), "    ").strip()))
    return path


def call(path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(path), *arguments], cwd=path.parent, text=True, timeout=60,
                          capture_output=True, env=os.environ | {"PYTHONPATH": str(SRC)} | environment)


ARGUMENTS = ("--faces", "in.txt", "--out", "deep/er/out.txt", "--metrics", "metrics/m.json")


def test_paths_are_options_and_parents_of_outputs_are_made(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a face")
    done = call(script(tmp_path), *ARGUMENTS)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "deep/er/out.txt").read_text() == "a face"
    assert (tmp_path / "metrics").is_dir()


def test_help_explains_every_path(tmp_path: Path) -> None:
    shown = re.sub(r"\s+", " ", call(script(tmp_path), "--help", COLUMNS="120").stdout)
    assert "Copy faces." in shown
    for option, text in (("--faces", "the faces to copy [read]"), ("--out", "the copy [written]"),
                         ("--metrics", "how many [written, JSON]")):
        assert option in shown and text in shown
    assert "--seed" in shown


def test_missing_input_is_one_line(tmp_path: Path) -> None:
    done = call(script(tmp_path), *ARGUMENTS)
    assert done.returncode == 1
    assert done.stderr == ("copy_faces: no such file or folder: --faces in.txt; "
                           "`dvc repro` or `dvc pull` brings it\n")
    assert not (tmp_path / "deep").exists()


def test_missing_option_is_not_a_traceback(tmp_path: Path) -> None:
    done = call(script(tmp_path), "--out", "o")
    assert done.returncode == 2 and "--faces" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("body", "said"), [
    ("raise StylebotError('too few faces:\\n  3 of 8 [bold]')", "copy_faces: too few faces: 3 of 8 [bold]\n"),
    ("with open('/dev/full', 'w') as file:\n    file.write('x' * 99999)", "copy_faces: the disk is full ("),
    ("raise PermissionError(13, 'Permission denied', 'a/1.pt')", "copy_faces: a/1.pt: Permission denied\n"),
    ("Path('folder').mkdir()\nfaces.replace('folder')", "copy_faces: folder: Is a directory\n"),
    ("Path('in.txt/new').mkdir()", "copy_faces: in.txt/new: Not a directory\n"),
    ("raise RuntimeError('I/O error: No space left on device')", "copy_faces: the disk is full ("),
])
def test_what_a_user_can_fix_is_one_line_and_exit_1(tmp_path: Path, body: str, said: str) -> None:
    (tmp_path / "in.txt").touch()
    done = call(script(tmp_path, body), *ARGUMENTS)
    assert done.returncode == 1
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1


def test_where_nothing_can_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.txt").touch()
    done = call(script(tmp_path, "print('worked for hours')"), "--faces", "in.txt", "--out", "in.txt/a/b",
                "--metrics", "m.json")  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "copy_faces: --out in.txt/a/b: in.txt/a cannot be made: Not a directory\n"
    (tmp_path / "kept").mkdir()
    real = os.access  # the tests may run as root, whom no permission stops
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "kept" and real(path, mode))
    for name in ("kept", "kept/m.json"):
        with pytest.raises(StylebotError, match=f"^--metrics {tmp_path}/{name}: the folder .*/kept can"):
            _open_to_writing("metrics", tmp_path / name)
    _open_to_writing("metrics", tmp_path / "new" / "m.json")
    assert (tmp_path / "new").is_dir()


def test_our_own_mistakes_keep_their_traceback(tmp_path: Path) -> None:
    (tmp_path / "in.txt").touch()
    done = call(script(tmp_path, "{}['mistake']"), *ARGUMENTS)
    assert done.returncode == 1 and "Traceback" in done.stderr and "KeyError: 'mistake'" in done.stderr


def started(pid_file: Path) -> int:
    for _ in range(200):
        if pid_file.exists() and pid_file.read_text():
            return int(pid_file.read_text())
        time.sleep(0.1)
    raise AssertionError("the script did not start")


def alive(pid: int, patience_sec: float) -> bool:
    """Whether process `pid` still runs after at most `patience_sec` (a zombie does not run)."""
    end = time.monotonic() + patience_sec
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.1)
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="/proc exists on Linux only")
@pytest.mark.parametrize(("mark", "then", "survives"), [
    ({"DVC_STAGE": "train"}, "", False),
    ({"DVC_STAGE": "train"}, "; exit", False),  # a shell that waits for the script
    ({}, "", True),
])  # fmt: skip
def test_a_stage_dies_with_dvc_but_not_with_a_shell(
    tmp_path: Path, mark: dict[str, str], then: str, survives: bool
) -> None:
    (tmp_path / "in.txt").touch()
    path = script(tmp_path, """
        Path("part").write_text(str(os.getpid()))
        os.rename("part", "pid")
        time.sleep(60)
    """)
    command = f"{shlex.join([sys.executable, str(path), *ARGUMENTS])}{then}"
    parent = f"import os, subprocess; subprocess.run(['sh', '-c', {command!r}], env=os.environ | {mark})"
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    dvc = subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path, env=environment)
    pid = started(tmp_path / "pid")
    try:
        dvc.send_signal(signal.SIGKILL)
        dvc.wait()
        assert alive(pid, 1 if survives else 20) is survives
    finally:
        if alive(pid, 0.1):
            os.kill(pid, signal.SIGKILL)


def test_path_help_reads_the_lines_of_a_docstring() -> None:
    assert path_help("First line.\n\nfaces: a folder: of faces\nout: a zip\n") == {
        "faces": "a folder: of faces", "out": "a zip"}


def test_one_line() -> None:
    assert one_line(ValueError(" a\n\n  b ")) == "a b"
