"""Remove a person: photos, consent rows, remembered work, tables, pictures; say what was made with them."""

import hashlib
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from stylebot.consent import composed, consent_file, read_consent, write_consent
from stylebot.errors import StylebotError
from stylebot.files import atomic, scratch
from stylebot.photos import PhotoError
from stylebot.sources import Item, list_photos

# Outputs that show or describe people of the photos; `dvc repro` makes them anew, without the person.
_SHOWING = ("align", "filter", "pack", "superres", "fid", "audit", "report")
_TRAINED = ("train/networks.safetensors", "encode/encoder.safetensors")


@dataclass
class Person:
    """What is known of the photos to forget: the files, their bytes' sha256 and md5, and traces of them."""

    copies: list[Item]  # photos with the same bytes as a named one
    named: list[Item]
    rows: set[tuple[str, str]]  # (source, photo) to leave out of consent.csv
    sha256: set[str]
    md5: set[str]
    splits: dict[str, int] = field(default_factory=dict)  # "train" or "heldout" -> faces there
    similar: list[str] = field(default_factory=list)  # other photos that may show the same person

    @property
    def photos(self) -> list[Item]:
        """Every photo to remove."""
        return self.copies + self.named


def find_person(stages: Path, who: str) -> Person:
    """The photos of `who`: a photo (source/name, or its path) or a subject of any consent.csv; and copies.

    Copies are files with the same bytes. Raises StylebotError when nothing is found.
    """
    folder = stages / "photos"
    items = list_photos(folder)
    wanted = composed(who.removeprefix(f"{folder}/"))
    chosen = {(i.source, composed(i.photo)) for i in items if composed(f"{i.source}/{i.photo}") == wanted}
    for source in {i.source for i in items}:
        rows = read_consent(consent_file(folder, source))
        chosen |= {(source, row["photo"]) for row in rows if row["subject"] == composed(who)}
    if not chosen:
        raise StylebotError(
            f"{who!r} is neither a photo (such as celebrity/a.jpg) in {folder} nor a subject "
            "of a consent.csv there"
        )
    digests = {item: digest for item in items if (digest := _digests(item))}
    named = [i for i in items if (i.source, composed(i.photo)) in chosen]
    sha256 = {digests[i][0] for i in named if i in digests}
    copies = [i for i in items if i not in named and digests.get(i, ("",))[0] in sha256]
    rows = chosen | {(i.source, composed(i.photo)) for i in copies}
    person = Person(copies, named, rows, sha256, {digests[i][1] for i in copies + named if i in digests})
    _traces(stages, person)
    return person


def _digests(item: Item) -> tuple[str, str] | None:
    try:
        content = item.read()
    except PhotoError:
        return None
    return hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()


def _traces(stages: Path, person: Person) -> None:
    """Fill in where the person's faces are, and whom dlib takes for the same person."""
    judged, packed = stages / "filter" / "faces.parquet", stages / "pack" / "faces.parquet"
    if not judged.exists():
        return
    faces = pd.read_parquet(judged, columns=["face_id", "source", "photo", "sha256", "identity"])
    own = faces["sha256"].isin(person.sha256)
    alike = faces["identity"].isin(set(faces.loc[own, "identity"]) - {-1}) & ~own
    person.similar = sorted(
        {
            f"{source}/{photo}"
            for source, photo in faces.loc[alike, ["source", "photo"]].itertuples(index=False)
        }
    )
    if packed.exists():
        table = pd.read_parquet(packed, columns=["split", "face_id"])
        inside = table["face_id"].isin(set(faces.loc[own, "face_id"]))
        person.splits = table.loc[inside, "split"].value_counts().to_dict()


def _remove_photos(items: Iterable[Item]) -> None:
    by_zip: dict[Path, set[int]] = {}
    for item in items:
        if item.member < 0:
            item.path.unlink()
        else:
            by_zip.setdefault(item.path, set()).add(item.member)
    for path, members in by_zip.items():
        with zipfile.ZipFile(path) as old, atomic(path) as part, zipfile.ZipFile(part, "w") as new:
            kept = [info for info in old.infolist() if not info.is_dir()]
            for info in (info for index, info in enumerate(kept) if index not in members):
                new.writestr(info, old.read(info))


def _remove_rows(folder: Path, gone: set[tuple[str, str]]) -> None:
    for source in sorted({source for source, _ in gone}):
        file = consent_file(folder, source)
        rows = read_consent(file)
        if rows:
            write_consent(file, [row for row in rows if (source, row["photo"]) not in gone])


def forget(stages: Path, cache: Path, person: Person) -> list[str]:
    """Remove the person below `stages`, in the scratch folder, in DVC's `cache`; what was removed.

    Crops and tables lie in outputs with other people's: the outputs go whole, `dvc repro` makes them anew.
    Embeddings and restart states go whole too: their keys do not tell whose they are. Trained networks stay.
    """
    done = []
    for sha256 in sorted(person.sha256):
        for path in sorted((scratch() / "align").glob(f"*/{sha256[:2]}/{sha256}")):
            path.unlink()
            done.append(f"remembered alignment {sha256[:16]}")
    gone = [scratch() / "filter", *(stages / name for name in _SHOWING)]
    if "train" in person.splits:
        gone = [scratch() / "restarts", stages / "train" / "progress", *gone]
    for path in gone:
        if path.exists():
            shutil.rmtree(path)
            done.append(str(path))
    for md5 in sorted(person.md5):
        stored = cache / "files" / "md5" / md5[:2] / md5[2:]
        if stored.exists():
            stored.unlink()
            done.append(f"DVC cache {stored.name}")
    _remove_photos(person.copies)  # found by the named ones, which go last, and their rows after them:
    _remove_photos(person.named)  # what is left leads the same command here again, should this one be killed
    _remove_rows(stages / "photos", person.rows)
    done += [f"photo {item.source}/{item.photo}" for item in person.photos]
    return done


def advice(stages: Path, person: Person) -> list[str]:
    """What is left to do or to know, a line each."""
    lines = []
    networks = [str(stages / name) for name in _TRAINED if (stages / name).exists()]
    if person.splits:
        told = ", ".join(f"{count} in {split}" for split, count in sorted(person.splits.items()))
        lines.append(
            f"datasets that held faces of this person: {told} (stages/pack); rebuild: dvc repro pack"
        )
    if "train" in person.splits and networks:
        lines.append(f"trained with this person: {', '.join(networks)}; delete and retrain: dvc repro")
    elif networks:
        lines.append("the networks here were not trained with this person")
    sources = " ".join(sorted({f"stages/photos/{item.source}" for item in person.photos}))
    lines += [
        f"then: dvc add {sources}; dvc repro; git commit; dvc gc --workspace --cloud (or per experiment), "
        "since older versions of data sets, weights and their remotes still hold this person",
        "networks and data sets of other commits, experiments and exports are not known here",
    ]
    if person.similar:
        lines.append(
            f"dlib takes these for the same person, look at them: {', '.join(person.similar[:20])}"
            + (f" and {len(person.similar) - 20} more" if len(person.similar) > 20 else "")
        )
    return lines
