"""The aligned faces that stage `align` wrote, one by one."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from stylebot.errors import StylebotError


def decoded(png: bytes) -> np.ndarray:
    """The picture in `png`, uint8 [N,N,3]."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


class AlignedFaces:
    """The crops of stage `align`, by row of its table. Raises StylebotError for a missing or damaged zip."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._zips: dict[str, zipfile.ZipFile] = {}

    def png(self, row: Mapping[str, object]) -> bytes:
        """The PNG bytes of one face."""
        source = str(row["source"])
        try:
            if source not in self._zips:
                self._zips[source] = zipfile.ZipFile(self._folder / f"{source}.zip")
            return self._zips[source].read(f"{row['face_id']}.png")
        except (OSError, zipfile.BadZipFile, KeyError) as error:
            where = f"{self._folder}/{source}.zip: {row['face_id']}.png"
            raise StylebotError(f"{where} cannot be read ({error}); run align again") from None

    def rgb(self, row: Mapping[str, object]) -> np.ndarray:
        """The crop of one face, uint8 [N,N,3]."""
        return decoded(self.png(row))
