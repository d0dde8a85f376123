"""The fuzzing harness sees which code a file reaches, and what must not happen."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

import fuzz_checkpoints as harness

DATA = Path(__file__).parent / "data"


def test_other_files_take_other_steps(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"hello")
    refused, wrong = harness.steps_taken("networks", tmp_path / "text")
    assert refused and wrong is None
    loaded, wrong = harness.steps_taken("networks", DATA / "rosinality_legacy.pt")
    assert wrong is None and len(loaded - refused) > 100
    assert loaded == harness.steps_taken("networks", DATA / "rosinality_legacy.pt")[0]
    assert {Path(name).stem for name, _, _ in loaded} >= {"checkpoints", "torchfile", "pickles", "rosinality"}
    assert sys.gettrace() is None


@pytest.mark.parametrize("kind", ["encoder", "latents"])
def test_each_reader_is_watched(tmp_path: Path, kind: str) -> None:
    (tmp_path / "text").write_bytes(b"hello")
    taken, wrong = harness.steps_taken(kind, tmp_path / "text")
    assert wrong is None and {Path(name).stem for name, _, _ in taken} == {kind}


@pytest.mark.parametrize(
    ("error", "said"), [(KeyError("x"), "KeyError"), (harness.StylebotError("a\nb"), "two")]
)
def test_what_must_not_happen_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def broken(path: Path) -> None:
        raise error

    monkeypatch.setattr(harness, "load_networks", broken)
    assert said in harness.steps_taken("networks", tmp_path)[1]


def test_damage_changes_files_and_keeps_the_corpus() -> None:
    corpus, rng = [("networks", bytes(range(200)) * 10), ("latents", b"x" * 50)], random.Random(0)
    before = list(corpus)
    copies = {harness.damaged(corpus[0][1], corpus, rng) for _ in range(50)}
    assert len(copies) > 40 and corpus == before
