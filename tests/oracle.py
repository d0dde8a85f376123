"""Reading of tests/data/oracle: what published implementations compute, and networks with their weights."""

import json
import zlib
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "data" / "oracle"
Net = TypeVar("Net", bound=nn.Module)


def read(name: str) -> tuple[dict, dict[str, Tensor]]:
    """(options, arrays) of one file; floating-point arrays as float64."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        arrays = {k: torch.from_numpy(stored[k]) for k in stored.files if k != "options"}
        options = json.loads(str(stored["options"]))
    return options, {k: a.double() if a.is_floating_point() else a for k, a in arrays.items()}


def with_weights(net: Net, arrays: dict[str, Tensor], prefix: str) -> Net:
    """`net` in float64 with the tensors named `prefix`…; every one must fit."""
    net.double().load_state_dict({k[len(prefix):]: a for k, a in arrays.items() if k.startswith(prefix)})
    return net


def close(found: Tensor, wanted: Tensor, rtol: float = 1e-9, what: str = "") -> None:
    """Assert that `found` differs from `wanted` by no more than rtol times the largest number in it."""
    assert found.shape == wanted.shape, (what, found.shape, wanted.shape)
    error = float((found.detach().double() - wanted).abs().max())
    scale = float(wanted.abs().max())
    assert error <= rtol * scale, f"{what}: off by {error:.3g} on a scale of {scale:.3g}"


def heads(named: dict[str, Tensor], names: list[str]) -> Tensor:
    """The first 8 values of each tensor, [len(names), 8], padded with 0."""
    rows = [named[name].detach().reshape(-1)[:8] for name in names]
    return torch.stack([torch.nn.functional.pad(row, (0, 8 - len(row))) for row in rows])


def psp_weights(case: str, net: nn.Module) -> dict[str, Tensor]:
    """The state dict that the pSp encoder of a case has: drawn from the names of its tensors alone."""
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    norms = {key.rpartition(".")[0] for key in shapes if key.endswith("running_mean")}
    return {key: _by_formula(f"psp/given/{case}/{key}", shape, norms) for key, shape in shapes.items()}


def _by_formula(name: str, shape: tuple[int, ...], norms: set[str]) -> Tensor:
    base = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    module, _, part = name.rpartition("/")[2].rpartition(".")
    if part == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    if part in ("running_mean", "bias"):
        value = 0.1 * base
    elif part == "running_var":
        value = np.exp(0.2 * base)
    elif len(shape) == 4 or name.endswith("/output_layer_2.3.weight"):
        value = base / np.sqrt(np.prod(shape[1:]))
    elif len(shape) == 2:
        value = base
    else:
        value = 1 + 0.1 * base if module in norms else 0.25 + 0.05 * base
    return torch.from_numpy(np.asarray(value, dtype=np.float32))
