"""Pickles as the TensorFlow code writes them, made from networks of this project."""

import io
import pickle
import sys
import types

import numpy as np
import torch

from stylebot.discriminator import Discriminator
from stylebot.generator import Generator

MARKER = "import os; raise SystemExit('the source in the file ran')"


class Network:
    """What the TensorFlow code pickles: an object whose attributes are its state."""

    __module__ = "dnnlib.tflib.network"

    def __init__(self, **state: object) -> None:
        self.__dict__.update(state)


def tf_network(
    function: str, arguments: dict, variables: dict, version: int = 4, **parts: Network
) -> Network:  # fmt: skip
    return Network(version=version, name="x", static_kwargs=dict(arguments), components=dict(parts),
                   build_module_src=MARKER, build_func_name=function, variables=list(variables.items()))


def scalar_or_array(tensor: torch.Tensor) -> object:
    return np.float32(tensor.item()) if tensor.ndim == 0 else np.ascontiguousarray(tensor.numpy())


def tf_generator(G: Generator, arguments: dict, **more: object) -> Network:
    """G as the TensorFlow definition has it: its names, kernels [h, w, in, out], style biases less 1."""
    state, mapping, synthesis = {k: v.detach().clone() for k, v in G.state_dict().items()}, {}, {"lod": 0.0}
    for i in range(G.config["mapping_layers"]):
        mapping |= {f"Dense{i}/weight": state[f"mapping.fc{i}.weight"].T,
                    f"Dense{i}/bias": state[f"mapping.fc{i}.bias"]}
    if G.c_dim:
        mapping |= {"LabelEmbed/weight": state["mapping.embed.weight"].T,
                    "LabelEmbed/bias": state["mapping.embed.bias"]}
    synthesis["4x4/Const/const"] = state["synthesis.b4.const"][None]
    names = {"conv0": "Conv0_up", "conv1": "Conv1", "torgb": "ToRGB", "skip": "Skip"}
    number = 0
    for r in G.synthesis.resolutions:
        for layer, theirs in names.items():
            mine = f"synthesis.b{r}.{layer}"
            path = f"{r}x{r}/{'Conv' if (r, layer) == (4, 'conv1') else theirs}"
            if f"{mine}.weight" not in state:
                continue
            kernel = state[f"{mine}.weight"].permute(2, 3, 1, 0)
            synthesis[f"{path}/weight"] = kernel.flip((0, 1)) if layer in ("conv0", "skip") else kernel
            if layer == "skip":
                continue
            synthesis |= {f"{path}/bias": state[f"{mine}.bias"],
                          f"{path}/mod_weight": state[f"{mine}.affine.weight"].T,
                          f"{path}/mod_bias": state[f"{mine}.affine.bias"] - 1}
            if layer != "torgb":
                synthesis[f"noise{number}"] = state[f"{mine}.noise_const"][None, None]
                synthesis[f"{path}/noise_strength"] = state[f"{mine}.noise_strength"]
                number += 1
    parts = {part: tf_network(f"G_{part}", arguments, {k: as_saved(v) for k, v in variables.items()})
             for part, variables in (("mapping", mapping), ("synthesis", synthesis))}
    own = {"lod": np.float32(0), "dlatent_avg": state["mapping.w_avg"].numpy()}
    return tf_network("G_main", arguments, own, **parts, **more)


def as_saved(value: object) -> object:
    return scalar_or_array(value) if isinstance(value, torch.Tensor) else np.float32(value)


def tf_discriminator(D: Discriminator, arguments: dict, function: str = "D_main") -> Network:
    out = {}
    names = {"fromrgb": "FromRGB", "conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip", "conv": "Conv",
             "fc": "Dense0"}
    for name, tensor in D.state_dict().items():
        block, layer, kind = name.split(".")
        side = block[1:]
        theirs = f"{side}x{side}/{names[layer]}" if layer in names else "Output"
        if block == "mapping":
            theirs = "LabelEmbed" if layer == "embed" else f"Mapping{layer[2:]}"
        tensor = tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T if tensor.ndim == 2 else tensor
        out[f"{theirs}/{kind}"] = scalar_or_array(tensor)
    return tf_network(function, arguments, out, version=5)


def pickled(value: object, protocol: int = 2) -> bytes:
    """`value` pickled under the TensorFlow code's class name, with numpy's module name of those years."""
    buffer, module, names = io.BytesIO(), types.ModuleType(Network.__module__), []
    module.Network = Network
    for name in ("dnnlib", "dnnlib.tflib", module.__name__):
        if name not in sys.modules:
            sys.modules[name] = module
            names.append(name)
    try:
        pickle.dump(value, buffer, protocol)
    finally:
        for name in names:
            del sys.modules[name]
    content = buffer.getvalue()
    old = content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    return old if protocol == 2 else content
