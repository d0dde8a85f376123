"""A fresh clone of this repository in which to follow the README: all is real but installing and computing.

`pip install` is left out (.venv holds the packages that run the tests), and the stages' own work is done by
standin.py: DVC calls `python src/<stage>.py`, and a `python` in front of the real one hands that over.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from workspaces import ROOT, Workspace

README = (ROOT / "README.md").read_text(encoding="utf-8")
PARTS = re.split(r"^## (.+)$", README, flags=re.MULTILINE)
SECTIONS = dict(zip(PARTS[1::2], PARTS[2::2], strict=True))
PYTHON = """#!/bin/sh
# A stage of the pipeline is stood in for, unless $GENUINE names it; all else is the real Python.
case "$1" in src/*.py)
  stage="${1#src/}"
  case " $GENUINE " in *" ${stage%.py} "*) ;; *)
    test -z "$DVC_STAGE" || exec REAL STANDIN ;;
  esac ;;
esac
exec REAL "$@"
"""
PIP = """#!REAL
# `pip install NAME==VERSION` of what is here already; anything else fails.
import importlib.metadata, sys
name, version = sys.argv[2].split("==")
sys.exit(sys.argv[1] != "install" or importlib.metadata.version(name) != version)
"""
HOOK = """#!/bin/sh
# Of the first checkout of a new clone: the .venv that `make setup` would make.
test -e .venv || { cp -a VENV .venv && touch .venv/.ready; }
"""


def blocks(section: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", SECTIONS[section], re.DOTALL | re.MULTILINE)


def block(section: str, starts: str) -> str:
    """The one block of a section that starts so."""
    found = [text for text in blocks(section) if text.startswith(starts)]
    assert len(found) == 1, f"README, {section}: {len(found)} blocks start with {starts!r}"
    return found[0]


def follow(workspace: Workspace, text: str) -> str:
    """What a block says when a shell runs it, each line to succeed."""
    return workspace.run("bash", "-euc", text)


def script(path: Path, text: str, **names: Path | str) -> None:
    for name, value in names.items():
        text = text.replace(name, str(value))
    path.write_text(text)
    path.chmod(0o755)


@dataclass
class Place:
    """A folder with `origin/stylebot`, the repository to clone, and an environment to do it in."""

    folder: Path

    @property
    def origin(self) -> Path:
        return self.folder / "origin/stylebot"

    def environment(self) -> dict[str, str]:
        """Of a shell in which nothing of this project is activated."""
        (self.folder / "home").mkdir(exist_ok=True)
        path = f"{self.folder / 'venv/bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.folder / "home"), "GIT_TEMPLATE_DIR": str(self.folder / "git"),
                "MAKEFLAGS": "", "MAKELEVEL": "0", "PYTHONPATH": "", "OMP_NUM_THREADS": "1",
                "STYLEBOT_WORKERS": "1", "COLUMNS": "80"}  # fmt: skip

    def workspace(self, name: str = "stylebot") -> Workspace:
        return Workspace(self.folder / name, self.environment())

    def shell(self) -> Workspace:
        """The folder itself, to clone into."""
        return Workspace(self.folder, self.environment())

    def copy(self, to: Path) -> "Place":
        """Another place, with an origin and a clone of its own."""
        for name in ("origin", "stylebot", "venv", "git"):
            shutil.copytree(self.folder / name, to / name, symlinks=True)
        found = Place(to)
        found.prepare()
        found.workspace().git("remote", "set-url", "origin", str(found.origin))
        return found

    def prepare(self) -> None:
        """Commands of the environment, by their absolute names, and the template of clones."""
        real, here = Path(sys.executable).parent, self.folder / "venv/bin"
        here.mkdir(parents=True, exist_ok=True)
        for path in real.iterdir():
            if not path.name.startswith(("python", "pip", "activate")) and not (here / path.name).exists():
                (here / path.name).symlink_to(path)
        standin = Path(__file__).with_name("standin.py")
        script(here / "python", PYTHON, REAL=sys.executable, STANDIN=standin)
        script(here / "pip", PIP, REAL=sys.executable)
        script(here / "activate", 'PATH="BIN:$PATH"\n', BIN=here)
        (self.folder / "git/hooks").mkdir(parents=True, exist_ok=True)
        script(self.folder / "git/hooks/post-checkout", HOOK, VENV=here.parent)


def new_place(folder: Path) -> Place:
    """A place whose origin holds this working tree as its one commit."""
    found, seed = Place(folder), folder / "seed"
    found.prepare()
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.split("\0")  # fmt: skip
    for name in filter(None, listed):
        if (ROOT / name).is_file() and not name.startswith("tests/data/"):
            (seed / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, seed / name)
    plain = Workspace(seed)
    plain.git("init", "-q", "-b", "main")
    plain.commit("Stylebot")
    plain.git("clone", "-q", "--bare", ".", str(found.origin))
    shutil.rmtree(seed)
    return found
