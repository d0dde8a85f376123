"""Work on many items in processes or on many machines; an item that kills its process costs itself only."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from joblib import Parallel, cpu_count, delayed
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from stylebot.errors import StylebotError
from stylebot.machines import Killed, on_machines, scheduler_address

T, R = TypeVar("T"), TypeVar("R")


@dataclass(frozen=True)
class Crash:
    """What stands for the result of an item whose process died: how it died, in words."""

    how: str


def workers() -> int:
    """How many processes: STYLEBOT_WORKERS (1 works inside this process), else the cores, and at least 2."""
    wanted = os.environ.get("STYLEBOT_WORKERS")
    if not wanted:
        return max(2, cpu_count())
    if not wanted.isdigit() or int(wanted) < 1:
        raise StylebotError(f"STYLEBOT_WORKERS is {wanted!r}: a whole number from 1 upwards is wanted")
    return int(wanted)


def progress_bar() -> Progress:
    """The progress bar of long work on items: on stderr, gone quiet when that is no terminal."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                    TimeRemainingColumn(), console=Console(stderr=True))


def each(function: Callable[[T], R], items: Sequence[T], title: str) -> Iterator[tuple[int, R | Crash]]:
    """(index, function(item)) of every item, as they finish, in any order.

    `function` and the items must be picklable. When a process dies, the items that were being worked on are
    tried again, each in a process of its own; one that dies there too gives a Crash, the rest goes on.
    An exception of `function` ends the work and is raised here. With STYLEBOT_DASK=tcp://..., the workers of
    that dask cluster do the work; an item that they die on is tried here.
    """
    pending = dict(enumerate(items))
    if not pending:
        return
    address = scheduler_address()
    if address:
        with progress_bar() as progress:
            task = progress.add_task(title, total=len(items))
            for index, result in on_machines(function, pending, address):
                result = _alone(function, pending[index]) if isinstance(result, Killed) else result
                progress.advance(task)
                yield index, result
        return
    with progress_bar() as progress, tempfile.TemporaryDirectory(prefix="stylebot-") as folder:
        task = progress.add_task(title, total=len(items))
        while pending:
            try:
                for index, result in _parallel(function, pending, Path(folder)):
                    del pending[index]
                    progress.advance(task)
                    yield index, result
            except BrokenProcessPool as error:
                suspects = sorted({int(note.read_text()) for note in Path(folder).iterdir()} & set(pending))
                if not suspects:
                    raise StylebotError(f"the processes of {title!r} died as they began: {error}") from None
                for index in suspects:
                    result = _alone(function, pending.pop(index))
                    progress.advance(task)
                    yield index, result


def _parallel(function: Callable[[T], R], pending: dict[int, T], folder: Path) -> Iterator[tuple[int, R]]:
    pool = Parallel(n_jobs=workers(), return_as="generator_unordered", batch_size=1, pre_dispatch="4*n_jobs")
    for note in folder.iterdir():
        note.unlink()
    return pool(delayed(_noted)(function, folder, index, item) for index, item in list(pending.items()))


def _noted(function: Callable[[T], R], folder: Path, index: int, item: T) -> tuple[int, R]:
    """function(item), with a note of which item this process is at, for the case that it dies."""
    note = folder / str(os.getpid())
    note.write_text(str(index))
    result = function(item)
    note.unlink()
    return index, result


def _alone(function: Callable[[T], R], item: T) -> R | Crash:
    """function(item) in a new process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(function, item, theirs))
    process.start()
    theirs.close()
    answer = None
    with suppress(EOFError):  # the process died without an answer
        answer = ours.recv()
    process.join()
    if answer is None:
        return Crash(_how(process.exitcode))
    worked, value = answer
    if not worked:
        raise value
    return value


def _send(function: Callable[[T], R], item: T, answer: Connection) -> None:
    try:
        answer.send((True, function(item)))
    except Exception as error:  # carried over to the parent, which raises it
        answer.send((False, error))


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"the decoder's process died ({signal.Signals(-exitcode).name})"
    return f"the decoder's process ended with code {exitcode}"
