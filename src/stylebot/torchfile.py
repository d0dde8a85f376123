"""Files of torch.save read as data, and the pickles that hold such files inside."""

import io
import struct
import zipfile

from stylebot.arrays import STORAGES, Storage, whole
from stylebot.errors import StylebotError
from stylebot.pickles import MAKERS, SHOWN, Name, run

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # first two pickles of a torch file before version 1.6
ZIP = b"PK\x03\x04"  # first bytes of the one form and of the other
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9cF\xf9 j\xa8P\x19."


def read_snapshot(content: bytes) -> object:
    """What one pickle holds; storages in it are files of torch.save themselves.

    Raises: StylebotError, saying what was refused or damaged.
    """
    seen: dict[int, tuple[object, Storage]] = {}  # the value is kept so that its id stays its own

    def stored(inner: object) -> Storage:
        if id(inner) not in seen:
            if not isinstance(inner, bytes) or inner[:4] == ZIP:
                raise StylebotError("a storage in no known form")
            value = read_torch(inner)
            if not isinstance(value, Storage):
                raise StylebotError("a storage that holds something else")
            seen[id(inner)] = inner, value
        return seen[id(inner)][1]

    return run(io.BytesIO(content), MAKERS | {"torch.storage._load_from_bytes": stored})


def read_torch(content: bytes) -> object:
    """What a file of torch.save holds (zip, or the format before 1.6), as plain data with Arrays.

    Raises: StylebotError, saying what was refused or damaged.
    """
    try:
        return _read_zip(content) if content[:4] == ZIP else _read_legacy(content)
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, OSError, struct.error) as error:
        reason = " ".join(str(error).split())[:120]
        raise StylebotError(f"damaged: {reason or type(error).__name__}") from None


def _described(entry: object, key_of: dict[str, Storage]) -> Storage:
    """The storage that a persistent id ("storage", type, key, device, count, …) names."""
    if not isinstance(entry, tuple) or len(entry) not in (5, 6) or entry[0] != "storage":
        raise StylebotError("a persistent object that is not a storage")
    kind, key, count = entry[1], entry[2], whole([entry[4]])[0]
    dtype = STORAGES.get(kind.text.removeprefix("torch.")) if isinstance(kind, Name) else None
    if dtype is None or not isinstance(key, str) or (len(entry) == 6 and entry[5] is not None):
        raise StylebotError("a storage of unknown type")
    storage = key_of.setdefault(key, Storage(dtype, count))
    if (storage.dtype, storage.count) != (dtype, count):
        raise StylebotError("a storage described twice, differently")
    return storage


def _read_zip(content: bytes) -> object:
    storages: dict[str, Storage] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise StylebotError("two members of one name")
        for name, info in members.items():
            if name.startswith("/") or "\\" in name or name[1:2] == ":" or ".." in name.split("/"):
                raise StylebotError(f"member {name[:SHOWN]!r} points outside the archive: refused")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(content):
                raise StylebotError(f"member {name[:SHOWN]!r} is compressed, which torch never does: refused")
        roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise StylebotError("a zip archive, but not one of torch")
        order = f"{roots[0]}byteorder"
        if order in members and archive.read(order) != b"little":
            raise StylebotError("numbers in big-endian order")
        stream = io.BytesIO(archive.read(f"{roots[0]}data.pkl"))
        value = run(stream, MAKERS, lambda entry: _described(entry, storages))
        left = len(content)
        for key, storage in storages.items():
            info = members.get(f"{roots[0]}data/{key}")
            left -= info.file_size if info else 0
            if info is None or left < 0:
                raise StylebotError(f"the numbers of storage {key[:SHOWN]!r} are missing")
            storage.content = memoryview(archive.read(info))
    return value


def _read_legacy(content: bytes) -> object:
    stream, storages = io.BytesIO(content), {}
    if run(stream, MAKERS) != _MAGIC or run(stream, MAKERS) != _PROTOCOL:
        raise StylebotError("neither a pickle of networks nor a file of torch.save")
    system = run(stream, MAKERS)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise StylebotError("numbers in big-endian order")
    value = run(stream, MAKERS, lambda entry: _described(entry, storages))
    keys, view = run(stream, MAKERS), memoryview(content)
    words = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not words or sorted(keys) != sorted(storages):
        raise StylebotError("other storages than its tensors name")
    at = stream.tell()
    for key in keys:
        (count,) = struct.unpack_from("<q", content, at)
        size = storages[key].count * storages[key].dtype.itemsize
        if count != storages[key].count or at + 8 + size > len(content):
            raise StylebotError("a storage's numbers end too early")
        storages[key].content = view[at + 8 : at + 8 + size]
        at += 8 + size
    return value
