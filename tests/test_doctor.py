"""What the doctor says of machines with and without GPUs, remotes that fail, and weights that are missing."""

import time
from pathlib import Path

import pytest
from workspaces import ROOT, new_workspace

from stylebot.doctor import (
    BAD,
    OK,
    RECIPES,
    WARN,
    Machine,
    examine,
    lacks,
    packages_finding,
    recipe_findings,
    remote_findings,
    weight_findings,
    within,
)
from stylebot.errors import StylebotError
from stylebot.files import sha256_file
from stylebot.recipes import named_recipes

LAPTOP = Machine((), 16, 100)
BIG = Machine((("H100", 80.0),) * 8, 1000, 4000)


def marks(machine: Machine) -> list[str]:
    return [finding.mark for finding in recipe_findings(machine)]


def test_a_laptop_runs_the_sample_and_eight_gpus_run_everything() -> None:
    assert marks(LAPTOP) == [OK, *[BAD] * (len(RECIPES) - 1)]
    assert marks(BIG) == [OK] * len(RECIPES)
    assert marks(LAPTOP._replace(disk_gib=1))[0] == BAD


def test_what_is_missing_is_named() -> None:
    text = "; ".join(lacks(RECIPES[-1], BIG._replace(gpus=(("T4", 15.0),) * 8, disk_gib=10)))
    assert "found 0" in text and "GiB disk, found 10" in text and "memory" not in text


def test_recipes_of_the_doctor_are_those_of_the_readme() -> None:
    named = named_recipes(ROOT / "README.md")
    assert {recipe.name.split(",")[0] for recipe in RECIPES} == named.keys()
    assert all((named[r.name.split(",")[0]].gpus or 1) == max(r.gpus, 1) for r in RECIPES)


def test_packages_as_pinned(tmp_path: Path) -> None:
    pins = tmp_path / "requirements.txt"
    pins.write_text("# pins\npytest==0.1\nno-such-package==2.0\n")
    found = packages_finding(pins)
    assert found.mark == WARN and "instead of 0.1" in found.text and "no-such-package none" in found.text
    pins.write_text(f"pytest=={pytest.__version__}\n")
    assert packages_finding(pins).mark == OK


def test_a_silent_remote_does_not_hold_us() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"0\.1 s"):
        within(0.1, lambda: time.sleep(5) or "never")
    assert time.monotonic() - started < 4
    with pytest.raises(ValueError, match="x"):
        within(5, lambda: str(int("x")))


def test_elsewhere_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StylebotError, match=r"^no requirements\.txt here: run it in "):
        examine()


def test_remotes_answer_or_say_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = new_workspace(tmp_path / "ours", count=1)
    ours.dvc("push", "-q")
    ours.dvc("remote", "add", "-q", "nowhere", "webdav://127.0.0.1:9/dvc")
    ours.dvc("remote", "add", "-q", "bucket", "gs://bucket/photos")  # its package is not installed
    monkeypatch.chdir(ours.root)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    found = {finding.topic: finding for finding in remote_findings()}
    assert found["remote sample (default)"].mark == OK
    assert found["remote nowhere"].mark == WARN and found["remote nowhere"].text
    assert found["remote bucket"].mark == WARN and "dvc-gs" in found["remote bucket"].text
    (ours.root / ".dvc/config.local").write_text("['remote \"gone\"']\n    user = me\n")
    assert [finding.mark for finding in remote_findings()] == [BAD]
    assert "url" in remote_findings()[0].text


def test_weights_are_here_or_come_or_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = tmp_path / "stages/fetch/identity.dat"
    good.parent.mkdir(parents=True)
    good.write_bytes(b"weights")
    models = {
        "identity": ("pypi:x==1!y", sha256_file(good)),
        "dlib68": ("weights/not_chosen.dat", "0" * 64),
        "dlib5": ("pypi:x==1!z", "0" * 64),
        "generator": ("weights/gone.pkl", "0" * 64),
    }
    lines = ["align:", "  landmarks: dlib5", "fetch:"]
    for name, (source, digest) in models.items():
        lines += [f"  {name}:", "    sources:", f"      - {source}", f'    sha256: "{digest}"']
    Path("params.yaml").write_text("\n".join(lines) + "\n")
    found = [(finding.mark, finding.text) for finding in weight_findings()]
    assert [mark for mark, _ in found] == [OK, OK, BAD]
    assert found[0][1].startswith("identity: here") and found[1][1].startswith("dlib5: ")
    assert "weights/gone.pkl is missing" in found[2][1]
