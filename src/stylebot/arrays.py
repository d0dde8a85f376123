"""Tensors and arrays that a file describes, before their numbers are copied out of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylebot.errors import StylebotError

STORAGES = {"FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
            "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
            "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
            "BoolStorage": torch.bool}  # torch's class names
_NUMPY_CODES = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])


@dataclass
class Storage:
    """A row of numbers in the file: `content` is filled in when the bytes are known."""

    dtype: torch.dtype
    count: int
    content: memoryview | None = None


@dataclass
class NumpyType:
    """A simple numpy number type: code like "f4", and byte order."""

    code: str
    order: str = "<"


@dataclass
class Array:
    """A tensor or array that is still only described."""

    storage: Storage | None
    offset: int = 0
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    def span(self) -> int:
        """Numbers of the storage from its first to its last one."""
        steps = sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        return 1 + steps if self.count() else 0

    def tensor(self) -> Tensor:
        """The numbers, copied out of the file.

        Raises: StylebotError if the shape reaches beyond the storage or the storage is not all there.
        """
        if self.storage is None or self.storage.content is None:
            raise StylebotError("a tensor without its numbers")
        dtype, have = self.storage.dtype, self.storage.count
        if len(self.storage.content) < have * dtype.itemsize:
            raise StylebotError("a tensor's numbers end too early")
        last = self.offset + self.span() - 1
        if self.count() and (last >= have or self.count() > have):
            raise StylebotError(f"a tensor of shape {list(self.shape)} in a storage of {have} numbers")
        if not self.count():
            if math.prod(max(n, 1) for n in self.shape) > have:
                raise StylebotError(f"an empty tensor of shape {list(self.shape)}")
            return torch.empty(self.shape, dtype=dtype)
        raw = np.frombuffer(self.storage.content, np.uint8, have * dtype.itemsize)
        used = raw[self.offset * dtype.itemsize : (last + 1) * dtype.itemsize].copy()
        flat = torch.from_numpy(used).view(dtype)
        return flat.as_strided(self.shape, self.stride).clone(memory_format=torch.contiguous_format)


def shown(value: object, most: int = 60) -> str:
    """`value` for a message: plain values as they are written, up to `most` characters; else only what it is.

    A list in a hostile file may hold itself, or the same list a billion times: it is never written out.
    """
    if isinstance(value, str | bytes):
        return repr(value[:most])
    plain = value is None or isinstance(value, bool | float) or (type(value) is int and abs(value) < 1 << 64)
    return str(value) if plain else f"a value of type {type(value).__name__}"


def whole(values: object) -> tuple[int, ...]:
    """`values` as sizes or offsets: at most eight whole numbers from 0.

    Raises: StylebotError.
    """
    if not isinstance(values, tuple | list) or len(values) > 8:
        raise StylebotError("a tensor with a strange shape")
    for value in values:
        if type(value) is not int or not 0 <= value < 1 << 40:
            raise StylebotError("a tensor with a strange shape")
    return tuple(values)


def rebuild(storage: object, offset: object, shape: object, stride: object, *_: object) -> Array:
    """What torch._utils._rebuild_tensor_v2 describes.

    Raises: StylebotError if the arguments are not what they must be.
    """
    if not isinstance(storage, Storage):
        raise StylebotError("a tensor without a storage")
    shape, stride = whole(shape), whole(stride)
    if len(shape) != len(stride):
        raise StylebotError("a tensor with a strange shape")
    return Array(storage, whole([offset])[0], shape, stride)


def numpy_type(code: object, *_: object) -> NumpyType:
    """What numpy.dtype(code) describes, for plain numbers.

    Raises: StylebotError for any other type.
    """
    if not isinstance(code, str) or code not in _NUMPY_CODES:
        raise StylebotError(f"numbers of type {shown(code)}")
    return NumpyType(code)


def numpy_scalar(kind: object, content: object = b"") -> int | float | bool:
    """One numpy number as a plain one.

    Raises: StylebotError if the arguments are not what they must be.
    """
    if not isinstance(kind, NumpyType) or not isinstance(content, bytes):
        raise StylebotError("a numpy number without its type")
    return np.frombuffer(content, np.dtype(kind.order + kind.code), 1)[0].item()


def fill(target: Array, state: object) -> None:
    """Complete `target` from a numpy array's (version, shape, type, Fortran order, bytes).

    Raises: StylebotError if they are not what they must be.
    """
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], NumpyType):
        raise StylebotError("a numpy array that is not simple")
    _, shape, kind, fortran, content = state
    content = content.encode("latin1") if isinstance(content, str) else content
    if fortran or not isinstance(content, bytes) or kind.code in ("u2", "u4", "u8"):
        raise StylebotError("a numpy array that is not simple")
    values = np.frombuffer(content, np.dtype(kind.order + kind.code))
    native = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))
    target.shape = whole(shape)
    target.stride = tuple(math.prod(target.shape[i + 1 :]) for i in range(len(target.shape)))
    if math.prod(target.shape) != len(native):
        raise StylebotError(f"an array of shape {list(target.shape)} with {len(native)} numbers")
    tensor = torch.from_numpy(native)
    target.storage = Storage(tensor.dtype, len(native), memoryview(tensor.numpy()).cast("B"))


def materialise(role: str, described: Mapping[str, Array], room: int) -> dict[str, Tensor]:
    """The tensors themselves, which must not take more than `room` bytes together (the file's size).

    Raises: StylebotError naming the tensor.
    """
    out: dict[str, Tensor] = {}
    reach = 16 * room  # numbers between the first and the last one of a tensor are read, too
    for name, array in described.items():
        each = array.storage.dtype.itemsize if array.storage else 1
        room, reach = room - array.count() * each, reach - array.span() * each
        if min(room, reach) < 0:
            raise StylebotError(f"{role}: its tensors claim more than the file holds")
        try:
            out[name] = array.tensor()
        except StylebotError as error:
            raise StylebotError(f"{role}: {name[:80]}: {error}") from None
    return out
