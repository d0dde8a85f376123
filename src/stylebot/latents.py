"""Intermediate latents w: from seeds, from files, mixed, on a closed path, along found directions."""

import math
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from stylebot.errors import StylebotError
from stylebot.files import atomic
from stylebot.generator import Generator
from stylebot.psp import masked
from stylebot.render import labels, latents

_TYPICAL = 256  # faces that the size of a step is measured by
_LARGEST_FILE = 1 << 30
_UNPACKED = 64  # times its size that a compressed file of real latents may unpack to


@torch.inference_mode()
def of_seeds(
    g: Generator, seeds: Sequence[int], psi: float = 1.0, cutoff: int | None = None, label: int | None = None
) -> Tensor:
    """ws [N, num_ws, w_dim] of the seeds, truncated as asked, on the generator's device."""
    where = g.mapping.w_avg.device
    c = labels(seeds, g.c_dim, label)
    c = c if c is None else c.to(where)
    return g.mapping(latents(seeds, g.z_dim).to(where), c, truncation_psi=psi, truncation_cutoff=cutoff)


def save_ws(path: Path, ws: Tensor) -> None:
    """Write ws [N, num_ws, w_dim] as an .npz with the one array `w`, float32: the layout of projector.py."""
    with atomic(path) as part, part.open("wb") as file:
        np.savez(file, w=ws.detach().cpu().numpy().astype(np.float32))


def read_ws(path: Path, g: Generator) -> Tensor:
    """ws [N, num_ws, w_dim] float32 from the array `w` of an .npz, on the generator's device.

    One w [N, w_dim] per face serves all its layers.
    Raises StylebotError for a file that is no such thing, or of a network of another shape.
    """
    array = _array(path)
    if array.ndim == 2 and array.shape[1] == g.w_dim:
        array = np.repeat(array[:, None], g.num_ws, 1)
    if array.ndim != 3 or len(array) == 0 or array.shape[1:] != (g.num_ws, g.w_dim):
        raise StylebotError(f"{path}: w has the shape {list(array.shape)}, this network needs "
                            f"[faces, {g.num_ws}, {g.w_dim}]")  # fmt: skip
    if not np.isfinite(array).all():
        raise StylebotError(f"{path}: w holds numbers that are not finite")
    return torch.from_numpy(array).to(g.mapping.w_avg.device)


def _array(path: Path) -> np.ndarray:
    """The array `w` of an .npz, float32, in memory that the file's size bounds."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError("larger than 1 GiB")
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("w.npy")
            if info.file_size > (1 << 20) + _UNPACKED * path.stat().st_size:
                raise ValueError("it unpacks to far more than its size")
            with archive.open(info) as member:
                if np.lib.format.read_magic(member) != (1, 0):
                    raise ValueError("its header is not numpy's first")
                shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        if dtype.kind not in "fiu" or min(shape, default=0) < 0:
            raise ValueError(f"{str(dtype)[:40]} are no real numbers")
        if math.prod(shape) * dtype.itemsize > info.file_size:
            raise ValueError(f"it is too short for the shape {list(shape)[:8]}")
        with np.load(path, allow_pickle=False) as file:
            return np.asarray(file["w"], np.float32)
    except (OSError, ValueError, KeyError, EOFError, TypeError, IndexError, SyntaxError,
            RuntimeError, MemoryError, tokenize.TokenError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:160]
        raise StylebotError(f"{path} is no .npz with an array w of numbers: {reason}") from None


def mixed(rows: Tensor, columns: Tensor, layers: Sequence[int]) -> Tensor:
    """ws [R * C, num_ws, w_dim], row by row: face r with the styles of face c in `layers`.

    rows [R, num_ws, w_dim], columns [C, num_ws, w_dim].
    Source: Karras et al. 2019, arXiv 1812.04948, section 3.1 (style mixing).
    """
    return masked(rows.repeat_interleave(len(columns), 0), layers, columns.repeat(len(rows), 1, 1))


def closed_path(keys: Tensor, frames: int) -> Tensor:
    """ws [K * frames, num_ws, w_dim] on a smooth closed curve through keys [K, num_ws, w_dim], K >= 2.

    `frames` of them from each key to the next, and from the last one to the first: a film of them has no
    seam. Periodic cubic splines in w. Raises StylebotError with fewer than two keys.
    """
    if len(keys) < 2:
        raise StylebotError("a film goes round through two faces or more: give more seeds")
    knots = torch.cat([keys, keys[:1]]).cpu().double().numpy()
    curve = CubicSpline(np.arange(len(knots)), knots, bc_type="periodic")
    at = np.arange(len(keys) * frames) / frames
    return torch.from_numpy(curve(at)).float().to(keys.device)


def affine_weights(g: Generator, layers: Sequence[int]) -> Tensor:
    """A [sum of channels, w_dim] float64: the matrices that turn w into the styles of `layers`, stacked.

    A layer is an index of ws; one that feeds a convolution and a torgb gives both matrices.
    """
    matrices: list[Tensor] = []
    first = 0
    for resolution in g.synthesis.resolutions:
        block = getattr(g.synthesis, f"b{resolution}")
        parts = ([block.conv0] if block.num_conv == 2 else []) + [block.conv1]
        parts += [block.torgb] if block.num_torgb else []
        matrices += [part.affine.weight for index, part in enumerate(parts, first) if index in layers]
        first += block.num_conv
    return torch.cat([m.detach().double() for m in matrices])


def directions(g: Generator, count: int, layers: Sequence[int]) -> Tensor:
    """The `count` directions n [count, w_dim], unit length, that change the styles of `layers` most.

    A style is s = A w + b, so that a step of length a along n changes it by a A n, whatever w is. The
    directions solve argmax ||A n||^2 with n^T n = 1 one after the other, each at right angles to those
    before: the eigenvectors of A^T A with the largest eigenvalues. Each has its largest number positive.
    Raises StylebotError for more directions than w has numbers.
    Source: Shen and Zhou 2021, Closed-Form Factorization of Latent Semantics in GANs, arXiv 2007.06600,
    equations 4 to 6.
    """
    if not 1 <= count <= g.w_dim:
        raise StylebotError(f"--directions {count}: 1 to {g.w_dim} directions exist in this network")
    a = affine_weights(g, layers).cpu()
    _, vectors = torch.linalg.eigh(a.t() @ a)
    found = vectors.t().flip(0)[:count]
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    return (found * largest.sign()).float().to(g.mapping.w_avg.device)


@torch.inference_mode()
def typical_distance(g: Generator) -> float:
    """Mean distance of a face's w from the average one: the unit that steps along directions are given in."""
    ws = of_seeds(g, range(_TYPICAL))[:, 0]
    return float((ws - ws.mean(0)).norm(dim=1).mean())


def moved(ws: Tensor, ways: Tensor, steps: Sequence[float], layers: Sequence[int]) -> Tensor:
    """ws [N * K * S, num_ws, w_dim]: N faces, each moved in `layers` along each of K ways by each of S steps.

    ws [N, num_ws, w_dim]; ways [K, w_dim]; the order is face, way, step.
    """
    shifts = ways[:, None] * torch.tensor(list(steps), device=ways.device)[None, :, None]  # [K, S, w_dim]
    out = ws[:, None, None].repeat(1, len(ways), len(steps), 1, 1)
    out[:, :, :, list(layers)] += shifts[None, :, :, None]
    return out.flatten(0, 2)
