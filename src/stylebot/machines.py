"""Work on items on many machines, by dask.distributed; an item that kills its worker is named, not lost."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from stylebot.errors import StylebotError

if TYPE_CHECKING:
    from distributed import Client, Future

T, R = TypeVar("T"), TypeVar("R")

_AHEAD = 4  # items per worker that wait on the cluster: enough to keep it busy, few to lose
_PATIENCE_SEC = 30
_HOW = "`dask scheduler` and `dask worker --nthreads 1`, each with PYTHONPATH=src of this same checkout"


class Killed:
    """Stands for the result of an item on which several workers died."""


def scheduler_address() -> str | None:
    """STYLEBOT_DASK, the address of a dask scheduler (tcp://host:8786); None: work on this machine."""
    return os.environ.get("STYLEBOT_DASK") or None


def code_digest() -> str:
    """Hex sha256 of this library's source, the same on every machine with the same checkout."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _connected(address: str) -> Iterator["Client"]:
    """A client of the scheduler at `address`, whose workers can do our work.

    Raises StylebotError when dask is not installed, nobody answers, there is no worker, a worker has several
    threads (decoders and dlib's detector are not safe in threads) or another version of the code.
    """
    try:
        from distributed import Client
    except ImportError:
        raise StylebotError(
            "STYLEBOT_DASK is set, but dask is not installed: pip install distributed"
        ) from None
    try:
        client = Client(address, timeout=_PATIENCE_SEC, set_as_default=False)
    except (OSError, ValueError) as error:
        raise StylebotError(
            f"STYLEBOT_DASK={address}: no dask scheduler answers ({error}); start {_HOW}"
        ) from None
    with client, client.as_current():
        try:
            client.wait_for_workers(1, timeout=_PATIENCE_SEC)
        except TimeoutError:
            raise StylebotError(f"STYLEBOT_DASK={address} has no workers; start {_HOW}") from None
        if set(client.nthreads().values()) != {1}:
            raise StylebotError(f"STYLEBOT_DASK={address}: workers with several threads; start {_HOW}")
        try:
            found = {client.run_on_scheduler(code_digest), *client.run(code_digest).values()}
        except ImportError as error:
            raise StylebotError(f"STYLEBOT_DASK={address}: {error} there; start {_HOW}") from None
        if found != {code_digest()}:
            raise StylebotError(f"STYLEBOT_DASK={address}: other code there; start {_HOW}")
        yield client


def _finished(client: "Client", futures: list["Future"], address: str) -> list["Future"]:
    """Those of `futures` that are done, at least one. Raises StylebotError when no worker is left."""
    from distributed import wait

    while True:
        try:
            return list(wait(futures, timeout=_PATIENCE_SEC, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            if client.status != "running" or not client.nthreads():
                raise StylebotError(
                    f"STYLEBOT_DASK={address}: all workers are gone; what was done is "
                    "remembered, start some and run again"
                ) from None


def _outcome(future: "Future", address: str) -> object:
    """What the item's function returned, or Killed; raises what it raised."""
    from distributed import CancelledError, KilledWorker

    try:
        return future.result(timeout=_PATIENCE_SEC)
    except KilledWorker:
        return Killed()
    except (CancelledError, TimeoutError):
        raise StylebotError(
            f"STYLEBOT_DASK={address}: the connection is lost; what was done is remembered, run again"
        ) from None


def on_machines(
    function: Callable[[T], R], items: Mapping[int, T], address: str
) -> Iterator[tuple[int, R | Killed]]:
    """(index, function(item)) of every item, as they finish, worked on by the cluster at `address`.

    Files that the items name must be there under the same path on every machine. When a worker is lost, its
    items are given to others; one that took several workers with it gives Killed. An exception of `function`
    is raised here. Raises StylebotError when there is no such cluster, or it is lost.
    Not by joblib's dask backend: it waits for ever for an item whose workers died.
    """
    with _connected(address) as client:
        waiting, running = iter(items.items()), {}
        while True:
            room = _AHEAD * max(1, len(client.nthreads())) - len(running)
            for index, item in islice(waiting, max(0, room)):
                running[client.submit(function, item, pure=False)] = index
            if not running:
                return
            for future in _finished(client, list(running), address):
                yield running.pop(future), _outcome(future, address)
