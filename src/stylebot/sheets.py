"""Contact sheets: many small pictures on one, with captions that fit under them."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stylebot.errors import StylebotError

_INK, _PAPER = (32, 32, 32), (255, 255, 255)
_GAP_PX, _TEXT_PX, _TITLE_PX = 4, 10, 15


def wrap(text: str, font: ImageFont.FreeTypeFont, width_px: float) -> list[str]:
    """`text` in lines of at most `width_px`, broken at blanks, inside a word only if it is too long."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if font.getlength(joined) <= width_px:
                line = joined
                continue
            if line:
                lines.append(line)
            while len(word) > 1 and font.getlength(word) > width_px:
                fits = max(n for n in range(1, len(word)) if n == 1 or font.getlength(word[:n]) <= width_px)
                lines.append(word[:fits])
                word = word[fits:]
            line = word
        lines.append(line)
    return lines


def _cell(rgb: np.ndarray, cell_px: int) -> Image.Image:
    """`rgb` uint8 [H,W,3] scaled to fit a square of `cell_px`, its proportions kept, centred on paper."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"a picture of a sheet is uint8 [H,W,3], not {rgb.dtype} {list(rgb.shape)}")
    picture = Image.fromarray(rgb)
    scale = cell_px / max(picture.size)
    wanted = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if wanted != picture.size:
        picture = picture.resize(wanted, Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (cell_px, cell_px), _PAPER)
    cell.paste(picture, ((cell_px - wanted[0]) // 2, (cell_px - wanted[1]) // 2))
    return cell


def contact_sheet(rgbs: Iterable[np.ndarray], columns: int, captions: Sequence[str] | None = None,
                  cell_px: int = 96, title: str | None = None) -> Image.Image:
    """Pictures row by row on white, each in a square cell, with captions below and a title above.

    rgbs: pictures, each uint8 [H,W,3] of any size (scaled to the cell, proportions kept)
    captions: one text per picture, wrapped to the cell; a row is as high as its longest caption
    Returns an RGB picture, `columns` cells wide, however few pictures there are; without pictures it
    says "none". Raises StylebotError when captions and pictures differ in number, ValueError for a
    picture that is not uint8 [H,W,3].
    """
    if columns < 1 or cell_px < 8:
        raise ValueError(f"a sheet needs columns >= 1 and cell_px >= 8, not {columns} and {cell_px}")
    cells = [_cell(np.asarray(rgb), cell_px) for rgb in rgbs]
    if captions is not None and len(captions) != len(cells):
        raise StylebotError(f"a sheet of {len(cells)} pictures needs as many captions, not {len(captions)}")
    font, big = ImageFont.load_default(_TEXT_PX), ImageFont.load_default(_TITLE_PX)
    width = columns * (cell_px + _GAP_PX) + _GAP_PX
    texts = [wrap(text, font, cell_px) for text in captions] if captions is not None else [[] for _ in cells]
    rows = [range(first, min(first + columns, len(cells))) for first in range(0, len(cells), columns)]
    line_px = sum(font.getmetrics())
    row_px = [cell_px + _GAP_PX + line_px * max(len(texts[i]) for i in row) for row in rows]
    heading = wrap(title if cells else f"{title or ''} (none)".strip(), big, width - 2 * _GAP_PX) \
        if title or not cells else []
    top = _GAP_PX + (len(heading) * sum(big.getmetrics()) + _GAP_PX if heading else 0)
    sheet = Image.new("RGB", (width, top + sum(row_px)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for n, line in enumerate(heading):
        draw.text((_GAP_PX, _GAP_PX + n * sum(big.getmetrics())), line, _INK, big)
    for row, height in zip(rows, row_px, strict=True):
        for column, i in enumerate(row):
            left = _GAP_PX + column * (cell_px + _GAP_PX)
            sheet.paste(cells[i], (left, top))
            for n, line in enumerate(texts[i]):
                draw.text((left, top + cell_px + n * line_px), line, _INK, font)
        top += height
    return sheet
