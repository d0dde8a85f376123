"""Fixtures that several test modules share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from guide import Place, block, follow, new_place

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def model_file() -> Callable[[str], Path]:
    """`model_file("landmarks.dat")`: that model as stage `fetch` brings it, fetched when absent.

    landmarks.dat is dlib's of 68 points; dlib5.dat that of 5.
    """
    from stylebot.fetch import FetchParams, fetch
    from stylebot.params import load_params

    def get(name: str) -> Path:
        path = Path(os.environ.get("STYLEBOT_TEST_MODELS", ROOT / "stages" / "fetch")) / name
        if not path.exists():
            here = Path.cwd()
            os.chdir(ROOT)
            try:
                model = "dlib68" if name == "landmarks.dat" else Path(name).stem
                fetch(model, path, load_params("fetch", FetchParams))
            finally:
                os.chdir(here)
        return path

    return get


@pytest.fixture(scope="session")
def first_place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """A place after the README's first block, committed and pushed, and what `make repro` said."""
    found = new_place(tmp_path_factory.mktemp("guide"))
    text = block("Two commands", "git clone").replace("<this repository>", str(found.origin))
    clone, make = text.splitlines()
    follow(found.shell(), clone)
    said = follow(found.workspace(), make)
    found.workspace().commit("Run")
    found.workspace().git("push", "-q", "origin", "main")
    return found, said


@pytest.fixture
def place(first_place: tuple[Place, str], tmp_path: Path) -> Place:
    """A copy of the first place for one test."""
    return first_place[0].copy(tmp_path)


@pytest.fixture
def rng() -> torch.Generator:
    """The one source of randomness of a test."""
    return torch.Generator().manual_seed(20261122)
