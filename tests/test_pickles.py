"""Hostile, damaged and oversized files: each ends in one line, nothing in them runs, memory stays bounded."""

import json
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
from hostile_files import Call, bombs, described, hostile, lying, nested

from stylebot.checkpoints import load_networks
from stylebot.errors import StylebotError

DATA = Path(__file__).parent / "data"


def refusal(path: Path) -> str:
    """The one line that loading `path` ends in."""
    with pytest.raises(StylebotError) as caught:
        load_networks(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text and len(text) < 600
    return text


def test_nothing_hostile_runs(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for name, content in (hostile(marker) | nested(marker)).items():
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(content)
        refusal(path)
        assert not marker.exists(), name


def test_what_is_refused_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Call(os.system, "true"), 4))
    assert "asks for 'posix.system'" in refusal(tmp_path / "a.pkl")


def test_bombs_end_in_one_line(tmp_path: Path) -> None:
    expected = {"zip bomb": "compressed", "drive": "outside", "backslashes": "outside", "outside": "outside",
                "absolute": "'/etc/data.pkl' points outside", "two roots": "not one of torch",
                "same bytes": "are missing", "copies": "again and again",
                "deep key": "keys", "bytearray": "only 1 remain"}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in bombs().items():
        (tmp_path / name.replace("^", "")).write_bytes(content)
        assert expected.get(name, "") in refusal(tmp_path / name.replace("^", "")), name
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 150_000, f"{grown} KiB"


def test_safetensors_that_lie_end_in_one_line(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in lying().items():
        (tmp_path / name.replace("^", "")).write_bytes(content)
        refusal(tmp_path / name.replace("^", ""))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 50_000, f"{grown} KiB"


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"networks": 1, "meta": {}}',
                                     b'{"networks": {"G": {"z_dim": 1e999}}, "meta": {}}'])
def test_a_lying_description_in_a_folder(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    refusal(tmp_path)


def test_lying_safetensors_in_a_folder(tmp_path: Path) -> None:
    described = {"G": {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 8, "img_channels": 3}}
    (tmp_path / "config.json").write_text(json.dumps({"networks": described, "meta": {}}))
    for content in lying().values():
        (tmp_path / "G.safetensors").write_bytes(content)
        refusal(tmp_path)


def test_folders_and_absent_files(tmp_path: Path) -> None:
    refusal(tmp_path)
    refusal(tmp_path / "absent")


@pytest.mark.parametrize("name", ["official_tiny.pkl", "rosinality_legacy.pt", "rosinality_training.pt"])
def test_cut_files_end_in_one_line(tmp_path: Path, name: str) -> None:
    whole = (DATA / name).read_bytes()
    for share in (0.0, 0.001, 0.02, 0.3, 0.9, 0.99):
        (tmp_path / "a").write_bytes(whole[: int(len(whole) * share)])
        refusal(tmp_path / "a")
    (tmp_path / "a").write_bytes(whole[:-1])
    refusal(tmp_path / "a")


@pytest.mark.parametrize("name", ["official_tiny.pkl", "rosinality_legacy.pt"])
def test_flipped_bits_load_or_end_in_one_line(tmp_path: Path, name: str) -> None:
    whole, rng = bytearray((DATA / name).read_bytes()), np.random.default_rng(0)
    spots = [*rng.integers(0, 2000, 20), *rng.integers(0, len(whole), 10)]
    for spot in spots:
        damaged = bytearray(whole)
        damaged[spot] ^= 1 << int(rng.integers(8))
        (tmp_path / "a").write_bytes(damaged)
        try:
            load_networks(tmp_path / "a")
        except StylebotError as error:
            assert "\n" not in str(error) and len(str(error)) < 600


def test_tensors_cannot_claim_more_than_their_storage_or_their_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(described(1, 3, 3))
    assert "shape [3, 3] in a storage of 4 numbers" in refusal(tmp_path / "a")
    (tmp_path / "a").write_bytes(described(1, 1000, 1000))
    assert "more than the file holds" in refusal(tmp_path / "a")
    (tmp_path / "a").write_bytes(described(2000, 2, 2))
    assert "shape" in refusal(tmp_path / "a") or "colour layers" in refusal(tmp_path / "a")
