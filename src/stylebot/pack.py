"""Stage `pack`: accepted faces as two datasets, for training and held out, with nobody in both."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import Field, field_validator
from rich.progress import track

from stylebot.crops import AlignedFaces
from stylebot.dataset import write_dataset
from stylebot.duplicates import components
from stylebot.errors import StylebotError
from stylebot.files import atomic
from stylebot.params import Section
from stylebot.parquet import read_table


class PackParams(Section):
    """Section `pack` of params.yaml."""

    resolution: int = Field(ge=8, le=2048)
    heldout_share: float = Field(gt=0, lt=1)
    seed: int
    min_train: int = Field(ge=1)
    min_heldout: int = Field(ge=1)

    @field_validator("resolution")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("a power of two is wanted")
        return value


def linked_groups(faces: pd.DataFrame) -> np.ndarray:
    """Group number int [N] of faces that must stay together: one identity, copies of one picture, one photo.

    faces: columns face_id, source, photo, identity, duplicate_of. The copy that stays may itself be refused.
    """
    keys = [[f"photo {source}/{photo}", f"picture {copy or face_id}"]
            + ([f"identity {identity}"] if identity >= 0 else [])
            for face_id, source, photo, identity, copy in
            faces[["face_id", "source", "photo", "identity", "duplicate_of"]].itertuples(index=False)]
    first: dict[str, int] = {}
    pairs = [(first.setdefault(key, i), i) for i, names in enumerate(keys) for key in names]
    return components(np.array(pairs), len(faces))


def heldout(faces: pd.DataFrame, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Mask bool [N] of the held-out faces: about `share` of each source, in whole groups.

    The order in which groups are taken is a hash of the seed and of the group's least face_id, so the split
    depends on nothing but the faces and the seed, and one more face moves few others. A group counts for the
    source of its first face; one that would overshoot by more than it fills is left to training. Ours.
    """
    out = np.zeros(len(faces), dtype=bool)
    members = pd.Series(range(len(faces))).groupby(groups).agg(list).tolist()
    ids, sources = faces["face_id"].tolist(), faces["source"].tolist()

    def order(group: list[int]) -> str:
        return hashlib.sha256(f"{seed} {min(ids[i] for i in group)}".encode()).hexdigest()

    for source in sorted(set(sources)):
        own = sorted((g for g in members if sources[g[0]] == source), key=order)
        wanted, taken = share * sum(map(len, own)), 0
        for group in own:
            if taken < wanted and taken + len(group) - wanted <= wanted - taken:
                out[group] = True
                taken += len(group)
    return out


def _shrunk(crops: AlignedFaces, row: dict, resolution: int) -> np.ndarray:
    """The face at `resolution` px (Lanczos). Raises StylebotError for a crop smaller than that."""
    rgb = crops.rgb(row)
    if rgb.shape[0] < resolution:
        raise StylebotError(f"pack.resolution is {resolution} px, aligned faces have {rgb.shape[0]} px: "
                            "raise align.resolution")
    picture = Image.fromarray(rgb).resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _write(path: Path, rows: Sequence[dict], crops: AlignedFaces, resolution: int, title: str) -> list[str]:
    shown = track(rows, f"pack {title}", transient=True)
    return write_dataset(path, (_shrunk(crops, row, resolution) for row in shown))


def pack(filtered: Path, aligned: Path, train: Path, held: Path, table: Path,
         params: PackParams) -> dict[str, float]:
    """Write both datasets and the table of who is where; return the metrics.

    Raises StylebotError when there are too few faces, or too few people, for both sets.
    """
    faces = read_table(filtered)
    faces = faces[faces["accepted"]].sort_values(["source", "photo", "face_id"]).reset_index(drop=True)
    if faces.empty:
        raise StylebotError(f"{filtered} has no accepted face")
    groups = linked_groups(faces)
    mask = heldout(faces, groups, params.heldout_share, params.seed)
    for name, count, needed in (("training", int((~mask).sum()), params.min_train),
                                ("held-out", int(mask.sum()), params.min_heldout)):
        if count < needed:
            raise StylebotError(
                f"{count} of {len(faces)} accepted faces ({groups.max() + 1} people) are for the {name} set, "
                f"{needed} are needed: bring photos of more people, or change pack.heldout_share, "
                "pack.min_train or pack.min_heldout")
    crops, parts = AlignedFaces(aligned), []
    for split, path, chosen in (("train", train, ~mask), ("heldout", held, mask)):
        part = faces.loc[chosen, ["face_id", "source", "identity"]].copy()
        part.insert(0, "split", split)
        part.insert(0, "file", _write(path, part.to_dict("records"), crops, params.resolution, split))
        parts.append(part)
    with atomic(table) as temporary:
        pd.concat(parts, ignore_index=True).to_parquet(temporary, index=False)
    return {"pack_train": int((~mask).sum()), "pack_heldout": int(mask.sum()),
            "pack_people": int(faces["identity"].nunique()), "pack_resolution": params.resolution}
