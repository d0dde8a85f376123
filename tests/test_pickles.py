"""Hostile, damaged and oversized files: each ends in one line, nothing in them runs, memory stays bounded."""

import builtins
import functools
import importlib
import io
import math
import os
import pickle
import resource
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

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


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


def hostile(marker: Path) -> dict[str, bytes]:
    """Files that would leave `marker` behind if anything in them ran, by what they try."""
    touch = f"open({str(marker)!r}, 'w').close()"
    run, module = Call(os.system, f"touch {marker}"), Call(importlib.import_module, "os")
    tries = {
        "system": run, "nested": {"G": {"_modules": [1, (2, {"x": run})]}},
        "eval": {"G": Call(builtins.eval, touch)}, "exec": {"G_ema": Call(builtins.exec, touch)},
        "getattr": Call(builtins.getattr, module, "system"), "import": module,
        "partial": Call(functools.partial, os.system, "x"),
        "subprocess": Call(subprocess.check_call, ["touch", str(marker)]),
        "load_from_bytes": Call(torch.storage._load_from_bytes, pickle.dumps(run)),
        "ndarray": {"G": np.array([run], dtype=object)},
    }
    out = {f"{name} {protocol}": pickle.dumps(value, protocol) for name, value in tries.items()
           for protocol in (0, 2, 4) if not (name == "load_from_bytes" and protocol == 0)}
    out["stacked name"] = b"\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93\x8c\x01x\x85R."
    for new in (True, False):
        buffer = io.BytesIO()
        torch.save({"g_ema": run, "latent_avg": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=new)
        out[f"torch.save zip {new}"] = buffer.getvalue()
    inner = io.BytesIO()
    torch.save(run, inner)
    zipped = Call(torch.storage._load_from_bytes, inner.getvalue())
    out["storage that is a zip"] = pickle.dumps({"G": zipped}, 4)
    return out


def test_nothing_hostile_runs(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for name, content in hostile(marker).items():
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(content)
        refusal(path)
        assert not marker.exists(), name


def test_what_is_refused_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Call(os.system, "true"), 4))
    assert "asks for 'posix.system'" in refusal(tmp_path / "a.pkl")


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return buffer.getvalue()


def bombs() -> dict[str, bytes]:
    """Small files that claim or would make something huge, or that point elsewhere."""
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
    encode = b"c_codecs\nencode\n"
    copies = (b"\x80\x02" + text + b"q\x000" + encode + b"q\x010" + b"]("
              + b"h\x01h\x00X\x06\0\0\0latin1\x86R" * 5000 + b"e.")
    deep = b"\x80\x02" + b")" + b"\x85" * 150_000 + b"N" + b"s."
    key = b"\x80\x02}" + b")" + b"\x85" * 150_000 + b"Ns."
    tensor = (b"\x80\x02}X\x05\0\0\0g_emactorch._utils\n_rebuild_tensor_v2\n"
              b"(NK\0J\xff\xff\xff\x7fK\x01tRs.")
    return {
        "bytes of 2^60": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc.",
        "memo at 2^32": b"\x80\x02}r\xff\xff\xff\xff.", "copies": copies, "deep": deep, "deep key": key,
        "tensor without storage": tensor, "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"}.",
        "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
        "zip bomb": archive({"a/data.pkl": bytes(20_000_000)}, zipfile.ZIP_DEFLATED),
        "absolute": archive({"/etc/data.pkl": b"}."}), "outside": archive({"a/../../data.pkl": b"}."}),
        "not torch": archive({"word/document.xml": b"<x/>"}),
        "no storage": archive({"a/data.pkl": b"\x80\x02}."}),
        "persistent": b"\x80\x02K\x01Q.", "extension": b"\x80\x02\x82\x01.", "text": b"hello", "nothing": b"",
        "png": b"\x89PNG\r\n\x1a\n" + bytes(60), "list": pickle.dumps([1]),
        "no networks": pickle.dumps({"a": 1}),
    }


def test_bombs_end_in_one_line(tmp_path: Path) -> None:
    expected = {"zip bomb": "compressed", "absolute": "'/etc/data.pkl' points outside", "outside": "outside",
                "copies": "again and again", "deep key": "keys", "bytearray": "only 1 remain"}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in bombs().items():
        (tmp_path / name.replace("^", "")).write_bytes(content)
        assert expected.get(name, "") in refusal(tmp_path / name.replace("^", "")), name
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 150_000, f"{grown} KiB"


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


def described(count: int, *shape: int) -> bytes:
    """A pickle of `count` generator tensors of `shape`, all over one storage of four numbers."""
    storage, stride = torch.zeros(4).untyped_storage(), [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    tensor = Call(torch._utils._rebuild_tensor_v2, typed, 0, shape, tuple(stride), False, {})
    return pickle.dumps({"g_ema": {f"style.{i}.weight": tensor for i in range(count)}}, 4)


def test_tensors_cannot_claim_more_than_their_storage_or_their_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(described(1, 3, 3))
    assert "shape [3, 3] in a storage of 4 numbers" in refusal(tmp_path / "a")
    (tmp_path / "a").write_bytes(described(1, 1000, 1000))
    assert "more than the file holds" in refusal(tmp_path / "a")
    (tmp_path / "a").write_bytes(described(2000, 2, 2))
    assert "shape" in refusal(tmp_path / "a") or "colour layers" in refusal(tmp_path / "a")
