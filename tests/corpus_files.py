"""Writes the corpus: its pictures, odd names, and what is no ordinary file."""

import os
import socket
import unicodedata
from pathlib import Path

from corpus import FACE, PICTURES, Made, face, saved


def names() -> Made:
    hangul = "한국 사람"
    odd = (
        unicodedata.normalize("NFC", hangul),
        unicodedata.normalize("NFD", hangul),
        "two\nlines",
        "tab\tbed",
        "-rf",
        " ",
        "'quo\"ted'",
        "%s%d{0}",
        "back\\slash",
        "dots...",
        "\u202egnp.exe",
        "\U0001f600",
        "a" * 250,
        "가" * 83,
        "*?[x]",
        os.fsdecode(b"bad\xff\xfe"),
        "deep/" * 30 + "down",
    )
    for number, name in enumerate(odd):
        yield f"name/{number:02d}/{name}", saved(face(number, 256), "JPEG", quality=60 + number), FACE


def make(folder: Path) -> dict[str, set[str]]:
    """Write the corpus below `folder`; the allowed outcomes of each file by its name below it."""
    wanted: dict[str, set[str]] = {}
    for makers in (*PICTURES, names):
        for name, content, outcomes in makers():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            wanted[name] = outcomes
    wanted |= _special(folder / "special")
    return wanted


def _special(folder: Path) -> dict[str, set[str]]:
    outside = folder.parents[2] / "outside"
    outside.mkdir()
    (outside / "face.jpg").write_bytes(saved(face(5, 255), "JPEG", quality=77))
    folder.mkdir()
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path may have 107 bytes at most
        try:
            server.bind("socket.jpg")
        finally:
            os.chdir(here)
    links = {
        "dangling.jpg": "nowhere.jpg",
        "loop.jpg": "loop.jpg",
        "folder.jpg": outside,
        "face.jpg": outside / "face.jpg",
        "zero.jpg": "/dev/zero",
        "up.jpg": "../../../../../../../../etc/hostname-of-nobody",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "a.jpg").write_bytes(saved(face(1, 251), "JPEG"))
    (folder / "b.jpg").write_bytes(saved(face(1, 251), "JPEG"))
    return {
        f"special/{name}": {outcome}
        for name, outcome in {
            "pipe.jpg": "not_a_file",
            "socket.jpg": "not_a_file",
            "dangling.jpg": "missing",
            "loop.jpg": "unreadable",
            "folder.jpg": "not_a_file",
            "face.jpg": "faces",
            "zero.jpg": "not_a_file",
            "up.jpg": "missing",
            "a.jpg": "faces",
            "b.jpg": "duplicate",
        }.items()
    }
