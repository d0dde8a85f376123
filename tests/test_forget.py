"""consent.csv bars photos; forget removes a person everywhere and says what was made with them."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from stylebot import forget as tool
from stylebot.consent import COLUMNS, barred, consent_file, read_consent
from stylebot.errors import StylebotError
from stylebot.files import Memo
from stylebot.forget import advice, find_person, forget
from stylebot.sources import list_photos

TODAY = date(2027, 5, 1)
ROWS = (
    "a.jpg,kim,consent 2026,own,",
    "b.jpg,kim,consent 2026,own,2027-04-30",
    "c.jpg,lee,withdrawn,own,",
    "d.jpg,,consent,own,",
    "e.jpg,lee,contract,own,2027-05-01",
)


def consent(folder: Path, *rows: str) -> None:
    text = "\n".join((",".join(COLUMNS), *rows)) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "consent.csv").write_text(text, encoding="utf-8")


def test_who_may_be_used(tmp_path: Path) -> None:
    consent(tmp_path / "id", *ROWS, "한국.jpg,min,consent,own,")
    decomposed = "".join(chr(c) for c in (0x1112, 0x1161, 0x11AB, 0x1100, 0x116E, 0x11A8)) + ".jpg"
    wanted = [("id", f"{name}.jpg", name * 64) for name in "abcdef"]
    wanted += [("id", decomposed, ""), ("celebrity", "x.jpg", "")]
    out = {photo for _, photo in barred(tmp_path, wanted, True, TODAY)[0]}
    assert out == {"b.jpg", "c.jpg", "d.jpg", "f.jpg", "x.jpg"}
    out = {photo for _, photo in barred(tmp_path, wanted, False, TODAY)[0]}
    assert out == {"b.jpg", "c.jpg", "d.jpg"}, "no row passes, a bad row does not"


def test_what_is_said_of_a_photo_is_said_of_its_copies(tmp_path: Path) -> None:
    consent(tmp_path / "id", *ROWS)
    copies = [("celebrity", "c again.jpg", "c" * 64), ("celebrity", "a again.jpg", "a" * 64)]
    wanted = [*copies, ("id", "c.jpg", "c" * 64), ("id", "a.jpg", "a" * 64)]
    withdrawn = {("celebrity", "c again.jpg"), ("id", "c.jpg")}
    assert barred(tmp_path, wanted, True, TODAY)[0] == withdrawn, "a row of a copy is consent, too"
    out, nowhere = barred(tmp_path, wanted, False, TODAY)
    assert out == withdrawn and nowhere == ["id/b.jpg", "id/d.jpg", "id/e.jpg"]


def test_consent_inside_a_zip_is_not_passed_over(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "id.zip", "w") as archive:
        archive.writestr("consent.csv", ",".join(COLUMNS))
        archive.writestr("a.jpg", "a")
    with pytest.raises(StylebotError, match=r"beside the zip as id\.consent\.csv"):
        list_photos(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("photo,who\n", "first line must be"),
        (f"{','.join(COLUMNS)}\na.jpg,k,c,o,soon\n", "2: expires is 'soon'"),
        (f"{','.join(COLUMNS)}\na.jpg,k,c,o,\na.jpg,k,c,o,\n", "3: a.jpg is there twice"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "consent.csv").write_text(text)
    with pytest.raises(StylebotError, match=said):
        read_consent(tmp_path / "consent.csv")


def test_consent_that_is_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "consent.csv").mkdir()
    with pytest.raises(StylebotError, match=r"consent\.csv cannot be read: Is a directory"):
        read_consent(tmp_path / "consent.csv")


def test_consent_is_no_photo(tmp_path: Path) -> None:
    consent(tmp_path / "id", *ROWS)
    (tmp_path / "id" / "a.jpg").touch()
    with zipfile.ZipFile(tmp_path / "celebrity.zip", "w") as archive:
        archive.writestr("x.jpg", b"x")
    (tmp_path / "celebrity.consent.csv").write_text(",".join(COLUMNS) + "\nx.jpg,park,consent,own,\n")
    assert [item.photo for item in list_photos(tmp_path)] == ["x.jpg", "a.jpg"]
    assert read_consent(consent_file(tmp_path, "celebrity"))[0]["subject"] == "park"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with photos of two people, one of them also as a copy, and all that knows them."""
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    stages = tmp_path / "stages"
    contents = {
        "id/a.jpg": b"kim",
        "id/b.jpg": b"lee",
        "id/e.jpg": b"kim, again",
        "celebrity/copy.jpg": b"kim",
    }
    consent(
        stages / "photos" / "id", "a.jpg,kim,consent,own,", "b.jpg,lee,consent,own,", "e.jpg,kim,consent,own,"
    )
    memo, rows = Memo("align", {}), []
    for number, (name, content) in enumerate(contents.items()):
        (stages / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (stages / "photos" / name).write_bytes(content)
        sha256, md5 = hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()
        memo.put(sha256, content)
        cached = tmp_path / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(content)
        source, photo = name.split("/")
        rows.append(
            {
                "face_id": f"{sha256[:16]}-0",
                "source": source,
                "photo": photo,
                "sha256": sha256,
                "identity": int(number == 1),
            }
        )
    Memo("filter", {}).put("ab" * 32, b"an embedding")
    for name in (
        "align/id.zip",
        "filter/accepted.png",
        "report/report.html",
        "train/networks.safetensors",
        "train/progress/1.png",
        "pack/dataset.zip",
        "fetch/landmarks.dat",
    ):
        (stages / name).parent.mkdir(parents=True, exist_ok=True)
        (stages / name).write_bytes(b"faces")
    pd.DataFrame(rows).to_parquet(stages / "filter" / "faces.parquet")
    split = pd.DataFrame(
        {"split": ["train", "heldout", "train"], "face_id": [r["face_id"] for r in rows[:3]]}
    )
    split.to_parquet(stages / "pack" / "faces.parquet")
    return tmp_path


def left(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def assert_forgotten(workspace: Path) -> None:
    """Nothing of kim is left, and everything of lee that shows no kim."""
    stages = workspace / "stages"
    assert left(stages) == {
        "photos/id/b.jpg",
        "photos/id/consent.csv",
        "train/networks.safetensors",
        "fetch/landmarks.dat",
    }
    assert [row["subject"] for row in read_consent(stages / "photos" / "id" / "consent.csv")] == ["lee"]
    kept = [path.read_bytes() for path in (workspace / "scratch").rglob("*") if path.is_file()]
    assert len(kept) == 1 and kept[0].endswith(b"lee")
    assert [path.read_bytes() for path in (workspace / ".dvc").rglob("*") if path.is_file()] == [b"lee"]


def test_a_subject_is_forgotten_everywhere(workspace: Path) -> None:
    stages = workspace / "stages"
    person = find_person(stages, "kim")
    assert [f"{i.source}/{i.photo}" for i in person.photos] == ["celebrity/copy.jpg", "id/a.jpg", "id/e.jpg"]
    assert person.splits == {"train": 2} and person.similar == []
    told = " ".join(advice(stages, person))
    assert "2 in train" in told and "trained with this person: " in told and "networks.safetensors" in told
    forget(stages, workspace / ".dvc" / "cache", person)
    assert_forgotten(workspace)


class Killed(BaseException):
    """The end of the process, with nobody to tidy up."""


def test_killed_anywhere_the_same_command_goes_on(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages, cache, steps = workspace / "stages", workspace / ".dvc" / "cache", 0
    real = {"unlink": Path.unlink, "rmtree": shutil.rmtree, "rows": tool.write_consent}

    def dying(name: str, at: int) -> Callable:
        def step(*given, **options) -> None:
            nonlocal steps
            steps += 1
            if steps == at:
                raise Killed
            real[name](*given, **options)

        return step

    whole, at = workspace / "whole", 0
    shutil.copytree(stages, whole / "stages")
    shutil.copytree(workspace / "scratch", whole / "scratch")
    shutil.copytree(cache, whole / "cache")
    while True:
        at, steps = at + 1, 0
        for name, folder in (("stages", stages), ("scratch", workspace / "scratch"), ("cache", cache)):
            real["rmtree"](folder)
            shutil.copytree(whole / name, folder)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", dying("unlink", at))
            patch.setattr(shutil, "rmtree", dying("rmtree", at))
            patch.setattr(tool, "write_consent", dying("rows", at))
            try:
                forget(stages, cache, find_person(stages, "kim"))
                break
            except Killed:
                pass
        with suppress(StylebotError):  # nothing is left to find
            forget(stages, cache, find_person(stages, "kim"))
        assert_forgotten(workspace)
    assert at > 12, "every step was the last one once"
    with pytest.raises(StylebotError, match="neither a photo"):
        find_person(stages, "kim")


def test_a_photo_names_who_looks_alike(workspace: Path) -> None:
    person = find_person(workspace / "stages", "id/e.jpg")
    assert len(person.photos) == 1 and person.similar == ["celebrity/copy.jpg", "id/a.jpg"]
    heldout = find_person(workspace / "stages", "id/b.jpg")
    assert "not trained with this person" in " ".join(advice(workspace / "stages", heldout))


def test_a_photo_in_a_zip_goes_too(workspace: Path) -> None:
    path = workspace / "stages" / "photos" / "more.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("in/x.jpg", b"kim")
        archive.writestr("in/y.jpg", b"choi")
    stages = workspace / "stages"
    forget(stages, workspace / ".dvc" / "cache", find_person(stages, "kim"))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["in/y.jpg"] and archive.read("in/y.jpg") == b"choi"


def test_the_script_asks_first(workspace: Path) -> None:
    root = Path(__file__).parents[1] / "src"
    environment = os.environ | {"PYTHONPATH": str(root)}

    def script(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(root / "forget.py"), *arguments],
            cwd=workspace,
            text=True,
            capture_output=True,
            env=environment,
        )

    before = left(workspace)
    asked = script("kim")
    assert (
        asked.returncode == 0 and "would be removed: id/a.jpg" in asked.stdout and left(workspace) == before
    )
    unknown = script("nobody", "--yes")
    assert unknown.returncode == 1 and len(unknown.stderr.strip().splitlines()) == 1
    assert script("kim", "--yes").returncode == 0 and "id/a.jpg" not in str(left(workspace))
