"""A corpus of over 150 bad and odd files: each gives faces or its reason, none crashes, the counts add up."""

import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import corpus
import corpus_files
import numpy as np
import pandas as pd
import pytest
from aligned_faces import align_params
from PIL import Image

from stylebot.align import align

PARAMS = align_params(min_eye_distance_px=25, max_megapixels=corpus.MAX_PIXELS / 1e6)


def text(name: str) -> str:
    """A file's name as the table holds it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@pytest.fixture(scope="module")
def aligned(
    tmp_path_factory: pytest.TempPathFactory, model_file: Callable[[str], Path]
) -> tuple[dict[str, set[str]], Path, dict]:
    folder = tmp_path_factory.mktemp("corpus")
    wanted = {text(name): outcomes for name, outcomes in corpus_files.make(folder / "photos" / "odd").items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLEBOT_SCRATCH", str(folder / "scratch"))
        patch.setenv("STYLEBOT_WORKERS", "1")
        metrics = align(folder / "photos", model_file("landmarks.dat"), folder / "out", PARAMS)
    return wanted, folder / "out", metrics


def test_every_file_has_the_right_outcome(aligned: tuple) -> None:
    wanted, out, _ = aligned
    photos = pd.read_parquet(out / "photos.parquet")
    got = dict(zip(photos["photo"], photos["outcome"], strict=True))
    assert len(wanted) >= 150 and got.keys() == wanted.keys()
    wrong = {name: (got[name], outcomes) for name, outcomes in wanted.items() if got[name] not in outcomes}
    assert not wrong
    assert not photos["detail"].str.contains("\n").any()
    assert (photos["detail"] != "").eq(photos["outcome"] != "faces").all(), "a reason needs its words"


def test_counts_add_up(aligned: tuple) -> None:
    wanted, out, metrics = aligned
    photos, faces = pd.read_parquet(out / "photos.parquet"), pd.read_parquet(out / "faces.parquet")
    outcomes = Counter(photos["outcome"])
    assert outcomes.total() == len(wanted) == metrics["align_photos"]
    assert photos["n_faces"].sum() == len(faces) == outcomes["faces"] == metrics["align_faces"]
    assert metrics["align_found"] == outcomes["faces"] / (len(wanted) - outcomes["duplicate"])
    with zipfile.ZipFile(out / "odd.zip") as archive:
        assert archive.namelist() == [f"{face_id}.png" for face_id in faces["face_id"]]


def test_nothing_of_the_files_but_pixels_comes_out(aligned: tuple) -> None:
    with zipfile.ZipFile(aligned[1] / "odd.zip") as archive:
        for name in archive.namelist():
            content = archive.read(name)
            kinds, at = [], 8
            while at < len(content):
                kinds.append(content[at + 4 : at + 8])
                at += 12 + int.from_bytes(content[at : at + 4], "big")
            assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"} and b"SECRETMAKER" not in content


def test_turned_by_exif_is_upright(aligned: tuple) -> None:
    """Every stored turn of a face gives the crop of that face as it was."""
    rows = pd.read_parquet(aligned[1] / "faces.parquet").set_index("photo")
    with zipfile.ZipFile(aligned[1] / "odd.zip") as archive:
        for value in range(1, 9):
            upright = corpus.face(value, 220 + value)
            wall = (upright.width - 220 - value) // 2
            frame = upright.crop((wall, wall, upright.width - wall, upright.height - wall)).resize((64, 64))
            for kind in ("jpeg", "png", "tiff"):
                row = rows.loc[f"exif/{kind}-{value}"]
                crop = Image.open(io.BytesIO(archive.read(f"{row.face_id}.png")))
                assert (row["orientation"], row["rotated_deg"]) == (value, 0)
                error = np.abs(np.asarray(crop, dtype=float) - np.asarray(frame, dtype=float))
                assert error.mean() < 9, (kind, value)
