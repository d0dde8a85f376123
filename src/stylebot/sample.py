"""Tool `sample`: photographs of people who do not exist, for trying and testing the workspace."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from stylebot.errors import StylebotError
from stylebot.files import write_bytes
from stylebot.staging import (
    FACE_SHARE,
    Face,
    Picture,
    Rng,
    cut_off,
    empty,
    portrait,
    underexposed,
    unsharp,
    wild,
)

SEED = 2026
# Of the first 400 draws of this seed: looked at, of the domain, grown up, and far from one another for dlib
# (celebrities 0.4 or more); those with ID photos look straight ahead.
CELEBRITIES = (
    0, 11, 13, 17, 23, 27, 30, 32, 35, 36, 38, 45, 46, 61, 66, 68, 69, 88, 93, 97, 98, 99, 101, 104,
    110, 113, 120, 122, 124, 125, 142, 147, 151, 152, 158, 163, 164, 165, 169, 181, 182, 186, 189, 198,
    207, 209, 215, 233, 239, 243, 248, 249, 266, 273, 303, 338, 355, 381, 394, 399,
)
SITTERS = (
    10, 15, 20, 24, 25, 26, 33, 34, 37, 41, 43, 50, 51, 58, 59, 62, 64, 67, 70, 71, 73, 75, 81, 83, 85,
    96, 105, 112, 114, 117, 127, 128, 129, 131, 136, 143, 146, 149, 150, 159, 160, 167, 170, 172, 173,
    174, 175, 178, 194, 196, 203, 211, 213, 218, 219, 222, 223, 224, 227, 237, 238, 244, 247, 268, 269,
    272, 274, 282, 284, 285, 294, 295, 300, 301, 304, 317, 324, 334, 339, 342, 350, 356, 357, 358, 368,
    371, 379, 383, 386, 390, 393, 395,
)
SHARED = (23, 35, 36, 38, 98, 104, 209, 215)  # celebrities who have an ID photo too
PHOTOS = 240
REFUSED = {"no_face": 6, "face_too_small": 6, "blurred": 6, "dark": 6, "padded": 6, "duplicate": 8}
TWO_PEOPLE, ROTATED, GREY = 18, 20, 14
EXIF_ORIENTATION = 0x0112
STORED = {  # what turns an upright picture into the pixels that are stored under an EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
FaceOf = Callable[[int, int, int], Face]  # (identity, variant, side in px)


@dataclass(frozen=True)
class Shot:
    """One photo to be made: its people as (identity, variant), what it is meant to be, how it is stored."""

    name: str
    source: str
    meant: str = "good"
    people: tuple[tuple[int, int], ...] = ()
    height_px: float = 0.0
    quality: int = 90
    grey: bool = False
    orientation: int = 1
    duplicate_of: str = ""


def _height(rng: Rng, meant: str, people: int) -> float:
    """Height of the main face in px: 90 … 600 for good photos, small ones more often."""
    if meant == "face_too_small":
        return float(rng.uniform(32, 36))
    if meant != "good":
        return float(rng.uniform(130, 330))
    return float(90 * ((300 if people == 2 else 600) / 90) ** (rng.uniform() ** 1.7))


def plan(seed: int) -> list[Shot]:
    """Every photo of the sample, in a fixed order."""
    rng = np.random.default_rng([seed, 1])
    meant = [word for word, count in REFUSED.items() for _ in range(count)]
    meant = [str(m) for m in rng.permutation(meant + ["good"] * (PHOTOS - len(meant)))]
    good = [i for i in range(PHOTOS) if meant[i] == "good"]
    extra = [int(i) for i in rng.permutation(good)]
    two, rotated = set(extra[:TWO_PEOPLE]), set(extra[TWO_PEOPLE : TWO_PEOPLE + ROTATED])
    grey = set(extra[TWO_PEOPLE + ROTATED - 4 : TWO_PEOPLE + ROTATED - 4 + GREY])
    order = [int(i) for i in rng.permutation(PHOTOS)]
    pictures: dict[int, int] = {}

    def next_of(identity: int) -> tuple[int, int]:
        pictures[identity] = pictures.get(identity, -1) + 1
        return identity, pictures[identity]

    shots = []
    for index in range(PHOTOS):
        people = [CELEBRITIES[order[index] % len(CELEBRITIES)]]
        if index in two:
            people.append(CELEBRITIES[(order[index] + 17) % len(CELEBRITIES)])
        turned = int(rng.choice([2, 3, 5, 6, 6, 6, 8, 8])) if index in rotated else 1
        taken = () if meant[index] == "duplicate" else tuple(next_of(p) for p in people)
        height = _height(rng, meant[index], len(people))
        shots.append(Shot(f"{index:04d}.jpg", "celebrity", meant[index], taken, height,
                          int(rng.triangular(70, 78, 95)), index in grey, turned))
    originals = [shots[i] for i in extra if i not in two | rotated]
    for shot, original in zip([s for s in shots if s.meant == "duplicate"], originals, strict=False):
        shots[shots.index(shot)] = replace(shot, people=original.people, duplicate_of=original.name,
                                           grey=False, orientation=1, height_px=original.height_px)
    sitters = [next_of(i) for i in SHARED] + [(i, 0) for i in SITTERS]
    for index, which in enumerate(rng.permutation(len(sitters))):
        quality = int(rng.integers(84, 93))
        shots.append(Shot(f"{index:04d}.jpg", "id", people=(sitters[which],), quality=quality))
    return shots


def make(shot: Shot, seed: int, face_of: FaceOf) -> Picture:
    """The photo of a shot, from faces of a suitable size."""
    number = int(Path(shot.name).stem) + (PHOTOS if shot.source == "id" else 0)
    rng = np.random.default_rng([seed, 2, number])
    side = shot.height_px / FACE_SHARE
    size = 256 if 0 < side <= 200 else 512 if side <= 560 else 1024
    faces = [face_of(*who, size) for who in shot.people]
    if shot.source == "id":
        return portrait(rng, faces[0])
    other = face_of(CELEBRITIES[number % len(CELEBRITIES)], 0, 256)
    if shot.meant in ("good", "face_too_small"):
        return wild(rng, faces, other, shot.height_px)
    if shot.meant == "no_face":
        return empty(rng, faces[0], other)
    return {"blurred": unsharp, "dark": underexposed, "padded": cut_off}[shot.meant](
        rng, faces[0], other, shot.height_px)


def encoded(shot: Shot, rgb: np.ndarray) -> bytes:
    """The JPEG file of a shot: grey, turned under an EXIF orientation, of its quality; no other metadata."""
    image, exif, buffer = Image.fromarray(rgb), Image.Exif(), io.BytesIO()
    if shot.grey:
        image = image.convert("L") if shot.quality % 2 else image.convert("L").convert("RGB")
    if shot.orientation != 1:
        image = image.transpose(STORED[shot.orientation])
        exif[EXIF_ORIENTATION] = shot.orientation
    image.save(buffer, "JPEG", quality=shot.quality, exif=exif.tobytes() if len(exif) else b"")
    return buffer.getvalue()


def near_copy(content: bytes, quality: int) -> bytes:
    """The same photo as it comes back from a messenger: a little cropped, smaller, compressed again."""
    image, buffer = Image.open(io.BytesIO(content)), io.BytesIO()
    width, height = image.size
    image = image.crop((width // 60, height // 80, width - width // 90, height - height // 70))
    image = image.resize((round(width * 0.85), round(height * 0.85)), Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=min(quality, 84))
    return buffer.getvalue()


def photographs(seed: int, face_of: FaceOf) -> Iterator[tuple[Shot, bytes, dict[str, object]]]:
    """Each photo with its shot and its line of truth; duplicates follow at the end."""
    kept: dict[str, tuple[bytes, dict]] = {}
    shots = plan(seed)
    wanted = {s.duplicate_of for s in shots}
    for shot in sorted(shots, key=lambda s: s.meant == "duplicate"):
        if shot.meant == "duplicate":
            content, line = kept[shot.duplicate_of]
            content = content if shot.quality % 2 else near_copy(content, shot.quality)
            own = {"photo": shot.name, "meant": shot.meant, "duplicate_of": shot.duplicate_of}
            yield shot, content, line | own
            continue
        picture = make(shot, seed, face_of)
        content = encoded(shot, picture.rgb)
        line = {"photo": shot.name, "source": shot.source,
                "identity": " ".join(str(i) for i, _ in shot.people if shot.meant != "no_face"),
                "meant": shot.meant, "face_height_px": round(picture.side_px * FACE_SHARE),
                "roll_deg": round(picture.roll_deg, 1), "duplicate_of": "",
                "faces": 0 if shot.meant == "no_face" else len(shot.people)}
        if shot.source == "celebrity" and shot.name in wanted:
            kept[shot.name] = (content, line)
        yield shot, content, line


def write_truth(path: Path, lines: list[dict[str, object]]) -> None:
    """truth.csv: what each photo was meant to be, sorted by source and photo."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(sorted(lines, key=lambda line: (line["source"], line["photo"])))
    write_bytes(path, text.getvalue().encode())


def write_sample(photos: Path, truth: Path, seed: int, face_of: FaceOf) -> None:
    """Write the whole sample below `photos`, one folder per source, and its truth.

    Raises StylebotError when a folder holds files that are not of the sample, so that nothing gets mixed up.
    """
    names = {(shot.source, shot.name) for shot in plan(seed)}
    for source in sorted({source for source, _ in names}):
        foreign = sorted(p.name for p in (photos / source).glob("*") if (source, p.name) not in names)
        if foreign:
            raise StylebotError(f"{photos / source} holds {len(foreign)} files that are not of the sample, "
                                f"{foreign[0]} for one: choose another --photos")
    lines = []
    for shot, content, line in track(photographs(seed, face_of), "photographs", len(names)):
        write_bytes(photos / shot.source / shot.name, content)
        lines.append(line)
    write_truth(truth, lines)
