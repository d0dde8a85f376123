"""The model's card says what the pipeline recorded, and refuses to mix two runs."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from workspaces import ROOT

from stylebot.card import NETWORKS, card, write_card
from stylebot.errors import StylebotError
from stylebot.files import read_json


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This repository's recorded run, without data."""
    for name in ("params.yaml", "dvc.lock"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics")
    (tmp_path / "stages/photos").mkdir(parents=True)
    for path in (ROOT / "stages/photos").glob("*.dvc"):
        shutil.copy(path, tmp_path / "stages/photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_card_has_data_numbers_licences_parameters(workspace: Path) -> None:
    write_card(Path("deep/CARD.md"))
    text = Path("deep/CARD.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlicense: other\n") and NETWORKS in text
    fid = read_json(Path("metrics/fid.json"))
    for part in (
        f"| `kid_tuned` | {fid['kid_tuned']} | lower |",
        "`stages/photos/celebrity`",
        "| `freeze_d` |",
        "| `train.kimg` |",
        "not for commercial use",
        "Not for passing as a real person",
        "dvc repro",
    ):
        assert part in text, part
    assert all(line.count(" | ") >= 1 for line in text.splitlines() if line.startswith("| "))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(1.2, 1.4, "moved this generator away"), (0.8, 1.2, "is not proven"), (0.5, 0.7, None)],
)
def test_the_card_does_not_flatter(workspace: Path, low: float, high: float, said: str | None) -> None:
    path = workspace / "metrics/fid.json"
    before = path.read_bytes()
    path.write_text(json.dumps(read_json(path) | {"kid_ratio_low": low, "kid_ratio_high": high}))
    lock = workspace / "dvc.lock"
    old, new = (hashlib.md5(content).hexdigest() for content in (before, path.read_bytes()))
    assert old in lock.read_text()
    lock.write_text(lock.read_text().replace(old, new))
    text = card()
    for sentence in ("moved this generator away", "is not proven"):
        assert (sentence in text) is (sentence == said)


def test_numbers_of_another_run_are_refused(workspace: Path) -> None:
    path = workspace / "metrics/fid.json"
    path.write_text(path.read_text().replace("fid_base", "fid_based"))
    with pytest.raises(StylebotError, match=r"metrics/fid\.json is not of the run in dvc\.lock"):
        card()
    path.unlink()
    with pytest.raises(StylebotError, match="does not exist"):
        card()


def test_outside_of_a_workspace_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StylebotError, match="root of the workspace"):
        card()
