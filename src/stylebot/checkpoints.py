"""Checkpoints of the StyleGAN2 family in, our own safetensors in and out. Nothing in a file is executed."""

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stylebot import legacy
from stylebot.arrays import shown
from stylebot.errors import StylebotError
from stylebot.files import atomic
from stylebot.official import from_folder, from_snapshot
from stylebot.rosinality import from_checkpoint
from stylebot.torchfile import LEGACY, ZIP, read_snapshot, read_torch
from stylebot.weights import ROLES, Networks, Weights, build, skeleton

FORMAT = 1
_LONGEST = 400  # characters of a refusal
_PICKLE_STARTS = (b"\x80", b"(", b"}", b"]", b")", b"c")  # protocol 2 and later, or the text protocols


def save_networks(path: Path, networks: Networks, half: bool = False) -> None:
    """Write safetensors: tensors "G.…", "D.…", "G_ema.…" (and "encoder.…"); metadata "stylebot" is JSON.

    The JSON holds `format`, `configs` (constructor arguments by role) and `meta` (plain data). With `half`
    the floating-point numbers are stored as float16; reading gives float32 again.
    Raises: StylebotError if meta is not plain data.
    """
    present = {role: net for role in ROLES if (net := getattr(networks, role)) is not None}
    tensors = {f"{role}.{name}": tensor.detach().cpu().contiguous().clone()
               for role, net in present.items() for name, tensor in net.state_dict().items()}
    tensors |= {f"encoder.{name}": tensor.contiguous() for name, tensor in (networks.encoder or {}).items()}
    if half:
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    header = {"format": FORMAT, "configs": {role: net.config for role, net in present.items()},
              "meta": networks.meta}
    try:
        text = json.dumps(header, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise StylebotError(f"{path}: meta must be plain data ({error})") from None
    with atomic(path) as part:
        save_file(tensors, part, metadata={"stylebot": text})


def _read_own(path: Path) -> Weights:
    """Our own safetensors.

    Raises: StylebotError if the file is damaged or was not written by `save_networks`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        raise StylebotError(f"not a whole safetensors file ({' '.join(str(error).split())[:160]})") from None
    try:
        header = json.loads(metadata["stylebot"])
        configs, meta, version = header["configs"], header["meta"], header["format"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise StylebotError("a safetensors file without this project's description of the networks") from None
    if version != FORMAT:
        wanted = f"this program reads {FORMAT}"
        raise StylebotError(f"written in format {shown(version)} of this project; {wanted}")
    if not isinstance(configs, dict) or not isinstance(meta, dict):
        raise StylebotError("its description of the networks is not a table")
    states: dict[str, dict] = {role: {} for role in ROLES if role in configs}
    encoder: dict = {}
    for name, tensor in tensors.items():
        role, _, key = name.partition(".")
        if role == "encoder":
            encoder[key] = tensor
        elif role in states:
            states[role][key] = tensor
        else:
            raise StylebotError(f"tensor {name[:80]!r} belongs to no network that the file describes")
    return Weights(configs, states, meta, encoder or None)


def _read(path: Path) -> Weights:
    """The weights in `path`: a file of the kind that its first bytes show, or an official-layout folder."""
    if path.is_dir():
        return from_folder(path)
    with path.open("rb") as file:
        start = file.read(32)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return _read_own(path)
    content = path.read_bytes()
    if start.startswith(ZIP) or start.startswith(LEGACY):
        data = read_torch(content)
    elif start[:1] in _PICKLE_STARTS:
        data = read_snapshot(content)
    else:
        raise StylebotError("neither safetensors nor a pickle nor a file of torch.save")
    if legacy.is_snapshot(data):
        read = legacy.from_snapshot
    elif isinstance(data, dict):
        read = from_snapshot if any(role in data for role in ROLES) else from_checkpoint
    else:
        raise StylebotError("it holds no table of networks")
    weights = read(data, len(content))
    weights.meta["sha256"] = hashlib.sha256(content).hexdigest()
    return weights


def load_networks(path: Path, need: Collection[str] = (), allow_missing: bool = False) -> Networks:
    """Networks from any checkpoint of the family, recognised by content; on the CPU, eval mode.

    `need`: roles ("G", "D", "G_ema") that must be there. `allow_missing`: go on where tensors or whole
    networks are missing; meta["at_initialisation"] then lists them. A foreign file's meta has its "sha256".
    Raises: StylebotError, one line naming the file and what is wrong with it.
    """
    path = Path(path)
    try:
        return build(_read(path), need, allow_missing)
    except StylebotError as error:
        text = "".join(c if c.isprintable() else "?" for c in str(error)[:_LONGEST])  # names in it are theirs
        raise StylebotError(f"{path}: {text}") from None
    except OSError as error:
        raise StylebotError(f"{path}: {error.strerror or error}") from None


def descent(meta: Mapping[str, object], sha256: str) -> dict[str, object]:
    """What networks trained from those of a file say of their origin: source, licence and parents.

    meta: of the networks as `load_networks` gives them; sha256: of their file, by which `parents` names it.
    A file that names no licence passes on that it is the parents'.
    """
    told = {name: meta[name] for name in ("source", "licence") if isinstance(meta.get(name), str)}
    unknown = {"source": "unknown", "licence": "that of its parents, which do not name it"}
    return unknown | told | {"parents": [sha256]}


def at_resolution(networks: Networks, resolution: int) -> Networks:
    """The networks cut down to a lower `resolution` by dropping their highest blocks; the same ones if equal.

    Nothing can take the place of D's (or another architecture's) colour layer at the new resolution: it
    starts at random, from a fixed seed, and meta["at_initialisation"] names it. An encoder is dropped.
    Raises: StylebotError for a higher resolution, or one that is no power of two from 4 up.
    """
    have = {net.img_resolution for role in ROLES if (net := getattr(networks, role)) is not None}
    if have == {resolution}:
        return networks
    if resolution > min(have):
        raise StylebotError(f"the weights are for {min(have)} px and cannot start {resolution} px: "
                            "only a lower resolution is possible, by dropping the highest blocks")
    weights = Weights({}, {}, dict(networks.meta))
    for role in ROLES:
        net = getattr(networks, role)
        if net is None:
            continue
        dropped = int(math.log2(net.img_resolution // resolution))
        fewer = max(net.config["num_fp16_res"] - dropped, 0)
        config = net.config | {"img_resolution": resolution, "num_fp16_res": fewer}
        wanted = skeleton(role, config).state_dict()
        weights.configs[role] = config
        weights.states[role] = {name: t for name, t in net.state_dict().items() if name in wanted}
    before = list(networks.meta.get("at_initialisation", []))
    out = build(weights, allow_missing=True)
    now = out.meta.get("at_initialisation", [])
    out.meta |= {"from_resolution": max(have), "at_initialisation": sorted({*before, *now})}
    return out
