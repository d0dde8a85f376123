"""The tool `compare.py`: which differences between two runs are real, and which are noise."""

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import RevError, resolve_rev
from ruamel.yaml import YAML

from stylebot.differences import Number, differences, numbers_of
from stylebot.errors import StylebotError
from stylebot.params import STAGES
from stylebot.tables import TABLES, intervals

_NOTE = ("pack_heldout", "pack_resolution")  # where these differ, distances to held-out faces do too


@dataclass(frozen=True)
class Run:
    """A run's metrics by name, and the tables that are at hand, by path."""

    values: dict[str, object]
    tables: dict[str, bytes]

    def numbers(self) -> dict[str, Number]:
        """Every number with its interval, if it has one."""
        return numbers_of(self.values, intervals(self.tables, self.values))


def _run(read: Callable[[str], bytes | None], table: Callable[[str], bytes | None], who: str) -> Run:
    """A run from what `read` gives for metrics/STAGE.json and `table` for each table, None if absent."""
    values: dict[str, object] = {}
    for stage in STAGES:
        if (content := read(f"metrics/{stage}.json")) is not None:
            try:
                values |= json.loads(content)
            except ValueError as error:
                raise StylebotError(f"{who}: metrics/{stage}.json is damaged: {error}") from None
    if not values:
        raise StylebotError(f"{who} holds no numbers: no metrics/*.json there")
    found = {path: content for path in TABLES if (content := table(path)) is not None}
    return Run(values, found)


def _folder(path: Path) -> Path | None:
    """The workspace whose folder of metrics `path` is or holds; None for any other path."""
    if not path.is_dir():
        return None
    if any((path / "metrics" / f"{stage}.json").is_file() for stage in STAGES):
        return path
    return path.resolve().parent if path.resolve().name == "metrics" and any(path.glob("*.json")) else None


def _file(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@contextmanager
def _workspace() -> Iterator[Repo]:
    try:
        with Repo() as repo:
            yield repo
    except DvcException as error:
        raise StylebotError(f"{error}: run inside the workspace") from None


def _shown(root: str, revision: str, path: str) -> bytes | None:
    """A file as git holds it at a revision."""
    words = ["git", "show", f"{revision}:./{path}"]
    done = subprocess.run(words, cwd=root, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _cached(cache: Path, md5: str) -> bytes | None:
    """An object of DVC's cache; None when it is not here or damaged."""
    content = _file(cache / "files" / "md5" / md5[:2] / md5[2:])
    whole = content is not None and hashlib.md5(content).hexdigest() == md5.partition(".")[0]
    return content if whole else None


def _output(lock: bytes | None, cache: Path, path: str) -> bytes | None:
    """An output, or a file in one, as dvc.lock records it, from the cache alone: no remote is asked."""
    stages = (YAML(typ="safe").load(lock) or {}).get("stages", {}) if lock else {}
    for out in (out for stage in stages.values() for out in stage.get("outs", ())):
        if out["path"] == path:
            return _cached(cache, out["md5"])
        if path.startswith(f"{out['path']}/") and (listed := _cached(cache, out["md5"])):
            inside = {entry["relpath"]: entry["md5"] for entry in json.loads(listed)}
            name = path[len(out["path"]) + 1 :]
            return _cached(cache, inside[name]) if name in inside else None
    return None


def read_run(name: str) -> Run:
    """The numbers of a folder, a git revision or a DVC experiment.

    A folder is a workspace or its metrics/. Of a revision, metrics and dvc.lock come from git, tables from
    DVC's cache if they are there.
    Raises StylebotError for a name that is none of these, and for a run without numbers.
    """
    if (root := _folder(Path(name))) is not None:
        return _run(lambda path: _file(root / path), lambda path: _file(root / path), name)
    with _workspace() as repo:
        try:
            revision = resolve_rev(repo.scm, name)
        except RevError:
            raise StylebotError(f"{name!r} is no folder with metrics, no git revision and no experiment; "
                                "`dvc exp list` names experiments") from None  # fmt: skip
        shown = {path: _shown(repo.root_dir, revision, path)
                 for path in ("dvc.lock", *(f"metrics/{stage}.json" for stage in STAGES))}  # fmt: skip
        # the cache's own folder: local.path ends with files/md5 since DVC 3
        cache = Path(repo.cache.local.path).parents[1]
        return _run(shown.get, lambda path: _output(shown["dvc.lock"], cache, path), name)


def compare(a: str, b: str) -> list[str]:
    """One line for each number with an interval, the most important first, and what was left out.

    Raises StylebotError as `read_run` does.
    """
    first, second = read_run(a), read_run(b)
    found, undecided = differences(first.numbers(), second.numbers())
    lines = [str(difference) for difference in found]
    for name in _NOTE:
        if (one := first.values.get(name)) != (other := second.values.get(name)):
            lines.append(f"careful: {name} is {one} and {other}; distances are of different held-out faces")
    if undecided:
        lines.append(f"no interval, so no verdict: {', '.join(undecided)}")
    if not found:
        lines.append("neither run has intervals; `dvc metrics diff` shows the plain numbers")
    return lines
