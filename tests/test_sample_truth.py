"""align and filter against what each photo of the sample was meant to be.

Every photo with a fault, the original of every copy, and of the good ones each fourth: a third of the sample,
read from the embedded remote as it is in git.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from stylebot.align import AlignParams, align
from stylebot.filter import FilterParams, select
from stylebot.lineups import Sheets
from stylebot.params import load_params

ROOT = Path(__file__).parents[1]
REMOTE = ROOT / ".dvc" / "sample" / "files" / "md5"
EVERY = 4  # of the good photos one in so many

pytestmark = pytest.mark.slow


def stored(md5: str) -> Path:
    return REMOTE / md5[:2] / md5[2:]


def sample_files() -> Iterator[tuple[str, str, Path]]:
    """(source, photo, file in the embedded remote) of every sample photo."""
    for source in ("celebrity", "id"):
        tracked = YAML(typ="safe").load(ROOT / "stages" / "photos" / f"{source}.dvc")
        for entry in json.loads(stored(tracked["outs"][0]["md5"]).read_bytes()):
            yield source, entry["relpath"], stored(entry["md5"])


def chosen(truth: pd.DataFrame) -> pd.DataFrame:
    faulty = truth[truth["meant"] != "good"]
    originals = truth["photo"].isin(set(faulty["duplicate_of"].dropna())) & (truth["source"] == "celebrity")
    good = truth[truth["meant"] == "good"]
    return truth[(truth["meant"] != "good") | originals | truth.index.isin(good.index[::EVERY])]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, model_file: Callable[[str], Path]) -> pd.DataFrame:
    """The chosen lines of truth.csv, and beside them `outcome` and `got`: "good", or every reason against."""
    folder = tmp_path_factory.mktemp("sample")
    truth = chosen(pd.read_csv(ROOT / "stages" / "truth.csv"))
    wanted = set(zip(truth["source"], truth["photo"], strict=True))
    for source, photo, file in sample_files():
        if (source, photo) in wanted:
            (folder / "photos" / source).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / "photos" / source / photo)
    params = ROOT / "params.yaml"
    before = os.environ.get("STYLEBOT_SCRATCH")
    os.environ["STYLEBOT_SCRATCH"] = str(folder / "scratch")
    try:
        align(
            folder / "photos",
            model_file("landmarks.dat"),
            folder / "align",
            load_params("align", AlignParams, path=params),
        )
        select(
            folder / "align",
            folder / "photos",
            model_file("identity.dat"),
            folder / "faces.parquet",
            Sheets(*(folder / f"{number}.png" for number in range(5))),
            load_params("filter", FilterParams, path=params),
        )
    finally:
        os.environ.pop("STYLEBOT_SCRATCH")
        if before is not None:
            os.environ["STYLEBOT_SCRATCH"] = before
    photos = pd.read_parquet(folder / "align" / "photos.parquet")[["source", "photo", "outcome"]]
    faces = pd.read_parquet(folder / "faces.parquet")
    verdicts = faces.groupby(["source", "photo"]).agg(
        accepted=("accepted", "any"),
        reasons=("reasons", lambda rows: ",".join(r for row in rows for r in row)),
    )
    table = truth.merge(photos, on=["source", "photo"], how="left").join(verdicts, on=["source", "photo"])
    table["got"] = [
        "good" if accepted is True else reasons if outcome == "faces" else outcome
        for accepted, reasons, outcome in table[["accepted", "reasons", "outcome"]].values
    ]
    return table


def share(values: list[bool]) -> float:
    return sum(values) / len(values)


def test_a_third_of_the_sample_is_judged(judged: pd.DataFrame) -> None:
    assert len(judged) > 110 and judged["outcome"].notna().all()
    assert (judged["meant"] != "good").sum() >= 38


def test_faces_are_found(judged: pd.DataFrame) -> None:
    """Where there is a face, and it is not meant to be too small to find."""
    there = judged[(judged["faces"] > 0) & (judged["meant"] != "face_too_small")]
    found = [outcome in ("faces", "duplicate") for outcome in there["outcome"]]
    assert share(found) >= 0.97, there[[not f for f in found]]


def test_good_photos_are_accepted(judged: pd.DataFrame) -> None:
    good = judged[judged["meant"] == "good"]
    assert share([got == "good" for got in good["got"]]) >= 0.95, good[good["got"] != "good"]


def test_faulty_photos_are_refused_for_their_fault(judged: pd.DataFrame) -> None:
    bad = judged[judged["meant"] != "good"]
    assert share([got != "good" for got in bad["got"]]) >= 0.95, bad[bad["got"] == "good"]
    right = [meant in got for meant, got in zip(bad["meant"], bad["got"], strict=True)]
    assert share(right) >= 0.95, bad[[not r for r in right]]
