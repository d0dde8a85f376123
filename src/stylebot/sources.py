"""Every file of the photo folders: PHOTOS/NAME/... and PHOTOS/NAME.zip are the photos of source NAME."""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from stylebot.errors import StylebotError
from stylebot.photos import MAX_FILE_BYTES, PhotoError, check_file

CONSENT = "consent.csv"  # in a source's folder, about its photos; see stylebot.consent
_NOT_SOURCES = (".dvc", ".csv", ".md", ".txt", ".json")  # what may lie beside the source folders


@dataclass(frozen=True, order=True)
class Item:
    """One file of a source. `photo` is its name below the source, printable UTF-8 with forward slashes."""

    source: str
    photo: str
    path: Path  # the file, or the zip that holds it
    member: int = -1  # its number in the zip

    def check(self) -> None:
        """Raises PhotoError when this is no file to read."""
        if self.member < 0:
            check_file(self.path)
        elif _members(self.path)[self.member].file_size > MAX_FILE_BYTES:
            raise PhotoError("too_large", f"larger than {MAX_FILE_BYTES >> 30} GiB in the zip")

    def read(self) -> bytes:
        """The file's bytes. Raises PhotoError for what cannot be read."""
        self.check()
        if self.member < 0:
            try:
                return self.path.read_bytes()
            except OSError as error:
                raise PhotoError("unreadable", error.strerror or str(error)) from None
        try:
            return _archive(self.path).read(_members(self.path)[self.member])
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
            raise PhotoError("unreadable", f"in the zip: {error}") from None


@lru_cache(maxsize=8)
def _archive(path: Path) -> zipfile.ZipFile:
    """The zip, opened once per process (its directory may be long)."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise StylebotError(f"{path} is not a readable zip of photos: {error}") from None


@lru_cache(maxsize=8)
def _members(path: Path) -> list[zipfile.ZipInfo]:
    return [info for info in _archive(path).infolist() if not info.is_dir()]


def _text(name: str) -> str:
    """A file name as printable text that any table can hold (names may be bytes that are no UTF-8)."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below `folder` that is not a folder; links to folders are not entered but listed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise StylebotError(f"{folder} cannot be listed: {error.strerror}") from None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


def list_photos(photos: Path) -> list[Item]:
    """All files of all sources, sorted by source and name.

    Raises StylebotError when there is no source, a source is there twice, or photos lie outside any source.
    """
    if not photos.is_dir():
        raise StylebotError(f"{photos} is not a folder: it should hold one folder of photos per source")
    items: list[Item] = []
    sources: set[str] = set()
    stray = []
    for path in sorted(photos.iterdir()):
        if path.name.startswith(".") or path.suffix in _NOT_SOURCES:
            continue
        zipped = path.suffix.lower() == ".zip" and path.is_file()
        if not zipped and not path.is_dir():
            stray.append(path.name)
            continue
        source = _text(path.stem if zipped else path.name)
        if source in sources:
            raise StylebotError(f"{photos} holds both a folder and a zip named {source}: keep one")
        sources.add(source)
        path = path.absolute()
        if zipped:
            names = [info.filename for info in _members(path)]
            if CONSENT in names:
                raise StylebotError(f"{path} holds {CONSENT}: put it beside the zip as {path.stem}.{CONSENT}")
            items += [Item(source, _text(name), path, number) for number, name in enumerate(names)]
        else:
            items += [Item(source, _text(file.relative_to(path).as_posix()), file) for file in _walk(path)
                      if file != path / CONSENT]
    if stray:
        raise StylebotError(f"{photos}: {len(stray)} files such as {stray[0]!r} lie outside any source: each "
                            f"source is a folder of photos, such as {photos / 'NAME'}, or a zip of them")
    if not items:
        found = f"its folders {', '.join(sorted(sources))} are empty" if sources else "it holds no folder"
        raise StylebotError(f"no photos in {photos}: {found}; put photos into {photos / 'NAME'}/")
    return sorted(items)
