"""Files that try to run code, to fill the memory or to reach outside; for tests and fuzzing."""

import builtins
import functools
import importlib
import io
import json
import math
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


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


def raw(value: object) -> bytes:
    """The instructions that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def table(entries: dict[str, bytes]) -> bytes:
    """The instructions that push a table of already written values."""
    return b"}(" + b"".join(raw(key) + value for key, value in entries.items()) + b"u"


def call(name: str, *arguments: bytes) -> bytes:
    """The instructions that call the global `module name`."""
    return b"c" + name.replace(" ", "\n").encode() + b"\n(" + b"".join(arguments) + b"tR"


def node(state: dict[str, bytes], source: str = "") -> bytes:
    """A module as the official networks save it."""
    meta = {"class_name": raw("Generator"), "module_src": raw(source), "state": table(state)}
    return call("torch_utils.persistence _reconstruct_persistent_obj", table(meta))


def nested(marker: Path) -> dict[str, bytes]:
    """Whole-looking checkpoints with a call of os.system somewhere inside, by where it is."""
    run, touch = call("posix system", raw(f"touch {marker}")), f"open({str(marker)!r}, 'w').close()\n"
    zero = raw(0)
    storage = call("torch.storage _load_from_bytes", raw(b"\x80\x02" + run + b"."))
    tensor = call("torch._utils _rebuild_tensor_v2", storage, zero, b")", b")", b"\x89", b"}")
    network = b"cdnnlib.tflib.network\nNetwork\n)\x81"
    saved = {"version": raw(4), "components": b"}", "build_func_name": raw("G_main"), "variables": b"]",
             "static_kwargs": b"}", "build_module_src": raw(touch)}
    roots = {
        "state": node({"training": run}), "buffer": node({"_buffers": table({"w_avg": run})}),
        "arguments": node({"_init_kwargs": table({"z_dim": run})}), "source": node({}, touch),
        "module": node({"_modules": table({"mapping": node({"_parameters": table({"bias": run})})})}),
        "storage": node({"_buffers": table({"w_avg": tensor})}),
        "easy dictionary": call("dnnlib.util EasyDict", b"](" + raw("a") + run + b"\x86e"),
        "partial": call("functools partial", b"cdnnlib.util\ncall_func_by_name\n", raw("os.system")),
        "setstate": b"cargparse\nNamespace\n)\x81" + table({"__setstate__": run}) + b"b",
        "getattr": call("builtins getattr", call("importlib import_module", raw("os")), raw("system")),
        "__import__": call("__builtin__ __import__", raw("os")),
        "old class": b"(" + raw("true") + b"iposix\nsystem\n",
        "object": b"(cposix\nsystem\n" + raw("x") + b"o",
        "keywords": b"cposix\nsystem\n)}\x92", "dotted": b"\x8c\x05torch\x8c\x0fos.path.os.abort\x93)R",
    }
    out = {name: b"\x80\x04}(" + raw("G_ema") + root + b"u." for name, root in roots.items()}
    out["after the networks"] = b"\x80\x04}(" + raw("G_ema") + node({}) + raw("z") + run + b"u."
    for name, changed in (("variables", {"variables": b"](" + raw("lod") + run + b"\x86e"}),
                          ("parts", {"components": table({"mapping": run})}), ("source text", {})):
        out[f"tensorflow {name}"] = b"\x80\x02" + network + table(saved | changed) + b"b."
    return out


def lying() -> dict[str, bytes]:
    """Safetensors files whose header claims what is not there."""
    def file(header: object, content: bytes = b"", length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + content

    def tensor(kind: str, shape: list, start: int, end: int) -> dict:
        return {"G.a": {"dtype": kind, "shape": shape, "data_offsets": [start, end]}}

    both = tensor("F32", [1], 0, 4) | {"G.b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    deep = b'{"__metadata__":{"stylebot":' + json.dumps("[" * 100_000).encode() + b"}}"
    return {
        "beyond the end": file(tensor("F32", [1 << 20], 0, 1 << 22), bytes(16)),
        "product overflows": file(tensor("F32", [1 << 40, 1 << 40], 0, 16), bytes(16)),
        "backwards": file(tensor("F32", [4], 16, 0), bytes(16)),
        "negative": file(tensor("F32", [-1], 0, 4), bytes(16)), "overlap": file(both, bytes(4)),
        "gap": file(tensor("F32", [1], 8, 12), bytes(12)),
        "no such type": file(tensor("X9", [1], 0, 4), bytes(4)),
        "header 2^63": file({}, b"", (1 << 63) - 1), "header longer than the file": file({}, bytes(8), 4000),
        "not json": file(b"{" * 5000), "deep": file(b'{"a":' * 5000 + b"1" + b"}" * 5000),
        "deep description": file(deep), "twice": file(b'{"a":1,"a":2}'),
        "empty tensors": file(tensor("F32", [0, 1 << 62], 0, 0)), "many": file({"G.a": 0} | both),
    }


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return buffer.getvalue()


def overlapping() -> bytes:
    """A zip in which 200 storages are the same stored bytes, so that it unpacks to 200 times its size."""
    names = [f"a/data/{i}" for i in range(200)]
    single = archive({"a/data.pkl": many_storages(len(names)), names[0]: bytes(1 << 18)})
    start, end = single.index(b"PK\x01\x02"), single.index(b"PK\x05\x06")
    first = single.index(b"PK\x01\x02", start + 4)
    entry = single[first:end]
    old = names[0].encode()
    entries = [entry[:28] + struct.pack("<H", len(n)) + entry[30:46] + n.encode() + entry[46 + len(old):]
               for n in names]
    directory = single[start:first] + b"".join(entries)
    closing = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 201, 201, len(directory), start, 0)
    return single[:start] + directory + closing


def many_storages(count: int) -> bytes:
    """A torch pickle of `count` storages of 65,536 float32 each."""
    def entry(i: int) -> bytes:
        kind = b"ctorch\nFloatStorage\n"
        return b"(" + raw("storage") + kind + raw(str(i)) + raw("cpu") + raw(1 << 16) + b"tQ"

    return b"\x80\x02}(" + raw("g_ema") + b"](" + b"".join(map(entry, range(count))) + b"eu."


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
        "drive": archive({"C:\\\\a/data.pkl": b"}."}),
        "backslashes": archive({"a\\\\..\\\\b/data.pkl": b"}."}),
        "two roots": archive({"a/data.pkl": b"}.", "b/data.pkl": b"}."}), "same bytes": overlapping(),
        "not torch": archive({"word/document.xml": b"<x/>"}),
        "no storage": archive({"a/data.pkl": b"\x80\x02}."}),
        "persistent": b"\x80\x02K\x01Q.", "extension": b"\x80\x02\x82\x01.", "text": b"hello", "nothing": b"",
        "png": b"\x89PNG\r\n\x1a\n" + bytes(60), "list": pickle.dumps([1]),
        "no networks": pickle.dumps({"a": 1}),
    }


def described(count: int, *shape: int) -> bytes:
    """A pickle of `count` generator tensors of `shape`, all over one storage of four numbers."""
    storage, stride = torch.zeros(4).untyped_storage(), [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    tensor = Call(torch._utils._rebuild_tensor_v2, typed, 0, shape, tuple(stride), False, {})
    return pickle.dumps({"g_ema": {f"style.{i}.weight": tensor for i in range(count)}}, 4)
