"""Stage `filter`: which aligned faces are good enough, with every reason against the others."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from rich.console import Console

from stylebot import identities, quality
from stylebot.consent import barred
from stylebot.crops import AlignedFaces
from stylebot.duplicates import best_of_groups, correlation, duplicate_groups
from stylebot.errors import StylebotError
from stylebot.files import Memo, atomic, sha256_file
from stylebot.fivepoints import POINTS
from stylebot.inspection import Inspection, inspect
from stylebot.limits import Thresholds, margins, nearest, refusals
from stylebot.lineups import Sheets, write_sheets
from stylebot.params import Section
from stylebot.parquet import read_table
from stylebot.workers import Crash


class FilterParams(Section):
    """Section `filter` of params.yaml. Sources other than `id` are held to the thresholds of `celebrity`."""

    consent: Literal["required", "optional"]
    identity_distance: float = Field(gt=0, lt=2)
    identity_contrast: float = Field(gt=0, lt=2)
    duplicate_bits: int = Field(ge=0, le=32)
    duplicate_correlation: float = Field(gt=0, le=1)
    max_per_identity: int | None = Field(ge=1)
    target_faces: int | None = Field(ge=1)
    sheet_faces: int = Field(ge=1, le=2000)
    celebrity: Thresholds
    id: Thresholds

    def thresholds(self, source: str) -> Thresholds:
        """The limits for a source: `id` has its own, every other one is a folder of photos in the wild."""
        return self.id if source == "id" else self.celebrity


RANKED = ("face_score", "scale", "pad_fraction", "yaw_deg", "pitch_deg", "sharpness_db", "worst_direction_db",
          "noise", "blockiness", "highlight", "over_exposed", "dynamic_bits", "light_stops",
          "colour_cast", "eyes_open", "skin_share")
_FROM_ALIGN = ("det_score", "second_area_ratio", "scale", "pad_fraction", "roll_deg")
_CARRIED = ("face_id", "source", "photo", "sha256", "qsize_px", "grey")
NO_CONSENT = "no_consent"
_UNJUDGED = (*quality.BY_68_POINTS[:-1], "head_share")


def recognisable(scores: dict[str, float]) -> float:
    """How surely a recogniser will know this face, 0-100, from component scores; not how good a picture is.

    The mean of the detector's confidence and of sharpness, alone among all components to tell whose faces are
    mistaken: `bench/discard.py` measures how well. Ours.
    """
    return (scores["face_score"] + scores["sharpness_db"]) / 2


def _measured(rows: Sequence[dict], inspected: Sequence[Inspection | Crash],
              params: FilterParams, without: Collection[tuple[str, str]]) -> pd.DataFrame:
    """One row per face: carried columns, native values, scores, overall score and reasons of its own."""
    table = []
    for row, found in zip(rows, inspected, strict=True):
        out = {name: row[name] for name in _CARRIED}
        first = [NO_CONSENT] if (row["source"], row["photo"]) in without else []
        if isinstance(found, Crash):
            table.append(out | {"score": 0.0, "identity_score": 0.0, "reasons": [*first, "unmeasured"],
                                "margin": np.nan, "nearest_limit": "", "limit": np.nan})
            continue
        values = {name: float(row[name]) for name in _FROM_ALIGN} | found.measures
        scores = {name: quality.score(name, values[name]) for name in quality.SCALES}
        grey, limits = bool(row["grey"]), params.thresholds(row["source"])
        ranked = {name: scores[name] for name in RANKED}
        inside = margins(values, grey, limits)
        which, margin = nearest(inside)
        table.append(out | values | {f"score_{name}": value for name, value in scores.items()} | {
            "score": quality.overall(ranked), "identity_score": recognisable(ranked),
            "reasons": first + refusals(inside, grey, limits),
            "margin": margin, "nearest_limit": which, "limit": getattr(limits, which) if which else np.nan})
    return pd.DataFrame(table)


def _mark_duplicates(faces: pd.DataFrame, inspected: Sequence[Inspection],
                     params: FilterParams) -> tuple[list[str], list[float]]:
    """For each face the id of the copy that stays, or "", and how well the two correlate, or NaN.

    The best-scored one that passes stays, if any does. Copies score nearly alike, so their size in the photo
    speaks too: twice the side counts 2 points.
    """
    hashes = np.array([found.hash for found in inspected], np.uint64)
    mirrored = np.array([found.mirrored for found in inspected], np.uint64)
    prints = np.stack([found.fingerprint for found in inspected])
    groups = duplicate_groups(hashes, mirrored, prints, params.duplicate_bits, params.duplicate_correlation)
    worth = faces["score"] + 2 * np.log2(faces["qsize_px"]) + 1000 * (faces["reasons"].map(len) == 0)
    best = best_of_groups(groups, worth)
    ids = faces["face_id"].tolist()
    alike = [np.nan if best[i] == i else correlation(prints[best[i]], prints[i]) for i in range(len(ids))]
    return ["" if best[i] == i else ids[best[i]] for i in range(len(ids))], alike


def _limit_numbers(faces: pd.DataFrame, params: FilterParams) -> None:
    """Refuse, worst-scored first, accepted faces beyond the cap per identity and beyond the wanted number."""
    order = faces.index[faces["reasons"].map(len) == 0]
    order = faces.loc[order].sort_values(["score", "face_id"], ascending=[False, True]).index
    taken: Counter = Counter()
    for index in order:
        identity = faces.at[index, "identity"]
        if params.max_per_identity is not None and taken[identity] >= params.max_per_identity:
            faces.at[index, "reasons"] = ["identity_cap"]
        elif params.target_faces is not None and taken.total() >= params.target_faces:
            faces.at[index, "reasons"] = ["surplus"]
        else:
            taken[identity] += 1


def _people(embeddings: np.ndarray, photos: Sequence[str], params: FilterParams) -> np.ndarray:
    """`identities.cluster`, remembered for exactly these faces: its time grows with their number squared."""
    memo = Memo("filter", {"distance": params.identity_distance, "contrast": params.identity_contrast,
                           "code": sha256_file(Path(identities.__file__)), "scipy": version("scipy")})
    key = hashlib.sha256(embeddings.tobytes() + "\0".join(photos).encode()).hexdigest()
    known = memo.get(key)
    if known is None:
        known = identities.cluster(embeddings, photos, params.identity_distance,
                                   params.identity_contrast).astype("<i8").tobytes()
        memo.put(key, known)
    return np.frombuffer(known, "<i8")


def judge(rows: Sequence[dict], inspected: Sequence[Inspection | Crash], params: FilterParams,
          without: Collection[tuple[str, str]] = ()) -> pd.DataFrame:
    """The verdict on every face of the align table's `rows`, in their order.

    without: (source, photo) of photos that may not be used, whatever their quality (see stylebot.consent)
    Identity is never a reason by itself: it groups faces, and counts only against the cap per identity.
    Columns: see `_measured`, and identity (-1: not measured), duplicate_of, duplicate_correlation, accepted.
    """
    faces = _measured(rows, inspected, params, without)
    good = [i for i, found in enumerate(inspected) if isinstance(found, Inspection)]
    identity, copies, alike = np.full(len(rows), -1), [""] * len(rows), np.full(len(rows), np.nan)
    if good:
        found = [inspected[i] for i in good]
        photos = [f"{rows[i]['source']}/{rows[i]['photo']}" for i in good]
        identity[good] = _people(np.stack([f.embedding for f in found]), photos, params)
        marked, alike[good] = _mark_duplicates(faces.iloc[good], found, params)
        for i, copy in zip(good, marked, strict=True):
            copies[i] = copy
    faces["identity"] = identity
    faces["duplicate_of"] = copies
    faces["duplicate_correlation"] = alike
    faces["reasons"] = [reasons + ["duplicate"] * bool(copy)
                        for reasons, copy in zip(faces["reasons"], copies, strict=True)]
    _limit_numbers(faces, params)
    faces["accepted"] = faces["reasons"].map(len) == 0
    return faces


def select(aligned: Path, photos: Path, identity: Path, out: Path, sheets: Sheets,
           params: FilterParams) -> dict[str, float]:
    """Judge every aligned face; write the table and the sheets; return the metrics.

    Raises StylebotError when there are no faces, or a source has none left (after writing table and sheets).
    """
    rows = read_table(aligned / "faces.parquet").to_dict("records")
    if not rows:
        raise StylebotError(f"{aligned}/faces.parquet holds no faces; {aligned}/photos.parquet says why")
    crops = AlignedFaces(aligned)
    files = read_table(aligned / "photos.parquet", columns=["source", "photo", "sha256"])
    without, nowhere = barred(photos, files.itertuples(index=False, name=None), params.consent == "required",
                              date.today())
    if nowhere:
        told = f"{len(nowhere)} rows of consent.csv, such as {nowhere[0]}, name no photo"
        Console(stderr=True, markup=False).print(told)
    faces = judge(rows, inspect(rows, aligned, photos, identity), params, without)
    five = sum(len(row["landmarks"]) == 2 * POINTS for row in rows)
    if five:
        unjudged = ", ".join(_UNJUDGED)
        Console(stderr=True).print(f"{five} faces have 5 landmarks only: {unjudged} are not judged")
    with atomic(out) as part:
        faces.to_parquet(part, index=False)
    write_sheets(faces, rows, crops, sheets, params.sheet_faces)
    for source, group in faces.groupby("source"):
        if not group["accepted"].any():
            counts = Counter(reason for reasons in group["reasons"] for reason in reasons).most_common(4)
            told = ", ".join(f"{reason} {count}" for reason, count in counts)
            section = "id" if source == "id" else "celebrity"
            raise StylebotError(f"no usable face in {source}: all {len(group)} are refused ({told}); look at "
                                f"{sheets.refused} and at filter.{section} in params.yaml")
    kept = faces[faces["accepted"]]
    return {"filter_faces": len(faces), "filter_accepted": len(kept), "filter_share": len(kept) / len(faces),
            "filter_identities": int(kept["identity"].nunique()),
            "filter_duplicates": int((faces["duplicate_of"] != "").sum()),
            "filter_score": float(kept["score"].mean())}
