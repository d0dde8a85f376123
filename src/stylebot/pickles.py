"""Pickles read as data: no name in them is ever imported, looked up or called.

A pickle is a program for a small stack machine. This one knows the instructions that checkpoints need and
the few names below, each standing for something made here from plain values; anything else is refused by
name. Time and memory are bounded by the size of the file.
"""

import io
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass

from stylebot.arrays import STORAGES, Array, NumpyType, fill, numpy_scalar, numpy_type, rebuild, shown
from stylebot.errors import StylebotError

MAX_STEPS = 500_000  # instructions in one pickle; the largest official checkpoint has about 60,000
MAX_BITS = 80  # of a whole number; torch's own magic number has 77
SHOWN = 80  # characters of a refused name that a message repeats


@dataclass(frozen=True)
class Name:
    """A global that the pickle mentions; never resolved."""

    text: str


@dataclass
class Node:
    """A module written by the official networks' persistence: its class's name and its attributes.

    `source` is the text of its code, kept to be searched for words, never run.
    """

    class_name: str
    state: dict
    source: str = ""


@dataclass
class Stub:
    """Any other object: the name of its class and its attributes as data."""

    name: str
    state: object = None


def _parameter(data: object, *_: object) -> object:
    return data


def _node(meta: object) -> Node:
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise StylebotError("a persistent object without a class name")
    if not isinstance(meta.get("state"), dict):
        raise StylebotError("a persistent object without attributes")
    source = meta.get("module_src")
    return Node(meta["class_name"], meta["state"], source if isinstance(source, str) else "")


def _dictionary(pairs: object = ()) -> dict:
    if not isinstance(pairs, list | tuple):
        raise StylebotError("a table made of something else than pairs")
    return dict(_key_value(*pair) for pair in pairs)


def _key_value(key: object, value: object) -> tuple[object, object]:
    if not isinstance(key, str | int | None):  # nothing whose hash could be expensive or its own code
        raise StylebotError("a table whose keys are not plain words or numbers")
    return key, value


def _encode(text: object, coding: object = "latin1") -> bytes:
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise StylebotError(f"bytes coded as {shown(coding, SHOWN)}")
    return text.encode("latin1")


def _set(items: object = ()) -> list:
    return list(items) if isinstance(items, list | tuple) else []


def _stub(name: str) -> Callable[..., Stub]:
    return lambda *_: Stub(name)


MAKERS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _dictionary, "builtins.dict": _dictionary, "dnnlib.util.EasyDict": _dictionary,
    "builtins.set": _set, "__builtin__.set": _set, "_codecs.encode": _encode,
    "torch._utils._rebuild_parameter": _parameter, "torch._utils._rebuild_tensor_v2": rebuild,
    "torch._utils._rebuild_tensor": rebuild,
    "torch_utils.persistence._reconstruct_persistent_obj": _node,
    "numpy.dtype": numpy_type, "numpy.core.multiarray.scalar": numpy_scalar,
    "numpy._core.multiarray.scalar": numpy_scalar,
    "numpy.core.multiarray._reconstruct": lambda *_: Array(None),
    "numpy._core.multiarray._reconstruct": lambda *_: Array(None),
    "argparse.Namespace": _stub("argparse.Namespace"),
    "dnnlib.tflib.network.Network": _stub("dnnlib.tflib.network.Network"),
}
_MENTIONED = frozenset({"numpy.ndarray", *(f"torch.{name}" for name in STORAGES),
                        *(str(dtype) for dtype in STORAGES.values())})


def _build(target: object, state: object) -> None:
    """What BUILD means for the objects made here."""
    if isinstance(target, NumpyType):
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            target.order = state[1]
            return
        raise StylebotError("a numpy type that is not simple")
    if isinstance(target, Array):
        fill(target, state)
    elif isinstance(target, Stub):
        target.state = state
    elif not isinstance(target, dict | Node):  # those of an OrderedDict are a state dict's version notes
        raise StylebotError("attributes for something that has none")


Makers = dict[str, Callable[..., object]]


class _Machine:
    """The stack, the memo and the instructions."""

    def __init__(self, makers: Makers, persistent: Callable[[object], object] | None, budget: int) -> None:
        self.stack: list = []
        self.below: list[list] = []  # stacks under the open marks
        self.memo: dict[int, object] = {}
        self.makers, self.persistent = makers, persistent
        self.budget = budget  # items and characters that may still be copied

    def run(self, stream: io.BytesIO) -> object:
        """The object that the next pickle in `stream` describes; `stream` is left behind its STOP."""
        for step, (code, argument, _) in enumerate(pickletools.genops(stream)):
            if step > MAX_STEPS:
                raise StylebotError(f"more than {MAX_STEPS} instructions")
            name = code.name
            if name == "STOP":
                return self.stack.pop()
            if name in _PUSHES:
                if isinstance(argument, int) and argument.bit_length() > MAX_BITS:
                    raise StylebotError(f"a whole number of {argument.bit_length()} bits")
                self.stack.append(argument)
            elif name in _NEW:
                self.stack.append(_NEW[name]())
            elif name in _MEMO_PUTS:
                self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
            elif name in _MEMO_GETS:
                self.stack.append(self.memo[argument])
            elif name not in ("PROTO", "FRAME"):
                self.step(name, argument)
        raise StylebotError("it ends too early")

    def marked(self) -> list:
        """What was pushed since the last mark; the mark is removed."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def named(self, module: object, name: object) -> Name:
        """The global `module.name`, if checkpoints need it."""
        text = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "?"
        if text not in self.makers and text not in _MENTIONED:
            raise StylebotError(f"it asks for {text[:SHOWN]!r}, which no checkpoint needs: refused")
        return Name(text)

    def make(self, maker: object, arguments: object) -> object:
        """What calling `maker` stands for."""
        if not isinstance(maker, Name) or maker.text not in self.makers or not isinstance(arguments, tuple):
            raise StylebotError("it calls something that is no known name: refused")
        self.spend(arguments)
        return self.makers[maker.text](*arguments)

    def spend(self, values: object) -> None:
        """Count what may be copied; one value used again and again would fill the memory."""
        if isinstance(values, tuple):
            self.budget -= 1 + sum(len(v) for v in values if isinstance(v, str | bytes | list | tuple))
        if self.budget < 0:
            raise StylebotError("it copies the same content again and again: refused")

    def step(self, name: str, argument: object) -> None:
        """One of the rarer instructions."""
        stack = self.stack
        match name:
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "POP":
                stack.pop()
            case "POP_MARK":
                self.marked()
            case "TUPLE" | "LIST" | "DICT":
                items = self.marked()
                kinds = {"TUPLE": tuple, "LIST": list, "DICT": lambda x: _dictionary(_pairs(x))}
                self.stack.append(kinds[name](items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND" | "APPENDS" | "ADDITEMS":
                items = [stack.pop()] if name == "APPEND" else self.marked()
                if not isinstance(self.stack[-1], list):
                    raise StylebotError("items for something that is not a list")
                self.stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self.marked()
                if not isinstance(self.stack[-1], dict):
                    raise StylebotError("entries for something that is not a table")
                self.stack[-1].update(_dictionary(_pairs(items)))
            case "GLOBAL":
                stack.append(self.named(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                stack[-2:] = [self.named(*stack[-2:])]
            case "REDUCE" | "NEWOBJ":
                stack[-2:] = [self.make(*stack[-2:])]
            case "BUILD":
                state = stack.pop()
                self.spend(state)
                _build(stack[-1], state)
            case "BINPERSID" if self.persistent:
                stack.append(self.persistent(stack.pop()))
            case _:
                raise StylebotError(f"instruction {name}, which no checkpoint needs")


_PUSHES = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8"))
_NEW = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list,
        "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False}
_MEMO_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_MEMO_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))


def _pairs(items: list) -> list[tuple]:
    if len(items) % 2:
        raise StylebotError("a table with a key and no value")
    return list(zip(items[::2], items[1::2], strict=True))


def run(stream: io.BytesIO, makers: Makers, persistent: Callable[[object], object] | None = None) -> object:
    """What the next pickle in `stream` holds, as plain data, Name, Node, Stub, Storage and Array.

    `makers`: what each callable name stands for, MAKERS or more; `persistent`: what persistent ids stand for.
    Raises: StylebotError, saying what was refused or damaged.
    """
    budget = 4 * len(stream.getbuffer()) + 1_000_000
    try:
        return _Machine(makers, persistent, budget).run(stream)
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, UnicodeError, struct.error) as error:
        reason = " ".join(str(error).split())[:120]
        raise StylebotError(f"damaged: {reason or type(error).__name__}") from None
