"""In the place of a stage while the README is tested: its declared outputs, made of its inputs in a moment.

Called by DVC as the stage's own command would be (see guide.py); everything around the stage is real.
"""

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

from ruamel.yaml import YAML

START = Path("stages/weights/base64.safetensors")


def read(path: str) -> dict:
    return YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))


def names(entries: list | None) -> list[str]:
    """Paths of deps or outs, without what is said of them."""
    return [next(iter(e)) if isinstance(e, dict) else e for e in entries or ()]


def entry(pipeline: dict, name: str) -> dict:
    """The stage `name` (or fetch@key) of dvc.yaml, its ${} replaced."""
    stage, _, key = name.partition("@")
    found = pipeline["stages"][stage]
    if not key:
        return found
    text = json.dumps(found["do"]).replace("${key}", key)
    for field, value in found["foreach"][key].items():
        text = text.replace(f"${{item.{field}}}", value)
    return json.loads(re.sub(r"\$\{([\w.]+)\}", lambda m: str(param(m[1])), text))


def param(name: str) -> object:
    """The value of a dotted name in params.yaml."""
    return reduce(lambda data, key: data[key], name.split("."), read("params.yaml"))


def digest(stage: dict) -> bytes:
    """sha256 of the parameters and of every input. Raises FileNotFoundError for one that is not here."""
    found = hashlib.sha256()
    for name in stage.get("params", ()):
        found.update(f"{name}={json.dumps(param(name))}".encode())
    for path in sorted(map(Path, names(stage["deps"]))):
        if not path.exists():
            raise FileNotFoundError(path)
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            found.update(file.read_bytes() if file.is_file() else b"")
    return found.digest()


def png(colour: bytes) -> bytes:
    """A picture of one pixel."""
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + colour[:3])) \
        + chunk(b"IEND", b"")  # fmt: skip


def plots(pipeline: dict) -> Iterator[tuple[str, str]]:
    """(file, column) of each curve, and (picture or folder of pictures, nothing)."""
    for plot in pipeline["plots"]:
        if isinstance(plot, str):
            yield plot, ""
        else:
            for file, settings in plot.items():
                column = settings["y"]
                yield from column.items() if isinstance(column, dict) else [(file, column)]


def within(pipeline: dict, folder: Path) -> Iterator[Path]:
    """Files in an output folder that other stages read."""
    for stage in pipeline["stages"].values():
        yield from (p for p in map(Path, names(stage.get("do", stage)["deps"])) if folder in p.parents)


def networks(made_of: bytes) -> bytes:
    """The sample's start weights with a note of what they were made of, so that each are others."""
    content = START.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = header.get("__metadata__", {}) | {"made_of": made_of.hex()}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def make(path: Path, made_of: bytes) -> None:
    """One file: a picture, networks that can be loaded, or bytes that depend on the inputs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        path.write_bytes(png(made_of))
    elif path.name in ("networks.safetensors", "generator.safetensors"):
        path.write_bytes(networks(made_of))
    else:
        path.write_text(f"{path} of {made_of.hex()}\n")


def numbers(path: Path, made_of: bytes) -> None:
    """The metrics of the last commit, moved by up to a percent."""
    said = subprocess.run(["git", "show", f"HEAD:{path}"], check=True, capture_output=True).stdout
    factor = 1 + made_of[0] / 25_500
    values = {k: v * factor if isinstance(v, float) else v for k, v in json.loads(said).items()}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def main() -> None:
    pipeline = read("dvc.yaml")
    stage = entry(pipeline, os.environ["DVC_STAGE"])
    made_of = digest(stage)
    for path in map(Path, names([*stage.get("outs", ()), *stage.get("plots", ())])):
        if path.suffix:
            make(path, made_of)
            continue
        make(path / ("0.png" if path.name == "progress" else "made_of.txt"), made_of)
        for file in within(pipeline, path):
            make(file, made_of)
        for file, column in plots(pipeline):
            if path in Path(file).parents:
                make(Path(file), made_of)
                if column:
                    Path(file).write_text(f"step\t{column}\n0\t1\n1000\t{made_of[1] / 255:.3f}\n")
    for path in names(stage.get("metrics")):
        numbers(Path(path), made_of)


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(f"no such file or folder: {error}")
