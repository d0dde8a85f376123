"""Stage align: every file accounted for, deterministic outputs, remembered work, clear errors."""

import hashlib
import io
import os
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from stylebot import align as stage
from stylebot.align import AlignParams, align, align_photo
from stylebot.entries import Entry
from stylebot.errors import StylebotError

FACES = sorted((Path(__file__).parent / "data" / "faces").glob("*.jpg"))
PARAMS = AlignParams(resolution=128, recipe="stylebot", padding="edge", faces="all", landmarks="dlib68",
                     min_eye_distance_px=16, min_det_score=0.1, max_megapixels=30)


@pytest.fixture(scope="module")
def landmarks(model_file: Callable[[str], Path]) -> Path:
    return model_file("landmarks.dat")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scratch folder of this test's own, and work inside this process (fast)."""
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("STYLEBOT_WORKERS", "1")
    return tmp_path / "scratch"


def face(number: int) -> Image.Image:
    return Image.open(FACES[number]).convert("RGB")


def pair(left: Image.Image, right: Image.Image) -> Image.Image:
    photo = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), (120, 130, 140))
    photo.paste(left, (0, 0))
    photo.paste(right, (left.width, 0))
    return photo


def content(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def params(**changes) -> AlignParams:
    return AlignParams.model_validate(PARAMS.model_dump() | changes)


def fill(photos: Path) -> None:
    """Two sources with all that may lie in a folder."""
    first, second = photos / "celebrity", photos / "id"
    (first / "inner").mkdir(parents=True)
    second.mkdir()
    shutil.copy(FACES[0], first / "b.jpg")
    shutil.copy(FACES[1], first / "inner" / "한국 사람\n.jpg")
    shutil.copy(FACES[0], first / "copy.jpg")
    pair(face(1), face(2)).save(first / "two.png")
    shutil.copy(FACES[3], second / "face.jpg")
    Image.new("RGB", (300, 300), "grey").save(second / "plain.png")
    Image.new("RGB", (40, 300), "grey").save(second / "narrow.png")
    face(4).resize((70, 70)).save(second / "small.png")
    (second / "notes.txt").write_text("no picture")
    (second / "cut.jpg").write_bytes(FACES[2].read_bytes()[:4000])
    (second / "empty.jpg").touch()
    (second / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(second / "pipe")
    (second / os.fsdecode(b"bad\xff.jpg")).write_bytes(b"x")


def test_every_file_has_an_outcome(tmp_path: Path, scratch: Path, landmarks: Path) -> None:
    fill(tmp_path / "photos")
    out = tmp_path / "out"
    metrics = align(tmp_path / "photos", landmarks, out, params(min_eye_distance_px=25))
    photos = pd.read_parquet(out / "photos.parquet")
    outcomes = {(s, p): o for s, p, o in zip(photos.source, photos.photo, photos.outcome, strict=True)}
    assert outcomes == {
        ("celebrity", "b.jpg"): "faces", ("celebrity", "copy.jpg"): "duplicate",
        ("celebrity", "two.png"): "faces", ("celebrity", "inner/한국 사람\n.jpg"): "faces",
        ("id", "face.jpg"): "faces", ("id", "plain.png"): "no_face", ("id", "narrow.png"): "too_small",
        ("id", "small.png"): "face_too_small", ("id", "notes.txt"): "unreadable",
        ("id", "cut.jpg"): "truncated", ("id", "empty.jpg"): "empty", ("id", "dangling.jpg"): "missing",
        ("id", "pipe"): "not_a_file", ("id", "bad\\xff.jpg"): "unreadable"}
    assert not photos.detail.str.contains("\n").any()
    faces = pd.read_parquet(out / "faces.parquet")
    assert len(faces) == photos.n_faces.sum() == metrics["align_faces"] and metrics["align_photos"] == 14
    assert faces.face_id.is_unique and (faces.landmarks.map(len) == 136).all()
    assert list(faces.source) == sorted(faces.source)
    for source, rows in faces.groupby("source"):
        with zipfile.ZipFile(out / f"{source}.zip") as archive:
            assert archive.namelist() == [f"{face_id}.png" for face_id in rows.face_id]
            for name in archive.namelist():
                picture = Image.open(io.BytesIO(archive.read(name)))
                assert picture.mode == "RGB" and picture.size == (128, 128) and not picture.info


def test_reruns_and_other_parameters(tmp_path: Path, scratch: Path, landmarks: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Same bytes again without any decoding; one more photo costs one; a damaged memo is made anew."""
    photos = tmp_path / "photos" / "celebrity"
    photos.mkdir(parents=True)
    for number in (0, 1):
        shutil.copy(FACES[number], photos)
    done = []
    monkeypatch.setattr(stage, "align_photo", lambda c, *rest: done.append(c) or align_photo(c, *rest))
    align(tmp_path / "photos", landmarks, tmp_path / "a", PARAMS)
    align(tmp_path / "photos", landmarks, tmp_path / "b", PARAMS)
    assert len(done) == 2
    for name in ("celebrity.zip", "faces.parquet", "photos.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    shutil.copy(FACES[2], photos)
    align(tmp_path / "photos", landmarks, tmp_path / "b", PARAMS)
    assert len(done) == 3
    entry = next(p for p in scratch.rglob("*") if p.is_file())
    entry.write_bytes(entry.read_bytes()[:-1] + b"!")
    align(tmp_path / "photos", landmarks, tmp_path / "b", PARAMS)
    assert len(done) == 4
    align(tmp_path / "photos", landmarks, tmp_path / "b", params(padding="reflect"))
    assert len(done) == 7


def killer(content: bytes, landmarks: Path, params: AlignParams) -> Entry:
    if len(content) == 666:
        os.kill(os.getpid(), signal.SIGSEGV)
    return align_photo(content, landmarks, params)


def deadly_work(job: stage.Job) -> Entry | None:
    stage.align_photo = killer
    return ORIGINAL_WORK(job)


ORIGINAL_WORK = stage._work


def test_a_crash_costs_that_photo_only(tmp_path: Path, scratch: Path, landmarks: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEBOT_WORKERS", "2")
    monkeypatch.setattr(stage, "_work", deadly_work)
    photos = tmp_path / "photos" / "celebrity"
    photos.mkdir(parents=True)
    for number in range(2):
        shutil.copy(FACES[number], photos)
    (photos / "0deadly.jpg").write_bytes(b"x" * 666)
    align(tmp_path / "photos", landmarks, tmp_path / "out", PARAMS)
    table = pd.read_parquet(tmp_path / "out" / "photos.parquet").set_index("photo")
    assert table.outcome["0deadly.jpg"] == "crashed" and "SIGSEGV" in table.detail["0deadly.jpg"]
    assert (table.outcome.drop("0deadly.jpg") == "faces").all()


def test_photos_in_a_zip(tmp_path: Path, scratch: Path, landmarks: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    with zipfile.ZipFile(photos / "celebrity.zip", "w") as archive:
        archive.write(FACES[0], "a/one.jpg")
        archive.writestr("notes.txt", "no picture")
        archive.writestr("../outside.jpg", FACES[1].read_bytes())
    align(photos, landmarks, tmp_path / "out", PARAMS)
    table = pd.read_parquet(tmp_path / "out" / "photos.parquet")
    assert dict(zip(table.photo, table.outcome, strict=True)) == {
        "../outside.jpg": "faces", "a/one.jpg": "faces", "notes.txt": "unreadable"}


def test_stale_zips_go(tmp_path: Path, scratch: Path, landmarks: Path) -> None:
    (tmp_path / "photos" / "id").mkdir(parents=True)
    shutil.copy(FACES[0], tmp_path / "photos" / "id")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "gone.zip").touch()
    align(tmp_path / "photos", landmarks, tmp_path / "out", PARAMS)
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["faces.parquet", "id.zip", "photos.parquet"]


def test_clear_errors(tmp_path: Path, scratch: Path, landmarks: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (photos / ".gitignore").touch()
    with pytest.raises(StylebotError, match="it holds no folder"):
        align(photos, landmarks, out, PARAMS)
    (photos / "id").mkdir()
    with pytest.raises(StylebotError, match="id are empty"):
        align(photos, landmarks, out, PARAMS)
    (photos / "id" / "a.txt").write_text("no picture")
    with pytest.raises(StylebotError, match=r"none of the 1 files .* 1 unreadable .*id/a\.txt: not a"):
        align(photos, landmarks, out, PARAMS)
    shutil.copy(FACES[0], photos / "stray.jpg")
    with pytest.raises(StylebotError, match=r"'stray\.jpg' lie outside any source"):
        align(photos, landmarks, out, PARAMS)
    (photos / "stray.jpg").unlink()
    (photos / "id.zip").write_bytes(b"no zip")
    with pytest.raises(StylebotError, match="both a folder and a zip"):
        align(photos, landmarks, out, PARAMS)


def test_several_faces(landmarks: Path) -> None:
    equal = content(pair(face(1), face(2)))
    uneven = content(pair(face(1).resize((400, 400)), face(2).resize((200, 200))))
    every = align_photo(equal, landmarks, PARAMS)
    assert len(every.rows) == len(every.pngs) == 2 and every.rows[0]["n_faces"] == 2
    assert every.rows[0]["second_area_ratio"] > 0.5
    assert len(align_photo(equal, landmarks, params(faces="largest")).rows) == 1
    assert align_photo(equal, landmarks, params(faces="reject")).outcome == "ambiguous_faces"
    kept = align_photo(uneven, landmarks, params(faces="reject"))
    assert len(kept.rows) == 1 and kept.rows[0]["ied_px"] > 80


def test_reasons_of_faces(landmarks: Path) -> None:
    photo = content(face(0))
    assert align_photo(photo, landmarks, params(min_eye_distance_px=90)).outcome == "face_too_small"
    assert align_photo(photo, landmarks, params(min_det_score=9)).outcome == "low_confidence"
    assert align_photo(photo, landmarks, params(max_megapixels=0.01)).outcome == "too_large"


@pytest.mark.parametrize(("turn", "rotated_deg", "orientation"), [(0, 0, 1), (90, 270, 1), (0, 0, 6)])
def test_rows_describe_the_upright_photo(landmarks: Path, turn: int, rotated_deg: int,
                                         orientation: int) -> None:
    """Turned pixels, or an EXIF value, change nothing about the face; box and landmarks lie on it."""
    photo = ImageOps.expand(face(0), (100, 60, 20, 10), (120, 130, 140))
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    stored = photo.rotate(90, expand=True) if orientation == 6 else photo
    stored.rotate(turn, expand=True).save(buffer, "PNG", exif=exif)
    entry = align_photo(buffer.getvalue(), landmarks, PARAMS)
    row = entry.rows[0]
    assert (row["orientation"], row["rotated_deg"]) == (orientation, rotated_deg)
    assert (row["width_px"], row["height_px"]) == photo.size
    assert abs(row["center_x"] - 228) < 4 and abs(row["center_y"] - 188) < 4
    assert abs(row["qsize_px"] - 256) < 10
    points = np.array(row["landmarks"]).reshape(68, 2)
    assert row["x0"] < points[30, 0] < row["x1"] and row["y0"] < points[30, 1] < row["y1"]
    assert abs(row["roll_deg"]) < 2 and row["pad_fraction"] < 0.02 and row["scale"] == 128 / row["qsize_px"]
    aligned = np.asarray(Image.open(io.BytesIO(entry.pngs[0])), dtype=float)
    wanted = np.asarray(face(0).resize((128, 128), Image.Resampling.LANCZOS), dtype=float)
    assert np.abs(aligned - wanted).mean() < 6


@pytest.mark.parametrize(("recipe", "paddings", "different"), [
    ("stylebot", ("edge", "reflect", "background", "ffhq", "none"), 5), ("ffhq", ("edge", "none"), 2)])
def test_recipes_and_paddings(landmarks: Path, recipe: str, paddings: tuple, different: int) -> None:
    cut = content(face(0).crop((60, 0, 256, 256)))
    seen = {hashlib.sha256(align_photo(cut, landmarks, params(recipe=recipe, padding=p)).pngs[0]).hexdigest()
            for p in paddings}
    assert len(seen) == different


def test_entry_survives_bytes() -> None:
    entry = Entry("faces", "1 too_small", [{"a": 1.5}, {"a": 2}], [b"one\n", b"\0two"])
    assert Entry.from_bytes(entry.to_bytes()) == entry
