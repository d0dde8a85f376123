"""The dataset zip of stylegan2-ada-pytorch and stylegan3: uncompressed PNGs and dataset.json."""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from stylebot.errors import StylebotError
from stylebot.files import write_zip

_DAMAGE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, SyntaxError, ValueError)
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def png_bytes(rgb: np.ndarray, level: int = 0) -> bytes:
    """A PNG without metadata of `rgb` [H, W, 3] or [H, W] uint8; level 0 stores, 9 is smallest."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def write_dataset(path: Path, rgbs: Iterable[np.ndarray]) -> list[str]:
    """Write pictures [R, R, 3] uint8 (R a power of two) as a dataset zip without labels; returns names."""
    names: list[str] = []

    def members() -> Iterable[tuple[str, bytes]]:
        for index, rgb in enumerate(rgbs):
            name = f"{index:08d}"
            names.append(f"{name[:5]}/img{name}.png")
            yield names[-1], png_bytes(rgb)
        yield "dataset.json", json.dumps({"labels": None}).encode()

    write_zip(path, members())
    return names


class Dataset:
    """A dataset zip: square uint8 pictures of one power-of-two resolution, in the order of their names.

    Raises StylebotError when the zip is missing, damaged, empty, or its pictures differ in shape.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
            members = self._zip.namelist()
        except (OSError, zipfile.BadZipFile) as error:
            raise StylebotError(f"{path} is not a readable dataset zip: {error}") from None
        self.names = sorted(n for n in members if Path(n).suffix.lower() in PICTURES)
        if not self.names:
            raise StylebotError(f"{path} holds no pictures")
        self.channels, self.resolution, width = self.read(0).shape
        if self.resolution != width or self.resolution & (self.resolution - 1):
            found = f"{width}x{self.resolution}"
            raise StylebotError(f"{path}: pictures must be square and a power of two, not {found}")

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        """Picture `index` as [C, R, R] uint8."""
        name = self.names[index]
        try:
            with self._zip.open(name) as file, Image.open(file) as image:
                pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        except _DAMAGE as error:
            raise StylebotError(f"{self.path}: {name} is damaged: {error}") from None
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def read_all(self) -> np.ndarray:
        """All pictures as [N, C, R, R] uint8."""
        pictures = [self.read(i) for i in range(len(self))]
        odd = [n for n, p in zip(self.names, pictures, strict=True) if p.shape != pictures[0].shape]
        if odd:
            raise StylebotError(f"{self.path}: {odd[0]} has another shape than {self.names[0]}")
        return np.stack(pictures)

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over names and stored checksums: equal for equal pictures, wherever the zip lies."""
        members = [self._zip.getinfo(name) for name in self.names]
        stored = [(m.filename, m.CRC, m.file_size) for m in members]
        return hashlib.sha256(json.dumps(stored).encode()).hexdigest()
