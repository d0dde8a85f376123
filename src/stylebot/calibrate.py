"""The limits of `filter` from faces that a person has labelled: where to put them, and how sure that is."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from stylebot.crops import AlignedFaces
from stylebot.errors import StylebotError
from stylebot.files import atomic
from stylebot.limits import Thresholds, component, reason_of
from stylebot.sheets import contact_sheet

LEAST_LABELS, LEAST_BAD = 100, 10
_BOOTSTRAP, _CANDIDATES, _CONFIDENCE = 1000, 200, 0.95
_COLUMNS = ("face_id", "source", "photo", "score", "reasons", "verdict", "reason")

Interval = tuple[float, float, float]  # value, lower and upper end


@dataclass(frozen=True)
class Fit:
    """A limit as it is and as it fits the labels; precision and recall of refusing bad faces by it."""

    limit: str
    reason: str
    bad: int  # faces that are labelled bad for this reason
    now: float | None
    now_precision: float
    now_recall: float
    best: Interval
    precision: Interval
    recall: Interval


def choose(table: pd.DataFrame, aligned: Path, count: int, out: Path) -> Path:
    """Write OUT.csv with `count` faces to label, evenly over all scores, and a numbered sheet; its path.

    Raises StylebotError rather than overwrite labels.
    """
    if out.exists():
        raise StylebotError(f"{out} exists already: move it away to choose faces anew")
    order = table.sort_values(["score", "face_id"])
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    shown = order.iloc[places]
    with atomic(out) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("number", *_COLUMNS))
        for number, face in enumerate(shown.itertuples(), 1):
            reasons = " ".join(face.reasons)
            writer.writerow(
                (number, face.face_id, face.source, face.photo, f"{face.score:.1f}", reasons, "", "")
            )
    crops, sheet = AlignedFaces(aligned), out.with_suffix(".png")
    rgbs = [crops.rgb({"source": face.source, "face_id": face.face_id}) for face in shown.itertuples()]
    with atomic(sheet) as part:
        captions = [str(number) for number in range(1, len(shown) + 1)]
        contact_sheet(rgbs, 12, captions, title="Faces to label: good or bad?").save(part, "PNG")
    return sheet


def read_labels(path: Path) -> pd.DataFrame:
    """Columns source, face_id, good (bool), reason ("" when not said) of a CSV as `choose` writes it.

    Rows without a verdict are left out. Raises StylebotError for what is no label, with its line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StylebotError(f"{path} cannot be read: {error}") from None
    absent = {"source", "face_id", "verdict", "reason"} - set(rows[0] if rows else ())
    if absent:
        raise StylebotError(f"{path} lacks the columns {', '.join(sorted(absent))}")
    known = {reason_of(limit) for limit in Thresholds.model_fields if limit != "grey"}
    labels = []
    for line, row in enumerate(rows, 2):
        verdict, reason = (row["verdict"] or "").strip().lower(), (row["reason"] or "").strip().lower()
        if not verdict:
            continue
        if verdict not in ("good", "bad"):
            raise StylebotError(f"{path}, line {line}: the verdict is good or bad, not {verdict!r}")
        if reason and (reason not in known or verdict == "good"):
            raise StylebotError(
                f"{path}, line {line}: {reason!r} is no reason of a bad face; there are "
                f"{', '.join(sorted(known))}"
            )
        labels.append((row["source"], row["face_id"], verdict == "good", reason))
    return pd.DataFrame(labels, columns=["source", "face_id", "good", "reason"])


def _shares(refused: np.ndarray, bad: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall [B,T] of refusals bool [T,N] for bad bool [N], with weights [B,N] of the faces.

    Nothing refused counts as precision 1, nobody bad as recall 1.
    """
    hits = weights @ (refused & bad).T.astype(float)
    said, there = weights @ refused.T.astype(float), (weights @ bad.astype(float))[:, None]
    precision = np.where(said > 0, hits / np.maximum(said, 1), 1.0)
    return precision, np.where(there > 0, hits / np.maximum(there, 1), 1.0)


def fit_limit(
    values: np.ndarray, bad: np.ndarray, upper: bool, beta: float, seed: int
) -> tuple[Interval, ...]:
    """(best limit, precision, recall), each with its interval of 95 %, for native values [N], bad bool [N].

    The best limit has the largest F-beta (beta below 1: rather keep a bad face than lose a good one), of
    equally good ones the one that refuses least. Intervals: 1,000 bootstrap samples of the faces, the limit
    fitted anew in each.
    """
    inner = np.unique(values)
    between = (inner[1:] + inner[:-1]) / 2
    places = np.unique(np.linspace(0, len(between) - 1, _CANDIDATES).round().astype(int))
    candidates = between[places] if len(between) else inner
    candidates = candidates[::-1] if upper else candidates  # from what refuses least upwards
    refused = values > candidates[:, None] if upper else values < candidates[:, None]
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=_BOOTSTRAP)
    weights = np.concatenate([np.ones((1, len(values))), drawn])  # the first row: the faces as they are
    precision, recall = _shares(refused, bad, weights)
    weighted = (1 + beta**2) * precision * recall / np.maximum(beta**2 * precision + recall, 1e-9)
    best = weighted.argmax(axis=1)
    each = np.arange(len(weights))
    found = (candidates[best], precision[each, best], recall[each, best])
    ends = ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2)
    return tuple((float(v[0]), *map(float, np.quantile(v[1:], ends))) for v in found)


def fit(faces: pd.DataFrame, limits: Thresholds, beta: float, seed: int = 0) -> list[Fit]:
    """A fit of every limit for whose reason at least `LEAST_BAD` faces are bad.

    faces: the filter table's rows with columns good and reason. Good faces are to pass; faces that are bad
    for another reason say nothing about this one; bad faces without a reason count for none.
    """
    fits = []
    for limit in (name for name in Thresholds.model_fields if name != "grey"):
        name = component(limit)
        reason = reason_of(limit)
        part = faces[(faces["good"] | (faces["reason"] == reason)) & faces[name].notna()]
        bad = ~part["good"].to_numpy(bool)
        if bad.sum() < LEAST_BAD or bad.all():
            continue
        values = part[name].abs().to_numpy() if name.endswith("_deg") else part[name].to_numpy()
        upper, now = limit.startswith("max_"), getattr(limits, limit)
        refused = np.zeros(len(values), bool) if now is None else values > now if upper else values < now
        precision, recall = _shares(refused[None], bad, np.ones((1, len(values))))
        fits.append(
            Fit(
                limit,
                reason,
                int(bad.sum()),
                now,
                float(precision[0, 0]),
                float(recall[0, 0]),
                *fit_limit(values, bad, upper, beta, seed),
            )
        )
    return fits


def calibrate(
    table: pd.DataFrame, labels: pd.DataFrame, limits: Mapping[str, Thresholds], beta: float
) -> dict[str, list[Fit]]:
    """Fits by section of params.yaml (`celebrity`, `id`) that has enough labels.

    table: of stage `filter`; labels: see `read_labels`; limits: those of both sections as they are
    Raises StylebotError when no section has 100 labelled faces, or labels name faces that are not there.
    """
    faces = labels.merge(table, on=["source", "face_id"], how="left", indicator=True)
    gone = faces[faces["_merge"] != "both"]
    if len(gone):
        raise StylebotError(
            f"{len(gone)} labelled faces such as {gone.iloc[0]['face_id']} are not in the "
            "filter table: label what it holds, or run filter on the labelled photos"
        )
    sections = np.where(faces["source"] == "id", "id", "celebrity")
    sizes = {name: int((sections == name).sum()) for name in ("celebrity", "id")}
    if max(sizes.values()) < LEAST_LABELS:
        raise StylebotError(
            f"at least {LEAST_LABELS} labelled faces of one kind are needed; there are "
            f"{sizes['celebrity']} for filter.celebrity, {sizes['id']} for filter.id"
        )
    return {
        name: fit(faces[sections == name], limits[name], beta)
        for name, size in sizes.items()
        if size >= LEAST_LABELS
    }


def report(section: str, fits: Sequence[Fit]) -> Table:
    """The fits of one section for people to read."""
    heads = ("limit", "for", "bad faces", "now", "precision", "recall", "best (95 %)", "precision", "recall")
    shown = Table(*heads, title=f"filter.{section}")
    for one in fits:
        now = "off" if one.now is None else f"{one.now:g}"
        shown.add_row(
            one.limit,
            one.reason,
            str(one.bad),
            now,
            f"{one.now_precision:.2f}",
            f"{one.now_recall:.2f}",
            *("{:.3g} ({:.3g} to {:.3g})".format(*i) for i in (one.best, one.precision, one.recall)),
        )
    return shown
