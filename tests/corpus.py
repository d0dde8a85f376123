"""Makes files as people have them: damaged, mislabelled, odd, hostile; each with its allowed outcomes.

Where a decoder cannot know that the data are damaged (a flipped bit in a JPEG) several outcomes are right;
elsewhere one is. `corpus_files.make` writes them.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, ImageOps

pillow_heif.register_heif_opener()
FACES = sorted((Path(__file__).parent / "data" / "faces").glob("*.jpg"))
MAX_PIXELS = 4_000_000  # the limit that the bombs exceed

Made = Iterator[tuple[str, bytes, set[str]]]
CUT, ODD, FACE = {"truncated", "unreadable"}, {"unreadable"}, {"faces"}
# What a damaged picture may still be: bits of it, another picture, or nothing.
DAMAGED = {
    "faces",
    "no_face",
    "low_confidence",
    "face_too_small",
    "cut_off",
    "truncated",
    "unreadable",
    "too_large",
    "too_small",
}
WHOLE_OR_CUT = FACE | CUT | {"no_face", "low_confidence"}  # decoders that give what is there
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "JPEG2000", "AVIF", "HEIF", "BMP")


def face(number: int = 0, side_px: int = 256) -> Image.Image:
    """A face before a wall, so that turned and scaled copies keep it whole."""
    picture = Image.open(FACES[number % len(FACES)]).convert("RGB").resize((side_px, side_px))
    return ImageOps.expand(picture, side_px // 8, (128, 134, 140))


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def truncated() -> Made:
    for kind in KINDS:
        content = saved(face(1), kind)
        for percent in (1, 10, 35, 60, 85, 98):
            lenient = kind in ("GIF", "JPEG2000")
            yield (
                f"cut/{kind}-{percent:02d}",
                content[: len(content) * percent // 100],
                (WHOLE_OR_CUT if lenient else CUT),
            )
    progressive = saved(face(2), "JPEG", progressive=True)
    for percent in (20, 50, 95):
        yield f"cut/progressive-{percent}", progressive[: len(progressive) * percent // 100], CUT
    yield "cut/tail-missing.jpg", saved(face(2), "JPEG")[:-40], CUT
    yield "cut/head-missing.jpg", saved(face(2), "JPEG")[300:], ODD
    yield "cut/zeros-after-half.jpg", _half_zeros(saved(face(2), "JPEG", quality=80)), DAMAGED


def _half_zeros(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes(len(content) - half)


def flipped() -> Made:
    for kind in KINDS:
        content = saved(face(3), kind)
        for seed in range(5):
            damaged = bytearray(content)
            for at in np.random.default_rng(seed).integers(0, len(content), 1 + 4 * seed).tolist():
                damaged[at] ^= 1 << (seed % 8)
            yield f"flip/{kind}-{seed}", bytes(damaged), DAMAGED
    checked = bytearray(saved(face(3), "PNG"))
    checked[len(checked) // 2] ^= 1
    yield "flip/png-checksum", bytes(checked), CUT


def no_pictures() -> Made:
    texts = {
        "notes.txt": b"no picture",
        "nul.jpg": bytes(5000),
        "page.html": b"<html><body>404</body></html>",
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "paper.pdf": b"%PDF-1.7\n" + b"x" * 200,
        "archive.zip.jpg": b"PK\x03\x04" + b"a" * 90,
        "list.csv": b"a,b\n1,2\n",
        "script.py": b"import os\n",
        ".DS_Store": b"\0\0\0\1Bud1" + bytes(99),
        "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99),
        "film.mp4": b"\0\0\0\x18ftypisom" + bytes(60),
        "soi.jpg": b"\xff\xd8\xff",
        "sign.png": b"\x89PNG\r\n\x1a\n",
        "sign.gif": b"GIF89a",
        "sign.heic": b"\0\0\0\x18ftypheic" + bytes(40),
        "sign.webp": b"RIFF\x10\0\0\0WEBPVP8 ",
        "sign.tif": b"II*\0\x08\0\0\0",
        "run.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(ls) run\n",
    }
    for name, content in texts.items():
        yield f"none/{name}", content, CUT
    yield "none/empty.jpg", b"", {"empty"}


def mislabelled() -> Made:
    for number, kind in enumerate(KINDS):
        name = f"label/{kind.lower()}{'.png' if kind == 'JPEG' else '.jpg'}"
        yield name, saved(face(number + 1, 200 + 2 * number), kind), FACE
    yield "label/no-extension", saved(face(2, 230), "PNG"), FACE
    yield "label/upper.JPEG.TXT", saved(face(3, 231), "JPEG"), FACE


def modes() -> Made:
    def made(n: int) -> Image.Image:
        return face(n, 210 + n)

    grey = np.asarray(made(0).convert("L")).astype(np.uint16) * 257
    yield "mode/cmyk.jpg", saved(made(1).convert("CMYK"), "JPEG", quality=92), FACE
    yield "mode/cmyk.tif", saved(made(2).convert("CMYK"), "TIFF"), FACE
    yield "mode/grey16.png", saved(Image.fromarray(grey), "PNG"), FACE
    yield "mode/grey16.tif", saved(Image.fromarray(grey), "TIFF"), FACE
    yield "mode/grey12.tif", saved(Image.fromarray(grey // 16), "TIFF"), FACE
    yield "mode/float.tif", saved(Image.fromarray((grey / 65535).astype(np.float32)), "TIFF"), FACE
    deep = np.asarray(made(3)).astype(">u2") * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    yield "mode/rgb16.png", png(deep.shape[1], deep.shape[0], 16, 2, rows), FACE
    yield "mode/palette.png", saved(made(4).quantize(256), "PNG"), FACE
    yield "mode/palette.gif", saved(made(5).quantize(64), "GIF"), FACE
    yield "mode/grey.jpg", saved(made(6).convert("L"), "JPEG"), FACE
    yield "mode/greyalpha.png", saved(made(7).convert("LA"), "PNG"), FACE
    yield "mode/bilevel.tif", saved(made(8).convert("1"), "TIFF"), DAMAGED
    yield "mode/lab.tif", saved(_lab(made(9)), "TIFF"), FACE
    clear = made(10).convert("RGBA")
    clear.putalpha(0)
    yield "mode/transparent.png", saved(clear, "PNG"), {"no_face"}
    disc = made(11).convert("RGBA")
    disc.putalpha(Image.radial_gradient("L").resize(disc.size).point(lambda v: 255 if v < 180 else 0))
    yield "mode/disc.png", saved(disc, "PNG"), FACE
    yield "mode/disc.webp", saved(disc, "WEBP"), FACE


def _lab(picture: Image.Image) -> Image.Image:
    there = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    return ImageCms.applyTransform(picture, there)


def sequences() -> Made:
    frames = [face(n, 190 + n) for n in range(3)]
    frames = [frame.resize(frames[0].size) for frame in frames]
    for kind in ("GIF", "WEBP", "PNG", "TIFF", "AVIF"):
        yield f"moving/{kind.lower()}", saved(frames[0], kind, save_all=True, append_images=frames[1:]), FACE


def bombs() -> Made:
    for side in (2_001, 30_000, 2_000_000_000):
        yield f"bomb/header-{side}.png", png(side, side, 8, 2, bytes(1000)), {"too_large"}
    yield "bomb/real.png", png(9000, 9000, 1, 0, bytes(9000 * 1126)), {"too_large"}
    inner = png(5000, 5000, 8, 2, bytes(1000))
    directory = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22)
    yield "bomb/icon.ico", directory + inner, {"too_large"}
    jpeg = bytearray(saved(face(4, 150), "JPEG"))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = struct.pack(">HH", 65_000, 65_000)
    yield "bomb/jpeg.jpg", bytes(jpeg), {"too_large"}
    yield "bomb/gif.gif", b"GIF89a" + struct.pack("<HH", 65_000, 65_000) + bytes(20), {"too_large", *CUT}
    yield "bomb/text.png", _long_text(), FACE | CUT | {"too_large"}


def _long_text() -> bytes:
    """A good picture with a compressed comment of 200 MB."""
    whole = saved(face(5, 150), "PNG")
    packed = zlib.compressobj(9)
    body = b"".join(packed.compress(bytes(1 << 20)) for _ in range(200)) + packed.flush()
    return whole[:33] + chunk(b"zTXt", b"Comment\0\0" + body) + whole[33:]


def sizes() -> Made:
    for width, height in ((1, 1), (63, 300), (300, 63), (2, 2000)):
        yield (
            f"side/{width}x{height}.png",
            saved(Image.new("RGB", (width, height), "grey"), "PNG"),
            {"too_small"},
        )
    yield "side/64.png", saved(Image.new("RGB", (64, 64), "grey"), "PNG"), {"no_face"}
    yield "side/strip.png", saved(Image.new("RGB", (3000, 64), "grey"), "PNG"), {"no_face"}
    yield "side/tiny-face.png", saved(face(1, 70), "PNG"), {"face_too_small"}
    noise = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    yield "side/noise.png", saved(Image.fromarray(noise), "PNG"), {"no_face"}


_BACK = {
    1: None,
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_90",
    7: "TRANSVERSE",
    8: "ROTATE_270",
}


def exif_and_colours() -> Made:
    for value, back in _BACK.items():
        for kind in ("JPEG", "PNG", "TIFF"):
            upright, exif = face(value, 220 + value), Image.Exif()
            exif[0x0112] = value
            exif[0x010F] = "SECRETMAKER"
            exif.get_ifd(0x8825)[1] = "N"
            stored = upright.transpose(Image.Transpose[back]) if back else upright
            yield f"exif/{kind.lower()}-{value}", saved(stored, kind, exif=exif.tobytes()), FACE
    broken = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 30
    yield "exif/broken.jpg", saved(face(0, 240), "JPEG", exif=broken), FACE
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield "icc/srgb.jpg", saved(face(1, 241), "JPEG", icc_profile=srgb), FACE
    yield "icc/broken.jpg", saved(face(2, 242), "JPEG", icc_profile=b"no profile" * 20), FACE
    yield "icc/cut.png", saved(face(3, 243), "PNG", icc_profile=srgb[:200]), FACE
    yield "icc/rgb-on-grey.png", saved(face(4, 244).convert("L"), "PNG", icc_profile=srgb), FACE
    yield "icc/rgb-on-cmyk.tif", saved(face(5, 245).convert("CMYK"), "TIFF", icc_profile=srgb), FACE


PICTURES = (truncated, flipped, no_pictures, mislabelled, modes, sequences, bombs, sizes, exif_and_colours)
