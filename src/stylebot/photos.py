"""Decode any photo safely: upright RGB that can be turned into sRGB, or one PhotoError that says why not."""

import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, UnidentifiedImageError

from stylebot.errors import StylebotError

MAX_FILE_BYTES = 1 << 30

_NOT_OPENED = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}  # run other programs, or hold no photo
_SEQUENCES = {"GIF", "WEBP", "PNG", "AVIF", "HEIF", "FLI", "TIFF"}
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_CUT_SHORT = ("truncat", "broken data stream", "unexpected end", "eof", "end of file", "incomplete",
              "not enough", "premature", "buffer is not large")
_GREY_SPREAD = 8  # largest difference between channels of a grey photo (JPEG rounds)
_DEPTHS = (255, 4095, 65535)


class PhotoError(StylebotError):
    """A file that gives no picture: `reason` is one word for tables, `detail` a line for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple:
        return PhotoError, (self.reason, self.detail)


@dataclass(frozen=True)
class Photo:
    """A decoded photo. `picture` is RGB and upright, still in the colours of the file; see `srgb`."""

    picture: Image.Image
    orientation: int  # EXIF value, 1..8
    grey: bool
    flags: tuple[str, ...]  # of alpha, animated, bad_exif, bad_icc, cmyk, deep, grey, icc
    translate: Callable[[Image.Image], Image.Image] | None = None

    @property
    def width(self) -> int:
        """Width of the upright photo, px."""
        return self.picture.width

    @property
    def height(self) -> int:
        """Height of the upright photo, px."""
        return self.picture.height

    def srgb(self, part: Image.Image) -> Image.Image:
        """`part` of the picture in sRGB: cheap after the crop, slow on a whole frame."""
        return self.translate(part) if self.translate else part

    @cached_property
    def rgb(self) -> np.ndarray:
        """rgb [H, W, 3] uint8, sRGB, upright."""
        return np.array(self.srgb(self.picture))


def check_file(path: Path) -> None:
    """Refuse what is no ordinary file with content, before anything is opened.

    Raises PhotoError: not_a_file (folder, FIFO, socket, device), missing (also dangling links), empty,
    too_large, unreadable (no permission).
    """
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        link = path.is_symlink()
        raise PhotoError("missing", "a link that leads nowhere" if link else "the file is gone") from None
    except OSError as error:
        raise PhotoError("unreadable", error.strerror or str(error)) from None
    if not stat.S_ISREG(info.st_mode):
        raise PhotoError("not_a_file", "a folder, pipe, socket or device, not a file")
    if info.st_size == 0:
        raise PhotoError("empty", "the file has no bytes")
    if info.st_size > MAX_FILE_BYTES:
        raise PhotoError("too_large", f"a file of {info.st_size / 2**30:.1f} GiB")
    if not os.access(path, os.R_OK):
        raise PhotoError("unreadable", "no permission to read the file")


def read_photo(source: Path | bytes, max_pixels: int) -> Photo:
    """Decode the photo in a file, or in its bytes; the first frame of an animation.

    `max_pixels`: larger pictures are refused before they are decoded.
    Raises PhotoError with reason unreadable, truncated, too_large, empty, missing or not_a_file.
    """
    if isinstance(source, Path):
        check_file(source)
        try:
            source = source.read_bytes()
        except OSError as error:
            raise PhotoError("unreadable", error.strerror or str(error)) from None
    if not source:
        raise PhotoError("empty", "the file has no bytes")
    with _decoding(max_pixels), Image.open(io.BytesIO(source), formats=_formats()) as opened:
        if opened.width * opened.height > max_pixels:
            raise PhotoError("too_large", f"{opened.width} x {opened.height} px; the limit is {max_pixels}")
        if opened.format == "PNG":
            _check_sums(source)
        return _decode(opened)


@contextmanager
def _decoding(max_pixels: int) -> Iterator[None]:
    """Pillow's limit set to ours, its warnings silent, whatever a decoder raises turned into PhotoError."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except PhotoError:
        raise
    except UnidentifiedImageError:
        raise PhotoError("unreadable", "not a picture in any known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        raise PhotoError("too_large", f"more than {max_pixels} px") from None
    except Exception as error:  # forty decoders raise what they like on damaged data; each is told by name
        text = " ".join(str(error).split()) or type(error).__name__
        short = isinstance(error, EOFError) or any(sign in text.lower() for sign in _CUT_SHORT)
        raise PhotoError("truncated" if short else "unreadable", text[:200]) from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@lru_cache
def _formats() -> tuple[str, ...]:
    pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_OPENED)


def _check_sums(content: bytes) -> None:
    """Raise for a PNG whose own checksums say that it is damaged: Pillow would give what is left of it."""
    with Image.open(io.BytesIO(content), formats=("PNG",)) as opened:
        opened.verify()


def _decode(opened: Image.Image) -> Photo:
    flags = set()
    if opened.format in _SEQUENCES and getattr(opened, "n_frames", 1) > 1:
        flags.add("animated")
    before = _orientation(opened, flags)
    opened.load()
    left = _orientation(opened, flags)  # what the decoder has not applied itself (TIFF and HEIC do)
    before = opened.info.get("original_orientation") or before
    picture, profile = _to_rgb(opened, flags)
    translate = _translator(profile, flags) if profile else None
    if left in _TURNS:
        picture = picture.transpose(_TURNS[left])
    if "grey" not in flags and _looks_grey(picture):
        flags.add("grey")
    return Photo(picture, before, "grey" in flags, tuple(sorted(flags)), translate)


def _orientation(image: Image.Image, flags: set[str]) -> int:
    """EXIF orientation 1..8; 1, and the flag bad_exif, when the EXIF block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block must not cost the photo; the flag tells
        flags.add("bad_exif")
        return 1
    return value if value in _TURNS else 1


def _to_rgb(image: Image.Image, flags: set[str]) -> tuple[Image.Image, bytes | None]:
    """The picture as RGB without metadata, and the ICC profile that still has to be applied to it."""
    profile = image.info.get("icc_profile") or None
    mode = image.mode
    if mode in ("F", "I") or mode.startswith("I;"):
        flags |= {"deep", "grey"}
        return _eight_bits(image).convert("RGB"), None
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = _on_white(image, flags)
    if mode in ("1", "L", "LA", "La"):
        flags.add("grey")
    if mode == "CMYK":
        flags.add("cmyk")
    if image.mode in ("CMYK", "LAB") or (image.mode == "L" and profile):
        return _translated(image, profile, flags), None
    plain = image.convert("RGB") if image.mode != "RGB" else image.copy()
    plain.info = {}
    return plain, profile


def _eight_bits(image: Image.Image) -> Image.Image:
    """A deep grey picture as 8 bits: from the fewest of 8, 12, 16 bits that hold it, else its maximum."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0).clip(0)
    top = float(values.max(initial=0.0))
    full = top if 0 < top <= 1.0 else next((depth for depth in _DEPTHS if top <= depth), top)
    return Image.fromarray(np.rint(values * (255.0 / max(full, 1e-12))).astype(np.uint8))


def _on_white(image: Image.Image, flags: set[str]) -> Image.Image:
    """A picture with transparency laid on white; unchanged colours when it is opaque after all."""
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return image.convert("RGB")
    flags.add("alpha")
    white = Image.new("RGB", image.size, "white")
    white.paste(image.convert("RGB"), mask=alpha)
    return white


@lru_cache(maxsize=1)
def _srgb_profile() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=32)
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From `profile` (None: the standard one of `mode`) to sRGB; None when it is sRGB already."""
    if profile is None:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    else:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
    return ImageCms.buildTransform(source, _srgb_profile(), mode, "RGB")


def _translated(image: Image.Image, profile: bytes | None, flags: set[str]) -> Image.Image:
    """A CMYK, Lab or grey picture as RGB by its profile, or by Pillow's plain formula without a good one."""
    if profile or image.mode == "LAB":
        try:
            transform = _transform(profile, image.mode)
            flags |= {"icc"} if profile else set()
            return ImageCms.applyTransform(image, transform)
        except (ImageCms.PyCMSError, OSError, ValueError):
            flags.add("bad_icc")
    return image.convert("RGB")


def _translator(profile: bytes, flags: set[str]) -> Callable[[Image.Image], Image.Image] | None:
    """What turns RGB pictures with this profile into sRGB; None when it is sRGB, or is damaged (bad_icc)."""
    try:
        transform = _transform(profile, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        flags.add("bad_icc")
        return None
    if transform is None:
        return None
    flags.add("icc")
    return lambda part: ImageCms.applyTransform(part, transform)


def _looks_grey(picture: Image.Image) -> bool:
    """Whether 99 % of the pixels have nearly equal channels (on a coarse grid of the picture)."""
    few = np.asarray(picture.resize((96, 96), Image.Resampling.NEAREST)).astype(np.int16)
    return bool(np.quantile(few.max(2) - few.min(2), 0.99) <= _GREY_SPREAD)
