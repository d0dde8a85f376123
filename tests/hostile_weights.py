"""Small files that cost much to read, or contradict themselves, in each form of weights; for tests."""

import io
import json
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import torch
from hostile_files import archive, call, node, raw, table
from safetensors.torch import save

from stylebot.generator import Generator

DATA = Path(__file__).parent / "data"
HUGE = b"\x8b" + struct.pack("<I", 5000) + b"\x7f" * 5000  # a whole number of 40,000 bits
DEEP = b")" + b"\x85" * 150_000  # a tuple in a tuple in a tuple …
MEBIBYTE = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
SIZES = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 8, "img_channels": 3}
TF_NETWORK = b"cdnnlib.tflib.network\nNetwork\n)\x81"
ARRAY = (b"cnumpy.core.multiarray\n_reconstruct\n)R(" + raw(1) + b"(" + raw(1) + b"t"
         + b"cnumpy\ndtype\n(" + raw("f4") + b"tR\x89" + raw(bytes(4)) + b"tb")  # fmt: skip


def laughs() -> bytes:
    """Instructions that push a list of ten lists of ten lists …: 10^10 words when written out."""
    out = b"(" + raw("ha") * 10 + b"lq\x01"
    for level in range(1, 10):
        out += b"0(" + (b"h" + bytes([level])) * 10 + b"lq" + bytes([level + 1])
    return out


def checkpoint(root: bytes) -> bytes:
    return b"\x80\x04}(" + raw("G_ema") + root + b"u."


def built_with(**arguments: bytes) -> bytes:
    return checkpoint(node({"_init_kwargs": table({k: raw(v) for k, v in SIZES.items()} | arguments)}))


def official() -> dict[str, bytes]:
    """Pickles of the official networks."""
    names = b"".join(b"X\6\0\0\0%06dh\2" % i for i in range(20_000))
    parts = b"}(" + b"".join(raw(f"m{i}") + node({"_parameters": b"h\x03"}) for i in range(4000)) + b"u"

    def shared(parameters: bytes) -> bytes:  # one table of parameters under 4000 modules
        root = node({"_modules": parts, "_init_kwargs": b"}"})
        return b"\x80\x02" + ARRAY + b"q\x020" + parameters + b"q\x030}(" + raw("G") + root + b"u."

    both = node({"z_dim": laughs(), "_init_kwargs": table({"z_dim": laughs()})})
    number = b"}(" + HUGE + node({"_parameters": b"}"}) + b"u"
    return {
        "huge number": built_with(z_dim=HUGE), "deep argument": built_with(z_dim=DEEP),
        "laughing argument": built_with(z_dim=laughs()), "laughing twice": checkpoint(both),
        "laughing resolution": checkpoint(node({"img_resolution": laughs(), "_init_kwargs": b"}"})),
        "filter of no taps": built_with(synthesis_kwargs=table({"resample_filter": raw(5)})),
        "filter of words": built_with(synthesis_kwargs=table({"resample_filter": raw(["a"] * 4)})),
        "name of a huge number": checkpoint(node({"_modules": number, "_init_kwargs": b"}"})),
        "shared parameters": shared(b"}(" + names + b"u"),
        "shared long names": shared(MEBIBYTE + b"q\x040}(h\x04h\x02u"),
        "name in two lines": built_with(**{"a\nb\x1b[31m": raw(1)}),
    }


def tensorflow() -> dict[str, bytes]:
    """Pickles of the TensorFlow networks."""
    usual = {"version": raw(4), "build_func_name": raw("G_main"), "components": b"}", "variables": b"]",
             "static_kwargs": b"}"}  # fmt: skip

    def file(start: bytes = b"", **changes: bytes) -> bytes:
        return b"\x80\x02" + start + TF_NETWORK + table(usual | changes) + b"b."

    variables = b"](" + b"h\x03" * 200_000 + b"e"
    changed = {"build_func_name": raw("G_mapping"), "variables": variables}
    repeated = TF_NETWORK + table(usual | changed) + b"b"
    start = ARRAY + b"q\x020" + MEBIBYTE + b"h\x02\x86q\x030"
    return {
        "version": file(version=laughs()), "function": file(build_func_name=laughs()),
        "argument": file(static_kwargs=table({"adaptive_dropout": laughs()})),
        "variables": file(start, components=table({"mapping": repeated})),
    }


def legacy(value: bytes, keys: bytes, numbers: bytes = b"") -> bytes:
    """A file of torch.save before 1.6."""
    start = b"\x80\x02\x8a\x0a\x6c\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    system = b"\x80\x02}(" + raw("little_endian") + b"\x88u."
    return start + system + b"\x80\x02" + value + b".\x80\x02" + keys + b"." + numbers


def tensor(count: int, shape: tuple, stride: tuple, offset: int = 0) -> bytes:
    """The instructions that push a tensor over the storage "0" of `count` numbers."""
    kept = b"(" + raw("storage") + b"ctorch\nFloatStorage\n" + raw("0") + raw("cpu") + raw(count) + b"NtQ"
    return call("torch._utils _rebuild_tensor_v2", kept, raw(offset), raw(shape), raw(stride), b"\x89", b"}")


def torch_files() -> dict[str, bytes]:
    """Files of torch.save in both forms."""
    def one(described: bytes) -> bytes:
        return b"}(" + raw("g_ema") + b"}(" + raw("x") + described + b"uu"

    count = 1 << 20
    wide = b"}(" + b"".join(raw(str(i)) + tensor(count, (2,), (count - 1,)) for i in range(5000)) + b"u"
    number = struct.pack("<q", 1) + bytes(4)
    out = {
        "laughing keys": legacy(b"}", b"](" + laughs() + b"e"),
        "keys that are numbers": legacy(one(tensor(1, (1,), (1,))), raw([0]), number),
        "nothing times 2^78": legacy(one(tensor(1, (0, 1 << 39, 1 << 39), (1, 1, 1))), raw(["0"]), number),
        "negative stride": legacy(one(tensor(1, (1,), (-1,))), raw(["0"]), number),
        "negative shape": legacy(one(tensor(1, (-1,), (1,))), raw(["0"]), number),
        "shape that is not a number": legacy(one(tensor(1, (float("nan"),), (1,))), raw(["0"]), number),
        "wide strides": legacy(b"}(" + raw("g_ema") + wide + b"u", raw(["0"]),
                               struct.pack("<q", count) + bytes(4 * count)),
        "cut directory": (DATA / "rosinality_training.pt").read_bytes()[:-30],
        "holds itself": b"\x80\x02}q\x01(" + raw("g_ema") + b"h\x01u.",
    }  # fmt: skip
    whole = (DATA / "rosinality_training.pt").read_bytes()
    for name, at, value in (("encrypted", 8, b"\1"), ("version 9.9", 6, b"\x63"),
                            ("size 2^32", 24, b"\xff" * 4), ("starts beyond", 42, b"\xff\xff\xff\x7f")):
        place = whole.index(b"PK\x01\x02") + at
        out[name] = whole[:place] + value + whole[place + len(value):]
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr("a/data.pkl", b"\x80\x02}.")
        file.writestr("a/data.pkl", b"\x80\x02K\x01.")
    many = {f"a/{i}": b"" for i in range(5000)} | {"a/data.pkl": b"\x80\x02}."}
    return out | {"twice": twice.getvalue(), "many members": archive(many)}


def rosinality() -> dict[str, bytes]:
    """rosinality's files with a tensor that is none, or not the right one."""
    theirs = torch.load(DATA / "rosinality_legacy.pt", weights_only=True)
    kernel = next(name for name in theirs["g_ema"] if name.endswith("kernel"))
    weight = theirs["g_ema"]["style.1.weight"]

    def file(**changes: torch.Tensor) -> bytes:
        buffer = io.BytesIO()
        torch.save({"g_ema": theirs["g_ema"] | changes}, buffer)
        return buffer.getvalue()

    out = {
        "kernel of 5 x 5": file(**{kernel: torch.ones(5, 5)}),
        "kernel that is true": file(**{kernel: torch.ones(4, 4, dtype=torch.bool)}),
        "whole numbers": file(**{"style.1.weight": weight.long()}),
        "not a number": file(**{"style.1.weight": weight * float("nan")}),
        "latents of 2^17": file(**{"style.1.weight": torch.zeros(len(weight), 1 << 17)}),
        "complex": file(x=torch.ones(2, dtype=torch.complex64)),
        "meta": file(x=torch.empty(4, device="meta")),
        "sparse": file(x=torch.eye(2).to_sparse()),
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out["quantised"] = file(x=torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8))
        out["nested"] = file(x=torch.nested.nested_tensor([torch.ones(2)]))
        out["rows"] = file(x=torch.eye(2).to_sparse_csr())
    return out


def own() -> dict[str, bytes]:
    """Our safetensors with a description that cannot be."""
    G = Generator(4, 0, 4, 8, 3, mapping_layers=1, channel_base=32, channel_max=4)
    D = {"c_dim": 0, "img_resolution": 8, "img_channels": 3, "channel_base": 32, "channel_max": 4}
    state = {f"G_ema.{name}": t.clone().contiguous() for name, t in G.state_dict().items()}

    def file(meta: object = None, extra: dict | None = None, **configs: object) -> bytes:
        header = {"format": 1, "configs": {"G_ema": G.config} | configs, "meta": {} if meta is None else meta}
        return save(state | (extra or {}), {"stylebot": json.dumps(header)})

    eighth = {name: t.to(torch.float8_e4m3fn) for name, t in state.items()}
    return {
        "opts": file({"opts": 5}), "list": file({"at_initialisation": 7}),
        "words": file({"at_initialisation": [1]}), "p": file({"augment_p": "high"}), "meta": file([]),
        "architecture": file(G_ema=[1]), "filter": file(G_ema=G.config | {"filter_taps": 3}),
        "groups of none": file(D=D | {"mbstd_group_size": 0}),
        "groups of maps": file(D=D | {"mbstd_num_channels": 3}), "eight bits": file(extra=eighth),
        "format": save(state, {"stylebot": json.dumps({"format": "1" * 10**5, "configs": {}, "meta": {}})}),
    }  # fmt: skip


def instructions() -> dict[str, bytes]:
    """Pickles with instructions that no checkpoint needs."""
    buffers = pickle.dumps({"G": pickle.PickleBuffer(b"abc")}, 5, buffer_callback=lambda buffer: None)
    return {
        "out-of-band buffer": buffers, "frozen set": pickle.dumps({"G": frozenset([1])}, 4),
        "duplicates": b"\x80\x02]" + b"2" * 1000 + b".", "long text": b"\x80\x02L" + b"9" * 10**6 + b"L\n.",
        "memo of 4000 digits": b"\x80\x02]p" + b"9" * 4000 + b"\n.", "extension": b"\x80\x02\x83\x01\0.",
        "laughing code": b"\x80\x02}(" + raw("G") + b"c_codecs\nencode\n(" + raw("a") + laughs() + b"tRu.",
        "laughing type": b"\x80\x02}(" + raw("G") + b"cnumpy\ndtype\n(" + laughs() + b"tRu.",
        "slots": b"\x80\x02}q\x01(" + raw("G") + b"cargparse\nNamespace\n)\x81N}\x86bu.",
    }
