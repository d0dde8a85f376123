"""The tool review.py: refusals by group with honest intervals, skin tones, strangers in a person's folder."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from aligned_faces import write_aligned
from PIL import Image
from test_quality import FACES, clip

from stylebot.crops import AlignedFaces
from stylebot.review import GREY, interval, rates, stranger_sheet, strangers, tone, tones, typology_deg

SRC = Path(__file__).parents[1] / "src"


def test_a_rate_per_group_without_what_is_no_matter_of_quality() -> None:
    groups = ["a", "b", "a", "a", "b"]
    reasons = [["dark", "blurred"], ["duplicate"], [], ["dark"], ["identity_cap", "pose"]]
    first, second = rates(groups, reasons)
    assert (first.group, first.faces, first.reasons) == ("a", 3, "dark 2")
    assert first.refused == pytest.approx(2 / 3)
    assert (second.group, second.refused, second.reasons) == ("b", 0.5, "pose 1")
    assert 0 < first.low < first.refused < first.high < 1


def test_intervals_are_wilsons() -> None:
    assert interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-3)
    assert interval(40, 400) == pytest.approx((0.0743, 0.1333), abs=1e-3)


def test_darker_skin_has_a_lower_angle() -> None:
    angles = []
    for colour in ((250, 220, 200), (225, 180, 150), (170, 120, 85), (90, 60, 45)):
        rgb = np.full((128, 128, 3), colour, np.uint8)
        angles += [typology_deg(rgb, FACES[0][1] / 2), typology_deg(rgb, np.zeros((5, 2)))]
    assert angles[::2] == sorted(angles[::2], reverse=True) and angles[::2] == angles[1::2]
    assert [tone(angle) for angle in angles[::2]] == ["very light", "light", "brown", "dark"]


def judged(folder: Path) -> tuple[pd.DataFrame, Path]:
    """Two folders and a loose photo: in kim/ a face of another, in lee/ no majority."""
    people = [("kim/1.jpg", 0, 7), ("kim/2.jpg", 1, 7), ("kim/3.jpg", 2, 9), ("lee/1.jpg", 3, 1),
              ("lee/2.jpg", 4, 2), ("lee/3.jpg", 5, 3), ("x.jpg", 6, 9)]  # fmt: skip
    faces = [{"source": "celebrity", "name": name, "rgb": clip(FACES[number][0] * 1.0),
              "landmarks": FACES[number][1]} for name, number, _ in people]  # fmt: skip
    aligned = write_aligned(folder, faces)
    table = pd.read_parquet(aligned / "faces.parquet")
    identity = {name: person for name, _, person in people}
    table["identity"] = table["photo"].map(identity)
    table["score"] = np.arange(len(table), dtype=float)
    table["reasons"] = [["blurred"]] + [[]] * (len(table) - 1)
    return table, aligned


def test_a_stranger_in_a_folder_is_shown_beside_its_person(tmp_path: Path) -> None:
    table, aligned = judged(tmp_path)
    found = strangers(table)
    assert found["photo"].tolist() == ["kim/3.jpg"]
    assert found["stays"].tolist() == table[table["photo"] == "kim/2.jpg"]["face_id"].tolist()
    stranger_sheet(found, AlignedFaces(aligned), tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").width > 700
    assert strangers(table[table["photo"] != "kim/3.jpg"]).empty


def test_grey_photos_have_no_tone(tmp_path: Path) -> None:
    table, aligned = judged(tmp_path)
    table["grey"] = [True] + [False] * (len(table) - 1)
    rows = {(row["source"], row["face_id"]): row for row in table.to_dict("records")}
    found = tones(table, rows, AlignedFaces(aligned))
    assert found[0] == GREY and GREY not in found[1:]


def test_the_command(tmp_path: Path) -> None:
    table, _ = judged(tmp_path)
    command = [sys.executable, str(SRC / "review.py"), "--stages", str(tmp_path)]
    command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "dvc repro filter" in done.stderr
    (tmp_path / "filter").mkdir()
    table.to_parquet(tmp_path / "filter" / "faces.parquet")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "celebrity" in done.stdout and "1 faces are not of the person" in done.stdout
    written = pd.read_csv(tmp_path / "out" / "rates.csv").set_index("group")
    assert written.loc["celebrity", "faces"] == 7
    assert written.loc["celebrity", "refused"] == pytest.approx(1 / 7)
