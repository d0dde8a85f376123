"""The tool `verify.py`: objects of DVC's cache and remotes, read and hashed again."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvc.exceptions import DvcException
from dvc.fs import RemoteMissingDepsError
from dvc.repo import Repo
from rich.console import Console
from rich.progress import track

from stylebot.cli import one_line
from stylebot.errors import StylebotError

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc_data.hashfile.db import HashFileDB

_CHUNK_BYTES = 1 << 20
WHOLE, DAMAGED, ABSENT = "whole", "damaged", "absent"


@dataclass(frozen=True)
class Store:
    """A place with objects: the cache, or a remote by its name."""

    name: str
    odb: "HashFileDB"
    is_cache: bool

    def path(self, oid: str) -> str:
        """Where object `oid` lies in this store."""
        return self.odb.oid_to_path(oid)

    def chunks(self, oid: str) -> Iterator[bytes]:
        """The object's bytes. Raises FileNotFoundError, and StylebotError when the store cannot be read."""
        try:
            with self.odb.fs.open(self.path(oid), "rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError:
            raise
        except Exception as error:  # each protocol's library has errors of its own
            raise StylebotError(f"{self.name}: cannot read {self.path(oid)}: {one_line(error)}") from error

    def digest(self, oid: str) -> str:
        """Hex md5 of the object's bytes, which is its name if it is whole. Raises as `chunks`."""
        digest = hashlib.md5()
        for chunk in self.chunks(oid):
            digest.update(chunk)
        return digest.hexdigest()

    def state(self, oid: str) -> str:
        """WHOLE, DAMAGED (the bytes do not have the md5 that is their name) or ABSENT."""
        try:
            return WHOLE if self.digest(oid) == oid.partition(".")[0] else DAMAGED
        except FileNotFoundError:
            return ABSENT

    def accepts(self, out: "Output") -> bool:
        """Whether DVC keeps the objects of `out` here."""
        if self.is_cache:
            return True
        elsewhere = out.remote is not None and out.remote != self.name
        return out.can_push and not elsewhere and not out.stage.is_repo_import


def members(stores: list[Store], oid: str) -> list[dict] | None:
    """The files that a folder's object lists, from the first store that has it whole; None when none has."""
    for store in stores:
        try:
            content = b"".join(store.chunks(oid))
        except FileNotFoundError:
            continue
        if hashlib.md5(content).hexdigest() == oid.partition(".")[0]:
            return json.loads(content)
    return None


def referenced(outs: list[tuple[str, "Output"]], stores: list[Store]) -> dict[str, dict[str, list[str]]]:
    """For each store's name, object -> the paths that need it; files of folders included."""
    wanted: dict[str, dict[str, list[str]]] = {store.name: {} for store in stores}
    for path, out in outs:
        info = out.hash_info
        if not (out.use_cache and info and info.name == "md5" and info.value):
            continue
        files = members(stores, info.value) or () if info.isdir else ()
        objects = [(info.value, path), *((f["md5"], f"{path}/{f['relpath']}") for f in files)]
        for store in stores:
            for oid, place in objects if store.accepts(out) else ():
                wanted[store.name].setdefault(oid, []).append(place)
    return wanted


def outputs(repo: Repo, all_commits: bool) -> list[tuple[str, "Output"]]:
    """Outputs of the workspace, and with `all_commits` of every commit in git, each with its path."""
    found: dict[tuple[str, str | None], Output] = {}
    for _ in repo.brancher(all_commits=all_commits):
        for out in repo.index.outs:
            # the root is "/" while DVC looks at a commit
            path = Path(out.fs_path).relative_to(repo.root_dir).as_posix()
            found.setdefault((path, out.hash_info.value if out.hash_info else None), out)
    return [(path, out) for (path, _), out in found.items()]


def stores_of(repo: Repo, cloud: bool, remotes: list[str]) -> list[Store]:
    """The cache, with `cloud` the default remote, and those named. Raises StylebotError for no remotes."""
    stores = [Store("cache", repo.cache.local, True)]
    default = repo.config["core"].get("remote")
    if cloud and not default:
        raise StylebotError("no default remote: name one with --remote, or `dvc remote default NAME`")
    for name in dict.fromkeys([*([default] if cloud else []), *remotes]):
        if name not in repo.config["remote"]:
            known = ", ".join(repo.config["remote"]) or "none"
            raise StylebotError(f"no remote {name!r}; configured: {known}")
        try:
            odb = repo.cloud.get_remote_odb(name, "verify")
        except (ImportError, RemoteMissingDepsError) as error:  # gs:// and others need packages of their own
            raise StylebotError(f"{name}: {one_line(error)}") from error
        stores.append(Store(name, odb, False))
    return stores


def check(store: Store, wanted: Mapping[str, list[str]]) -> dict[str, str]:
    """Object -> WHOLE, DAMAGED or ABSENT, for each object wanted of `store`."""
    console = Console(stderr=True)
    with ThreadPoolExecutor(max(1, min(8, store.odb.fs.jobs))) as pool:
        states = pool.map(store.state, wanted)
        shown = track(states, store.name, len(wanted), console=console, disable=not console.is_terminal)
        return dict(zip(wanted, shown, strict=True))


def _remove_from_cache(cache: Store, damaged: list[str], wanted: Mapping[str, list[str]], root: Path) -> None:
    """Delete damaged objects and what `dvc checkout` made of them, which DVC takes for unchanged."""
    for oid in damaged:
        digest = cache.digest(oid)
        for copy in (root / path for path in wanted[oid]):
            if copy.is_file() and hashlib.md5(copy.read_bytes()).hexdigest() == digest:
                copy.unlink()
        cache.odb.fs.remove(cache.path(oid))


def _remove_from_remote(store: Store, damaged: list[str], wanted: Iterable[str], stores: list[Store]) -> None:
    """Delete damaged objects, and the lists of folders that hold them.

    DVC takes a folder whose list is on the remote for complete, and would push nothing. The list itself is
    whole and stays in the cache, from where the next push brings it back.
    """
    cache, lists = stores[0], []
    for oid in wanted:
        files = members(stores, oid) if oid.endswith(".dir") else None
        if files and {f["md5"] for f in files} & set(damaged):
            if cache.state(oid) != WHOLE:
                cache.odb.add_bytes(oid, b"".join(store.chunks(oid)))
            lists.append(oid)
    for oid in dict.fromkeys([*lists, *damaged]):
        store.odb.fs.remove(store.path(oid))


def _report(store: Store, wanted: Mapping[str, list[str]], states: Mapping[str, str]) -> list[str]:
    """Print what was found in `store`; the damaged objects."""
    damaged = [oid for oid, state in states.items() if state == DAMAGED]
    for oid in damaged:
        print(f"{store.name}: damaged {wanted[oid][0]} ({store.path(oid)})")
    absent = [wanted[oid][0] for oid, state in states.items() if state == ABSENT]
    print(f"{store.name}: {len(states) - len(damaged) - len(absent)} of {len(states)} objects are whole")
    if absent:
        brings = "`dvc pull` brings them" if store.is_cache else "`dvc push` sends them"
        print(f"{store.name}: {len(absent)} are not there, such as {absent[0]}; {brings}")
    return damaged


def verify(cloud: bool, remotes: list[str], all_commits: bool, remove: bool) -> None:
    """Print the damaged objects of the cache and of remotes; with `remove`, delete them.

    Raises StylebotError when something is damaged, or a store cannot be read.
    """
    try:
        with Repo() as repo:
            stores = stores_of(repo, cloud, remotes)
            outs = outputs(repo, all_commits)
            wanted = referenced(outs, stores)
            found = {s: _report(s, wanted[s.name], check(s, wanted[s.name])) for s in stores}
            bad = {store: damaged for store, damaged in found.items() if damaged}
            for store, damaged in bad.items() if remove else ():
                if store.is_cache:
                    _remove_from_cache(store, damaged, wanted[store.name], Path(repo.root_dir))
                else:
                    _remove_from_remote(store, damaged, wanted[store.name], stores)
    except DvcException as error:
        raise StylebotError(one_line(error)) from error
    if bad:
        raise StylebotError(_advice(bad, remove))


def _advice(bad: Mapping[Store, list[str]], removed: bool) -> str:
    where = ", ".join(f"{len(oids)} in {store.name}" for store, oids in bad.items())
    ways = ("`dvc pull`" if s.is_cache else f"`dvc push -r {s.name}` from a whole copy" for s in bad)
    heal = " and ".join(ways)
    if removed:
        return f"damaged objects: {where}; deleted, now {heal}"
    return f"damaged objects: {where}; delete them with --remove, then {heal}"
