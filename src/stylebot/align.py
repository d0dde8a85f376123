"""Stage `align`: from folders of any files to aligned faces, and a word about every file."""

import hashlib
import io
import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from joblib import Parallel, delayed
from PIL import Image
from pydantic import Field
from rich.console import Console
from rich.table import Table

from stylebot import faces, fivepoints, geometry, photos
from stylebot.entries import FACES_SCHEMA, PHOTOS_SCHEMA, Entry, Tables, write_table
from stylebot.errors import StylebotError
from stylebot.files import Memo, sha256_file, write_zip
from stylebot.params import Section
from stylebot.sources import Item, list_photos
from stylebot.workers import Crash, each, workers

_MIN_SIDE_PX = 64
POINTS = {"dlib68": 68, "dlib5": 5}  # of the models that `landmarks` may name
_AMBIGUOUS = 0.5  # a second face of this share of the first one's area makes a photo ambiguous


class AlignParams(Section):
    """Section `align` of params.yaml."""

    resolution: int = Field(ge=32, le=2048)
    recipe: Literal["stylebot", "ffhq"]
    padding: geometry.Padding
    faces: Literal["all", "largest", "reject"]
    landmarks: Literal["dlib68", "dlib5"]
    min_eye_distance_px: float = Field(ge=4)
    min_det_score: float = Field(ge=0)
    max_megapixels: float = Field(gt=0, le=1000)


@dataclass(frozen=True)
class Job:
    """The work on one photo, for any process."""

    item: Item
    sha256: str
    landmarks: Path
    params: AlignParams
    memo: Memo


@lru_cache(maxsize=1)
def _models(landmarks: Path, points: int) -> tuple[faces.Detector, faces.Landmarker]:
    return faces.Detector(), faces.Landmarker(landmarks, points)


def align_photo(content: bytes, landmarks: Path, params: AlignParams) -> Entry:
    """Decode a photo, find its faces and cut them out; every failure is an entry with its reason."""
    try:
        photo = photos.read_photo(content, round(params.max_megapixels * 1e6))
    except photos.PhotoError as error:
        return Entry(error.reason, error.detail)
    if min(photo.width, photo.height) < _MIN_SIDE_PX:
        return Entry("too_small", f"{photo.width} x {photo.height} px; {_MIN_SIDE_PX} px are needed at least")
    detector, landmarker = _models(landmarks, POINTS[params.landmarks])
    found = detector.find(photo.picture)
    if not len(found.boxes):
        return Entry("no_face", "no frontal face found")
    picture = faces.turned(photo.picture, found.rotated_deg)
    order = _ranking(found, picture.size)
    kept, refused = [], Counter()
    for index in order:
        reason, row, square = _measure(found, index, landmarker, picture, params)
        if reason:
            refused[reason] += 1
        else:
            kept.append((row, square))
    if not kept:
        return Entry(refused.most_common(1)[0][0], _refusals(refused))
    if params.faces == "reject" and kept[0][0]["second_area_ratio"] > _AMBIGUOUS:
        return Entry("ambiguous_faces", f"{len(found.boxes)} faces of similar size")
    kept = kept if params.faces == "all" else kept[:1]
    about = {"orientation": photo.orientation, "rotated_deg": found.rotated_deg, "grey": photo.grey,
             "flags": " ".join(photo.flags), "width_px": picture.width, "height_px": picture.height}
    pngs = [_png(photo.srgb(_cut(picture, square, params))) for _, square in kept]
    return Entry("faces", _refusals(refused), [row | about for row, _ in kept], pngs)


def _refusals(refused: Counter) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items()))


def _areas(found: faces.Found) -> np.ndarray:
    return (found.boxes[:, 2] - found.boxes[:, 0]) * (found.boxes[:, 3] - found.boxes[:, 1])


def _ranking(found: faces.Found, size_px: tuple[int, int]) -> np.ndarray:
    """The boxes' indices, the photo's subject first: by area, nearness to the centre, and confidence."""
    centers = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 - np.array(size_px) / 2
    distance = np.hypot(*centers.T) / math.hypot(*size_px)
    worth = _areas(found) * np.exp(-4 * distance**2) / (1 + np.exp(-found.scores))
    return np.argsort(-worth, kind="stable")


def _measure(found: faces.Found, index: int, landmarker: faces.Landmarker, picture: Image.Image,
             params: AlignParams) -> tuple[str, dict, geometry.Square | None]:
    """The reason to refuse this face or "", its row, and its square."""
    landmarks = landmarker.landmarks(found, index)
    eyes_px = geometry.eye_distance(landmarks)
    if eyes_px < params.min_eye_distance_px:
        return "face_too_small", {}, None
    if found.scores[index] < params.min_det_score:
        return "low_confidence", {}, None
    square = geometry.ffhq_square(landmarks)
    outside = geometry.pad_fraction(square, *picture.size)
    if outside >= 0.5:
        return "cut_off", {}, None
    areas = _areas(found)
    second = np.delete(areas, index).max(initial=0.0) / areas[index]
    row = {
        "n_faces": len(found.boxes), "det_score": found.scores[index],
        **dict(zip(("x0", "y0", "x1", "y1"), found.boxes[index], strict=True)),
        "ied_px": eyes_px, "qsize_px": square.side_px, "scale": params.resolution / square.side_px,
        "roll_deg": square.roll_deg, "pad_fraction": outside, "second_area_ratio": second,
        "center_x": square.center[0], "center_y": square.center[1],
        "quad_x": square.half[0], "quad_y": square.half[1],
    }
    row = {name: float(value) if name != "n_faces" else value for name, value in row.items()}
    return "", row | {"landmarks": landmarks.ravel().tolist()}, square


def _cut(picture: Image.Image, square: geometry.Square, params: AlignParams) -> Image.Image:
    if params.recipe == "ffhq":
        return geometry.warp_published(picture, square, params.resolution, pad=params.padding != "none")
    return geometry.warp(picture, square, params.resolution, params.padding)


def _png(picture: Image.Image) -> bytes:
    """PNG bytes without any metadata (level 1: three times faster than level 6, a tenth larger)."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _work(job: Job) -> Entry | None:
    """Align one photo and remember the entry; an entry is returned only if it must not be remembered."""
    try:
        content = job.item.read()
        if hashlib.sha256(content).hexdigest() != job.sha256:
            return Entry("missing", "the file changed while it was read; run again")
        entry = align_photo(content, job.landmarks, job.params)
    except photos.PhotoError as error:
        return Entry(error.reason, error.detail)
    except MemoryError:
        return Entry("too_large", "not enough memory for this photo")
    job.memo.put(job.sha256, entry.to_bytes())
    return None


def _digest(item: Item) -> str | photos.PhotoError:
    """Hex sha256 of the item's bytes, or why they cannot be read."""
    try:
        item.check()
        return sha256_file(item.path) if item.member < 0 else hashlib.sha256(item.read()).hexdigest()
    except photos.PhotoError as error:
        return error
    except OSError as error:
        return photos.PhotoError("unreadable", error.strerror or str(error))


def _code_version() -> str:
    """Changes whenever the code or the libraries that make an entry change."""
    files = (Path(__file__), *(Path(module.__file__) for module in (faces, fivepoints, geometry, photos)))
    text = "".join(sha256_file(path) for path in files)
    return text + " ".join(version(name) for name in ("pillow", "pillow-heif", "dlib-bin", "numpy", "scipy"))


def _remember(items: list[Item], digests: list[str | photos.PhotoError], landmarks: Path,
              params: AlignParams) -> Tables:
    """Work on every photo that is not remembered yet; the tables, still empty, that know all entries."""
    memo = Memo("align", {"params": params.model_dump(), "landmarks": sha256_file(landmarks),
                          "code": _code_version()})
    memo.folder = memo.folder.absolute()  # the processes may have started in another folder
    first: dict[str, Item] = {}
    for item, digest in zip(items, digests, strict=True):
        if isinstance(digest, str):
            first.setdefault(digest, item)
    jobs = [Job(item, digest, landmarks.absolute(), params, memo)
            for digest, item in first.items() if memo.get(digest) is None]
    passing: dict[str, Entry] = {}
    for index, result in each(_work, jobs, "align"):
        if isinstance(result, Crash):
            result = Entry("crashed", result.how)
        if result is not None:
            passing[jobs[index].sha256] = result
    return Tables(memo, first, passing)


def align(photos_folder: Path, landmarks: Path, out: Path, params: AlignParams) -> dict[str, float]:
    """Align every photo of every source; write OUT/SOURCE.zip and the tables; return the metrics.

    Photos that were aligned before with the same parameters, model and code are remembered under the scratch
    folder. Raises StylebotError when there are no photos, or none has a usable face.
    """
    items = list_photos(photos_folder)
    digests = Parallel(n_jobs=workers(), prefer="threads")(delayed(_digest)(item) for item in items)
    tables = _remember(items, digests, landmarks, params)
    by_source: dict[str, list[tuple[Item, str | photos.PhotoError]]] = {}
    for item, digest in zip(items, digests, strict=True):
        by_source.setdefault(item.source, []).append((item, digest))
    for source, files in by_source.items():
        write_zip(out / f"{source}.zip", tables.members(files))
    for stale in set(out.glob("*.zip")) - {out / f"{source}.zip" for source in by_source}:
        stale.unlink()
    write_table(out / "faces.parquet", tables.faces, FACES_SCHEMA)
    write_table(out / "photos.parquet", tables.photos, PHOTOS_SCHEMA)
    return _summary(photos_folder, tables)


def _summary(photos_folder: Path, tables: Tables) -> dict[str, float]:
    """Print what became of the files of each source, and return the metrics."""
    outcomes: dict[str, Counter] = {}
    for row in tables.photos:
        outcomes.setdefault(row["source"], Counter())[row["outcome"]] += 1
    total = sum(outcomes.values(), Counter())
    if not total["faces"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in total.most_common())
        row = tables.photos[0]
        raise StylebotError(f"none of the {len(tables.photos)} files in {photos_folder} gave a usable face: "
                            f"{reasons} (such as {row['source']}/{row['photo']}: {row['detail']})")
    shown = Table("source", "files", "with faces", "faces", "refused, by reason")
    for source, counts in outcomes.items():
        refused = ", ".join(f"{n} {reason}" for reason, n in counts.most_common() if reason != "faces")
        n_faces = sum(row["source"] == source for row in tables.faces)
        shown.add_row(source, str(counts.total()), str(counts["faces"]), str(n_faces), refused)
    Console(stderr=True).print(shown)
    return {"align_photos": len(tables.photos), "align_faces": len(tables.faces),
            "align_found": total["faces"] / max(1, total.total() - total["duplicate"])}
