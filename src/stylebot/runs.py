"""A run's numbers and intervals: of a folder, of a git revision, of a DVC experiment."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import NoSCM, RevError, resolve_rev
from ruamel.yaml import YAML

from stylebot.differences import Number, numbers_of
from stylebot.errors import StylebotError
from stylebot.params import STAGES
from stylebot.tables import TABLES, intervals

_COMMITS = 50  # so many commits of metrics are looked at


@dataclass(frozen=True)
class Run:
    """A run's metrics by name, the tables that are at hand, by path, and what to call it."""

    values: dict[str, object]
    tables: dict[str, bytes]
    name: str = ""

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
            except (ValueError, TypeError) as error:
                raise StylebotError(f"{who}: metrics/{stage}.json is damaged: {error}") from None
    return Run(values, {path: content for path in TABLES if (content := table(path)) is not None})


def _folder(path: Path) -> Path | None:
    """The workspace whose folder of metrics `path` is or holds; None for any other path."""
    here = path.resolve()
    for root in (here, here.parent) if here.name == "metrics" else (here,):
        if any((root / "metrics" / f"{stage}.json").is_file() for stage in STAGES):
            return root
    return None


def _file(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _shown(root: str, revision: str, path: str) -> bytes | None:
    """A file as git holds it at a revision."""
    words = ["git", "show", f"{revision}:./{path}"]
    done = subprocess.run(words, cwd=root, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _cached(cache: Path, md5: str) -> bytes | None:
    """An object of DVC's cache; None when it is not here or damaged."""
    content = _file(cache / md5[:2] / md5[2:])
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


def _at(repo: Repo, revision: str, who: str) -> Run:
    """The run of a commit: metrics and dvc.lock from git, tables from DVC's cache if they are there."""
    shown = {path: _shown(repo.root_dir, revision, path)
             for path in ("dvc.lock", *(f"metrics/{stage}.json" for stage in STAGES))}  # fmt: skip
    cache = Path(repo.cache.local.path)
    return _run(shown.get, lambda path: _output(shown["dvc.lock"], cache, path), who)


def read_run(name: str) -> Run:
    """The numbers of a folder (a workspace or its metrics/), a git revision or a DVC experiment.

    Raises StylebotError for a name that is none of these, and for a run without numbers.
    """
    if (root := _folder(Path(name))) is not None:
        found = _run(lambda path: _file(root / path), lambda path: _file(root / path), name)
    else:
        try:
            with Repo() as repo:
                found = _at(repo, resolve_rev(repo.scm, name), name)
        except RevError:
            raise StylebotError(f"{name!r} is no folder with metrics, no git revision and no experiment; "
                                "`dvc exp list` names experiments") from None  # fmt: skip
        except DvcException as error:
            raise StylebotError(f"{name}: {error}") from None
    if not found.values:
        raise StylebotError(f"{name} holds no numbers: no metrics/*.json there")
    return found


def run_before(values: dict[str, object]) -> Run | None:
    """The run of the last commit whose numbers are not `values`; None where git knows no such commit.

    So what is compared with it stays the same when `values` are committed. None as well outside a workspace,
    outside git, and in a clone without history, such as `git clone --depth 1`.
    """
    try:
        with Repo() as repo:
            if isinstance(repo.scm, NoSCM):
                return None
            words = ["git", "log", "--first-parent", f"-{_COMMITS}", "--format=%H %h", "--", "metrics"]
            listed = subprocess.run(words, cwd=repo.root_dir, capture_output=True, text=True, check=False)
            for line in listed.stdout.splitlines():
                commit, short = line.split()
                found = _at(repo, commit, short)
                if found.values and found.values != values:
                    return replace(found, name=short)
    except DvcException:  # no workspace of DVC
        return None
    return None
