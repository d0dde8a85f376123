"""Stage `audit`: are generated faces new people, or copies of the training set?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from rich.progress import track

from stylebot.dataset import Dataset
from stylebot.dist import device
from stylebot.faces import Identity
from stylebot.features import read_batches, remembered
from stylebot.files import sha256_file, write_bytes
from stylebot.inception import Inception, features_of
from stylebot.likeness import (
    Nearest,
    Thresholds,
    calibrate,
    luminance,
    nearest,
    pairs_apart,
    people_made,
    prepare,
    share,
)
from stylebot.lookalikes import as_rgb, embed, people_of, save_limits
from stylebot.params import Section
from stylebot.provenance import AMONG, encode
from stylebot.render import load_generator, stream
from stylebot.resemblance import SHARES, Look, feature_distances, hash_bits, hashes, nearest_by, rows_of
from stylebot.sheets import contact_sheet

_BATCH = 16
_WORST = 32
_COLUMNS = 8


class AuditParams(Section):
    """Section `audit` of params.yaml."""

    images: int = Field(ge=10, le=100_000)
    psi: float = Field(gt=0, le=1)
    seed: int = Field(ge=0, le=2**31)
    false_match_rate: float = Field(gt=0, le=0.05)
    same_person_distance: float = Field(gt=0, lt=1.5)
    max_copies: float = Field(ge=0, le=1)
    inception: bool


def generate(path: Path, params: AuditParams) -> list[np.ndarray]:
    """The generated faces, each [R, R, 3] uint8."""
    seeds = range(params.seed, params.seed + params.images)
    batches = stream(load_generator(path, device()), seeds, _BATCH, psi=params.psi)
    steps = track(batches, "generated faces", -(-params.images // _BATCH))
    return [rgb for part in steps for rgb in part.permute(0, 2, 3, 1).cpu().numpy()]


def table_of(found: dict[str, Nearest], limits: Thresholds, fixed: float) -> pd.DataFrame:
    """Shares with intervals and quantiles of distances: name, faces, value, low, high.

    found: by kind of face ("generated", "heldout"), each face against its nearest training face. "strangers":
    any two different people of the training set, the baseline of both.
    """
    rows = []
    for kind, near in found.items():
        hits = {"same_person": near.identity < limits.identity, "same_person_fixed": near.identity < fixed,
                "same_picture": near.picture < limits.picture, "copies": near.copy}  # fmt: skip
        rows += [(name, kind, *share(values)) for name, values in hits.items()]
        for name, values in (("identity_distance", near.identity), ("picture_distance", near.picture)):
            rows.append((name, kind, *np.quantile(values, SHARES)))
    for name, chance in (("identity_distance", limits.by_identity), ("picture_distance", limits.by_picture)):
        between = np.interp(SHARES, chance.probabilities, chance.distances)
        rows.append((name, "strangers", *between))
    return pd.DataFrame(rows, columns=["name", "faces", "value", "low", "high"])


def worst_sheet(
    generated: Sequence[np.ndarray], train: Sequence[np.ndarray], near: Nearest, seeds: range, path: Path
) -> None:
    """The generated faces nearest to a training face, each beside it: copies first, then by identity."""
    order = np.lexsort((near.identity, ~near.copy))[:_WORST]
    cells, captions = [], []
    for i in order:
        cells += [generated[i], train[near.copy_at[i]]]
        verdict = "copy" if near.copy[i] else "new"
        captions += [f"seed {seeds[i]}: {verdict}", f"nearest, distance {near.identity[i]:.2f}"]
    sheet = contact_sheet(cells, _COLUMNS, captions, title="Generated face | nearest training face")
    write_bytes(path, encode(sheet, ".png", {}, AMONG))


def second_looks(
    pictures: dict[str, list[np.ndarray]], inception: Path | None, real: dict[str, Dataset]
) -> list[Look]:
    """Perceptual hashes of all pictures, and with `inception` features; those of `real` are remembered."""
    looks = [Look("hash_bits", {kind: hashes(rgbs) for kind, rgbs in pictures.items()}, hash_bits)]
    if inception is None:
        return looks
    network = Inception(inception, device())
    known = {kind: remembered(network, read_batches(data), ("clean",), data.fingerprint)["clean"]
             for kind, data in real.items()}  # fmt: skip
    made = torch.from_numpy(np.stack(pictures["generated"])).permute(0, 3, 1, 2)
    batches = track(made.split(_BATCH), "Inception: generated faces", -(-len(made) // _BATCH))
    known["generated"] = features_of(network, batches)["clean"]
    return [*looks, Look("inception_distance", known, feature_distances)]


def audit(
    generator: Path, dataset: Path, heldout: Path, faces: Path, identity: Path, inception: Path, out: Path,
    params: AuditParams,
) -> dict[str, float]:  # fmt: skip
    """Write table.csv, nearest.csv, pairs.png and limits.npz to the folder `out`; return the metrics.

    A verdict is a number (audit_ok, 1 or 0), not a failure: the pipeline goes on to the report.
    Raises StylebotError for a training set too small to calibrate by and tables of another dataset.
    """
    training, held = Dataset(dataset), Dataset(heldout)
    people = people_of(faces, training)
    model, sha256 = Identity(identity), sha256_file(identity)
    pictures = {"training": as_rgb(training), "heldout": as_rgb(held)}
    pictures["generated"] = generate(generator, params)
    grey = {kind: np.stack([luminance(rgb) for rgb in rgbs]) for kind, rgbs in pictures.items()}
    known = {}
    for kind, rgbs in pictures.items():
        who = embed(model, sha256, rgbs, f"who: {kind} faces", keep=kind != "generated")
        known[kind] = prepare(grey[kind], who, grey["training"].mean(0))
    limits = calibrate(known["training"], people, params.false_match_rate)
    save_limits(out / "limits.npz", limits, training.fingerprint, sha256)
    found = {kind: nearest(known[kind], known["training"], limits) for kind in ("generated", "heldout")}
    near, seeds = found["generated"], range(params.seed, params.seed + params.images)
    worst_sheet(pictures["generated"], pictures["training"], near, seeds, out / "pairs.png")
    table = table_of(found, limits, params.same_person_distance)
    real = {"training": training, "heldout": held}
    looks = second_looks(pictures, inception if params.inception else None, real)
    different = pairs_apart(people)
    each = _each(near, seeds, training.names)
    for look in looks:
        by_kind = {kind: nearest_by(look, kind) for kind in found}
        for row in rows_of(look, {kind: distances for kind, (distances, _) in by_kind.items()}, different):
            table.loc[len(table)] = row
        distances, at = by_kind["generated"]
        each |= {look.name: distances, f"{look.name}_file": [training.names[i] for i in at]}
    table.loc[len(table)] = ["people", "generated", *people_made(known["generated"], limits.identity)]
    write_bytes(out / "table.csv", _csv(table))
    nearest_first = pd.DataFrame(each).sort_values(["copy", "identity_distance"], ascending=[False, True])
    write_bytes(out / "nearest.csv", _csv(nearest_first))
    return metrics_of(table, limits, params.max_copies)


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format="%.5g", lineterminator="\n").encode()


def _each(near: Nearest, seeds: range, names: list[str]) -> dict[str, object]:
    """Columns with one number or name per generated face."""
    return {"seed": list(seeds), "copy": near.copy.astype(int), "identity_distance": near.identity,
            "identity_file": [names[i] for i in near.identity_at], "picture_distance": near.picture,
            "picture_file": [names[i] for i in near.picture_at]}  # fmt: skip


def metrics_of(table: pd.DataFrame, limits: Thresholds, max_copies: float) -> dict[str, float]:
    """The few numbers of the metrics file; audit_ok is 1 when the share of copies is within max_copies.

    audit_people ends at 1 / rate: where chance alone matches so many pairs, more people cannot be told.
    """
    rows = table.set_index(["name", "faces"])
    copies = rows.loc[("copies", "generated")]
    return {
        "audit_ok": int(copies["value"] <= max_copies),
        "audit_copies": float(copies["value"]),
        "audit_copies_high": float(copies["high"]),
        "audit_same_person": float(rows.loc[("same_person", "generated"), "value"]),
        "audit_same_person_heldout": float(rows.loc[("same_person", "heldout"), "value"]),
        "audit_threshold": limits.identity,
        "audit_people": float(min(rows.loc[("people", "generated"), "value"], 1 / limits.rate)),
    }
