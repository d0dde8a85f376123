"""Files that are whole or absent: atomic writes, JSON metrics, deterministic zips, scratch and memo."""

import errno
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FULL_BYTES = 64 << 10  # a disk with less left counts as full


def disk_is_full(error: Exception) -> bool:
    """Whether `error` says that there is no space left; libraries say so in errors of their own types."""
    return getattr(error, "errno", None) in _NO_SPACE or os.strerror(errno.ENOSPC) in str(error)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed into place on success, removed on failure.

    Raises OSError (ENOSPC, with the path) when the disk is full, whatever the writer made of that:
    torch.save, for one, only says that it stands at an unexpected position.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.touch()  # where that is not allowed, Python says so with the path, which not every writer does
    part.unlink()
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except Exception as error:
        unclear = not isinstance(error, OSError) and shutil.disk_usage(path.parent).free < _FULL_BYTES
        if unclear or disk_is_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """`content` under the name `path`, whole or not at all."""
    with atomic(path) as part:
        part.write_bytes(content)


def _rounded(value: object) -> object:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """A flat metrics file: sorted keys, floats to five significant digits, one trailing newline.

    Raises ValueError for a number that JSON lacks (NaN, infinity): a metric that cannot be computed is
    left out or is an error, never a NaN that `dvc metrics diff` would carry on.
    """
    flat = {key: _rounded(value) for key, value in values.items()}
    text = json.dumps(flat, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path) -> dict:
    """What `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """An uncompressed zip whose bytes depend on the members alone (fixed date, given order, fixed mode)."""
    with atomic(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16  # 3: Unix, whatever the system
            archive.writestr(info, content)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scratch() -> Path:
    """Where restart state and memos live: $STYLEBOT_SCRATCH, else .scratch/ of the main work tree.

    Experiments of `dvc exp run --temp` and `--queue` run in clones below MAIN/.dvc/tmp/exps, which DVC
    deletes; what they must not lose goes to MAIN.
    """
    chosen = os.environ.get("STYLEBOT_SCRATCH")
    if chosen:
        return Path(chosen)
    here = Path.cwd().resolve()
    for parent in here.parents:
        if parent.name == "exps" and parent.parent.name == "tmp" and parent.parent.parent.name == ".dvc":
            return parent.parents[2] / ".scratch"
    return here / ".scratch"


class Memo:
    """Remembers bytes by key under scratch; every entry carries its sha256, a damaged one is a miss.

    `kind` names a folder; `identity` is everything besides the key that the value depends on (parameters,
    code version, model hashes), so that another identity never meets old values.
    """

    def __init__(self, kind: str, identity: Mapping[str, object]) -> None:
        text = json.dumps(identity, sort_keys=True, default=str)
        self.folder = scratch() / kind / hashlib.sha256(text.encode()).hexdigest()[:16]

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def get(self, key: str) -> bytes | None:
        """The remembered bytes, or None."""
        try:
            stored = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        digest, content = stored[:32], stored[32:]
        return content if hashlib.sha256(content).digest() == digest else None

    def put(self, key: str, content: bytes) -> None:
        """Remember `content` under `key` (hex text)."""
        write_bytes(self._path(key), hashlib.sha256(content).digest() + content)
