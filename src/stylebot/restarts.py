"""Restart state: written whole under scratch, checksummed, the last two kept, refused to another run.

And the wish to stop, which is when a run should write one."""

import hashlib
import io
import json
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from stylebot.files import scratch, write_bytes


class Restarts:
    """The saved states of one kind of run ("train") with one fingerprint (everything that it depends on).

    A state of another fingerprint is never loaded; `other` says that one was found and set aside.
    """

    def __init__(self, kind: str, fingerprint: Mapping[str, object]) -> None:
        text = json.dumps(fingerprint, sort_keys=True, default=str)
        self.folder = scratch() / "restarts" / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.other = any(p != self.folder for p in self.folder.parent.glob(f"{kind}-*"))
        self.damaged: list[str] = []

    def save(self, progress: int, state: dict) -> None:
        """Write `state` (tensors and plain values) as the newest; the one before it stays."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        newest = self.folder / f"{progress:012d}.pt"
        write_bytes(newest, hashlib.sha256(content).digest() + content)
        paths = self._paths()
        place = paths.index(newest)  # what is later was damaged: this run has come from before it
        for path in paths[:place] + paths[place + 2 :]:
            path.unlink()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.pt"), reverse=True)

    def newest(self) -> dict | None:
        """The newest whole state, or None; damaged ones are passed over and named in `damaged`."""
        for path in self._paths():
            stored = path.read_bytes()
            if hashlib.sha256(stored[32:]).digest() == stored[:32]:
                return torch.load(io.BytesIO(stored[32:]), map_location="cpu", weights_only=True)
            self.damaged.append(path.name)
        return None

    def told(self, saved: dict | None) -> list[str]:
        """What a user should know of `saved`, which `newest` gave, line by line."""
        lines = [f"restart state {name} is damaged; taking the one before it" for name in self.damaged]
        if saved is not None:
            return [*lines, f"going on from {saved['cur_nimg'] / 1000:.2f} kimg"]
        anew = "the saved state is of other parameters, data or weights; starting anew"
        return [*lines, anew] if self.other else lines

    def folder_for(self, name: str) -> Path:
        """A folder beside the states for what else must survive a restart (live curves, grids)."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def clear(self) -> None:
        """Delete the states: the run has succeeded."""
        shutil.rmtree(self.folder, ignore_errors=True)


def copy_whole(source: Path, target: Path) -> None:
    """Every file below `source` to `target`, each whole or not at all.

    What a killed process has left half-written in either goes.
    """
    for stray in [path for folder in (source, target) for path in folder.rglob(".*.part")]:
        stray.unlink()
    for path in [path for path in source.rglob("*") if path.is_file()]:
        copy, content = target / path.relative_to(source), path.read_bytes()
        if not copy.exists() or copy.read_bytes() != content:
            write_bytes(copy, content)


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """A list that is no longer empty once SIGTERM or SIGINT has come."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: received.append(number))
              for number in (signal.SIGTERM, signal.SIGINT)}  # fmt: skip
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
