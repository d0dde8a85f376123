"""The workflow for GitHub: valid YAML whose commands exist, and the gate that it relies on."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from workspaces import ROOT, Workspace, new_workspace

FLOW = YAML(typ="safe").load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
STEPS = [step for job in FLOW["jobs"].values() for step in job["steps"]]
RUNS = {step["name"]: step["run"] for step in STEPS if "run" in step}
MAKE = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def commands(script: str) -> list[list[str]]:
    """Words of each simple command of a shell script."""
    parts = re.split(r"\n|;|&&|\|\||\||\$\(|\)", script)
    words = [shlex.split(re.sub(r">>?\s*\S+", "", part.replace('"', " "))) for part in parts]
    plain = ([w for i, w in enumerate(line) if i or w not in ("if", "then", "do")] for line in words)
    return [line for line in plain if line]


def test_the_workflow_has_what_github_asks_for() -> None:
    assert {"push", "pull_request"} <= FLOW["on"].keys()  # YAML 1.1 would read the key as True
    assert FLOW["permissions"] == {"contents": "read"}
    assert FLOW["jobs"]["pipeline"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    for job in FLOW["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"]
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])


def test_the_workflow_fits_the_published_schema(tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="pip install -r requirements-dev.txt")
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    path, wrong = ROOT / ".github/workflows/ci.yml", tmp_path / "wrong.yml"
    wrong.write_text(path.read_text(encoding="utf-8").replace("runs-on:", "run-on:"))
    codes = [subprocess.run([*words, str(p)], capture_output=True).returncode for p in (path, wrong)]
    assert codes == [0, 1]


@pytest.mark.parametrize("script", RUNS.values(), ids=RUNS.keys())
def test_commands_exist(script: str) -> None:
    from dvc.cli.parser import get_main_parser

    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for words in commands(script):
        words = words[1:] if words[0] == "xargs" else words
        if words[0] == "dvc":
            get_main_parser().parse_args(words[1:] or ["version"])  # exits on what DVC does not know
        elif words[0] == "make":
            assert set(words[1:]) <= MAKE, words
        for word in words:
            assert not word.startswith(("src/", ".ci/", "./")) or (ROOT / word).exists(), word


def test_the_gate_and_the_comment_are_there() -> None:
    everything = "\n".join(RUNS.values())
    for needed in (
        ".ci/run",
        "src/guard.py",
        "dvc repro --dry --allow-missing",
        "dvc data status --not-in-remote",
        "dvc metrics diff --md",
        "gh pr comment",
    ):
        assert needed in everything, needed


@pytest.fixture
def pipeline(tmp_path: Path) -> Workspace:
    """A workspace with one stage that ran, and a remote of its own."""
    found = new_workspace(tmp_path / "ws", count=2)
    (found.root / "count.py").write_text("from pathlib import Path\nPath('n.txt').write_text('2')\n")
    found.dvc("remote", "add", "-q", "-d", "team", str(tmp_path / "store"))
    found.dvc(
        "stage",
        "add",
        "-q",
        "-n",
        "count",
        "-d",
        "count.py",
        "-d",
        "stages/photos/celebrity",
        "-o",
        "n.txt",
        "python count.py",
    )
    found.dvc("repro", "-q")
    found.commit("Run")
    return found


def test_the_gate_sees_stale_locks_and_forgotten_pushes(pipeline: Workspace, tmp_path: Path) -> None:
    gate = (["dvc", "repro", "--dry", "--allow-missing"], ["bash", "-c", RUNS["Results are on the remote"]])
    pipeline.dvc("push", "-q", "stages/photos/celebrity")
    theirs = pipeline.clone(tmp_path / "theirs")
    theirs.dvc("pull", "-q", "stages/photos/celebrity")
    assert theirs.call(*gate[0]).returncode == 0
    done = theirs.call(*gate[1])
    assert done.returncode == 1 and "n.txt" in done.stdout and "dvc push was forgotten" in done.stdout
    pipeline.dvc("push", "-q")
    shutil.rmtree(theirs.environment()["DVC_SITE_CACHE_DIR"])
    done = theirs.call(*gate[1])
    assert done.returncode == 0, done.stdout
    with (theirs.root / "count.py").open("a") as file:
        file.write("print('changed')\n")
    done = theirs.call(*gate[0])
    assert "Running stage 'count'" in done.stdout or done.returncode != 0, done.stdout
