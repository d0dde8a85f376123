"""Contact sheets of judged faces: accepted, refused by reason, borderline, copies side by side, people."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stylebot.crops import AlignedFaces
from stylebot.files import atomic
from stylebot.limits import component
from stylebot.sheets import contact_sheet

_COLUMNS = 12
_NEAR = 1.0  # widths of a component's score within which a face is borderline: scores of 27 to 73
_BLANK = np.full((8, 8, 3), 255, np.uint8)

Cell = tuple[object | None, str]  # a row of the filter table, None for a blank cell; the caption
_NOBODY: Cell = (None, "")


@dataclass(frozen=True)
class Sheets:
    """Where the five sheets go (PNG)."""

    accepted: Path
    refused: Path
    borderline: Path
    duplicates: Path
    identities: Path


def _spread(faces: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows, evenly over all of them, first and last included."""
    if len(faces) <= most:
        return faces
    return faces.iloc[np.unique(np.linspace(0, len(faces) - 1, most).round().astype(int))]


def _best_first(faces: pd.DataFrame) -> pd.DataFrame:
    return faces.sort_values(["score", "face_id"], ascending=[False, True])


def _fair_share(sizes: Sequence[int], most: int) -> int:
    """The largest number that each group may show so that all together show at most `most`, at least 1."""
    share = max(1, most)
    while share > 1 and sum(min(size, share) for size in sizes) > most:
        share -= 1
    return share


def _lines(groups: Iterable[Sequence[Cell]]) -> list[Cell]:
    """All groups on whole lines of the sheet: each on the first line with room, a blank cell between two.

    A group that fits on no line in one piece begins a new one.
    """
    lines: list[list[Cell]] = []
    for cells in groups:
        for line in lines:
            if len(line) + 1 + len(cells) <= _COLUMNS:
                line += [_NOBODY, *cells]
                break
        else:
            lines += [list(cells[i : i + _COLUMNS]) for i in range(0, len(cells), _COLUMNS)]
    return [cell for line in lines for cell in [*line, *[_NOBODY] * (_COLUMNS - len(line))]]


def _accepted(faces: pd.DataFrame, most: int) -> tuple[str, list[Cell]]:
    good = _best_first(faces[faces["accepted"]])
    shown = _spread(good, most)
    title = f"Accepted: {len(good)} of {len(faces)} faces, {len(shown)} shown, best score first"
    return title, [(face, f"{face.score:.0f} {face.source}") for face in shown.itertuples()]


def _refused(faces: pd.DataFrame, most: int) -> tuple[str, list[Cell]]:
    """Together by worst reason, the reason with most faces first; within it the best score first."""
    bad = faces[~faces["accepted"]].copy()
    bad["first"] = [reasons[0] for reasons in bad["reasons"]]
    counts = bad["first"].value_counts()
    share = _fair_share(counts.tolist(), most)
    groups = []
    for reason in sorted(counts.index, key=lambda reason: (-counts[reason], reason)):
        shown = _spread(_best_first(bad[bad["first"] == reason]), share)
        groups.append(
            [
                (face, f"{', '.join(face.reasons)} ({face.score:.0f}, {face.source})")
                for face in shown.itertuples()
            ]
        )
    shown = sum(map(len, groups))
    title = f"Refused: {len(bad)} of {len(faces)} faces, {shown} shown, by worst reason (score, source)"
    return title, _lines(groups)


def _borderline(faces: pd.DataFrame, most: int) -> tuple[str, list[Cell]]:
    """Refused faces that one looser limit would keep, and accepted ones that one tighter limit would lose.

    The nearest to their limit first; beyond `_NEAR` widths nobody is borderline.
    """
    near = faces[faces["margin"].abs() <= _NEAR]
    out = near[(near["margin"] < 0) & (near["reasons"].map(len) == 1)]
    groups, titles = [], []
    for kind, part in (("refused", out), ("accepted", near[near["accepted"]])):
        order = part["margin"].abs().sort_values(kind="stable").index
        shown = part.loc[order[: max(1, most // 2)]]
        titles.append(f"{len(part)} {kind} ({len(shown)} shown)")
        groups.append(
            [
                (face, f"{kind}: {_value(face)} ({face.score:.0f}, {face.source})")
                for face in shown.itertuples()
            ]
        )
    title = f"Borderline: {', then '.join(titles)}; nearest to their limit first (score, source)"
    return title, _lines(groups)


def _value(face: object) -> str:
    """The component that decides about a face, its value, and the limit."""
    name = component(face.nearest_limit)
    value = abs(getattr(face, name)) if name.endswith("_deg") else getattr(face, name)
    bound = "at least" if face.nearest_limit.startswith("min_") else "at most"
    return f"{name} {value:.3g}, {bound} {face.limit:g}"


def _duplicates(faces: pd.DataFrame, most: int) -> tuple[str, list[Cell]]:
    """Pairs in neighbouring cells: the copy that stays, the one that is refused."""
    kept = {face.face_id: face for face in faces.itertuples() if not face.duplicate_of}
    copies = faces[faces["duplicate_of"] != ""].sort_values(["duplicate_correlation", "face_id"])
    shown = _spread(copies, max(1, most // 2))
    cells: list[Cell] = []
    for copy in shown.itertuples():
        stays = kept[copy.duplicate_of]
        why = f", {', '.join(stays.reasons)}" if len(stays.reasons) else ""
        cells += [
            (stays, f"stays ({stays.score:.0f}{why}) {stays.photo}"),
            (copy, f"copy {copy.duplicate_correlation:.3f} ({copy.score:.0f}) {copy.photo}"),
        ]
    title = f"Duplicates: {len(copies)} copies, {len(shown)} shown beside what stays, least alike first"
    return title, cells


def _identities(faces: pd.DataFrame, most: int) -> tuple[str, list[Cell]]:
    """People with two faces or more, each on one line, most faces first; the best-scored face first."""
    known = faces[faces["identity"] >= 0]
    sizes = known["identity"].value_counts()
    several = sorted(sizes.index[sizes > 1], key=lambda person: (-sizes[person], person))
    groups: list[list[Cell]] = []
    for person in several:
        count = min(int(sizes[person]), _COLUMNS)
        if groups and len(_lines([*groups, [_NOBODY] * count])) > most:
            continue  # a smaller group may still have room
        shown = _spread(_best_first(known[known["identity"] == person]), _COLUMNS)
        first, *rest = shown.itertuples()
        told = f"person {person}: {sizes[person]} faces, {_mark(first)}"
        groups.append([(first, told), *((face, _mark(face)) for face in rest)])
    title = f"People: {len(sizes)}, {len(several)} with several faces, {len(groups)} shown, most faces first"
    return title, _lines(groups)


def _mark(face: object) -> str:
    return f"{face.score:.0f}" if face.accepted else f"refused: {face.reasons[0]}"


def write_sheets(
    faces: pd.DataFrame, rows: Sequence[dict], crops: AlignedFaces, sheets: Sheets, most: int
) -> None:
    """All sheets of a filter table, each with at most about `most` faces.

    faces: the verdicts, as stage `filter` writes them; rows: the align table's rows, which name the crops
    """
    by_id = {(row["source"], row["face_id"]): row for row in rows}
    for path, (title, cells) in (
        (sheets.accepted, _accepted(faces, most)),
        (sheets.refused, _refused(faces, most)),
        (sheets.borderline, _borderline(faces, most)),
        (sheets.duplicates, _duplicates(faces, most)),
        (sheets.identities, _identities(faces, most)),
    ):
        rgbs = [_BLANK if face is None else crops.rgb(by_id[face.source, face.face_id]) for face, _ in cells]
        with atomic(path) as part:
            captions = [caption for _, caption in cells]
            contact_sheet(rgbs, _COLUMNS, captions, title=title).save(part, "PNG")
