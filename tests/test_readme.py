"""Every command that the README shows exists, and the short ones are run, section by section, in a clone."""

import ast
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_ci import MAKE
from workspaces import PHOTOS, ROOT, Workspace, fill, new_workspace

README = (ROOT / "README.md").read_text(encoding="utf-8")
PARTS = re.split(r"^## (.+)$", README, flags=re.MULTILINE)
SECTIONS = dict(zip(PARTS[1::2], PARTS[2::2], strict=True))
NAMED = ("Two commands", "Your own photos", "On 8 GPUs", "Share with your team", "When something breaks")
OTHERS = {"git", "cd", "cp", "rm", "export", ".", "gto", "pip"}
ENVIRONMENT = re.compile(r"^[A-Z_]+=\S+$")


def blocks(section: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", SECTIONS[section], re.DOTALL | re.MULTILINE)


def inline(text: str) -> Iterator[str]:
    """Commands within sentences: `dvc …`, `python src/…`, `make …`."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", prose):
        if re.match(r"(dvc|make|python) \w", code) and "…" not in code:
            yield code


def commands(text: str) -> Iterator[list[str]]:
    """Words of each simple command, comments gone, environment variables before it left out."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"\s#\s.*$", "", re.sub(r"\$\([^)]*\)", "X", line))
        for part in re.split(r"&&|;(?=\s)", re.sub(r"<[\w ]+>", "X", line)):
            words = shlex.split(part, comments=True)
            while words and ENVIRONMENT.match(words[0]):
                words = words[1:]
            if words:
                yield words


def options(script: str) -> set[str]:
    """What a script's typer command accepts, as its source says it."""
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    main = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main")
    found = {"--help"}
    for argument in (*main.args.args, *main.args.kwonlyargs):
        text = [n.value for n in ast.walk(argument.annotation)
                if isinstance(n, ast.Constant) and str(n.value).startswith("-")]  # fmt: skip
        found |= set(text)
        name = f"--{argument.arg.replace('_', '-')}"
        found |= {name, name.replace("--", "--no-", 1)}
    return found


def known_to_dvc(words: list[str]) -> bool:
    from dvc.cli import DvcParserError
    from dvc.cli.parser import get_main_parser

    try:
        return bool(get_main_parser().parse_args(words))
    except DvcParserError:
        return False


def check(words: list[str], whole: bool = True) -> None:
    """Assert that a command exists and knows its options; one that is not `whole` may lack arguments."""
    shown = " ".join(words)
    if words[0] == "dvc":
        assert any(known_to_dvc([*words[1:], *["X"] * n]) for n in range(1 if whole else 4)), shown
    elif words[0] == "make":
        assert set(words[1:]) <= MAKE, shown
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), shown
        if words[1].startswith("src/"):
            given = {word.split("=")[0] for word in words[2:] if re.match(r"--?[A-Za-z]", word)}
            assert given <= options(words[1]), f"{shown}: {given - options(words[1])}"
    else:
        assert words[0] in OTHERS, f"{shown}: run by no test; add it to OTHERS of {Path(__file__).name}"


@pytest.mark.parametrize("section", SECTIONS)
def test_commands_exist(section: str) -> None:
    for block in blocks(section):
        syntax = re.sub(r"<[\w ]+>", "X", block)
        subprocess.run(["bash", "-n"], input=syntax, text=True, check=True)
        for words in commands(block):
            check(words)
    for code in inline(SECTIONS[section]):
        for words in commands(code):
            check(words, whole=False)


def test_the_check_sees_mistakes() -> None:
    for wrong in ("python src/gone.py", "python src/verify.py --cluod", "make repo", "dvc exp rnu", "curl x"):
        with pytest.raises(AssertionError):
            check(wrong.split())
    for right in ("python src/verify.py -r team --remove", "dvc exp run -S freeze_d=4", "make repro"):
        check(right.split())


def test_the_sections_are_there() -> None:
    assert set(NAMED) <= SECTIONS.keys()
    assert "**Many machines.**" in SECTIONS["Your own photos"]


@pytest.fixture
def clone(tmp_path: Path) -> Workspace:
    """A workspace with photos in two folders and a pipeline of one cheap stage; `origin` to share through."""
    found = new_workspace(tmp_path / "ours", count=3)
    fill(found.root / PHOTOS / "id", 2, 500, seed=2)
    found.dvc("add", "-q", f"{PHOTOS}/id")
    script = (
        "import json, pathlib\n"
        "n = sum(1 for p in pathlib.Path('stages/photos').rglob('*.jpg'))\n"
        "pathlib.Path('metrics/align.json').write_text(json.dumps({'align_photos': n}))\n"
    )
    (found.root / "metrics").mkdir()
    (found.root / "align.py").write_text(script)
    (found.root / "params.yaml").write_text("freeze_d: 0\n")
    found.dvc("stage", "add", "-q", "-n", "align", "-d", "align.py", "-d", PHOTOS, "-p", "freeze_d",
              "-M", "metrics/align.json", "python align.py")  # fmt: skip
    found.dvc("repro", "-q")
    found.commit("Run")
    return found


def follow(workspace: Workspace, text: str) -> str:
    """What a block says when a shell runs it, each line to succeed."""
    return workspace.run("bash", "-euc", text)


def test_two_commands(clone: Workspace) -> None:
    """After `make repro`, which test_pipeline.py does: nothing runs again, one number changes, a table."""
    found = blocks("Two commands")
    assert found[0].splitlines()[-1] == "make repro"
    lines = [line for line in found[1].splitlines() if line.startswith("dvc ")]
    assert [line.split("#")[0].split()[1] for line in lines] == ["repro", "exp", "exp", "metrics", "plots"]
    assert "up to date" in follow(clone, lines[0])
    follow(clone, "\n".join(lines[1:4]))
    assert "freeze_d: 10" in (clone.root / "params.yaml").read_text()
    assert "freeze_d" in follow(clone, lines[2])


def test_your_own_photos(clone: Workspace, tmp_path: Path) -> None:
    fill(tmp_path / "portraits", 7, 500, seed=3)
    fill(tmp_path / "passports", 4, 500, seed=4)
    (block,) = (b for b in blocks("Your own photos") if b.startswith("rm -r"))
    follow(clone, block.replace("~/", f"{tmp_path}/"))
    assert '"align_photos": 11' in (clone.root / "metrics/align.json").read_text()
    assert clone.git("status", "--porcelain") == "" and "Our photos" in clone.git("log", "--oneline")
    assert "up to date" in clone.dvc("status")


def test_a_sweep_is_queued_without_running(clone: Workspace) -> None:
    """The queue itself is run in test_experiments.py, the recipes are checked in test_plan.py."""
    (block,) = (b for b in blocks("On 8 GPUs") if "--queue" in b)
    said = follow(clone, block.splitlines()[0])
    assert said.count("Queued experiment") == 4 or clone.dvc("queue", "status").count("Queued") == 4


@pytest.fixture
def registry(clone: Workspace, tmp_path: Path) -> Workspace:
    """The clone with networks that DVC tracks and `artifacts` as in our dvc.yaml, on a remote and in git."""
    networks = clone.root / "stages/train/networks.safetensors"
    networks.parent.mkdir()
    networks.write_bytes(b"networks")
    clone.dvc("add", "-q", str(networks.relative_to(clone.root)))
    ours = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    with (clone.root / "dvc.yaml").open("a", encoding="utf-8") as file:
        file.write(ours[ours.index("artifacts:") :])
    clone.dvc("remote", "add", "-q", "-d", "team", str(tmp_path / "store"))
    clone.git("init", "-q", "--bare", "-b", "main", str(tmp_path / "origin"))
    clone.git("remote", "add", "origin", str(tmp_path / "origin"))
    clone.commit("Networks")
    clone.dvc("push", "-q")
    clone.git("push", "-q", "-u", "origin", "main")
    return clone


def test_the_registry_hands_out_the_version_that_is_in_use(registry: Workspace, tmp_path: Path) -> None:
    share = blocks("Share with your team")
    (register,) = (b for b in share if b.startswith("gto register"))
    (get,) = (b for b in share if b.startswith("dvc artifacts get"))
    follow(registry, register)
    (registry.root / "stages/train/networks.safetensors").write_bytes(b"worse networks")
    registry.dvc("add", "-q", "stages/train/networks.safetensors")
    registry.commit("Worse networks")
    registry.dvc("push", "-q")
    registry.git("push", "-q")
    shutil.rmtree(registry.root / ".dvc/cache")
    elsewhere = Workspace(tmp_path / "elsewhere")
    elsewhere.root.mkdir()
    follow(elsewhere, get.replace("<this repository>", str(tmp_path / "origin")))
    found = list(elsewhere.root.rglob("*.safetensors"))
    assert [path.read_bytes() for path in found] == [b"networks"]
