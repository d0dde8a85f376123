"""The tool `generate.py`: faces by seed, as files or as one grid, each saying that it is synthetic."""

import io
import json
import math
import re
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.progress import track

from stylebot.dist import device
from stylebot.errors import StylebotError
from stylebot.files import sha256_file, write_bytes
from stylebot.render import NOISE_MODES, load_generator, stream
from stylebot.sheets import contact_sheet

_LAST_SEED = 2**32 - 1
_MOST_SEEDS = 10_000_000
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{_SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta>'
)


def parse_seeds(text: str) -> list[int]:
    """Seeds of "0-35,100": numbers and ranges with both ends, in the order given, repeats dropped.

    Raises StylebotError for anything else, a range that falls, and seeds beyond 2**32 - 1.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,10})\s*(?:-\s*([0-9]{1,10})\s*)?", part)
        if not found:
            raise StylebotError(f"--seeds: {part.strip()!r} is neither a number nor a range like 0-35")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last <= _LAST_SEED:
            raise StylebotError(f"--seeds: {part.strip()!r} must rise and end below {_LAST_SEED + 1}")
        if len(seeds) + last - first >= _MOST_SEEDS:
            raise StylebotError(f"--seeds: more than {_MOST_SEEDS} pictures; ask for fewer at a time")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def png(picture: Image.Image, facts: dict[str, str]) -> bytes:
    """A PNG that says in text chunks and in XMP that its face is synthetic, and in text the `facts`."""
    info = PngInfo()
    info.add_text("DigitalSourceType", _SOURCE_TYPE)
    info.add_text("Comment", "Synthetic: made by a generator; this person does not exist.")
    for name, value in facts.items():
        info.add_text(name, value)
    info.add_itxt("XML:com.adobe.xmp", _XMP)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _checked(psi: float, cutoff: int | None, noise_mode: str, batch: int) -> None:
    if not math.isfinite(psi):
        raise StylebotError(f"--psi {psi} is not a finite number")
    if cutoff is not None and cutoff < 0:
        raise StylebotError(f"--cutoff {cutoff}: 0 or more layers are truncated")
    if noise_mode not in NOISE_MODES:
        raise StylebotError(f"--noise-mode {noise_mode!r} is none of {', '.join(NOISE_MODES)}")
    if batch < 1:
        raise StylebotError(f"--batch {batch}: 1 or more pictures at a time")


def generate(
    generator: Path,
    seeds: list[int],
    out: Path | None,
    grid: Path | None,
    psi: float = 0.7,
    cutoff: int | None = None,
    noise_mode: str = "const",
    label: int | None = None,
    batch: int = 8,
) -> None:
    """Write the faces of `seeds` to the folder `out` as seed0000.png …, and as one picture to `grid`.

    The picture of a seed is the same in every batch (to the rounding of one level in 255) and on every run.
    Raises StylebotError when there is nowhere to write to and for options out of range.
    """
    if out is None and grid is None:
        raise StylebotError("say where to: --out FOLDER, --grid FILE.png, or both")
    _checked(psi, cutoff, noise_mode, batch)
    g, model = load_generator(generator, device()), sha256_file(generator)
    facts = {"Software": "Stylebot", "Model": model, "Psi": f"{psi:g}", "NoiseMode": noise_mode}
    facts |= {} if cutoff is None else {"Cutoff": str(cutoff)}
    facts |= {} if label is None else {"Label": str(label)}
    parts = stream(g, seeds, batch, psi=psi, cutoff=cutoff, noise_mode=noise_mode, label=label)
    rgbs: list[np.ndarray] = []
    left = iter(seeds)
    for part in track(parts, "faces", -(-len(seeds) // batch)):
        for rgb in part.permute(0, 2, 3, 1).cpu().numpy():
            seed = next(left)
            if out is not None:
                content = png(Image.fromarray(rgb), facts | {"Seed": str(seed)})
                write_bytes(out / f"seed{seed:04d}.png", content)
            if grid is not None:
                rgbs.append(rgb)
    if grid is not None:
        columns = math.ceil(math.sqrt(len(seeds)))
        sheet = contact_sheet(rgbs, columns, [str(seed) for seed in seeds], cell_px=max(g.img_resolution, 8))
        write_bytes(grid, png(sheet, facts | {"Seeds": json.dumps(seeds)}))
