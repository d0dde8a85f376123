"""Snapshots of stylegan2-ada-pytorch, and of stylegan3's StyleGAN2 configuration, as named tensors."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stylebot import ops
from stylebot.arrays import Array, materialise, shown
from stylebot.errors import StylebotError
from stylebot.pickles import Node
from stylebot.weights import ROLES, Weights, check_config, some

_MOST, _LONGEST = 8192, 200  # modules and tensors of one network, and characters of a name: no bombs
_SHARED = {"c_dim": "c_dim", "img_resolution": "img_resolution", "img_channels": "img_channels"}
_MAPPING = {"num_layers": "mapping_layers"} | {  # theirs: ours
    name: name for name in ("embed_features", "layer_features", "lr_multiplier", "w_avg_beta")}
_NETWORK = {
    name: name for name in ("channel_base", "channel_max", "num_fp16_res", "architecture", "conv_clamp")}
_G = _SHARED | _NETWORK | {"z_dim": "z_dim", "w_dim": "w_dim", "use_noise": "use_noise",
                           "resample_filter": "filter_taps"}
_D = _SHARED | _NETWORK | {"cmap_dim": "cmap_dim"}
_EPILOGUE = {"mbstd_group_size": "mbstd_group_size", "mbstd_num_channels": "mbstd_num_channels"}
_WITHOUT_EFFECT = frozenset(("activation", "fp16_channels_last", "fused_modconv_default", "freeze_layers"))
CONFIG = "config.json"  # beside the safetensors of the official layout
_WHOLE_BATCH = 1 << 16  # a minibatch-stddev group of None


def _dict(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _child(node: Node | None, *names: str) -> Node | None:
    for name in names:
        child = _dict(node.state.get("_modules")).get(name) if node else None
        node = child if isinstance(child, Node) else None
    return node


def _attribute(node: Node | None, name: str) -> object:
    return node.state.get(name) if node else None


def _translate(role: str, arguments: dict, names: Mapping[str, str]) -> dict:
    """Their constructor arguments under our names.

    Raises: StylebotError for an argument that no network of this family has.
    """
    unknown = {str(k) for k in arguments} - names.keys() - _WITHOUT_EFFECT
    if unknown:
        raise StylebotError(f"{role}: built with arguments that StyleGAN2 has not: {some(unknown)}")
    if arguments.get("activation", "lrelu") != "lrelu":
        raise StylebotError(f"{role}: activation {shown(arguments['activation'], 40)} instead of lrelu")
    return {names[k]: v for k, v in arguments.items() if k in names}


def config_from(role: str, arguments: object) -> dict:
    """Our constructor arguments from the official networks' (nested, or flat as in stylegan3).

    Raises: StylebotError for an argument that no network of this family has.
    """
    given = dict(_dict(arguments))
    mapping = _translate(role, _dict(given.pop("mapping_kwargs", None)), _MAPPING)
    if role == "D":
        mapping.pop("w_avg_beta", None)
        blocks = _translate(role, _dict(given.pop("block_kwargs", None)), {"resample_filter": "filter_taps"})
        last = _translate(role, _dict(given.pop("epilogue_kwargs", None)), _EPILOGUE)
        if "mbstd_group_size" in last and last["mbstd_group_size"] is None:
            last["mbstd_group_size"] = _WHOLE_BATCH
        return mapping | blocks | last | _translate(role, given, _D)
    synthesis = _translate(role, _dict(given.pop("synthesis_kwargs", None)), _G)
    return mapping | synthesis | _translate(role, given, _G)


def arguments_of(role: str, config: Mapping[str, object]) -> dict:
    """The other way round: official constructor arguments, nested as stylegan2-ada-pytorch has them."""
    theirs = {ours: name for name, ours in (_MAPPING | (_D | _EPILOGUE if role == "D" else _G)).items()}
    theirs["filter_taps"] = "resample_filter"
    groups = {"mapping_kwargs": set(_MAPPING)}
    if role == "D":
        groups |= {"block_kwargs": {"resample_filter"}, "epilogue_kwargs": set(_EPILOGUE)}
    else:
        groups["synthesis_kwargs"] = {*_NETWORK, "use_noise", "resample_filter"}
    out: dict = {}
    for ours, value in config.items():
        name = theirs[ours]
        group = next((g for g, names in groups.items() if name in names), None)
        target = out.setdefault(group, {}) if group else out
        target[name] = list(value) if isinstance(value, tuple) else value
    return out


def _found_config(role: str, node: Node) -> dict:
    """The same, as far as the built modules still tell it (defaults differ between code versions)."""
    resolution = _attribute(node, "img_resolution")
    network = _child(node, "synthesis") if role != "D" else node
    top, mapping = _child(network, f"b{shown(resolution)}"), _child(node, "mapping")
    layer = _child(top, "conv1")
    found = {name: _attribute(node, name) for name in ("z_dim", "w_dim", *_SHARED)}
    found |= {"architecture": _attribute(top, "architecture"), "conv_clamp": _attribute(layer, "conv_clamp"),
              "lr_multiplier": _attribute(_child(mapping, "fc0"), "bias_gain"),
              "mapping_layers": _attribute(mapping, "num_layers")}
    blocks = [_child(network, f"b{2**i}") for i in range(2, 13)]
    found["num_fp16_res"] = sum(_attribute(block, "use_fp16") is True for block in blocks)
    if role == "D":
        spread = _child(node, "b4", "mbstd")
        found |= {"mbstd_group_size": _attribute(spread, "group_size"),
                  "mbstd_num_channels": _attribute(spread, "num_channels")}
    else:
        found["w_avg_beta"] = _attribute(mapping, "w_avg_beta")
        found["use_noise"] = _attribute(layer, "use_noise")
    return {name: value for name, value in found.items() if value is not None}


def config_of(role: str, node: Node) -> dict:
    """Our constructor arguments for network `role`: the saved arguments, completed from the built modules.

    Raises: StylebotError if the two disagree, or if this is another architecture.
    """
    modules = _dict(_attribute(_child(node, "synthesis") if role != "D" else node, "_modules"))
    if any(str(name).startswith("L0_") for name in modules):
        raise StylebotError(f"{role}: an alias-free StyleGAN3 network; only its StyleGAN2 can be read")
    if _attribute(node, "_init_args"):
        raise StylebotError(f"{role}: built with unnamed arguments")
    saved, found = config_from(role, _attribute(node, "_init_kwargs")), _found_config(role, node)
    saved, found = check_config(role, saved), check_config(role, found)  # plain values: quick to compare
    for name, value in found.items():
        if name in saved and name != "num_fp16_res" and saved[name] is not None and saved[name] != value:
            raise StylebotError(f"{role}: {name} is {shown(saved[name])} here and {shown(value)} there")
    return found | {name: value for name, value in saved.items() if value is not None}


def _tensors(role: str, root: Node) -> dict[str, Array]:
    """Every parameter and buffer by its dotted name; frozen layers live among the buffers."""
    out: dict[str, Array] = {}
    pending, seen = [("", root)], 0
    while pending:
        prefix, node = pending.pop()
        parts = [_dict(node.state.get(kind)) for kind in ("_parameters", "_buffers", "_modules")]
        seen += sum(map(len, parts))
        names = [str(name) for part in parts for name in part] if seen <= _MOST else []
        if seen > _MOST or len(prefix) + max(map(len, names), default=0) > _LONGEST:
            raise StylebotError(f"{role}: more than {_MOST} modules and tensors, or names beyond {_LONGEST}")
        for kind in ("_parameters", "_buffers"):
            for name, value in _dict(node.state.get(kind)).items():
                if isinstance(value, Array):
                    out[f"{prefix}{name}"] = value
                elif value is not None:
                    raise StylebotError(f"{role}: {prefix}{str(name)[:80]} is not a tensor")
        for name, child in _dict(node.state.get("_modules")).items():
            if isinstance(child, Node):
                pending.append((f"{prefix}{name}.", child))
            elif child is not None:
                raise StylebotError(f"{role}: {prefix}{str(name)[:80]} is not a module")
    return out


def _without_filters(role: str, state: dict[str, Tensor], config: Mapping[str, object]) -> dict[str, Tensor]:
    """`state` less the constant low-pass filters, after a look that they are what `config` says."""
    taps = check_config(role, config).get("filter_taps") or ops.BLUR
    filters = {name for name in state if name.rpartition(".")[2] == "resample_filter"}
    wanted = ops.blur_filter(taps)
    for name in filters:
        layer = name.split(".")[-2]
        if role == "D" and (name.startswith("b4.") or layer in ("conv0", "fromrgb")):
            continue  # built without the argument, and filters nothing
        if state[name].shape != wanted.shape or not torch.allclose(state[name], wanted, atol=1e-6):
            raise StylebotError(f"{role}: {name} is not the filter that it was built with")
    return {name: tensor for name, tensor in state.items() if name not in filters}


def from_snapshot(snapshot: Mapping, size: int) -> Weights:
    """What an official snapshot of `size` bytes holds.

    Raises: StylebotError naming what is not as it must be.
    """
    configs: dict[str, dict] = {}
    states: dict[str, dict[str, Tensor]] = {}
    for role in ROLES:
        node = snapshot.get(role)
        if node is None:
            continue
        if not isinstance(node, Node) or node.class_name != ("Discriminator" if role == "D" else "Generator"):
            raise StylebotError(f"{role} is not a {'discriminator' if role == 'D' else 'generator'}")
        configs[role] = config_of(role, node)
        states[role] = _without_filters(role, materialise(role, _tensors(role, node), size), configs[role])
    if not states:
        raise StylebotError("a pickle, but without networks G, D or G_ema")
    meta = {"source": "official pickle"} | _augmentation(snapshot.get("augment_pipe"))
    return Weights(configs, states, meta)


def _augmentation(pipe: object) -> dict:
    """How strong augmentation was in the end, for whoever wants to go on from there."""
    p = _dict(pipe.state.get("_buffers")).get("p") if isinstance(pipe, Node) else None
    return {"augment_p": float(p.tensor())} if isinstance(p, Array) and p.count() == 1 else {}


def from_folder(folder: Path) -> Weights:
    """What `write_official` wrote: safetensors in official names beside CONFIG.

    Raises: StylebotError naming what is not as it must be.
    """
    try:
        saved = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        arguments, meta = saved["networks"], saved["meta"]
    except FileNotFoundError:
        raise StylebotError(f"a folder without {CONFIG}") from None
    except (KeyError, TypeError, ValueError, RecursionError):
        raise StylebotError(f"{CONFIG} does not describe networks") from None
    configs, states = {}, {}
    for role in ROLES:
        if role not in _dict(arguments):
            continue
        configs[role] = {k: v for k, v in config_from(role, arguments[role]).items() if v is not None}
        try:
            state = load_file(folder / f"{role}.safetensors")
        except (SafetensorError, ValueError, OSError) as error:
            raise StylebotError(f"{role}.safetensors: {' '.join(str(error).split())[:160]}") from None
        states[role] = _without_filters(role, state, configs[role])
    if not states:
        raise StylebotError(f"{CONFIG} names no network")
    return Weights(configs, states, dict(_dict(meta)))
