"""Contact sheets: where pictures and captions land, and what is refused."""

import numpy as np
import pytest
from PIL import ImageFont

from stylebot.errors import StylebotError
from stylebot.sheets import contact_sheet, wrap

FONT = ImageFont.load_default(10)


def plain(colour: tuple[int, int, int], height: int = 20, width: int = 20) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_pictures_lie_row_by_row_in_order() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9), (99, 0, 99)]
    sheet = np.asarray(contact_sheet(map(plain, colours), 3, cell_px=40))
    centres = [(24 + row * 44, 24 + column * 44) for row in (0, 1) for column in range(3)]
    seen = [tuple(sheet[at].tolist()) for at in centres]
    assert seen == [*colours, (255, 255, 255)]


def test_wide_pictures_keep_their_proportions() -> None:
    sheet = np.asarray(contact_sheet([plain((0, 0, 0), 10, 40)], 1, cell_px=40)).sum(2)
    dark = np.argwhere(sheet == 0)
    assert (dark.max(0) - dark.min(0) + 1).tolist() == [10, 40]
    assert abs((dark.max(0) + dark.min(0)) / 2 - (4 + 19.5)).max() <= 0.5


@pytest.mark.parametrize("text", ["blurred, dark (12)", "a" * 80, "one\ntwo words", "", "얼굴 사진"])
def test_wrapped_lines_fit_and_lose_nothing(text: str) -> None:
    lines = wrap(text, FONT, 60)
    assert all(FONT.getlength(line) <= 60 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_captions_get_the_room_they_need() -> None:
    short = contact_sheet([plain((1, 1, 1))] * 2, 2, ["a", "b"])
    long = contact_sheet([plain((1, 1, 1))] * 2, 2, ["a", "many words " * 12])
    assert long.height > short.height + 40 and long.width == short.width
    ink = np.asarray(long.convert("L"))[104:, 104:] < 128
    assert ink[-14:].any(), "the last line of the long caption is cut off"


def test_captions_that_do_not_match_are_refused() -> None:
    with pytest.raises(StylebotError, match="2 pictures needs as many captions, not 1"):
        contact_sheet([plain((0, 0, 0))] * 2, 2, ["a"])


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8),
                                 np.zeros((3, 4, 4), np.uint8)])
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        contact_sheet([bad], 2)


def test_without_pictures_the_sheet_says_so() -> None:
    empty = contact_sheet([], 4, title="Refused")
    assert empty.width == 4 * 100 + 4 and (np.asarray(empty.convert("L")) < 128).any()
