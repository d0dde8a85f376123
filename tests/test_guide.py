"""The README followed word by word in a fresh clone of this repository; only addresses are replaced.

What is not real is said in guide.py: nothing is installed, and stages write stand-ins of their outputs.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo
from guide import ROOT, SECTIONS, Place, block, follow
from ruamel.yaml import YAML
from servers import flip
from workspaces import Workspace, fill

from stylebot.params import STAGES

pytestmark = pytest.mark.slow
SHARE, BREAKS = "Share with your team", "When something breaks"


def params(workspace: Workspace) -> dict:
    return YAML(typ="safe").load((workspace.root / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def ours(place: Place) -> Workspace:
    return place.workspace()


def ran(said: str) -> set[str]:
    return {name.split("@")[0] for name in re.findall(r"^Running stage '([^']+)'", said, re.MULTILINE)}


def test_two_commands(first_place: tuple[Place, str], ours: Workspace) -> None:
    assert ran(first_place[1]) == set(STAGES)
    assert (ours.root / "stages/report/report.html").is_file()
    said = follow(ours, block("Two commands", ". .venv"))
    again, changed = said.split("Reproducing experiment", 1)
    assert not ran(again) and "up to date" in again
    assert ran(changed) == set(STAGES) - {"fetch", "align", "filter", "pack"}
    assert params(ours)["freeze_d"] == 10
    table = [line for line in said.splitlines() if "kid_ratio" in line and "Experiment" in line]
    assert table and all(name in table[0] for name in ("freeze_d", "superres_id_x8", "audit_ok"))
    assert len(table[0].rstrip()) <= 100, "wider than a terminal"
    assert "fid_tuned" in changed and (ours.root / "dvc_plots/index.html").is_file()
    assert (ours.root / "faces.png").stat().st_size > 10_000


def test_what_the_extension_of_vs_code_asks_for(ours: Workspace) -> None:
    """Its commands, as its source calls them: tables, curves and pictures as JSON."""
    assert "iterative.dvc" in (ROOT / ".vscode/extensions.json").read_text()
    table = json.loads(ours.dvc("exp", "show", "--json"))
    assert {"freeze_d", "train"} <= table[0]["data"]["params"]["params.yaml"]["data"].keys()
    assert "kid_tuned" in table[0]["data"]["metrics"]["metrics/fid.json"]["data"]
    said = ours.dvc("plots", "diff", "workspace", "-o", ".dvc/tmp/plots", "--split", "--json")
    shown = json.loads(said[said.index("{") : said.rindex("}") + 1])["data"]
    kinds = {name: {part["type"] for part in parts} for name, parts in shown.items()}
    assert {"Losses", "stages/fid/sheet.png"} <= kinds.keys(), kinds.keys()
    assert kinds["Losses"] == {"vega"} and kinds["stages/fid/sheet.png"] == {"image"}
    json.loads(ours.dvc("data", "status", "--granular", "--unchanged", "--json"))


def test_the_remote_is_the_same_at_a_commit(ours: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC takes the url of .dvc/config for /.dvc/sample there and would push to it, but for `make setup`."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", ours.environment()["DVC_SITE_CACHE_DIR"])
    with Repo(str(ours.root)) as repo, repo.switch("HEAD"):
        assert repo.config["remote"]["sample"]["url"] == str(ours.root / ".dvc/sample")


def test_completion(ours: Workspace) -> None:
    (line,) = re.findall(r"`(dvc completion -s bash >> [^`]+)`", SECTIONS["Two commands"])
    follow(ours, line)
    said = ours.run("bash", "-euc", "source ~/.bash_completion; complete -p dvc")
    assert said.startswith("complete") and said.split()[-1] == "dvc"


def test_your_own_photos(place: Place, ours: Workspace) -> None:
    fill(place.folder / "home/portraits", 7, 500, seed=3)
    fill(place.folder / "home/passports", 4, 500, seed=4)
    said = follow(ours, block("Your own photos", "rm -r"))
    assert ran(said) == set(STAGES) - {"fetch"}
    assert len(ours.photos()) == 11 and "Our photos" in ours.git("log", "--oneline")
    assert ours.git("status", "--porcelain") == "" and "up to date" in ours.dvc("status")


def with_remote(place: Place) -> Workspace:
    """The clone with a team's remote; its commit has made no difference to the sample's."""
    ours = place.workspace()
    follow(ours, f"dvc remote add -d team {place.folder}/store\ndvc remote modify team verify true")
    return ours


def test_share_with_your_team(place: Place, tmp_path: Path) -> None:
    ours = with_remote(place)
    follow(ours, block(SHARE, "make hooks"))
    away = Place(tmp_path / "away")
    shutil.copytree(place.folder / "venv", away.folder / "venv", symlinks=True)
    away.prepare()
    colleague = block(SHARE, "git clone").replace("<this repository>", str(place.origin))
    said = follow(away.shell(), colleague)
    theirs = away.workspace()
    assert "up to date" in said.splitlines()[-1]
    assert theirs.photos() == ours.photos() and len(theirs.photos()) == 340
    assert not ran(theirs.dvc("repro")), "a colleague has to compute what was pushed"
    assert "objects are whole" in follow(theirs, "python src/verify.py -c")
    follow(theirs, "python src/card.py --out MODEL_CARD.md")
    assert "`freeze_d`" in (theirs.root / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_versions_deliveries_and_the_way_back(place: Place, tmp_path: Path) -> None:
    ours = with_remote(place)
    ours.commit("Our remote")
    follow(ours, "dvc push")
    follow(ours, block(SHARE, "gto register"))
    before = ours.photos()
    fill(place.folder / "home/delivery", 3, 500, seed=7)
    follow(ours, block(SHARE, "cp -r"))
    after = ours.photos()
    assert len(after) == len(before) + 3
    back, forth = block(SHARE, "git checkout").splitlines()
    follow(ours, back)
    assert ours.photos() == before
    follow(ours, forth)
    assert ours.photos() == after and ours.git("status", "--porcelain") == ""
    networks = ours.root / "stages/train/networks.safetensors"
    wanted = networks.read_bytes()
    shutil.rmtree(ours.root / ".dvc/cache")
    elsewhere = place.shell()
    address = place.origin.as_uri()  # of a path DVC would ask the folders above it for a repository
    follow(elsewhere, block(SHARE, "dvc artifacts get").replace("<this repository>", address))
    (found,) = place.folder.glob("*.safetensors")
    assert found.read_bytes() == wanted


def test_first_aid(ours: Workspace) -> None:
    """A damaged object in the cache, and a stage that left half of its outputs: the block mends both."""
    networks = ours.root / "stages/train/networks.safetensors"
    oid = hashlib.md5(next(iter(ours.photos().values()))).hexdigest()
    flip(ours.root / f".dvc/cache/files/md5/{oid[:2]}/{oid[2:]}")
    whole = networks.read_bytes()
    networks.write_bytes(b"half")
    shutil.rmtree(ours.root / "stages/train/live")
    assert "stages/train" in ours.dvc("status")
    follow(ours, block(BREAKS, "python src/doctor.py"))
    assert networks.read_bytes() == whole
    assert "up to date" in ours.dvc("status") and ours.tool("verify").returncode == 0


def test_a_failed_stage_and_notes_in_its_folder(ours: Workspace) -> None:
    """Rows: 'a stage failed …', 'files of yours vanished …', 'no such file or folder'."""
    (ours.root / "stages/align/notes.txt").write_text("mine")
    (ours.root / "stages/fetch/landmarks.dat").unlink()
    ours.dvc("repro", "-f", "-s", "fetch@landmarks")
    follow(ours, "dvc repro -f -s align")
    assert not (ours.root / "stages/align/notes.txt").exists()
    (ours.root / "stages/pack/heldout.zip").unlink()
    done = ours.call("dvc", "repro", "-f", "-s", "fid")
    assert done.returncode != 0 and not (ours.root / "stages/fid").exists()
    assert "stages/fid" in ours.dvc("status")
    follow(ours, "dvc checkout -f stages/fid")
    assert (ours.root / "stages/fid/sheet.png").is_file()


def test_a_clone_without_photos(place: Place) -> None:
    """Row: '`dvc repro --dry` fails in a clone without photos'."""
    place.shell().git("clone", "-q", str(place.origin), "bare")
    bare = place.workspace("bare")
    assert bare.call("dvc", "repro", "--dry").returncode != 0
    assert "up to date" in follow(bare, "dvc pull stages/photos/*.dvc\ndvc repro --dry --allow-missing")


def test_a_remote_that_this_commit_lacks(ours: Workspace) -> None:
    """Row: 'config file error: expected 'url''."""
    local = ours.root / ".dvc/config.local"
    local.write_text("['remote \"team\"']\n    user = you\n")
    done = ours.call("dvc", "status")
    assert done.returncode != 0 and "expected 'url'" in done.stdout
    local.write_text(local.read_text() + "    url = ssh://nas.example.org/srv\n")
    follow(ours, "dvc status")


def test_two_branches_ran_the_pipeline(ours: Workspace) -> None:
    """Row: 'conflict in dvc.lock'."""
    for branch, frozen in (("one", 3), ("two", 4)):
        ours.git("checkout", "-q", "-B", branch, "main")
        follow(ours, f"dvc exp run -S freeze_d={frozen}\ngit add dvc.lock metrics params.yaml")
        ours.git("commit", "-q", "-m", branch)
    done = ours.call("git", "merge", "one")
    assert done.returncode != 0 and "CONFLICT" in done.stdout and "dvc.lock" in done.stdout
    results = "dvc.lock metrics params.yaml"
    follow(ours, f"git checkout --ours {results}\ndvc repro\ngit add {results}")
    ours.git("commit", "-q", "-m", "Both")
    assert params(ours)["freeze_d"] == 4 and "up to date" in ours.dvc("status")

