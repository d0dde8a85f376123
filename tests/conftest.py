"""Fixtures that several test modules share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

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


@pytest.fixture
def rng() -> torch.Generator:
    """The one source of randomness of a test."""
    return torch.Generator().manual_seed(20261122)
