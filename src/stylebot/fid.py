"""Stage `fid`: how far generated faces are from held-out real ones, before and after fine-tuning."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from rich.progress import track

from stylebot import frechet, neighbours
from stylebot.dataset import Dataset
from stylebot.dist import device
from stylebot.errors import StylebotError
from stylebot.features import read_batches, remembered, shrunk
from stylebot.files import write_bytes
from stylebot.frechet import Estimate, around, between
from stylebot.generator import Generator
from stylebot.inception import Features, Inception
from stylebot.params import Section
from stylebot.provenance import AMONG, encode
from stylebot.render import load_generator, render, stream, weights_sha256
from stylebot.sheets import contact_sheet

_BATCH = 32
_FEWEST = 10  # pictures of either kind: the neighbourhood scores look at five neighbours
_COLUMNS = 12
_METRICS = ("fid_tuned", "fid_base", "kid_tuned", "kid_base", "kid_ratio")
_METRICS_WITH_INTERVAL = ("kid_tuned", "kid_ratio")


class FidParams(Section):
    """Section `fid` of params.yaml."""

    images: int = Field(ge=_FEWEST, le=1_000_000)
    psi: float = Field(gt=0, le=1)
    noise_mode: Literal["const", "random", "none"]
    seed: int = Field(ge=0, le=2**31)
    legacy: bool
    bootstrap: int = Field(ge=50, le=100_000)
    confidence: float = Field(ge=0.5, le=0.999)


def _fakes(g: Generator, params: FidParams, side_px: int, title: str) -> Iterable[torch.Tensor]:
    """Batches of fakes [n, 3, side, side] uint8 of the stage's seeds."""
    seeds = range(params.seed, params.seed + params.images)
    batches = stream(g, seeds, _BATCH, psi=params.psi, noise_mode=params.noise_mode)
    total = -(-params.images // _BATCH)
    return (shrunk(rgb, side_px) for rgb in track(batches, title, total))


def _check(generators: dict[str, Generator], heldout: Dataset) -> None:
    if len(heldout) < _FEWEST:
        raise StylebotError(f"{heldout.path} holds {len(heldout)} pictures, {_FEWEST} is the least; "
                            "hold out more (pack) or bring more photos")  # fmt: skip
    for name, g in generators.items():
        if g.img_resolution < heldout.resolution:
            raise StylebotError(f"the {name} generator makes {g.img_resolution} px, {heldout.path} has "
                                f"{heldout.resolution} px: pack at the generator's resolution")  # fmt: skip


def compare(fakes: dict[str, Features], real: Features, params: FidParams) -> dict[str, Estimate]:
    """Every number with its interval, by name: `fid_tuned`, `kid_base`, `kid_ratio`, …

    fakes: features of "tuned" and "base", row i of both from the same latent; real: of the held-out faces.
    Intervals are a bootstrap over pictures; the same resamples serve both generators, so that the ratio and
    the difference are those of pairs.
    """
    numbers: dict[str, Estimate] = {}
    draws: dict[str, np.ndarray] = {}
    weights_x = frechet.resamples(params.images, params.bootstrap, 0)
    weights_y = frechet.resamples(len(real["clean"]), params.bootstrap, 1)
    for resize in real:
        ending = "" if resize == "clean" else f"_{resize}"
        for name, features in fakes.items():
            found = _distances(features[resize], real[resize], weights_x, weights_y, params.confidence)
            for what, (estimate, spread) in found.items():
                numbers[f"{what}{ending}_{name}"] = estimate
                draws[f"{what}{ending}_{name}"] = spread
    ratio = numbers["kid_tuned"].value / numbers["kid_base"].value
    numbers["kid_ratio"] = between(ratio, draws["kid_tuned"] / draws["kid_base"], params.confidence)
    gain = numbers["fid_base"].value - numbers["fid_tuned"].value
    numbers["fid_gain"] = around(gain, draws["fid_base"] - draws["fid_tuned"], params.confidence)
    return numbers


def _distances(
    fake: np.ndarray, real: np.ndarray, weights_x: np.ndarray, weights_y: np.ndarray, confidence: float
) -> dict[str, tuple[Estimate, np.ndarray]]:
    """One generator against the real faces: name to (estimate, bootstrap draws)."""
    width = fake.shape[1]
    x, y = frechet.compact(fake, real)
    found: dict[str, tuple[Estimate, np.ndarray]] = {}
    for name, fid in (("fid", frechet.fid_influence(x, y)), ("fid_infinity", frechet.fid_infinity(x, y, 0))):
        draws = fid.draws(weights_x, weights_y)
        found[name] = around(fid.value, draws, confidence), draws
    draws = frechet.kid_draws(x, y, weights_x, weights_y, width)
    found["kid"] = around(frechet.kid_subsets(fake, real, 0), draws, confidence), draws
    found["kid_full"] = around(frechet.kid(fake, real), draws, confidence), draws
    strays = neighbours.spread(x, y, len(weights_x), 0)
    for name, values in neighbours.scores(x, y).items():
        draws = values.mean() + strays[name]
        e, most = around(float(values.mean()), draws, confidence), np.inf if name == "density" else 1.0
        found[name] = Estimate(e.value, max(e.low, 0.0), min(e.high, most)), draws
    return found


def table_csv(numbers: dict[str, Estimate], images: int, real: int) -> bytes:
    """All numbers as CSV: name, value, low, high, fakes, real."""
    rows = [{"name": name, "value": e.value, "low": e.low, "high": e.high, "fakes": images, "real": real}
            for name, e in numbers.items()]  # fmt: skip
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()


def measure(
    generator: Path, base: Path, heldout: Path, inception: Path, out: Path, params: FidParams
) -> dict[str, float]:
    """Write table.csv and sheet.png to the folder `out`; return the few numbers of the metrics file.

    Raises StylebotError for too few held-out faces and a generator smaller than they are.
    """
    where, data = device(), Dataset(heldout)
    generators = {"tuned": load_generator(generator, where), "base": load_generator(base, where)}
    _check(generators, data)
    network = Inception(inception, where)
    resizes = ("clean", "legacy") if params.legacy else ("clean",)
    real = remembered(network, read_batches(data), resizes, data.fingerprint)
    same = params.model_dump(include={"images", "psi", "noise_mode", "seed"}) | {"side": data.resolution}
    fakes = {}
    for name, g in generators.items():
        pictures = _fakes(g, params, data.resolution, f"{name} faces")
        fakes[name] = remembered(network, pictures, resizes, weights_sha256(g), **same)
    numbers = compare(fakes, real, params)
    write_bytes(out / "table.csv", table_csv(numbers, params.images, len(data)))
    _write_sheet(out / "sheet.png", generators, data, params)
    metrics = {name: numbers[name].value for name in _METRICS}
    for name in _METRICS_WITH_INTERVAL:
        metrics |= {f"{name}_low": numbers[name].low, f"{name}_high": numbers[name].high}
    return metrics


def _write_sheet(path: Path, generators: dict[str, Generator], heldout: Dataset, params: FidParams) -> None:
    """Three rows: held-out real faces, fine-tuned and base faces of the same seeds."""
    real = np.linspace(0, len(heldout) - 1, min(_COLUMNS, len(heldout))).round().astype(int)
    pictures = [np.broadcast_to(heldout.read(i), (3, heldout.resolution, heldout.resolution)) for i in real]
    captions = ["real, held out"] * len(pictures)
    seeds = range(params.seed, params.seed + len(pictures))
    for name, g in generators.items():
        pictures += list(render(g, seeds, params.psi, noise_mode=params.noise_mode).cpu().numpy())
        captions += [f"{name}, seed {seed}" for seed in seeds]
    title = f"Held-out faces, fine-tuned and base generator (psi {params.psi:g})"
    sheet = contact_sheet([p.transpose(1, 2, 0) for p in pictures], len(real), captions, title=title)
    write_bytes(path, encode(sheet, ".png", {}, AMONG))
