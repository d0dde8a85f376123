"""Pictures inside a page: data URIs with what they show in words."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stylebot.errors import StylebotError


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: data URI, px, and what it shows for those who do not see it."""

    uri: str
    width: int
    height: int
    alt: str


def picture(image: Image.Image, alt: str, lossless: bool = False) -> Picture:
    """`image` as WebP inside a data URI."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=88, method=4, lossless=lossless)
    text = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/webp;base64,{text}", image.width, image.height, alt)


def read_picture(path: Path, alt: str) -> Picture:
    """A picture file for the page. Raises StylebotError when it is none."""
    try:
        with Image.open(path) as image:
            return picture(image, alt)
    except OSError as error:
        raise StylebotError(f"{path} is not a readable picture: {error}") from None
