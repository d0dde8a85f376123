"""Measure every aligned face once: quality components, perceptual hashes, identity; remembered by content."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from stylebot import confidence, duplicates, faces, fivepoints, photos, pose, quality
from stylebot.crops import AlignedFaces
from stylebot.errors import StylebotError
from stylebot.files import Memo, sha256_file
from stylebot.sources import Item, list_photos
from stylebot.workers import Crash, each


@dataclass(frozen=True)
class Inspection:
    """What is known of a face: native `measures`, hashes of crop and mirror image, fingerprint, embedding.

    fingerprint: float16 [48,48], see stylebot.duplicates, 230 MB of 50,000 faces; embedding: float32 [128]
    """

    measures: dict[str, float]
    hash: int
    mirrored: int
    fingerprint: np.ndarray
    embedding: np.ndarray

    def to_bytes(self) -> bytes:
        """As JSON."""
        arrays = (self.fingerprint.astype("<f2"), self.embedding.astype("<f4"))
        packed = (base64.b64encode(array.tobytes()).decode() for array in arrays)
        return json.dumps([self.measures, self.hash, self.mirrored, *packed]).encode()

    @staticmethod
    def from_bytes(content: bytes) -> "Inspection":
        """The inverse of `to_bytes`."""
        measures, straight, mirrored, *packed = json.loads(content)
        fine, vector = map(base64.b64decode, packed)
        fingerprint = np.frombuffer(fine, "<f2").reshape(duplicates.PRINT_PX, duplicates.PRINT_PX)
        return Inspection(measures, straight, mirrored, fingerprint, np.frombuffer(vector, "<f4"))


@dataclass(frozen=True)
class _Job:
    row: dict
    aligned: Path
    written: tuple[int, ...]  # tells this run's zips from those of another run under the same name
    photo: Item
    identity: Path


@lru_cache(maxsize=1)
def _recogniser(path: Path) -> faces.Identity:
    return faces.Identity(path)


@lru_cache(maxsize=1)
def _crops(aligned: Path, written: tuple[int, ...]) -> AlignedFaces:
    return AlignedFaces(aligned)


def crop_landmarks(row: Mapping[str, object], side_px: int) -> np.ndarray:
    """Landmarks [68 or 5,2] float64 in px of a face's crop of `side_px`, from its row of the align table."""
    points = np.asarray(row["landmarks"], np.float64).reshape(-1, 2) - (row["center_x"], row["center_y"])
    half = np.array([row["quad_x"], row["quad_y"]])
    down = np.array([-half[1], half[0]])
    shares = np.stack([points @ half, points @ down], axis=1) / float(half @ half)
    return (shares + 1.0) * side_px / 2 - 0.5


def _native_blockiness(job: _Job) -> float:
    """Blockiness of the face's box in the pixels of the photo, as far as the crop can show it.

    Measured before any resampling. Blocks of a photo that is shrunk more than twofold are smaller than 4 px
    of the crop and fade with its scale (ours).
    """
    row = job.row
    photo = photos.read_photo(job.photo.read(), row["width_px"] * row["height_px"])
    picture = faces.turned(photo.picture, row["rotated_deg"])
    box = np.rint([row["x0"], row["y0"], row["x1"], row["y1"]]).clip(0, [*picture.size] * 2).astype(int)
    native = quality.blockiness(np.asarray(picture.crop(tuple(box.tolist())).convert("L")))
    return 1.0 + (native - 1.0) * min(1.0, 2.0 * row["scale"])


def _inspect(job: _Job) -> Inspection:
    rgb = _crops(job.aligned, job.written).rgb(job.row)
    measures = asdict(quality.measure(rgb, crop_landmarks(job.row, rgb.shape[0])))
    measures["face_score"] = confidence.face_score(rgb)
    measures["blockiness"] = _native_blockiness(job)
    measures["head_share"] = measures["chin_distance"] * job.row["qsize_px"] / job.row["height_px"]
    embedding = _recogniser(job.identity).embed([rgb])[0]
    straight, mirrored = (duplicates.perceptual_hash(side) for side in (rgb, rgb[:, ::-1]))
    return Inspection(measures, straight, mirrored, duplicates.fingerprint(rgb), embedding)


def _code_version() -> str:
    modules = (confidence, duplicates, faces, fivepoints, photos, pose, quality)
    text = [sha256_file(Path(path)) for path in (__file__, *(module.__file__ for module in modules))]
    return " ".join(text + [version(name) for name in ("pillow", "dlib-bin", "numpy", "scipy")])


def _key(row: Mapping[str, object], png: bytes) -> str:
    place = [list(row["landmarks"])] + [row[n] for n in ("center_x", "center_y", "quad_x", "quad_y",
                                                         "x0", "y0", "x1", "y1")]
    text = json.dumps([row["face_id"], hashlib.sha256(png).hexdigest(), place])
    return hashlib.sha256(text.encode()).hexdigest()


def inspect(rows: Sequence[dict], aligned: Path, photo_folder: Path,
            identity: Path) -> list[Inspection | Crash]:
    """Inspect the faces of the align table's `rows`, in processes, with a progress bar; in the rows' order.

    Faces inspected before (same crop, landmarks, code and model) are remembered under the scratch folder;
    embeddings are kept nowhere else. A face whose process dies gives a Crash.
    Raises StylebotError for crops or photos that are gone.
    """
    memo = Memo("filter", {"identity": sha256_file(identity), "code": _code_version()})
    items = {(item.source, item.photo): item for item in list_photos(photo_folder)}
    crops, aligned = AlignedFaces(aligned), aligned.absolute()
    written = tuple(path.stat().st_mtime_ns for path in sorted(aligned.glob("*.zip")))
    known: list[Inspection | Crash | None] = []
    jobs, places, keys = [], [], []
    for place, row in enumerate(rows):
        png = crops.png(row)
        key = _key(row, png)
        content = memo.get(key)
        known.append(Inspection.from_bytes(content) if content else None)
        if content is None:
            photo = items.get((row["source"], row["photo"]))
            if photo is None:
                raise StylebotError(f"{photo_folder}/{row['source']}/{row['photo']} is gone; run align again")
            jobs.append(_Job(row, aligned, written, photo, identity.absolute()))
            places.append(place)
            keys.append(key)
    for number, result in each(_inspect, jobs, "filter"):
        known[places[number]] = result
        if isinstance(result, Inspection):
            memo.put(keys[number], result.to_bytes())
    return known
