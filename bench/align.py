"""Photos aligned per second on one core, ours against a plain implementation of the published steps.

    python bench/align.py --photos stages/photos/celebrity --landmarks stages/fetch/landmarks.dat [--count 24]

The photos are enlarged to 12 and 1 megapixels and saved as JPEG (quality 92). All three decode the same
bytes, make 256 px and save PNG; time is CPU time of this process, which is kept on one core. The published
scripts cut one face per photo, ours all that there are. Copy the table into bench/RESULTS.md with machine and
date.
"""

import io
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, UnidentifiedImageError
from published import PublishedAlign

from stylebot.align import AlignParams, align_photo
from stylebot.errors import StylebotError

OUTPUT_PX = 256
PARAMS = AlignParams(
    resolution=OUTPUT_PX,
    recipe="stylebot",
    padding="edge",
    faces="all",
    landmarks="dlib68",
    min_eye_distance_px=16,
    min_det_score=0.1,
    max_megapixels=120,
)
PUBLISHED = (
    ("published (pSp: 256 px map, detector upsamples)", OUTPUT_PX, 1),
    ("published (FFHQ: 4096 px map), detector without upsampling", 4096, 0),
)
Found = tuple[np.ndarray, float]  # centre (x, y) px and side px of one face


def enlarged(path: Path, megapixels: float) -> bytes:
    """The photo as JPEG of so many megapixels, with the grain that a camera has (3 grey levels)."""
    picture = Image.open(path).convert("RGB")
    scale = (megapixels * 1e6 / (picture.width * picture.height)) ** 0.5
    size = (round(picture.width * scale), round(picture.height * scale))
    rgb = np.asarray(picture.resize(size, Image.Resampling.LANCZOS), np.float32)
    rgb = rgb + 3 * np.random.default_rng(0).standard_normal(rgb.shape[:2], np.float32)[..., None]
    jpeg = io.BytesIO()
    Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(jpeg, "JPEG", quality=92)
    return jpeg.getvalue()


def chosen(folder: Path, count: int) -> list[Path]:
    """`count` pictures, evenly spread over the folder. Raises StylebotError without pictures."""
    paths = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            Image.open(path).close()
        except UnidentifiedImageError:
            continue
        paths.append(path)
    if not paths:
        raise StylebotError(f"no pictures in {folder}")
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, count).round().astype(int))]


def timed(align: Callable[[bytes], list[Found]], contents: list[bytes]) -> tuple[float, list[list[Found]]]:
    """CPU seconds per photo, and the faces of each photo, after one photo to warm up."""
    align(contents[0])
    started = time.process_time()
    found = [align(content) for content in contents]
    return (time.process_time() - started) / len(contents), found


def ours(landmarks: Path) -> Callable[[bytes], list[Found]]:
    """Stage `align` on one photo's bytes."""

    def align(content: bytes) -> list[Found]:
        rows = align_photo(content, landmarks, PARAMS).rows
        return [(np.array([row["center_x"], row["center_y"]]), row["qsize_px"]) for row in rows]

    return align


def published(landmarks: Path, transform_px: int, upsample: int) -> Callable[[bytes], list[Found]]:
    """The published steps on one photo's bytes."""
    plain = PublishedAlign(str(landmarks), OUTPUT_PX, transform_px, upsample)

    def align(content: bytes) -> list[Found]:
        found = plain(content)
        return [] if found is None else [(found[0], 0.0)]

    return align


def agreeing(mine: list[list[Found]], theirs: list[list[Found]]) -> int:
    """Photos whose published face has its centre within a tenth of a face's square of one of ours."""
    return sum(
        any(np.hypot(*(center - face[0][0])) < side / 10 for center, side in own)
        for own, face in zip(mine, theirs, strict=True)
        if face
    )


def main(
    photos: Annotated[Path, typer.Option(help="folder of photos with faces")],
    landmarks: Annotated[Path, typer.Option(help="dlib's 68-point model")],
    count: Annotated[int, typer.Option(help="photos of each size", min=1)] = 24,
) -> None:
    """Print one row per size and implementation."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    names = " ".join(f"{name} {version(name)}" for name in ("pillow", "dlib-bin", "numpy", "scipy"))
    print(
        f"{date.today()}, {platform.processor() or platform.machine()}, one core, {names}, "
        f"python bench/align.py --count {count}\n"
    )
    print(
        "| megapixels | alignment | CPU ms/photo | photos/s | ours is faster by | photos with a face | "
        "same face as ours |\n|---|---|---|---|---|---|---|"
    )
    paths = chosen(photos, count)
    for megapixels in (12, 1):
        contents = [enlarged(path, megapixels) for path in paths]
        mine, faces = timed(ours(landmarks), contents)
        print(
            f"| {megapixels} | ours, all faces | {mine * 1e3:.0f} | {1 / mine:.2f} | | "
            f"{sum(map(bool, faces))} of {len(contents)} | |",
            flush=True,
        )
        for name, transform_px, upsample in PUBLISHED:
            plain, theirs = timed(published(landmarks, transform_px, upsample), contents)
            print(
                f"| {megapixels} | {name} | {plain * 1e3:.0f} | {1 / plain:.2f} | {plain / mine:.1f} | "
                f"{sum(map(bool, theirs))} of {len(contents)} | {agreeing(faces, theirs)} |",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
