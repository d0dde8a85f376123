"""Stage `superres`: held-out faces made small, rebuilt through the generator, measured against bicubic."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from pydantic import Field, field_validator
from rich.progress import track

from stylebot import provenance
from stylebot.dataset import Dataset
from stylebot.degrade import Degradation, to_img
from stylebot.dist import device
from stylebot.domains import FEWEST, Domains, People, study
from stylebot.enlarging import (
    BATCH,
    Enlarged,
    Enlarger,
    Mode,
    enlarge,
    load_enlarger,
    psnr_db,
    read_faces,
    rebuild,
    ssim,
)
from stylebot.errors import StylebotError
from stylebot.files import sha256_file, write_bytes
from stylebot.frechet import Estimate
from stylebot.params import Section
from stylebot.perceptual import Perceptual
from stylebot.render import stream
from stylebot.sheets import contact_sheet

METHODS = {"pure": ("bicubic", "result"), "faithful": ("bicubic", "lanczos", "pure", "result")}
MEASURES = ("psnr_db", "ssim", "lpips", "id_distance", "same_person")
_DRAWS = 1000


class SuperresParams(Section):
    """What `superres` reads from params.yaml; explained there."""

    inputs: str = Field(min_length=1)
    mode: Mode
    degradation: Degradation
    factors: list[int] = Field(min_length=1)
    same_person_distance: float = Field(gt=0, lt=2)
    base_faces: int = Field(ge=FEWEST, le=100_000)
    sheet_faces: int = Field(ge=1)
    seed: int = Field(ge=0)

    @field_validator("factors")
    @classmethod
    def _sensible(cls, factors: list[int]) -> list[int]:
        if any(f < 2 or f & (f - 1) for f in factors) or len(set(factors)) < len(factors):
            raise ValueError("factors must be different powers of two from 2 up")
        return sorted(factors)


@dataclass(frozen=True)
class Inputs:
    """Files of the other stages that super-resolution needs; explained in src/superres.py."""

    encoder: Path
    generator: Path
    heldout: Path
    dataset: Path
    base: Path
    perceptual: Path
    identity: Path
    inception: Path


def _hwc(rgbs: torch.Tensor) -> list[np.ndarray]:
    return [np.ascontiguousarray(rgb) for rgb in rgbs.permute(0, 2, 3, 1).numpy()]


@torch.no_grad()
def compare(rgbs: torch.Tensor, wanted: torch.Tensor, who: np.ndarray, wanted_who: np.ndarray,
            perceptual: Perceptual, same_person_distance: float) -> dict[str, np.ndarray]:  # fmt: skip
    """Each of MEASURES [N] between `rgbs` and the originals `wanted` [N,3,R,R] uint8.

    who, wanted_who [N,128]: embeddings of the two.
    """
    pairs = [(to_img(a.to(device())), to_img(b.to(device())))
             for a, b in zip(rgbs.split(BATCH), wanted.split(BATCH), strict=True)]
    found = {name: torch.cat([measure(a, b) for a, b in pairs]).cpu().numpy().astype(np.float64)
             for name, measure in (("psnr_db", psnr_db), ("ssim", ssim), ("lpips", perceptual))}
    found["id_distance"] = np.linalg.norm(who - wanted_who, axis=1)
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


def _chosen(count: int, most: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(most, count)).round().astype(int)


def _lines(e: Enlarged, wanted: torch.Tensor, count: int,
           methods: Sequence[str]) -> list[dict[str, np.ndarray]]:  # fmt: skip
    """Of at most `count` faces the pictures [R,R,3] uint8 that stand side by side, by name."""
    some = _chosen(len(wanted), count)
    pixels = [rgb.repeat(e.factor, 0).repeat(e.factor, 1) for rgb in _hwc(e.small[some])]
    made = {method: _hwc(getattr(e, method)[some]) for method in methods}
    columns = {"given": pixels, **made, "original": _hwc(wanted[some])}
    return [{name: rgbs[i] for name, rgbs in columns.items()} for i in range(len(some))]


def write_rows(path: Path, rgbs: Sequence[np.ndarray], columns: int = 4) -> None:
    """Pictures [R,R,3] uint8, so many to a row, edge to edge: what the report cuts apart again."""
    rows = [np.concatenate(rgbs[i : i + columns], axis=1) for i in range(0, len(rgbs), columns)]
    picture = Image.fromarray(np.concatenate(rows))
    write_bytes(path, provenance.encode(picture, ".png", {}, provenance.AMONG))


def _write_sheet(path: Path, rgbs: Sequence[np.ndarray], captions: Sequence[str], columns: int,
                 title: str) -> None:  # fmt: skip
    sheet = contact_sheet(rgbs, columns, captions, cell_px=128, title=title)
    write_bytes(path, provenance.encode(sheet, ".png", {}, provenance.AMONG))


def _check(res: int, data: Dataset, params: SuperresParams) -> None:
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
            for f in sorted(set(table["factor"])) for how in ("bicubic", "result") for m in short}


def drift_of(
    domains: Domains,
    who: dict[tuple[int, str], np.ndarray],
    wanted_who: np.ndarray,
    enlarged: Sequence[Enlarged],
    wanted: torch.Tensor,
    params: SuperresParams,
) -> dict[str, Estimate]:
    """Drift towards the base domain by name, of each factor and method, and KID of each factor's results.

    who [N,128]: embeddings by factor and method; wanted_who: of the originals. Without a ruler that tells the
    domains apart there is no drift to speak of, and the run says so.
    """
    found = {}
    if domains.clear:
        for (factor, how), faces in who.items():
            name = f"superres_drift{'' if how == 'result' else f'_{how}'}_x{factor}"
            found[name] = domains.ruler.drift(wanted_who, faces, params.seed)
    else:
        print(f"superres: drift is left out: the region's faces and the base generator's are told apart in "
              f"{domains.ruler.clear:.0%} of pairs only")  # fmt: skip
    heldout = params.inputs == "heldout"
    for e in enlarged:
        kids = domains.kids(domains.features(e.result), params.seed, twins=heldout)
        found[f"superres_kid_x{e.factor}"] = kids["region"]
        found[f"superres_kid_base_x{e.factor}"] = kids["base"]
    if not heldout:  # were the pictures nearer to the region before?
        before = domains.kids(domains.features(wanted), params.seed, twins=False)
        found["superres_kid_given"] = before["region"]
    return found


def _drift_csv(found: dict[str, Estimate], clear: float, faces: int) -> bytes:
    """Name, value, low, high, faces; the last row has no interval."""
    rows = [{"name": name, "value": e.value, "low": e.low, "high": e.high, "faces": faces}
            for name, e in found.items()]
    rows.append({"name": "superres_domains_clear", "value": clear, "low": None, "high": None, "faces": faces})
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.5g", lineterminator="\n").encode()


def _own(networks: Enlarger, generator: Path, out: Path, params: SuperresParams) -> dict[str, float]:
    """Rebuild the pictures of a folder as they are; there is no original to measure by."""
    faces = read_faces(Path(params.inputs))
    found, facts = rebuild(list(faces.values()), networks), {"Software": "Stylebot"}
    facts["Model"] = sha256_file(generator)
    cells, captions = [], []
    for i, name in enumerate(faces):
        row = [_hwc(picture[i : i + 1])[0] for picture in (found.small, found.bicubic, found.result)]
        made = provenance.encode(Image.fromarray(row[2]), ".png", facts, provenance.IMITATION)
        write_bytes(out / "results" / f"{name}.png", made)
        cells += row
        captions += [f"{name}: {len(faces[name])} px given", "bicubic", "result"]
    shown = [c for i in _chosen(len(faces), params.sheet_faces) for c in range(3 * i, 3 * i + 3)]
    cells, captions = [cells[c] for c in shown], [captions[c] for c in shown]
    write_rows(out / "rows_own.png", cells, columns=3)
    _write_sheet(out / "sheet.png", cells, captions, 3, "Faces of a folder, super-resolved")
    return {"superres_pictures": len(faces)}


def superres(inputs: Inputs, out: Path, params: SuperresParams) -> dict[str, float]:
    """Write sheet.png, rows_x*.png, table.csv and drift.csv to the folder `out` and return the metrics.

    With superres.inputs a folder: results/, sheet.png and rows_own.png.
    Raises: StylebotError for an encoder, a generator and faces that do not fit each other, for too few faces
    and for a picture of the folder that cannot be read.
    """
    networks = load_enlarger(inputs.encoder, inputs.generator, params.degradation, params.seed, params.mode)
    if params.inputs not in ("heldout", "generated"):
        return _own(networks, inputs.generator, out, params)
    data = Dataset(inputs.heldout)
    _check(networks.decoder.img_resolution, data, params)
    people = People(inputs.identity)
    domains = study(Dataset(inputs.dataset), data, inputs.base, inputs.inception, people, params.base_faces)
    distance, wanted = Perceptual(inputs.perceptual).to(device()), torch.from_numpy(data.read_all())
    if params.inputs == "generated":
        seeds = range(params.seed, params.seed + len(data))
        wanted = torch.cat([rgb.cpu() for rgb in stream(networks.decoder, seeds, BATCH, noise_mode="random")])
    wanted_who = people.embed(_hwc(wanted), "originals", keep=params.inputs == "heldout")
    enlarged, found, who, methods = [], [], {}, METHODS[params.mode]
    for factor in track(params.factors, description="superres"):
        enlarged.append(enlarge(wanted, factor, networks))
        for method in methods:
            rgbs = getattr(enlarged[-1], method)
            who[factor, method] = people.embed(_hwc(rgbs), f"{method} x{factor}", keep=False)
            found.append((factor, method, compare(rgbs, wanted, who[factor, method], wanted_who, distance,
                                                  params.same_person_distance)))  # fmt: skip
    table = table_of(found, params.seed)
    drift = drift_of(domains, who, wanted_who, enlarged, wanted, params)
    write_bytes(out / "table.csv", table.to_csv(index=False, float_format="%.5g").encode())
    write_bytes(out / "drift.csv", _drift_csv(drift, domains.ruler.clear, len(wanted)))
    rgbs, captions = [], []
    for e in enlarged:
        lines = _lines(e, wanted, params.sheet_faces, methods)
        told = {"given": f"x{e.factor}: {e.small.shape[3]} px given"}
        told |= {"result": "faithful"} if params.mode == "faithful" else {}
        rgbs += [rgb for line in lines for rgb in line.values()]
        captions += [told.get(name, name) for line in lines for name in line]
        few = ("given", *METHODS["pure"], "original")
        write_rows(out / f"rows_x{e.factor}.png", [line[name] for line in lines for name in few])
    kind = "Held-out" if params.inputs == "heldout" else "Generated"
    _write_sheet(out / "sheet.png", rgbs, captions, len(methods) + 2, f"{kind} faces, super-resolved")
    smaller = "|".join(f"kid_x{f}|kid_base_x{f}" for f in params.factors[:-1])  # in drift.csv alone
    left_out = "_(bicubic|lanczos|pure)_" + (f"|_({smaller})$" if smaller else "")
    own = {name: e.value for name, e in drift.items() if not re.search(left_out, name)}
    return metrics_of(table) | own
