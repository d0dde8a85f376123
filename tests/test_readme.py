"""Every command that the README shows exists; test_guide.py and its like run them in a fresh clone."""

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from guide import ROOT, SECTIONS, blocks
from test_ci import MAKE

OTHERS = {"git", "cd", "cp", "rm", "export", ".", "gto", "pip", "dask"}
FOLLOWED = {  # section -> how a block starts -> the function that runs it in a fresh clone
    "Two commands": {"git clone": "first_place", ". .venv": "test_two_commands"},
    "Your own photos": {"rm -r": "test_your_own_photos"},
    "On 8 GPUs": {
        "python src/plan.py": "test_on_8_gpus",
        "dvc exp run -n laptop": "test_on_8_gpus",
        "PET_NPROC_PER_NODE=": "test_on_8_gpus",
        "dvc exp run --queue": "test_a_sweep_and_what_to_do_with_its_best",
        "dvc plots diff": "test_a_sweep_and_what_to_do_with_its_best",
    },
    "Many machines": {"pip install": "test_many_machines", "STYLEBOT_DASK": "test_many_machines"},
    "Share with your team": {
        "dvc remote add": "ours",  # of test_remotes.py, with real servers
        "make hooks": "test_share_with_your_team",
        "git clone": "test_share_with_your_team",
        "gto register": "test_versions_deliveries_and_the_way_back",
        "dvc artifacts get": "test_versions_deliveries_and_the_way_back",
        "dvc import ": "test_photos_come_from_a_registry_and_follow_it",
        "dvc import-url": "test_photos_come_from_a_bucket_and_follow_it",
        "cp -r": "test_versions_deliveries_and_the_way_back",
        "git checkout": "test_versions_deliveries_and_the_way_back",
    },
    "When something breaks": {"python src/doctor.py": "test_first_aid"},
}
ENVIRONMENT = re.compile(r"^[A-Z_]+=\S+$")


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
        for part in re.split(r"&&|\|\||;(?=\s)", re.sub(r"<[\w ]+>", "X", line)):
            words = shlex.split(re.sub(r">>?\s*\S+|&\s*$", "", part), comments=True)
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


def source(name: str) -> str:
    """All functions of that name in the tests."""
    found = []
    for path in (ROOT / "tests").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        functions = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef))
        found += [ast.get_source_segment(text, n) for n in functions if n.name == name]
    return "\n".join(found)


@pytest.mark.parametrize("section", FOLLOWED)
def test_every_block_is_followed(section: str) -> None:
    for text in blocks(section):
        tests = [name for start, name in FOLLOWED[section].items() if text.startswith(start)]
        assert len(tests) == 1, f"README, {section}: no test runs the block {text[:60]!r}"
    for start, name in FOLLOWED[section].items():
        assert any(text.startswith(start) for text in blocks(section)), f"{section}: {start} is gone"
        assert re.search(r"\bblocks?\(", source(name)) and "follow(" in source(name), name
