"""Who agreed to what: consent.csv in each source folder, one row per photo."""

import csv
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from stylebot.errors import StylebotError
from stylebot.files import atomic
from stylebot.sources import CONSENT

COLUMNS = ("photo", "subject", "basis", "licence", "expires")


def composed(name: str) -> str:
    """A name in the form in which names are compared: Unicode's composed one."""
    return unicodedata.normalize("NFC", name)


def consent_file(photos: Path, source: str) -> Path:
    """PHOTOS/SOURCE/consent.csv, or PHOTOS/SOURCE.consent.csv for a source that is a zip."""
    inside = photos / source / CONSENT
    return inside if inside.parent.is_dir() else photos / f"{source}.{CONSENT}"


def read_consent(path: Path) -> list[dict[str, str]]:
    """The rows of one consent.csv, blanks stripped; none when the file does not exist.

    photo: name below the source folder, in Unicode's composed form (macOS stores Hangul decomposed);
    subject: whom it shows, in your own code; basis: why it is used ("consent 2026-03", "licence", "contract";
    "withdrawn" revokes); licence: its own; expires: last day (2027-12-31) or empty.
    Raises StylebotError for what is no such file, another header, a bad date or a photo that is there twice.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise StylebotError(f"{path}: the first line must be {','.join(COLUMNS)}")
            rows = [{name: composed((row[name] or "").strip()) for name in COLUMNS} for row in reader]
    except OSError as error:
        raise StylebotError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise StylebotError(f"{path} is not a UTF-8 CSV file: {error}") from None
    seen: set[str] = set()
    for line, row in enumerate(rows, start=2):
        if row["photo"] in seen:
            raise StylebotError(f"{path}:{line}: {row['photo']} is there twice")
        seen.add(row["photo"])
        try:
            date.fromisoformat(row["expires"] or "9999-12-31")
        except ValueError:
            raise StylebotError(
                f"{path}:{line}: expires is {row['expires']!r}, not like 2027-12-31"
            ) from None
    return rows


def invalid(row: dict[str, str], today: date) -> bool:
    """Whether this row does not allow its photo to be used on the day `today`."""
    if not row["subject"] or not row["basis"] or row["basis"].lower() == "withdrawn":
        return True
    return date.fromisoformat(row["expires"] or "9999-12-31") < today


def barred(
    photos: Path, files: Iterable[tuple[str, str, str]], required: bool, today: date
) -> tuple[set[tuple[str, str]], list[str]]:
    """The (source, photo) pairs of `files` that may not be used on the day `today`; rows that name no file.

    files: source, photo and sha256 ("": not known) of every file. A row that is withdrawn, expired or lacks
    subject or basis bars its photo and all with the same bytes: only one of them is aligned, under any of the
    names. `required`: so does no row for any of them. Raises StylebotError.
    """
    tables: dict[str, dict[str, dict[str, str]]] = {}
    content, said = {}, defaultdict(set)
    for source, photo, sha256 in files:
        if source not in tables:
            tables[source] = {row["photo"]: row for row in read_consent(consent_file(photos, source))}
        content[source, photo] = sha256 or (source, photo)
        row = tables[source].get(composed(photo))
        if row is not None:
            said[content[source, photo]].add(invalid(row, today))
    out = {name for name, own in content.items() if True in said[own] or (required and not said[own])}
    there = {(source, composed(photo)) for source, photo in content}
    return out, sorted(f"{source}/{photo}" for source, rows in tables.items() for photo in rows
                       if (source, photo) not in there)


def write_consent(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """The inverse of `read_consent`, whole or not at all."""
    with atomic(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
