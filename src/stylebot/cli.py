"""From a typed function to a command: paths become options, StylebotError one line and exit code 1."""

import errno
import inspect
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NewType

import typer
from rich.console import Console

from stylebot.errors import StylebotError
from stylebot.files import disk_is_full

_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_OTHER_KIND = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR)  # a file where a folder is wanted, or the reverse

Dep = NewType("Dep", Path)  # a file or folder that must exist
Out = NewType("Out", Path)  # a file or folder that the stage writes
Metric = NewType("Metric", Path)  # a small JSON file in metrics/


def path_help(doc: str) -> dict[str, str]:
    """The `name: explanation` lines of a docstring, which become the help of the options."""
    return {m[1]: m[2].strip() for m in re.finditer(r"^\s*(\w+): (.+)$", doc, re.MULTILINE)}


def _open_to_writing(name: str, path: Path) -> None:
    """Make the folder that `path` will lie in; hours of work are not to end where nothing can be written.

    Raises StylebotError when it, or the folder that `path` is already, does not take files.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StylebotError(f"--{name} {path}: {error.filename} cannot be made: {error.strerror}") from None
    for folder in (path.parent, path):
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            raise StylebotError(f"--{name} {path}: the folder {folder} cannot be written to")


def _command(main: Callable[..., None]) -> Callable[..., None]:
    """`main` with every Dep, Out and Metric turned into a typer option that explains itself."""
    doc = inspect.getdoc(main) or ""
    described, signature, kinds = path_help(doc), inspect.signature(main), {}

    def option(p: inspect.Parameter) -> inspect.Parameter:
        p = p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        if p.annotation not in (Dep, Out, Metric):
            return p
        kinds[p.name] = p.annotation
        note = {Dep: "read", Out: "written", Metric: "written, JSON"}[p.annotation]
        text = f"{described.get(p.name, p.name)} [{note}]"
        return p.replace(annotation=Annotated[Path, typer.Option(help=text)])

    parameters = [option(p) for p in signature.parameters.values()]

    def command(**arguments) -> None:
        missing = [f"--{n.replace('_', '-')} {arguments[n]}" for n, kind in kinds.items()
                   if kind is Dep and not arguments[n].exists()]
        if missing:
            said = f"no such file or folder: {', '.join(missing)}"
            raise StylebotError(f"{said}; `dvc repro` or `dvc pull` brings it")
        for name, kind in kinds.items():
            if kind is not Dep:
                _open_to_writing(name, arguments[name])
        main(**arguments)

    command.__signature__ = signature.replace(parameters=parameters)
    command.__doc__ = re.split(r"\n\s*\n", doc)[0]
    return command


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the third field (state, parent, ...); nothing once the process has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    fields = text.rpartition(")")[2].split()
    return [] if fields[0] in ("Z", "X") else fields


def _within_stage(pid: int) -> bool:
    """Whether dvc started this process: it marks whatever it starts by DVC_STAGE."""
    try:
        return b"DVC_STAGE=" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # ended, or somebody else's
        return False


def _up_to_tool() -> list[int]:
    """This process's parent and, as dvc's shell or torchrun may stand between, on to dvc itself."""
    found = [os.getppid()]
    while _within_stage(found[-1]) and (stat := _stat(found[-1])):
        found.append(int(stat[1]))
    return found


def die_with_parent() -> None:
    """Send this process SIGTERM soon after dvc or torchrun ends: no orphan holds a GPU (Linux only).

    A script started by hand has a shell as parent, and `nohup python src/train.py &` must outlive it.
    """
    started_by_tool = "DVC_STAGE" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    if not started_by_tool or sys.platform != "linux":
        return

    def born() -> list[str]:  # by which a number that is used again is told from the old process
        return ["".join(_stat(pid)[19:20]) for pid in watched]

    def watch() -> None:
        while born() == first and all(first):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    watched = _up_to_tool()
    first = born()
    threading.Thread(target=watch, daemon=True).start()


def one_line(error: BaseException) -> str:
    """The error's text on one line."""
    return " ".join(str(error).split())


def run(main: Callable[..., None]) -> None:
    """Run `main` as a command line; what a user can fix ends as one line on stderr and exit code 1."""
    die_with_parent()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(_command(main))
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    name = Path(sys.argv[0]).stem
    try:
        app()
    except StylebotError as error:
        console.print(f"{name}: {one_line(error)}")
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (*_NOT_ALLOWED, *_OTHER_KIND):
            console.print(f"{name}: {error.filename2 or error.filename}: {error.strerror}")
            sys.exit(1)
        if not disk_is_full(error):
            raise
        where = getattr(error, "filename", None) or os.environ.get("TMPDIR", "the output folder")
        console.print(f"{name}: the disk is full ({where}); free some space and run the same command again")
        sys.exit(1)
