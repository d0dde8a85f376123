"""Limits from labels: known ones are found again, with intervals; wrong labels are one clear line."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from stylebot.calibrate import calibrate, choose, fit_limit, read_labels, report
from stylebot.errors import StylebotError
from stylebot.files import write_zip
from stylebot.limits import REASONS, Thresholds

OFF = dict.fromkeys(Thresholds.model_fields) | {"grey": True}
LIMITS = {
    "celebrity": Thresholds(**OFF | {"min_sharpness_db": -15.0, "max_yaw_deg": 40.0}),
    "id": Thresholds(**OFF),
}


def table(count: int, source: str = "celebrity") -> pd.DataFrame:
    """Faces whose sharpness and yaw are spread evenly, in no order; everything else is fine."""
    rng = np.random.default_rng(0)
    faces = {name: np.full(count, 1.0) for name in REASONS}
    faces["sharpness_db"] = rng.permutation(np.linspace(-16, -6, count))
    faces["yaw_deg"] = rng.permutation(np.linspace(-60, 60, count))
    ids = [f"{number:04d}" for number in range(count)]
    about = {"face_id": ids, "source": source, "photo": ids, "reasons": [["blurred"]] * count}
    return pd.DataFrame(faces | about | {"score": faces["sharpness_db"]})


def labelled(faces: pd.DataFrame, wrong: float = 0.0) -> pd.DataFrame:
    """Bad below -11 dB or beyond 30 degrees; a share of `wrong` labels among the former."""
    turned = faces["yaw_deg"].abs() > 30
    blurred = (faces["sharpness_db"] < -11) ^ (np.random.default_rng(1).random(len(faces)) < wrong)
    reason = np.where(turned, "pose", np.where(blurred, "blurred", ""))
    return faces[["source", "face_id"]].assign(good=reason == "", reason=reason)


def test_the_limits_behind_the_labels_are_found() -> None:
    faces = table(400)
    fits = {fit.limit: fit for fit in calibrate(faces, labelled(faces), LIMITS, 1.0)["celebrity"]}
    sharp, yaw = fits["min_sharpness_db"], fits["max_yaw_deg"]
    assert sharp.best[0] == pytest.approx(-11, abs=0.1) and yaw.best[0] == pytest.approx(30, abs=1)
    assert sharp.precision[0] == sharp.recall[0] == yaw.precision[0] == yaw.recall[0] == 1
    assert sharp.now_precision == 1 and sharp.now_recall == pytest.approx(0.2, abs=0.08)
    assert yaw.now == 40.0 and yaw.bad == 200
    assert "min_roll_deg" not in fits and not any(fit.reason == "dark" for fit in fits.values())
    console = Console(width=200, file=io.StringIO())
    console.print(report("celebrity", list(fits.values())))
    assert "min_sharpness_db" in console.file.getvalue()


def test_intervals_hold_the_limit_and_shrink_with_more_faces() -> None:
    widths = []
    for count in (150, 1500):
        faces = table(count)
        labels = labelled(faces, wrong=0.1)
        good = labels["reason"] != "pose"
        best, precision, recall = fit_limit(
            faces["sharpness_db"][good].to_numpy(), ~labels["good"][good].to_numpy(), False, 1.0, 0
        )
        assert best[1] <= -11 <= best[2] and precision[1] <= precision[0] <= precision[2]
        assert (
            0.7 < recall[0] < 0.98
            and best
            == fit_limit(
                faces["sharpness_db"][good].to_numpy(), ~labels["good"][good].to_numpy(), False, 1.0, 0
            )[0]
        )
        widths.append(best[2] - best[1])
    assert widths[1] < widths[0]


def test_a_small_beta_rather_keeps_faces() -> None:
    values = np.random.default_rng(2).normal(size=600)
    bad = values + np.random.default_rng(3).normal(size=600) > 0.5
    careful, strict = (fit_limit(values, bad, True, beta, 0) for beta in (0.3, 3.0))
    assert careful[0][0] > strict[0][0] and careful[1][0] > strict[1][0] and careful[2][0] < strict[2][0]


def test_chosen_faces_come_back_as_labels(tmp_path: Path) -> None:
    faces, out = table(30), tmp_path / "labels.csv"
    Image.new("RGB", (16, 16)).save(tmp_path / "face.png")
    png = (tmp_path / "face.png").read_bytes()
    write_zip(tmp_path / "celebrity.zip", [(f"{face}.png", png) for face in faces["face_id"]])
    assert choose(faces, tmp_path, 10, out).exists()
    assert read_labels(out).empty, "nobody has said anything yet"
    lines = out.read_text().splitlines()
    assert len(lines) == 11 and lines[1].startswith("1,")
    out.write_text("\n".join([lines[0], lines[1][:-1] + "bad,blurred", lines[2][:-1] + "Good,"]))
    labels = read_labels(out)
    assert labels["good"].tolist() == [False, True] and labels["reason"].tolist() == ["blurred", ""]
    assert labels["face_id"][0] == faces.sort_values("score")["face_id"].iloc[0]
    with pytest.raises(StylebotError, match="exists already"):
        choose(faces, tmp_path, 10, out)


HEAD = "source,face_id,verdict,reason\n"


@pytest.mark.parametrize(("text", "message"), [
    (f"{HEAD}celebrity,0001,ugly,\n", "line 2: the verdict is good or bad, not 'ugly'"),
    (f"{HEAD}celebrity,0001,bad,ugly\n", "'ugly' is no reason"),
    (f"{HEAD}celebrity,0001,good,blurred\n", "'blurred' is no reason of a bad face"),
    ("face_id,verdict\n1,good\n", "lacks the columns reason, source"), ("", "lacks the columns")])
def test_wrong_labels_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(StylebotError, match=message):
        read_labels(path)


def test_too_few_and_unknown_faces_are_refused() -> None:
    faces = table(120)
    with pytest.raises(StylebotError, match=r"at least 100 .* 99 for filter.celebrity, 0 for filter.id"):
        calibrate(faces, labelled(faces)[:99], LIMITS, 1.0)
    with pytest.raises(StylebotError, match=r"20 labelled faces such as 0100 are not in the filter table"):
        calibrate(faces[:100], labelled(faces), LIMITS, 1.0)
    assert calibrate(faces, labelled(faces).assign(good=True, reason=""), LIMITS, 1.0) == {"celebrity": []}
