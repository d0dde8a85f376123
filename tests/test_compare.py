"""compare.py: what counts as a real difference, where runs are read from, names that are no run."""

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from stylebot.compare import compare
from stylebot.differences import Number, difference, differences, numbers_of
from stylebot.errors import StylebotError
from stylebot.files import write_json
from stylebot.runs import read_run, run_before
from stylebot.tables import intervals

TABLE = ("factor,method,measure,mean,low,high,faces\n8,result,id_distance,{0},{1},{2},63\n"
         "8,result,ssim,.3,.2,.4,63\n")  # fmt: skip


def git(root: Path, *words: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def put(cache: Path, content: bytes, ending: str = "") -> str:
    """An object of DVC's cache; returns its name."""
    md5 = hashlib.md5(content).hexdigest()
    path = cache / "files" / "md5" / md5[:2] / (md5[2:] + ending)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5 + ending


def commit(root: Path, ratio: float, identity: float) -> str:
    """One run, committed as the pipeline would: metrics and dvc.lock in git, the table in the cache."""
    write_json(root / "metrics" / "fid.json", {"kid_ratio": ratio, "kid_ratio_low": ratio - 0.1,
                                               "kid_ratio_high": ratio + 0.1, "fid_tuned": 50.0})  # fmt: skip
    write_json(root / "metrics" / "superres.json", {"superres_id_x8": identity})
    write_json(root / "metrics" / "train.json", {"train_loss_d": ratio})
    table = TABLE.format(identity, identity - 0.01, identity + 0.01).encode()
    (root / "stages" / "superres").mkdir(parents=True, exist_ok=True)
    (root / "stages" / "superres" / "table.csv").write_bytes(table)
    entry = {"relpath": "table.csv", "md5": put(root / ".dvc" / "cache", table)}
    listed = put(root / ".dvc" / "cache", json.dumps([entry]).encode(), ".dir")
    (root / "dvc.lock").write_text(
        f"schema: '2.0'\nstages:\n  superres:\n    outs:\n    - path: stages/superres\n      md5: {listed}\n"
    )
    git(root, "add", "metrics", "dvc.lock")
    git(root, "commit", "-qm", f"run {ratio}")
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits, and an experiment named brave-run, whose ref is all that DVC knows experiments by."""
    root = tmp_path / "ws"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    git(tmp_path, "init", "-q", "-b", "main", str(root))
    first = commit(root, 1.0, 0.55)
    commit(root, 0.5, 0.555)
    brave = commit(root, 0.2, 0.4)
    git(root, "update-ref", f"refs/exps/{first[:2]}/{first[2:]}/brave-run", brave)
    git(root, "reset", "-q", "--hard", "HEAD~1")
    monkeypatch.chdir(root)
    return root


def test_reaches_that_face_each_other_decide() -> None:
    low, high = Number(1.0, 0.9, 1.3), Number(1.4, 1.1, 1.5)
    found = difference("kid_tuned", low, high)
    assert found.noise == pytest.approx(np.hypot(0.3, 0.3)) and not found.real
    back = difference("kid_tuned", high, low)
    assert back.noise == pytest.approx(found.noise)
    apart = difference("kid_tuned", Number(1.0, 0.9, 1.1), Number(1.4, 1.3, 1.5))
    assert apart.real and apart.verdict == "worse"
    assert difference("kid_tuned", Number(1.4, 1.3, 1.5), Number(1.0, 0.9, 1.1)).verdict == "better"
    assert difference("align_found", Number(0.5, 0.4, 0.6), Number(0.9, 0.8, 1.0)).verdict == "better"
    assert difference("pack_train", Number(5, 4, 6), Number(9, 8, 10)).verdict == "other"


def test_missing_ends_and_missing_intervals() -> None:
    assert difference("x", Number(1), Number(2)) is None
    assert difference("x", Number(1), Number(2, 1.5, 2.5)).noise == pytest.approx(np.hypot(0.5, 0.5))
    only_high = Number(0.0, None, 0.03)  # as audit_copies has it
    assert difference("audit_copies", only_high, Number(0.02, None, 0.06)).noise == pytest.approx(0.05)


def test_chance_alone_is_rarely_called_real() -> None:
    """Runs of the same quality: with 95 % intervals about one difference in twenty may pass for real."""
    rng = np.random.default_rng(0)

    def run() -> Number:
        values = rng.normal(size=80)
        mean, half = values.mean(), 1.96 * values.std(ddof=1) / np.sqrt(80)
        return Number(mean, mean - half, mean + half)

    real = np.mean([difference("kid_tuned", run(), run()).real for _ in range(2000)])
    assert 0.03 < real < 0.075
    moved = [difference("kid_tuned", run(), Number(n.value + 0.7, n.low + 0.7, n.high + 0.7)).real
             for n in (run() for _ in range(200))]  # fmt: skip
    assert np.mean(moved) > 0.98


def test_what_to_decide_by_comes_first() -> None:
    names = ["superres_psnr_x8", "kid_base", "kid_ratio", "audit_copies", "fid_tuned"]
    a = {name: Number(1, 0.9, 1.1) for name in names}
    b = a | {"kid_base": Number(3, 2.9, 3.1), "fid_tuned": Number(2, 1.9, 2.1)}
    found, undecided = differences(a | {"p": Number(1)}, b | {"p": Number(2)})
    wanted = ["fid_tuned", "kid_base", "kid_ratio", "audit_copies", "superres_psnr_x8"]
    assert [d.name for d in found] == wanted
    assert undecided == ["p"]


def test_intervals_of_metrics_and_of_tables() -> None:
    values = {"kid_ratio": 0.5, "kid_ratio_low": 0.4, "kid_ratio_high": 0.6, "superres_id_x8": 0.5133, "n": 3,
              "audit_same_person": 0.01, "audit_same_person_heldout": 0.08, "licence": "x"}  # fmt: skip
    tables = {"stages/superres/table.csv": TABLE.format(0.51332, 0.50, 0.53).encode(),
              "stages/audit/table.csv": b"name,faces,value,low,high\nsame_person,generated,0.01,0,0.02\n"
                                        b"same_person,heldout,0.08,0.02,0.17\npeople,generated,250,,\n"}
    found = numbers_of(values, intervals(tables, values))
    assert found["kid_ratio"] == Number(0.5, 0.4, 0.6) and found["n"] == Number(3)
    assert found["superres_id_x8"] == Number(0.5133, 0.50, 0.53)
    assert found["audit_same_person_heldout"] == Number(0.08, 0.02, 0.17)
    assert "kid_ratio_low" not in found and "licence" not in found
    stale = values | {"superres_id_x8": 0.6}  # the table is of another run
    assert numbers_of(stale, intervals(tables, stale))["superres_id_x8"] == Number(0.6)


def test_revisions_experiments_and_folders(repository: Path) -> None:
    lines = compare("HEAD~1", "brave-run")
    assert lines[0] == "real          kid_ratio       1 -> 0.2, better by 0.8 (noise 0.14)"
    assert lines[1] == "real          superres_id_x8  0.55 -> 0.4, better by 0.15 (noise 0.014)"
    assert lines[2] == "no interval, so no verdict: train_loss_d"
    assert compare("HEAD~1", "HEAD")[1].startswith("within noise  superres_id_x8  0.55 -> 0.555")
    assert read_run(".") == read_run("metrics") != read_run("main~1")
    assert "equal: kid_ratio, superres_id_x8" in compare("HEAD", "main")
    write_json(repository / "metrics" / "pack.json", {"pack_heldout": 9})
    assert any("careful: pack_heldout is None and 9" in line for line in compare("HEAD", "."))


def test_a_table_that_is_not_in_the_cache_costs_its_interval_only(repository: Path) -> None:
    for path in (repository / ".dvc" / "cache" / "files" / "md5").glob("*/*.dir"):
        path.write_bytes(b"[damaged]")
    lines = compare("HEAD~1", "brave-run")
    assert lines[0].startswith("real          kid_ratio")
    assert lines[1] == "no interval, so no verdict: superres_id_x8, train_loss_d"


@pytest.mark.parametrize(("name", "says"), [("nosuch", "no git revision"), ("--help", "no git revision"),
                                            ("stages", "no git revision")])
def test_unknown_names_are_one_line(repository: Path, name: str, says: str) -> None:
    with pytest.raises(StylebotError, match=says) as caught:
        compare("HEAD", name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_runs_without_numbers(repository: Path) -> None:
    git(repository, "rm", "-rqf", "metrics")
    git(repository, "commit", "-qm", "none")
    with pytest.raises(StylebotError, match="HEAD holds no numbers"):
        compare("HEAD", "HEAD~1")
    assert run_before({}).name == git(repository, "rev-parse", "--short", "HEAD~1")
    write_json(repository / "metrics" / "fid.json", {})
    (repository / "metrics" / "fid.json").write_text("{")
    with pytest.raises(StylebotError, match=r"metrics/fid\.json is damaged"):
        compare("HEAD~1", ".")


def test_the_run_before(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last commit with other numbers: the same one before and after the new numbers are committed."""
    head, first = read_run("HEAD"), read_run("HEAD~1")
    new = run_before(head.values | {"kid_ratio": 0.3})
    assert new.values == head.values and new.tables == head.tables
    assert new.name == git(repository, "rev-parse", "--short", "HEAD")
    again = run_before(head.values)
    assert (again.values, again.name) == (first.values, git(repository, "rev-parse", "--short", "HEAD~1"))
    commit(repository, 0.3, 0.4)
    assert run_before(read_run("HEAD").values) == new
    git(repository, "commit", "--allow-empty", "-qm", "nothing of the numbers")
    assert run_before(read_run("HEAD").values) == new


def test_without_history_there_is_no_run_before(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = read_run("HEAD").values
    git(tmp_path, "clone", "-q", "--depth", "1", repository.as_uri(), "shallow")
    (tmp_path / "shallow" / ".dvc").mkdir()
    (tmp_path / "shallow" / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (tmp_path / "elsewhere").mkdir()
    for name in ("shallow", "elsewhere"):
        monkeypatch.chdir(tmp_path / name)
        assert run_before(values) is None
    with pytest.raises(StylebotError, match="HEAD: "):
        compare("HEAD", "HEAD")
