"""What align says about photos and faces: an entry per photo, and the rows of its two tables."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stylebot.cli import one_line
from stylebot.errors import StylebotError
from stylebot.files import Memo, atomic
from stylebot.photos import PhotoError
from stylebot.sources import Item

_FLOAT, _INT, _TEXT = pa.float64(), pa.int64(), pa.string()
FACES_SCHEMA = pa.schema(
    [(name, _TEXT) for name in ("face_id", "source", "photo", "sha256")]
    + [(name, _INT) for name in ("face_index", "n_faces")]
    + [(name, _FLOAT) for name in ("det_score", "x0", "y0", "x1", "y1")]
    + [("landmarks", pa.list_(_FLOAT))]
    + [(name, _FLOAT) for name in ("ied_px", "qsize_px", "scale", "roll_deg", "pad_fraction",
                                   "second_area_ratio", "center_x", "center_y", "quad_x", "quad_y")]
    + [(name, _INT) for name in ("orientation", "rotated_deg", "width_px", "height_px")]
    + [("grey", pa.bool_()), ("flags", _TEXT)])
PHOTOS_SCHEMA = pa.schema([("source", _TEXT), ("photo", _TEXT), ("sha256", _TEXT), ("outcome", _TEXT),
                           ("detail", _TEXT), ("n_faces", _INT)])


@dataclass(frozen=True)
class Entry:
    """What became of one photo's bytes: `outcome` "faces" or a reason, the faces' rows and their PNGs."""

    outcome: str
    detail: str
    rows: list[dict] = field(default_factory=list)
    pngs: list[bytes] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """One line of JSON, then the PNGs one after another."""
        sizes = [len(png) for png in self.pngs]
        head = {"outcome": self.outcome, "detail": self.detail, "rows": self.rows, "sizes": sizes}
        return json.dumps(head).encode() + b"\n" + b"".join(self.pngs)

    @staticmethod
    def from_bytes(content: bytes) -> "Entry":
        """The inverse of `to_bytes`."""
        line, _, rest = content.partition(b"\n")
        head, pngs, start = json.loads(line), [], 0
        for length in head["sizes"]:
            pngs.append(rest[start : start + length])
            start += length
        return Entry(head["outcome"], head["detail"], head["rows"], pngs)


class Tables:
    """The rows of both tables, gathered while the zips are written."""

    def __init__(self, memo: Memo, first: dict[str, Item], passing: dict[str, Entry]) -> None:
        self._memo, self._first, self._passing = memo, first, passing
        self.faces: list[dict] = []
        self.photos: list[dict] = []

    def _entry(self, item: Item, digest: str | PhotoError) -> Entry:
        if isinstance(digest, PhotoError):
            return Entry(digest.reason, digest.detail)
        first = self._first[digest]
        if first is not item:
            return Entry("duplicate", f"the same bytes as {first.source}/{first.photo}")
        if digest in self._passing:
            return self._passing[digest]
        content = self._memo.get(digest)
        if content is None:
            raise StylebotError(f"{self._memo.folder} lost what was just written there; run align again")
        return Entry.from_bytes(content)

    def members(self, files: list[tuple[Item, str | PhotoError]]) -> Iterator[tuple[str, bytes]]:
        """The PNGs of one source's faces, named; fills the rows of both tables on the way."""
        for item, digest in files:
            entry = self._entry(item, digest)
            sha256 = digest if isinstance(digest, str) else ""
            about = {"source": item.source, "photo": item.photo, "sha256": sha256}
            self.photos.append(about | {"outcome": entry.outcome, "detail": one_line(entry.detail),
                                        "n_faces": len(entry.rows)})
            for index, (row, png) in enumerate(zip(entry.rows, entry.pngs, strict=True)):
                face_id = f"{sha256[:16]}-{index}"
                self.faces.append(about | row | {"face_id": face_id, "face_index": index})
                yield f"{face_id}.png", png


def write_table(path: Path, rows: list[dict], schema: pa.Schema) -> None:
    """Rows as parquet with fixed columns, whole or not at all."""
    with atomic(path) as part:
        pq.write_table(pa.Table.from_pylist(rows, schema), part)
