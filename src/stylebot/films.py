"""Films of generated faces that run in a circle: .mp4 (H.264) and animated .webp; both say what they show."""

import io
import itertools
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from stylebot import provenance
from stylebot.errors import StylebotError
from stylebot.files import atomic

KINDS = (".mp4", ".webp")
_MOST_BYTES = 2 << 30  # of frames that Pillow holds at a time


def check(path: Path, fps: int, frames: int, side_px: int) -> None:
    """Raise StylebotError for another kind of file, a frame rate out of range, and a .webp beyond memory."""
    if path.suffix.lower() not in KINDS:
        raise StylebotError(f"{path}: a film is {' or '.join(KINDS)}")
    if not 1 <= fps <= 120:
        raise StylebotError(f"--fps {fps}: 1 to 120 frames a second")
    if path.suffix.lower() == ".webp" and frames * side_px**2 * 3 > _MOST_BYTES:
        raise StylebotError(f"{path}: {frames} frames of {side_px} px do not fit into memory as .webp; "
                            "ask for .mp4 or for fewer --frames")  # fmt: skip


def write(
    path: Path, frames: Iterator[np.ndarray], fps: int, facts: dict[str, str],
    finish: Callable[[bytes], bytes] | None = None,
) -> None:  # fmt: skip
    """Write frames, each [R, R, 3] uint8 with R even, at `fps` frames a second, as the name's ending says.

    `finish` makes the last change to the file's bytes. Raises StylebotError when there are no frames.
    """
    first = next(frames, None)
    if first is None:
        raise StylebotError(f"{path}: no frame is left to write")
    with atomic(path) as part:
        (_mp4 if path.suffix.lower() == ".mp4" else _webp)(part, first, frames, fps, facts)
        if finish is not None:
            part.write_bytes(finish(part.read_bytes()))


def _mp4(path: Path, first: np.ndarray, rest: Iterator[np.ndarray], fps: int, facts: dict[str, str]) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as film:
        told = {"DigitalSourceType": provenance.SOURCE_TYPE, **facts}
        film.metadata["title"] = provenance.NOBODY
        film.metadata["comment"] = json.dumps(told, sort_keys=True)
        stream = film.add_stream("libx264", rate=Fraction(fps), options={"crf": "16", "preset": "medium"})
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        for frame in _chained(first, rest):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode(None))


def _webp(path: Path, first: np.ndarray, rest: Iterator[np.ndarray], fps: int, facts: dict[str, str]) -> None:
    pictures = [Image.fromarray(frame) for frame in _chained(first, rest)]
    ends = [round(1000 * n / fps) for n in range(len(pictures) + 1)]
    lasts = [after - before for before, after in itertools.pairwise(ends)]
    buffer = io.BytesIO()
    packet = provenance.xmp(provenance.NOBODY, facts).encode()
    pictures[0].save(buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=lasts, loop=0,
                     quality=90, xmp=packet)  # fmt: skip
    path.write_bytes(buffer.getvalue())


def _chained(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest
