"""Saved states: whole, of this run, the last two kept."""

from pathlib import Path

import pytest
import torch

from stylebot.restarts import Restarts, copy_whole


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path))
    return tmp_path


def state(number: int) -> dict:
    return {"cur_nimg": number, "G": {"weight": torch.full((3,), float(number))}, "numbers": {"loss_g": 0.5}}


def names(restarts: Restarts) -> list[str]:
    return sorted(p.name for p in restarts.folder.glob("*"))


def test_nothing_saved_is_nothing() -> None:
    restarts = Restarts("train", {"seed": 0})
    assert restarts.newest() is None and not restarts.other and not restarts.damaged


def test_the_newest_comes_back_whole() -> None:
    for number in (0, 64, 128):
        Restarts("train", {"seed": 0}).save(number, state(number))
    saved = Restarts("train", {"seed": 0}).newest()
    assert saved["cur_nimg"] == 128 and saved["numbers"] == {"loss_g": 0.5}
    assert torch.equal(saved["G"]["weight"], torch.full((3,), 128.0))


def test_two_are_kept() -> None:
    restarts = Restarts("train", {"seed": 0})
    for number in (0, 64, 128, 999_999_999_999):
        restarts.save(number, state(number))
    assert names(restarts) == ["000000000128.pt", "999999999999.pt"]


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:40] + bytes([c[40] ^ 1]) + c[41:],
                                    lambda c: b"", lambda c: c[:20]])  # fmt: skip
def test_damage_falls_back_to_the_one_before(damage) -> None:
    restarts = Restarts("train", {"seed": 0})
    restarts.save(64, state(64))
    restarts.save(128, state(128))
    newest = restarts.folder / "000000000128.pt"
    newest.write_bytes(damage(newest.read_bytes()))
    again = Restarts("train", {"seed": 0})
    assert again.newest()["cur_nimg"] == 64 and again.damaged == ["000000000128.pt"]
    again.save(96, state(96))  # the run goes on from 64: what was damaged is no longer the newest
    assert names(again) == ["000000000064.pt", "000000000096.pt"]


def test_all_damaged_is_nothing() -> None:
    restarts = Restarts("train", {"seed": 0})
    restarts.save(64, state(64))
    (restarts.folder / "000000000064.pt").write_bytes(b"half a")
    assert restarts.newest() is None and restarts.damaged == ["000000000064.pt"]


def test_another_run_is_never_taken() -> None:
    Restarts("train", {"seed": 0}).save(64, state(64))
    other = Restarts("train", {"seed": 1})
    assert other.newest() is None and other.other
    assert not Restarts("encode", {"seed": 0}).other


def test_the_order_of_the_fingerprint_does_not_matter() -> None:
    Restarts("train", {"seed": 0, "data": "a"}).save(64, state(64))
    assert Restarts("train", {"data": "a", "seed": 0}).newest() is not None


def test_success_deletes_its_own_states_alone(scratch: Path) -> None:
    one, other = Restarts("train", {"seed": 0}), Restarts("train", {"seed": 1})
    for restarts in (one, other):
        restarts.save(64, state(64))
        (restarts.folder_for("live") / "curve.tsv").write_text("1")
    one.clear()
    assert not one.folder.exists() and other.newest() is not None
    assert [p.name for p in (scratch / "restarts").iterdir()] == [other.folder.name]
    one.clear()


def test_a_write_that_fails_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    restarts = Restarts("train", {"seed": 0})
    restarts.save(64, state(64))

    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        restarts.save(128, state(128))
    assert names(restarts) == ["000000000064.pt"] and restarts.newest()["cur_nimg"] == 64


def test_copies_are_whole_or_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder, texts in ((source, {"a": "new", "in/b": "b", ".a.7.part": "ne"}),
                          (target, {"a": "old", ".a.9.part": "n", "mine": "stays"})):  # fmt: skip
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", lambda path, content: path.write_text("ha") and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            copy_whole(source, target)
    assert (target / "a").read_text() == "old" and not (target / "in/b").exists()
    copy_whole(source, target)
    found = {str(p.relative_to(target)): p.read_text() for p in target.rglob("*") if p.is_file()}
    assert found == {"a": "new", "in/b": "b", "mine": "stays"}
    assert not (source / ".a.7.part").exists()
