"""Stage `superres`: held-out faces made small, rebuilt through the generator, measured against bicubic."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field, field_validator
from rich.progress import track

from stylebot.checkpoints import load_networks
from stylebot.dataset import Dataset
from stylebot.degrade import degrade, resize, shrink, to_img, to_rgb
from stylebot.dist import device
from stylebot.encoder import Encoder, load_encoder
from stylebot.errors import StylebotError
from stylebot.faces import Identity
from stylebot.files import atomic, sha256_file, write_bytes
from stylebot.generator import Generator
from stylebot.params import Section
from stylebot.perceptual import Perceptual
from stylebot.sheets import contact_sheet

METHODS = ("bicubic", "result")
MEASURES = ("psnr_db", "ssim", "lpips", "id_distance", "same_person")
_BATCH, _DRAWS = 16, 1000


class SuperresParams(Section):
    """What `superres` reads from params.yaml; explained there."""

    factors: list[int] = Field(min_length=1)
    same_person_distance: float = Field(gt=0, lt=2)
    sheet_faces: int = Field(ge=1)
    seed: int = Field(ge=0)

    @field_validator("factors")
    @classmethod
    def _sensible(cls, factors: list[int]) -> list[int]:
        if any(f < 2 or f & (f - 1) for f in factors) or len(set(factors)) < len(factors):
            raise ValueError("factors must be different powers of two from 2 up")
        return sorted(factors)


@dataclass(frozen=True)
class Enlarged:
    """One factor's pictures, uint8 [N,3,·,·]: what was given, what bicubic and the networks make of it."""

    factor: int
    small: torch.Tensor
    bicubic: torch.Tensor
    result: torch.Tensor


def psnr_db(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio [N] in dB of `a` and `b` [N,C,H,W] float, [-1,1]; inf for equal ones."""
    return 10 * torch.log10(4 / (a - b).square().mean((1, 2, 3)))


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Structural similarity [N], at most 1, of `a` and `b` [N,C,H,W] float, [-1,1], mean over channels.

    Gaussian window of 11 px and sigma 1.5, K = 0.01 and 0.03, no padding. Source: Wang et al. 2004, eq. 13.
    """
    x = torch.arange(11, dtype=a.dtype, device=a.device) - 5
    row = torch.exp(-x.square() / (2 * 1.5**2))
    window = torch.outer(row, row) / row.sum() ** 2
    n, c = a.shape[:2]
    stack = torch.cat([a, b, a * a, b * b, a * b]).reshape(5 * n * c, 1, *a.shape[2:])
    mu_a, mu_b, aa, bb, ab = F.conv2d(stack, window[None, None]).reshape(5, n, c, -1)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # the range of values is 2
    covariance, variances = ab - mu_a * mu_b, aa - mu_a**2 + bb - mu_b**2
    index = (2 * mu_a * mu_b + c1) * (2 * covariance + c2) / ((mu_a**2 + mu_b**2 + c1) * (variances + c2))
    return index.mean((1, 2))


@torch.no_grad()
def enlarge(rgbs: torch.Tensor, factor: int, encoder: Encoder, generator: Generator) -> Enlarged:
    """`rgbs` [N,3,R,R] uint8 shrunk by `factor` and brought back to R px by bicubic and by the networks."""
    parts: list[tuple[torch.Tensor, ...]] = []
    for batch in rgbs.split(_BATCH):
        img = to_img(batch.to(device()))
        small = shrink(img, factor)
        codes = encoder(degrade(img, [factor] * len(img)))
        pictures = small, resize(small, img.shape[2]), generator.synthesis(codes, noise_mode="const")
        parts.append(tuple(to_rgb(picture).cpu() for picture in pictures))
    return Enlarged(factor, *(torch.cat(part) for part in zip(*parts, strict=True)))


def _hwc(rgbs: torch.Tensor) -> list[np.ndarray]:
    return [np.ascontiguousarray(rgb) for rgb in rgbs.permute(0, 2, 3, 1).numpy()]


@torch.no_grad()
def compare(rgbs: torch.Tensor, wanted: torch.Tensor, perceptual: Perceptual, identity: Identity,
            same_person_distance: float) -> dict[str, np.ndarray]:
    """Each of MEASURES [N] between `rgbs` and the originals `wanted` [N,3,R,R] uint8."""
    pairs = [(to_img(a.to(device())), to_img(b.to(device())))
             for a, b in zip(rgbs.split(_BATCH), wanted.split(_BATCH), strict=True)]
    found = {name: torch.cat([measure(a, b) for a, b in pairs]).cpu().numpy().astype(np.float64)
             for name, measure in (("psnr_db", psnr_db), ("ssim", ssim), ("lpips", perceptual))}
    gap = identity.embed(_hwc(rgbs)) - identity.embed(_hwc(wanted))
    found["id_distance"] = np.linalg.norm(gap.astype(np.float64), axis=1)
    found["same_person"] = (found["id_distance"] < same_person_distance).astype(np.float64)
    return found


def interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of `values` [N] over faces."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (_DRAWS, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def table_of(found: Iterable[tuple[int, str, dict[str, np.ndarray]]], seed: int) -> pd.DataFrame:
    """One row per factor, method and measure: mean over faces, its 95 % interval, number of faces."""
    rows = [{"factor": factor, "method": method, "measure": name, "mean": values.mean(),
             "low": (ends := interval(values, seed))[0], "high": ends[1], "faces": len(values)}
            for factor, method, measures in found for name, values in measures.items()]
    return pd.DataFrame(rows)


def _sheet_cells(enlarged: list[Enlarged], wanted: torch.Tensor,
                 count: int) -> Iterator[tuple[np.ndarray, str]]:
    chosen = np.linspace(0, len(wanted) - 1, min(count, len(wanted))).round().astype(int)
    originals = _hwc(wanted)
    for e in enlarged:
        small, bicubic, result = _hwc(e.small), _hwc(e.bicubic), _hwc(e.result)
        for i in chosen:
            yield small[i].repeat(e.factor, 0).repeat(e.factor, 1), f"x{e.factor}: {len(small[i])} px given"
            yield bicubic[i], "bicubic"
            yield result[i], "result"
            yield originals[i], "original"


def write_rows(path: Path, rgbs: Sequence[np.ndarray]) -> None:
    """Pictures [R,R,3] uint8, four to a row, edge to edge: what the report cuts apart again."""
    rows = [np.concatenate(rgbs[i : i + 4], axis=1) for i in range(0, len(rgbs), 4)]
    with atomic(path) as part:
        Image.fromarray(np.concatenate(rows)).save(part, "PNG")


def _check(encoder: Encoder, generator: Generator, data: Dataset, params: SuperresParams) -> None:
    res, w_dim = generator.img_resolution, generator.w_dim
    made_for = encoder.config["resolution"], encoder.config["w_dim"]
    if made_for != (res, w_dim):
        raise StylebotError(f"the encoder is for a generator of {made_for[0]} px and w_dim {made_for[1]}, "
                            f"this one has {res} px and w_dim {w_dim}: run `encode` against it")
    if (data.resolution, data.channels) != (res, 3):
        raise StylebotError(f"{data.path} holds faces of {data.resolution} px and {data.channels} channels, "
                            f"the generator makes {res} px in colour")
    if res // max(params.factors) < 2:
        raise StylebotError(f"superres.factors: {max(params.factors)} leaves less than 2 px of {res} px")


def metrics_of(table: pd.DataFrame) -> dict[str, float]:
    """The few numbers to follow: per factor the distances of the result, and of bicubic beside them.

    The encoder was trained to lower `lpips` on other faces with the same network, so that this one flatters
    it; `id_distance` is independent of the training.
    """
    mean = table.set_index(["factor", "method", "measure"])["mean"]
    short = {"psnr_db": "psnr", "lpips": "lpips", "id_distance": "id"}
    return {f"superres_{short[m]}{'_bicubic' if how == 'bicubic' else ''}_x{f}": float(mean[f, how, m])
            for f in sorted(set(table["factor"])) for how in METHODS for m in short}


def superres(encoder: Path, generator: Path, heldout: Path, perceptual: Path, identity: Path, out: Path,
             params: SuperresParams) -> dict[str, float]:
    """Write sheet.png, rows_x*.png and table.csv to the folder `out` and return the metrics.

    Raises: StylebotError for an encoder, a generator and faces that do not fit each other.
    """
    net, meta = load_encoder(encoder)
    decoder = load_networks(generator, need=("G_ema",)).G_ema.eval().requires_grad_(False)
    data = Dataset(heldout)
    _check(net, decoder, data, params)
    if meta.get("generator_sha256") != sha256_file(generator):
        print("superres: the encoder was trained against another generator than the one given")
    net, decoder = net.to(device()), decoder.to(device())
    distance, people = Perceptual(perceptual).to(device()), Identity(identity)
    wanted = torch.from_numpy(data.read_all())
    enlarged, found = [], []
    for factor in track(params.factors, description="superres"):
        enlarged.append(enlarge(wanted, factor, net, decoder))
        found += [(factor, method, compare(getattr(enlarged[-1], method), wanted, distance, people,
                                           params.same_person_distance)) for method in METHODS]
    table = table_of(found, params.seed)
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / "table.csv", table.to_csv(index=False, float_format="%.5g").encode())
    rgbs, captions = zip(*_sheet_cells(enlarged, wanted, params.sheet_faces), strict=True)
    each = len(rgbs) // len(enlarged)
    for i, e in enumerate(enlarged):
        write_rows(out / f"rows_x{e.factor}.png", rgbs[i * each : (i + 1) * each])
    picture = io.BytesIO()
    contact_sheet(rgbs, 4, captions, cell_px=128, title="Held-out faces, super-resolved").save(picture, "PNG")
    write_bytes(out / "sheet.png", picture.getvalue())
    return metrics_of(table)
