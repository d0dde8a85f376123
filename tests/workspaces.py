"""Tiny DVC repositories for tests: our .dvc/config, made-up files, DVC as a command."""

import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PHOTOS = "stages/photos"


@dataclass
class Workspace:
    """A git repository with DVC, and the commands run in it."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Of a user without settings of this machine's, with a state database of their own."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "GIT_", "DVC_"))}
        alone = {
            "DVC_SITE_CACHE_DIR": str(self.root.parent / f"site-{self.root.name}"),
            "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@example.org",
            "PYTHONPATH": str(ROOT / "src"),
            "COLUMNS": "200",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        return clean | alone | self.env

    def _how(self) -> dict:
        """Where and how commands run: no input, both streams in one."""
        return {"cwd": self.root, "env": self.environment(), "text": True, "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen:
        """A command that runs beside the test; its whole output in one stream."""
        return subprocess.Popen(words, **self._how())

    def call(self, *words: str) -> subprocess.CompletedProcess:
        """A command and what it said, whatever its exit code."""
        return subprocess.run(words, timeout=900, **self._how())

    def run(self, *words: str) -> str:
        """The output of a command that must succeed."""
        done = self.call(*words)
        assert done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def git(self, *words: str) -> str:
        return self.run("git", *words)

    def dvc(self, *words: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *words)

    def tool(self, name: str, *words: str) -> subprocess.CompletedProcess:
        """One of this project's scripts, run in this repository."""
        return self.call(sys.executable, str(ROOT / "src" / f"{name}.py"), *words)

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def clone(self, to: Path) -> "Workspace":
        """A colleague's clone; config.local does not travel."""
        self.git("clone", "-q", str(self.root), str(to))
        return Workspace(to, dict(self.env))

    def photos(self) -> dict[str, bytes]:
        """Every photo by name."""
        folder = self.root / PHOTOS
        return {
            p.relative_to(folder).as_posix(): p.read_bytes()
            for p in sorted(folder.rglob("*"))
            if p.is_file() and p.suffix not in (".dvc", "") and p.name != ".gitignore"
        }

    def drop_data(self) -> None:
        """Lose the cache, the photos and what DVC remembers of them."""
        for path in (
            self.root / ".dvc/cache",
            self.root / ".dvc/tmp",
            self.root.parent / f"site-{self.root.name}",
            self.root / PHOTOS / "celebrity",
        ):
            shutil.rmtree(path, ignore_errors=True)


def fill(folder: Path, count: int, size_bytes: int, seed: int) -> None:
    """`count` made-up photos; the same seed gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = random.Random(seed)
    for i in range(count):
        (folder / f"{seed}-{i:03}.jpg").write_bytes(numbers.randbytes(size_bytes))


def new_workspace(root: Path, count: int = 6, size_bytes: int = 2000) -> Workspace:
    """A repository with our .dvc/config and `count` photos that DVC tracks, committed."""
    (root / ".dvc").mkdir(parents=True)
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    ours = Workspace(root)
    ours.git("init", "-q", "-b", "main")
    fill(root / PHOTOS / "celebrity", count, size_bytes, seed=1)
    ours.dvc("add", "-q", f"{PHOTOS}/celebrity")
    ours.commit("Photos")
    return ours
