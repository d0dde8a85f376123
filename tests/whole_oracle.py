"""The oracle folder that STYLEBOT_ORACLE names: its cases, and the comparison with one of them.

Stated there for each array are [difference of the reference's own float32 and float64, largest number]. In
float64 we may be off by 1e-9 of the largest number; in float32 by four times the reference's own difference,
which is what summing in another order costs, but never less than PICTURES of the largest number (its
tolerance for pictures), or GRADIENTS where up to 32,768 pixels are summed (2^-24 times their root): one
number's difference on one machine says nothing about the next one's.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import with_weights
from torch import Tensor

from stylebot.discriminator import Discriminator
from stylebot.generator import Generator
from stylebot.official import config_from

PICTURES, GRADIENTS = 2e-6, 1e-5
FOLDER = Path(os.environ.get("STYLEBOT_ORACLE", "/nowhere"))
CASES = json.loads((FOLDER / "cases.json").read_text())["cases"] if FOLDER.is_dir() else []
PRECISIONS = [pytest.param(torch.float32, id="float32"), pytest.param(torch.float64, id="float64")]
needed = pytest.mark.skipif(not CASES, reason="STYLEBOT_ORACLE names no folder")


def of(start: str) -> list:
    """Its cases with arrays whose file begins with `start`, as parameters of a test."""
    return [pytest.param(case, id=case["id"]) for case in CASES if str(case.get("file", "")).startswith(start)
            and case["file"].endswith(".npz")]  # fmt: skip


class Case:
    """One case: inputs, weights, and the comparison with its outputs in one precision."""

    def __init__(self, entry: dict, dtype: torch.dtype) -> None:
        self.entry, self.dtype, self.compared = entry, dtype, 0
        with np.load(FOLDER / entry["file"]) as stored:
            self.arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}

    def given(self, name: str) -> Tensor:
        tensor = self.arrays[name]
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def starting(self, prefix: str) -> dict[str, Tensor]:
        return {name: self.given(name) for name in self.arrays if name.startswith(prefix)}

    def close(self, name: str, found: Tensor) -> None:
        """Compare with the output `name`, if the file has it in this precision."""
        single = self.dtype == torch.float32
        wanted = self.arrays.get(f"{'out' if single else 'out64'}/{name}")
        if wanted is None:
            return
        own, scale = self.entry["tolerance"][name]
        error = float((found.detach().double() - wanted.double()).abs().max()) if wanted.numel() else 0.0
        floor = (GRADIENTS if "grad" in name else PICTURES) * scale
        limit = max(4 * own, floor) if single else max(1e-9 * scale, 1e-30)
        assert found.shape == wanted.shape, (name, found.shape, wanted.shape)
        assert error <= limit, f"{name}: off by {error:.3g}, {limit:.3g} allowed"
        self.compared += 1

    def close_gradients(self, phase: int, net: Generator | Discriminator) -> None:
        """Compare the gradient that each parameter of `net` has after `phase`; none counts as 0."""
        for key, parameter in net.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            self.close(f"{phase}/gradnorm/{key}", gradient.norm())
            self.close(f"{phase}/grad/{key}", gradient)
            self.close(f"{phase}/gradhead/{key}", gradient.flatten()[:64])

    def network(self, role: str, options: dict, prefix: str = "sd/") -> Generator | Discriminator:
        """Ours with their weights, refused unless every name and shape agrees (filters are constants)."""
        config = {k: v for k, v in config_from(role, options).items() if v is not None}
        kept = {k: v for k, v in self.starting(prefix).items() if not k.endswith("resample_filter")}
        make = Discriminator if role == "D" else Generator
        return with_weights(make(**config), kept, prefix).to(self.dtype).eval()
