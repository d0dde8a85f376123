"""The five sheets of filter: who is shown, beside whom, in which order, with which words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stylebot import lineups
from stylebot.lineups import Sheets, write_sheets


def table(*faces: dict) -> pd.DataFrame:
    """The filter table of faces that differ from an accepted one as said."""
    rows = []
    for number, face in enumerate(faces):
        row = {
            "face_id": f"f{number:03d}",
            "source": "celebrity",
            "photo": f"{number}.jpg",
            "score": 90.0 - number,
            "reasons": [],
            "margin": 3.0,
            "nearest_limit": "min_sharpness_db",
            "limit": -12.5,
            "sharpness_db": -12.0,
            "yaw_deg": -41.0,
            "identity": number,
            "duplicate_of": "",
            "duplicate_correlation": np.nan,
        }
        rows.append(row | face)
    faces = pd.DataFrame(rows)
    faces["accepted"] = faces["reasons"].map(len) == 0
    return faces


def texts(cells: Sequence[tuple]) -> list[str]:
    return [caption for _, caption in cells]


def ids(cells: Sequence[tuple]) -> list[str | None]:
    return [None if face is None else face.face_id for face, _ in cells]


def test_refused_faces_stand_together_by_reason() -> None:
    faces = table(
        *[{"reasons": ["blurred"]}] * 3,
        {},
        {"reasons": ["pose", "dark"], "score": 10.0},
        *[{"reasons": ["blurred", "dark"]}] * 10,
    )
    title, cells = lineups._refused(faces, 100)
    assert title == "Refused: 14 of 15 faces, 14 shown, by worst reason (score, source)"
    assert ids(cells)[:3] == ["f000", "f001", "f002"], "best first"
    assert ids(cells)[12:15] == ["f014", None, "f004"], "the rarer reason fills what the first leaves"
    assert texts(cells)[14] == "pose, dark (10, celebrity)" and len(cells) == 24
    shown = [face for face in ids(lineups._refused(faces, 6)[1]) if face]
    assert "f004" in shown and len(shown) == 6, "a rare reason is not crowded out"


def test_borderline_faces_are_one_limit_away() -> None:
    faces = table(
        {"margin": 0.2},
        {"margin": 0.05},
        {"margin": 1.5},
        {"margin": -0.1, "reasons": ["blurred"], "sharpness_db": -12.62},
        {"margin": -0.01, "reasons": ["pose"], "nearest_limit": "max_yaw_deg", "limit": 40.0},
        {"margin": -0.02, "reasons": ["blurred", "dark"]},
        {"margin": -2.0, "reasons": ["dark"]},
        {"margin": 0.01, "reasons": ["duplicate"]},
        {"margin": np.nan, "reasons": ["unmeasured"]},
    )
    title, cells = lineups._borderline(faces, 100)
    assert ids(cells)[:5] == ["f004", "f003", None, "f001", "f000"]
    assert {face for face in ids(cells) if face} == {"f000", "f001", "f003", "f004"}
    assert texts(cells)[0] == "refused: yaw_deg 41, at most 40 (86, celebrity)"
    assert texts(cells)[1] == "refused: sharpness_db -12.6, at least -12.5 (87, celebrity)"
    assert title.startswith("Borderline: 2 refused (2 shown), then 2 accepted (2 shown); nearest to their")


def test_copies_stand_beside_what_stays_the_least_alike_first() -> None:
    copy = {"reasons": ["duplicate"], "duplicate_of": "f001"}
    faces = table(copy | {"duplicate_correlation": 0.999}, {}, copy | {"duplicate_correlation": 0.981}, {})
    title, cells = lineups._duplicates(faces, 100)
    assert ids(cells) == ["f001", "f002", "f001", "f000"]
    assert texts(cells)[:2] == ["stays (89) 1.jpg", "copy 0.981 (88) 2.jpg"]
    assert title.startswith("Duplicates: 2 copies, 2 shown")


def test_people_stand_together() -> None:
    faces = table(
        *[{"identity": 7}] * 2,
        {"identity": 3},
        *[{"identity": 5}] * 14,
        {"identity": 7, "reasons": ["dark"], "score": 99.0},
        {"identity": -1},
    )
    title, cells = lineups._identities(faces, 100)
    assert title == "People: 3, 2 with several faces, 2 shown, most faces first"
    assert None not in ids(cells)[:12] and ids(cells)[12:15] == ["f017", "f000", "f001"]
    assert texts(cells)[0].startswith("person 5: 14 faces") and texts(cells)[12].endswith("refused: dark")
    assert len(lineups._identities(faces, 12)[1]) == 12, "the largest only"
    mixed = table(*[{"identity": 0}] * 8, *[{"identity": 1}] * 4, *[{"identity": 2}] * 3)
    assert texts(lineups._identities(mixed, 12)[1])[9].startswith("person 2: 3"), "what still has room"
    pairs = table(*[{"identity": number // 2} for number in range(10)])
    cells = lineups._identities(pairs, 100)[1]
    gaps = [n for n, face in enumerate(ids(cells)) if face is None]
    assert gaps == [2, 5, 8, 11, *range(14, 24)], "four pairs on a line"


def test_lines_leave_little_paper_white() -> None:
    """The sample's refusals: nine reasons stood on nine lines, most of them white."""
    groups = [[(number, "")] * size for number, size in enumerate((6, 6, 5, 5, 2, 2, 2, 1, 1))]
    cells = lineups._lines(groups)
    lines = [[face for face, _ in cells[i : i + 12]] for i in range(0, len(cells), 12)]
    assert [line.count(None) for line in lines] == [1, 1, 4]
    for number, group in enumerate(groups):
        places = [n for n, (face, _) in enumerate(cells) if face == number]
        assert places == list(range(places[0], places[0] + len(group))), "in one piece"
        assert places[0] // 12 == places[-1] // 12, "on one line"


def test_all_sheets_are_written_even_of_nobody(tmp_path: Path) -> None:
    class Plain:
        def rgb(self, row: dict) -> np.ndarray:
            return np.full((16, 16, 3), 99, np.uint8)

    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for faces in (table({}), table({"reasons": ["unmeasured"], "margin": np.nan, "nearest_limit": ""})):
        rows = faces[["source", "face_id"]].to_dict("records")
        write_sheets(faces, rows, Plain(), Sheets(*paths), 20)
        for path in paths:
            with Image.open(path) as sheet:
                assert sheet.width == 1204
            path.unlink()


@pytest.mark.parametrize(("sizes", "most", "share"), [([5, 1], 100, 100), ([50, 3], 13, 10), ([9] * 9, 4, 1)])
def test_every_reason_has_its_share(sizes: list[int], most: int, share: int) -> None:
    assert lineups._fair_share(sizes, most) == share
