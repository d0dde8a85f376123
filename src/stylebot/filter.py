"""Stage `filter`: which aligned faces are good enough, with every reason against the others."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from stylebot import quality
from stylebot.consent import barred
from stylebot.crops import AlignedFaces
from stylebot.duplicates import best_of_groups, duplicate_groups
from stylebot.errors import StylebotError
from stylebot.files import atomic
from stylebot.identities import cluster
from stylebot.inspection import Inspection, inspect
from stylebot.params import Section
from stylebot.sheets import contact_sheet
from stylebot.workers import Crash

Limit = float | None  # None: this limit is off


class Thresholds(Section):
    """Limits on native values for the faces of one source; None turns a limit off."""

    min_det_score: Limit
    max_second_area_ratio: Limit
    max_scale: Limit
    max_pad_fraction: Limit
    max_yaw_deg: Limit
    max_pitch_deg: Limit
    max_roll_deg: Limit
    min_sharpness_db: Limit
    min_worst_direction_db: Limit
    max_noise: Limit
    max_blockiness: Limit
    min_luminance: Limit
    max_luminance: Limit
    max_under_exposed: Limit
    max_over_exposed: Limit
    min_dynamic_bits: Limit
    max_light_stops: Limit
    max_colour_cast: Limit
    min_eyes_open: Limit
    max_mouth_open: Limit
    min_skin_share: Limit
    min_background: Limit
    max_background_std: Limit
    min_head_share: Limit
    max_head_share: Limit
    grey: bool


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


REASONS = {
    "det_score": "low_confidence", "second_area_ratio": "several_faces", "scale": "face_too_small",
    "pad_fraction": "padded", "yaw_deg": "pose", "pitch_deg": "pose", "roll_deg": "pose",
    "sharpness_db": "blurred", "worst_direction_db": "blurred", "noise": "noisy", "blockiness": "compressed",
    "luminance": "dark", "under_exposed": "dark", "over_exposed": "bright", "dynamic_bits": "low_contrast",
    "light_stops": "uneven_light", "colour_cast": "colour_cast", "eyes_open": "eyes_closed",
    "mouth_open": "mouth_open", "skin_share": "occluded", "background": "background",
    "background_std": "background", "head_share": "head_size",
}
_ABOVE = {"luminance": "bright"}  # components with limits on both sides whose upper one has another name
RANKED = ("det_score", "scale", "pad_fraction", "yaw_deg", "pitch_deg", "sharpness_db", "worst_direction_db",
          "noise", "blockiness", "luminance", "under_exposed", "over_exposed", "dynamic_bits", "light_stops",
          "colour_cast", "eyes_open", "skin_share")
_FROM_ALIGN = ("det_score", "second_area_ratio", "scale", "pad_fraction", "roll_deg")
_CARRIED = ("face_id", "source", "photo", "sha256", "qsize_px", "grey")
_WIDTHS = {"background": 20.0, "background_std": 10.0, "head_share": 0.05}  # of components without a score
NO_CONSENT = "no_consent"


def refusals(values: Mapping[str, float], grey: bool, limits: Thresholds) -> list[str]:
    """Every reason to refuse a face with native `values`, worst first; empty when it passes.

    How bad: the distance beyond the limit in widths of the component's score (`quality.SCALES`). A grey photo
    has no colour to cast. Ours.
    """
    excess: dict[str, float] = {}
    for name, reason in REASONS.items():
        if grey and name == "colour_cast":
            continue
        size = abs(values[name]) if name.endswith("_deg") else values[name]
        width = quality.SCALES[name].width if name in quality.SCALES else _WIDTHS[name]
        low, high = getattr(limits, f"min_{name}", None), getattr(limits, f"max_{name}", None)
        if low is not None and size < low:
            excess[reason] = max(excess.get(reason, 0.0), (low - size) / width)
        if high is not None and size > high:
            above = _ABOVE.get(name, reason)
            excess[above] = max(excess.get(above, 0.0), (size - high) / width)
    if grey and not limits.grey:
        excess["grey"] = 1.0
    return sorted(excess, key=lambda reason: (-excess[reason], reason))


def _measured(rows: Sequence[dict], inspected: Sequence[Inspection | Crash],
              params: FilterParams, without: Collection[tuple[str, str]]) -> pd.DataFrame:
    """One row per face: carried columns, native values, scores, overall score and reasons of its own."""
    table = []
    for row, found in zip(rows, inspected, strict=True):
        out = {name: row[name] for name in _CARRIED}
        first = [NO_CONSENT] if (row["source"], row["photo"]) in without else []
        if isinstance(found, Crash):
            table.append(out | {"score": 0.0, "reasons": [*first, "unmeasured"]})
            continue
        values = {name: float(row[name]) for name in _FROM_ALIGN} | found.measures
        scores = {name: quality.score(name, values[name]) for name in quality.SCALES}
        reasons = first + refusals(values, bool(row["grey"]), params.thresholds(row["source"]))
        table.append(out | values | {f"score_{name}": value for name, value in scores.items()} | {
            "score": quality.overall({name: scores[name] for name in RANKED}), "reasons": reasons})
    return pd.DataFrame(table)


def _mark_duplicates(faces: pd.DataFrame, inspected: Sequence[Inspection], rows: Sequence[dict],
                     crops: AlignedFaces, params: FilterParams) -> list[str]:
    """For each face the id of the copy that stays, or "": the best-scored one that passes, if any does.

    Copies score nearly alike, so their size in the photo speaks too: twice the side counts 2 points.
    """
    hashes = np.array([found.hash for found in inspected], np.uint64)
    mirrored = np.array([found.mirrored for found in inspected], np.uint64)
    groups = duplicate_groups(hashes, mirrored, lambda i: crops.rgb(rows[i]), params.duplicate_bits,
                              params.duplicate_correlation)
    worth = faces["score"] + 2 * np.log2(faces["qsize_px"]) + 1000 * (faces["reasons"].map(len) == 0)
    best = best_of_groups(groups, worth)
    ids = faces["face_id"].tolist()
    return ["" if best[i] == i else ids[best[i]] for i in range(len(ids))]


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


def judge(rows: Sequence[dict], inspected: Sequence[Inspection | Crash], crops: AlignedFaces,
          params: FilterParams, without: Collection[tuple[str, str]] = ()) -> pd.DataFrame:
    """The verdict on every face of the align table's `rows`, in their order.

    without: (source, photo) of photos that may not be used, whatever their quality (see stylebot.consent)
    Identity is never a reason by itself: it groups faces, and counts only against the cap per identity.
    Columns: see `_measured`, and identity (-1: not measured), duplicate_of, accepted.
    """
    faces = _measured(rows, inspected, params, without)
    good = [i for i, found in enumerate(inspected) if isinstance(found, Inspection)]
    identity, copies = np.full(len(rows), -1), [""] * len(rows)
    if good:
        found = [inspected[i] for i in good]
        photos = [f"{rows[i]['source']}/{rows[i]['photo']}" for i in good]
        identity[good] = cluster(np.stack([f.embedding for f in found]), photos, params.identity_distance,
                                 params.identity_contrast)
        marked = _mark_duplicates(faces.iloc[good], found, [rows[i] for i in good], crops, params)
        for i, copy in zip(good, marked, strict=True):
            copies[i] = copy
    faces["identity"] = identity
    faces["duplicate_of"] = copies
    faces["reasons"] = [reasons + ["duplicate"] * bool(copy)
                        for reasons, copy in zip(faces["reasons"], copies, strict=True)]
    _limit_numbers(faces, params)
    faces["accepted"] = faces["reasons"].map(len) == 0
    return faces


def _spread(faces: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows, evenly over all of them, first and last included."""
    if len(faces) <= most:
        return faces
    return faces.iloc[np.unique(np.linspace(0, len(faces) - 1, most).round().astype(int))]


def write_sheets(faces: pd.DataFrame, rows: Sequence[dict], crops: AlignedFaces, accepted: Path,
                 refused: Path, most: int) -> None:
    """Contact sheets: accepted faces, best first; refused faces by their worst reason, with all reasons."""
    by_id = {(row["source"], row["face_id"]): row for row in rows}
    good = faces[faces["accepted"]].sort_values(["score", "face_id"], ascending=[False, True])
    bad = faces[~faces["accepted"]].copy()
    bad["first"] = [reasons[0] for reasons in bad["reasons"]]
    bad = bad.sort_values(["first", "score", "face_id"])
    for path, kind, part in ((accepted, "Accepted", good), (refused, "Refused", bad)):
        shown = _spread(part, most)
        captions = [f"{face.score:.0f} {face.source}" if face.accepted else
                    f"{', '.join(face.reasons)} ({face.score:.0f}, {face.source})"
                    for face in shown.itertuples()]
        rgbs = [crops.rgb(by_id[face.source, face.face_id]) for face in shown.itertuples()]
        order = "best first" if kind == "Accepted" else "by worst reason"
        title = f"{kind}: {len(part)} of {len(faces)} faces, {len(shown)} shown, {order}"
        with atomic(path) as part_path:
            contact_sheet(rgbs, 12, captions, title=title).save(part_path, "PNG")


def select(aligned: Path, photos: Path, identity: Path, out: Path, accepted: Path, refused: Path,
           params: FilterParams) -> dict[str, float]:
    """Judge every aligned face; write the table and both sheets; return the metrics.

    Raises StylebotError when there are no faces, or a source has none left (after writing table and sheets).
    """
    rows = pd.read_parquet(aligned / "faces.parquet").to_dict("records")
    if not rows:
        raise StylebotError(f"{aligned}/faces.parquet holds no faces; {aligned}/photos.parquet says why")
    crops = AlignedFaces(aligned)
    without = barred(photos, {(row["source"], row["photo"]) for row in rows}, params.consent == "required",
                     date.today())
    faces = judge(rows, inspect(rows, aligned, photos, identity), crops, params, without)
    with atomic(out) as part:
        faces.to_parquet(part, index=False)
    write_sheets(faces, rows, crops, accepted, refused, params.sheet_faces)
    for source, group in faces.groupby("source"):
        if not group["accepted"].any():
            counts = Counter(reason for reasons in group["reasons"] for reason in reasons).most_common(4)
            told = ", ".join(f"{reason} {count}" for reason, count in counts)
            section = "id" if source == "id" else "celebrity"
            raise StylebotError(f"no usable face in {source}: all {len(group)} are refused ({told}); look at "
                                f"{refused} and at filter.{section} in params.yaml")
    kept = faces[faces["accepted"]]
    return {"filter_faces": len(faces), "filter_accepted": len(kept), "filter_share": len(kept) / len(faces),
            "filter_identities": int(kept["identity"].nunique()),
            "filter_duplicates": int((faces["duplicate_of"] != "").sum()),
            "filter_score": float(kept["score"].mean())}
