"""Snapshots of the TensorFlow code (stylegan2, stylegan2-ada), as tensors in the names of its PyTorch heir.

The two differ in names, in the order of axes (height, width, in, out there), in the style bias, to which the
TensorFlow code adds 1, and in the kernels of upsampling layers: there a correlation, here a convolution, so
these are turned by 180 degrees. Read are configurations E and F of stylegan2, and stylegan2-ada.
"""

import math
import re

import torch
from torch import Tensor

from stylebot.arrays import Array, materialise, shown
from stylebot.errors import StylebotError
from stylebot.pickles import Stub
from stylebot.weights import MAX_RESOLUTION, ROLES, Weights, skeleton, some

NETWORK = "dnnlib.tflib.network.Network"
WHOLE_BATCH = 1 << 16  # a minibatch-stddev group of None
_MOST, _LONGEST = 8192, 200  # variables of one network, and characters of a name: no bombs
_ROLES = ("G", "D", "G_ema")  # the order in a snapshot
_VERSIONS = (4, 5)
_FUNCTIONS = {"": {"G_main"}, "mapping": {"G_mapping"}, "synthesis": {"G_synthesis", "G_synthesis_stylegan2"}}
_D_GROUP = {"D_stylegan2": 4, "D_main": None}  # what the function takes when no group size was given
_LAYERS = {"conv0": "Conv0_up", "conv1": "Conv1", "torgb": "ToRGB", "skip": "Skip"}
_D_LAYERS = {"conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip", "fromrgb": "FromRGB"}
_SIZES = {"latent_size": "z_dim", "label_size": "c_dim", "dlatent_size": "w_dim",
          "num_channels": "img_channels", "resolution": "img_resolution", "architecture": "architecture",
          "use_noise": "use_noise", "mapping_layers": "mapping_layers"}  # what the shapes say too
_OTHERS = {"fmap_max": "channel_max", "num_fp16_res": "num_fp16_res", "conv_clamp": "conv_clamp",
           "mapping_lrmul": "lr_multiplier"}
_MUST_BE = {"nonlinearity": "lrelu", "mapping_nonlinearity": "lrelu", "normalize_latents": True,
            "use_pagan": False, "use_spectral_norm": False, "adaptive_dropout": 0, "score_size": 1,
            "score_max": 1}
_READ_BELOW = {"fmap_base", "resample_kernel", "dlatent_avg_beta", "w_avg_beta", "mbstd_group_size",
               "mbstd_num_features"}
_WITHOUT_EFFECT = {  # on the function at inference, or visible in the shapes
    "truncation_psi", "truncation_cutoff", "truncation_psi_val", "truncation_cutoff_val", "style_mixing_prob",
    "structure", "mapping_func", "synthesis_func", "randomize_noise", "dtype", "fused_modconv",
    "freeze_layers", "augment_strength", "pagan_num", "pagan_fade", "fmap_decay", "fmap_min", "fmap_const",
    "label_fmaps", "mapping_fmaps"}
Variables = dict[str, Array | float]


def is_snapshot(data: object) -> bool:
    """Whether an unpickled file is one TensorFlow network, or the three of a training run."""
    found = data if isinstance(data, tuple) else (data,)
    return len(found) in (1, 3) and all(isinstance(net, Stub) and net.name == NETWORK for net in found)


def _state(role: str, net: object) -> dict:
    state = net.state if isinstance(net, Stub) else None
    if not isinstance(state, dict) or not isinstance(state.get("static_kwargs"), dict):
        raise StylebotError(f"{role}: a TensorFlow network without its arguments")
    if state.get("version") not in _VERSIONS:
        version = shown(state.get("version"))
        raise StylebotError(f"{role}: a TensorFlow network of version {version}; StyleGAN2's have 4 or 5")
    return state


def _variables(role: str, state: dict, prefix: str = "") -> Variables:
    """The variables of one network and of its parts, by their path."""
    out: Variables = {}
    listed = state.get("variables")
    for entry in listed if isinstance(listed, list) else ():
        if not isinstance(entry, tuple) or len(entry) != 2 or not isinstance(entry[0], str):
            raise StylebotError(f"{role}: variables that are no list of names and numbers")
        if not isinstance(entry[1], Array) and (type(entry[1]) is not float or not math.isfinite(entry[1])):
            raise StylebotError(f"{role}: {prefix}{entry[0][:80]} is neither an array nor a number")
        if len(out) > _MOST or len(entry[0]) > _LONGEST:
            raise StylebotError(f"{role}: more than {_MOST} variables, or names beyond {_LONGEST}")
        out[prefix + entry[0]] = entry[1]
    parts = state.get("components", {})
    for name, part in parts.items() if isinstance(parts, dict) and not prefix else ():
        inner, function = _state(role, part), part.state.get("build_func_name")
        if name not in _FUNCTIONS or not isinstance(function, str) or function not in _FUNCTIONS[name]:
            raise StylebotError(f"{role}: built by {shown(function)}, which StyleGAN2 has not")
        out |= _variables(role, inner, f"{name}/")
    out.pop(f"{prefix}lod", None)  # of progressive growing; nothing reads it in these architectures
    return out


def _shape(role: str, variables: Variables, name: str) -> tuple[int, ...]:
    found = variables.get(name)
    if not isinstance(found, Array) or len(found.shape) not in (1, 2, 4):
        raise StylebotError(f"{role}: {name} is missing")
    return found.shape


def _found(role: str, variables: Variables) -> dict:
    """Constructor arguments that the variables' names and shapes tell.

    Raises: StylebotError if a variable that every such network has is missing.
    """
    start = "" if role == "D" else "synthesis/"
    sides = [int(m[1]) for name in variables if (m := re.match(rf"{start}(\d{{1,5}})x\d+/", name))]
    res = max(sides, default=0)
    if not 4 <= res <= MAX_RESOLUTION:
        raise StylebotError(f"{role}: no layers of StyleGAN2 in it")
    top, skip = f"{start}{res}x{res}", f"{start}{res}x{res}/Skip/weight" in variables
    rgb, mapping = ("FromRGB", "Mapping") if role == "D" else ("ToRGB", "mapping/Dense")
    architecture = "resnet" if skip else "skip" if f"{start}4x4/{rgb}/weight" in variables else "orig"
    layers = sum(re.fullmatch(rf"{mapping}\d+/weight", name) is not None for name in variables)
    out = {"img_resolution": res, "architecture": architecture, "mapping_layers": layers}
    embed = "LabelEmbed/weight" if role == "D" else "mapping/LabelEmbed/weight"
    out["c_dim"] = _shape(role, variables, embed)[0] if embed in variables else 0
    colours = _shape(role, variables, f"{top}/{rgb}/weight")
    if len(colours) != 4:
        raise StylebotError(f"{role}: {top}/{rgb}/weight is no kernel")
    if out["c_dim"]:
        out["embed_features"] = _shape(role, variables, embed)[-1]
    if role == "D":
        out["cmap_dim"] = _shape(role, variables, "Output/weight")[-1] if out["c_dim"] else None
        return out | {"img_channels": colours[2], "layer_features": out.get("embed_features")}
    first = _shape(role, variables, "mapping/Dense0/weight")
    out |= {"img_channels": colours[3], "w_dim": _shape(role, variables, "dlatent_avg")[0],
            "use_noise": "synthesis/noise0" in variables, "z_dim": first[0] - out.get("embed_features", 0)}
    if layers > 1:
        out["layer_features"] = first[-1]
    return out


def _config(role: str, state: dict, variables: Variables) -> dict:
    """Our constructor arguments: the saved ones, cross-checked with the shapes.

    Raises: StylebotError for arguments that no network here has, and for contradictions.
    """
    given = {str(name): value for name, value in state["static_kwargs"].items()}
    known = _SIZES.keys() | _OTHERS.keys() | _MUST_BE.keys() | _READ_BELOW | _WITHOUT_EFFECT
    if strange := given.keys() - known:
        raise StylebotError(f"{role}: built with arguments that StyleGAN2 has not: {some(strange)}")
    for name, wanted in _MUST_BE.items():
        if given.get(name, wanted) != wanted:
            raise StylebotError(f"{role}: {name} is {shown(given[name])}, which cannot be read")
    found = _found(role, variables)
    for name, ours in _SIZES.items():
        if name in given and ours in found and given[name] != found[ours]:
            raise StylebotError(f"{role}: {name} is {shown(given[name])} here and {found[ours]} there")
    base, taps = given.get("fmap_base", 16384), given.get("resample_kernel", [1, 3, 3, 1])
    if type(base) is not int or not isinstance(taps, list | tuple):
        raise StylebotError(f"{role}: fmap_base or resample_kernel is not what StyleGAN2 has")
    others = {ours: given[name] for name, ours in _OTHERS.items() if given.get(name) is not None}
    return found | others | {"channel_base": 2 * base, "filter_taps": list(taps)} | _own(role, state, given)


def _own(role: str, state: dict, given: dict) -> dict:
    """Arguments that one kind of network has, with the defaults of the function that built it."""
    function = state.get("build_func_name")
    function = function if isinstance(function, str) else "?"
    if role != "D":
        if function not in _FUNCTIONS[""]:
            raise StylebotError(f"{role}: built by {function[:60]!r}, which StyleGAN2 has not")
        beta = given.get("dlatent_avg_beta", given.get("w_avg_beta", 0.995))
        return {"w_avg_beta": 1 if beta is None else beta}
    if function not in _D_GROUP:
        raise StylebotError(f"{role}: built by {function[:60]!r}, which StyleGAN2 has not")
    group, channels = given.get("mbstd_group_size", _D_GROUP[function]), given.get("mbstd_num_features", 1)
    off = function == "D_stylegan2" and group in (0, 1)
    return {"mbstd_group_size": WHOLE_BATCH if group is None else 1 if off else group,
            "mbstd_num_channels": 0 if off else channels, "lr_multiplier": given.get("mapping_lrmul", 0.1)}


def _their_name(role: str, ours: str) -> tuple[str, str]:
    """The variable that holds tensor `ours`, and what has to be done to it."""
    layer, _, kind = ours.rpartition(".")
    how = {"weight": "matrix"}.get(kind, "")
    if layer.startswith("mapping"):
        if kind == "w_avg":
            return "dlatent_avg", ""
        start, dense = ("", "Mapping") if role == "D" else ("mapping/", "Dense")
        part = layer.removeprefix("mapping.")
        return f"{start}{'LabelEmbed' if part == 'embed' else part.replace('fc', dense)}/{kind}", how
    res, *rest = ours.removeprefix("synthesis.").split(".")
    side = int(res[1:])
    if role == "D":
        last = {"conv": "4x4/Conv", "fc": "4x4/Dense0", "out": "Output"}.get(rest[0])
        how = "kernel" if kind == "weight" and rest[0] not in ("fc", "out") else how
        return f"{last or f'{side}x{side}/{_D_LAYERS[rest[0]]}'}/{kind}", how
    if rest == ["const"]:
        return "synthesis/4x4/Const/const", "first"
    if kind == "noise_const":
        return f"synthesis/noise{2 * int(math.log2(side)) - 5 + (rest[0] == 'conv1')}", "noise"
    path = f"synthesis/{side}x{side}/{'Conv' if side == 4 and rest[0] == 'conv1' else _LAYERS[rest[0]]}"
    if rest[1] == "affine":
        return f"{path}/mod_{kind}", "matrix" if kind == "weight" else "plus one"
    turned = "turned" if rest[0] in ("conv0", "skip") else "kernel"
    return f"{path}/{kind}", turned if kind == "weight" else ""


def _converted(tensor: Tensor, how: str) -> Tensor:
    """`tensor` in the other code's order of axes and meaning."""
    if how in ("kernel", "turned") and tensor.ndim == 4:
        tensor = tensor.permute(3, 2, 0, 1)
        return (tensor.flip((2, 3)) if how == "turned" else tensor).contiguous()
    if how == "matrix" and tensor.ndim == 2:
        return tensor.t().contiguous()
    if how == "first" and tensor.ndim == 4:
        return tensor[0].clone()
    if how == "noise" and tensor.ndim == 4:
        return tensor[0, 0].clone()
    return tensor + 1 if how == "plus one" else tensor


def _network(role: str, net: object, size: int) -> tuple[dict, dict[str, Tensor]]:
    state = _state(role, net)
    variables = _variables(role, state)
    config = _config(role, state, variables)
    scalars = {k: torch.tensor(float(v)) for k, v in variables.items() if not isinstance(v, Array)}
    arrays = {k: v for k, v in variables.items() if isinstance(v, Array)}
    theirs = materialise(role, arrays, size) | scalars
    out = {}
    for ours in skeleton(role, config).state_dict():
        name, how = _their_name(role, ours)
        if name in theirs:
            out[ours] = _converted(theirs.pop(name), how)
    if theirs:
        raise StylebotError(f"{role}: variables that its architecture has no place for: {some(theirs)}")
    return config, out


def from_snapshot(data: object, size: int) -> Weights:
    """What a TensorFlow snapshot of `size` bytes holds: (G, D, G_ema), or G_ema alone.

    Raises: StylebotError naming what is not as it must be.
    """
    nets = dict(zip(_ROLES, data, strict=True)) if isinstance(data, tuple) and len(data) == 3 else {
        "G_ema": data[0] if isinstance(data, tuple) else data}
    weights = Weights({}, {}, {"source": "TensorFlow pickle"})
    for role in ROLES:
        if role in nets:
            weights.configs[role], weights.states[role] = _network(role, nets[role], size)
    return weights
