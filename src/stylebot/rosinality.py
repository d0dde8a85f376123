"""rosinality's StyleGAN2 files and the pSp / e4e files built on them, to and from the official names.

Both layouts hold the same numbers: no kernel is flipped, nothing is scaled; only names and unit axes differ.
"""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from stylebot import ops
from stylebot.arrays import Array, materialise
from stylebot.errors import StylebotError
from stylebot.generator import Mapping as MappingNetwork
from stylebot.pickles import Stub
from stylebot.weights import MAX_RESOLUTION, Weights, skeleton, some

W_AVG_SAMPLES, W_AVG_SEED = 10_000, 0
_WIDEST = 8192  # numbers of a latent; W_AVG_SAMPLES of them are drawn
ROLES = {"g": "G", "d": "D", "g_ema": "G_ema"}  # theirs: ours
_LAYER = {"weight": "conv.weight", "affine.weight": "conv.modulation.weight",
          "affine.bias": "conv.modulation.bias"}
_CONV = _LAYER | {"bias": "activate.bias", "noise_strength": "noise.weight"}


def generator_names(resolution: int, mapping_layers: int) -> dict[str, str]:
    """Official name: rosinality's name, for each tensor of a generator but w_avg, which has its own place."""
    out = {f"mapping.fc{i}.{kind}": f"style.{i + 1}.{kind}" for i in range(mapping_layers)
           for kind in ("weight", "bias")}
    out["synthesis.b4.const"] = "input.input"
    for i in range(int(math.log2(resolution)) - 1):
        block = f"synthesis.b{4 << i}"
        convs = {"conv1": ("conv1", 0)} if i == 0 else {f"conv{j}": (f"convs.{2 * i - 2 + j}", 2 * i - 1 + j)
                                                        for j in range(2)}
        for ours, (theirs, noise) in convs.items():
            out |= {f"{block}.{ours}.{a}": f"{theirs}.{b}" for a, b in _CONV.items()}
            out[f"{block}.{ours}.noise_const"] = f"noises.noise_{noise}"
        rgb = "to_rgb1" if i == 0 else f"to_rgbs.{i - 1}"
        out |= {f"{block}.torgb.{a}": f"{rgb}.{b}" for a, b in (_LAYER | {"bias": "bias"}).items()}
    return out


def discriminator_names(resolution: int) -> dict[str, str]:
    """Official name: rosinality's name, for every tensor of a discriminator."""
    first = f"b{resolution}.fromrgb"
    out = {f"{first}.weight": "convs.0.0.weight", f"{first}.bias": "convs.0.1.bias"}
    for i in range(int(math.log2(resolution)) - 2):
        ours, theirs = f"b{resolution >> i}", f"convs.{i + 1}"
        pairs = {"conv0.weight": "conv1.0.weight", "conv0.bias": "conv1.1.bias",
                 "skip.weight": "skip.1.weight", "conv1.weight": "conv2.1.weight",
                 "conv1.bias": "conv2.2.bias"}
        out |= {f"{ours}.{a}": f"{theirs}.{b}" for a, b in pairs.items()}
    return out | {"b4.conv.weight": "final_conv.0.weight", "b4.conv.bias": "final_conv.1.bias",
                  "b4.fc.weight": "final_linear.0.weight", "b4.fc.bias": "final_linear.0.bias",
                  "b4.out.weight": "final_linear.1.weight", "b4.out.bias": "final_linear.1.bias"}


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in state:
        raise StylebotError(f"{name} is missing")
    return tuple(state[name].shape)


def _channels(widths: Mapping[int, int]) -> dict[str, int]:
    """channel_base and channel_max that give these widths by resolution."""
    most = max(widths.values())
    narrow = [r * w for r, w in widths.items() if w < most]
    base = narrow[0] if narrow else most * max(widths)
    if any(min(base // r, most) != w for r, w in widths.items()):
        raise StylebotError(f"channels by resolution {dict(widths)} follow no rule of this family")
    return {"channel_base": base, "channel_max": most}


def _generator_config(state: Mapping[str, Tensor]) -> dict:
    layers = sum(re.fullmatch(r"style\.\d+\.weight", name) is not None for name in state)
    rgbs = sum(re.fullmatch(r"to_rgbs\.\d+\.bias", name) is not None for name in state)
    if not 0 < layers <= 64 or 4 << rgbs > MAX_RESOLUTION or rgbs > 12:
        raise StylebotError(f"a generator with {layers} mapping layers and {rgbs + 1} colour layers")
    widths = {4: _shape(state, "input.input")[1]}
    widths |= {8 << i: _shape(state, f"convs.{2 * i + 1}.conv.weight")[1] for i in range(rgbs)}
    w_dim, z_dim = _shape(state, f"style.{layers}.weight")[0], _shape(state, "style.1.weight")[1]
    if max(z_dim, w_dim) > _WIDEST:
        raise StylebotError(f"a generator with latents of {max(z_dim, w_dim)} numbers")
    return {"z_dim": z_dim, "w_dim": w_dim, "img_resolution": 4 << rgbs, "mapping_layers": layers,
            "img_channels": _shape(state, "to_rgb1.bias")[1], **_channels(widths)}


def _discriminator_config(state: Mapping[str, Tensor]) -> dict:
    blocks = sum(re.fullmatch(r"convs\.\d+\.skip\.1\.weight", name) is not None for name in state)
    if not 0 < blocks <= 12 or 4 << blocks > MAX_RESOLUTION:
        raise StylebotError(f"a discriminator with {blocks} blocks")
    resolution = 4 << blocks
    widths = {resolution: _shape(state, "convs.0.0.weight")[0]}
    widths |= {resolution >> i: _shape(state, f"convs.{i}.conv2.1.weight")[0] for i in range(1, blocks + 1)}
    extra = _shape(state, "final_conv.0.weight")[1] - widths[4]
    return {"img_resolution": resolution, "img_channels": _shape(state, "convs.0.0.weight")[1],
            "mbstd_group_size": 4, "mbstd_num_channels": extra, **_channels(widths)}


def _check_kernels(role: str, state: Mapping[str, Tensor], names: set[str]) -> None:
    """What is left over may only be the constant filters, with the values that the networks are built on."""
    strange = {name for name in names if not re.search(r"\.kernel$", name)}
    if strange:
        raise StylebotError(f"{role}: tensors that this architecture has no place for: {some(strange)}")
    for name in names:
        gain = 1 if role == "D" else 4
        wanted = ops.blur_filter() * gain
        if state[name].shape != wanted.shape or not torch.allclose(state[name].float(), wanted, atol=1e-5):
            raise StylebotError(f"{role}: {name} is another filter than [1, 3, 3, 1]")


def to_official(role: str, state: Mapping[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """Constructor arguments and official state dict (without w_avg) of a network in rosinality's names.

    What is missing in `state` is missing in the result.
    Raises: StylebotError for tensors that have no place, and for shapes that contradict each other.
    """
    try:
        config = _discriminator_config(state) if role == "D" else _generator_config(state)
        names = (discriminator_names(config["img_resolution"]) if role == "D"
                 else generator_names(config["img_resolution"], config["mapping_layers"]))
    except (StylebotError, IndexError) as error:
        raise StylebotError(f"{role}: {error}") from None
    shapes = {name: tensor.shape for name, tensor in skeleton(role, config).state_dict().items()}
    out = {}
    for ours, theirs in names.items():
        if theirs in state:
            if ours not in shapes or state[theirs].numel() != shapes[ours].numel():
                raise StylebotError(f"{role}: {theirs} has shape {list(state[theirs].shape)}")
            out[ours] = state[theirs].reshape(shapes[ours])
    _check_kernels(role, state, state.keys() - set(names.values()))
    return config, out


def from_official(role: str, config: Mapping[str, object], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's state dict in rosinality's names and shapes, filters included (w_avg has its own place).

    Raises: StylebotError if rosinality's code has no such network.
    """
    wanted = {"c_dim": 0, "architecture": "resnet" if role == "D" else "skip", "filter_taps": ops.BLUR}
    if role == "D":
        wanted |= {"mbstd_num_channels": 1}
    other = [f"{k} {config[k]}" for k, v in wanted.items() if config.get(k, v) != v]
    if other or config["img_channels"] != 3:
        why = ", ".join(other) or f"{config['img_channels']} channels"
        raise StylebotError(f"{role}: rosinality's code has no network with {why}")
    resolution = config["img_resolution"]
    out = {}
    names = (discriminator_names(resolution) if role == "D"
             else generator_names(resolution, config["mapping_layers"]))
    for ours, theirs in names.items():
        tensor = state[ours].detach().cpu().contiguous()
        if role != "D":
            tensor = _with_axes(theirs, tensor)
        out[theirs] = tensor.clone()
    filters = ops.blur_filter()
    for i in range(int(math.log2(resolution)) - 2):
        if role == "D":
            out |= {f"convs.{i + 1}.{layer}.0.kernel": filters.clone() for layer in ("conv2", "skip")}
        else:
            layers = (f"convs.{2 * i}.conv.blur", f"to_rgbs.{i}.upsample")
            out |= {f"{layer}.kernel": filters * 4 for layer in layers}
    return out


def _with_axes(theirs: str, tensor: Tensor) -> Tensor:
    """The unit axes that rosinality's generator tensors carry."""
    if theirs.endswith("conv.weight") or theirs == "input.input":
        return tensor[None]
    if theirs.endswith("noise.weight"):
        return tensor.reshape(1)
    if theirs.startswith("noises."):
        return tensor[None, None]
    if theirs.startswith("to_rgb") and theirs.endswith("bias") and "modulation" not in theirs:
        return tensor.reshape(1, -1, 1, 1)
    return tensor


def _average(config: Mapping[str, int], state: Mapping[str, Tensor]) -> Tensor:
    """Mean w [w_dim] over W_AVG_SAMPLES latents of a fixed seed, for files that do not keep it."""
    layers = config["mapping_layers"]
    network = MappingNetwork(config["z_dim"], 0, config["w_dim"], None, layers, w_avg_beta=None)
    mine = {k.removeprefix("mapping."): v for k, v in state.items() if k.startswith("mapping.")}
    network.load_state_dict(mine)
    draws, parts = torch.Generator().manual_seed(W_AVG_SEED), []
    for _ in range(W_AVG_SAMPLES // 1000):
        z = torch.randn(1000, config["z_dim"], generator=draws)
        with torch.no_grad():
            parts.append(network(z).double().sum(dim=0))
    return (torch.stack(parts).sum(dim=0) / W_AVG_SAMPLES).float()


def _add_average(weights: Weights, role: str, latent_avg: Tensor | None) -> None:
    """Put w_avg into the state: the file's if it is one vector, else computed, which meta says."""
    config, state = weights.configs[role], weights.states[role]
    if latent_avg is not None and latent_avg.ndim in (1, 2) and latent_avg.shape[-1] == config["w_dim"]:
        rows = latent_avg.reshape(-1, config["w_dim"])
        if len(rows) and torch.equal(rows, rows[:1].expand_as(rows)):
            state["mapping.w_avg"] = rows[0].clone()
            return
    layers = range(config["mapping_layers"])
    if all(f"mapping.fc{i}.{kind}" in state for i in layers for kind in ("weight", "bias")):
        state["mapping.w_avg"] = _average(config, state)
        weights.meta["w_avg"] = f"mean of {W_AVG_SAMPLES} latents (the file has none)"


def _table(value: object, what: str) -> dict[str, Array]:
    items = value.items() if isinstance(value, dict) else [(0, 0)]
    if not all(isinstance(k, str) and isinstance(v, Array) for k, v in items):
        raise StylebotError(f"{what} is not a table of tensors")
    return value


def _plain(value: object) -> dict:
    """The plain entries of saved options, whatever class they were saved as."""
    value = value.state if isinstance(value, Stub) else value
    items = value.items() if isinstance(value, dict) else ()
    return {k: v for k, v in items if isinstance(k, str) and isinstance(v, str | int | float | bool | None)}


def from_checkpoint(data: Mapping, size: int) -> Weights:
    """What a file of torch.save of `size` bytes holds: rosinality's training or converted form, or pSp / e4e.

    Raises: StylebotError naming what is not as it must be.
    """
    averages = data.get("latent_avg")
    average = materialise("latent_avg", {"latent_avg": averages}, size) if isinstance(averages, Array) else {}
    if "state_dict" in data:
        tensors = _table(data["state_dict"], "state_dict")
        decoder = {k.removeprefix("decoder."): v for k, v in tensors.items() if k.startswith("decoder.")}
        encoder = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
        found, weights = {"G_ema": decoder}, Weights({}, {}, {"source": "pSp checkpoint"})
        weights.meta["opts"] = _plain(data.get("opts"))
        weights.encoder = (materialise("encoder", encoder, size) | average) or None
    else:
        found = {ours: _table(data[theirs], theirs) for theirs, ours in ROLES.items() if theirs in data}
        weights = Weights({}, {}, {"source": "rosinality checkpoint"})
        if isinstance(data.get("ada_aug_p"), float):
            weights.meta["augment_p"] = data["ada_aug_p"]
    if not any(found.values()):
        raise StylebotError("no networks in it (G, D, G_ema, or g, d, g_ema, or a decoder)")
    for role, described in found.items():
        weights.configs[role], weights.states[role] = to_official(role, materialise(role, described, size))
        if role != "D":
            _add_average(weights, role, average.get("latent_avg"))
    return weights
