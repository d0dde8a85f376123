"""Who agreed to what: consent.csv in each source folder, one row per photo."""

import csv
import unicodedata
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
    photos: Path, wanted: Iterable[tuple[str, str]], required: bool, today: date
) -> set[tuple[str, str]]:
    """Those of the (source, photo) pairs `wanted` that may not be used on the day `today`.

    A row that is withdrawn, expired or lacks subject or basis bars its photo; `required`: so does no row.
    Raises StylebotError.
    """
    tables: dict[str, dict[str, dict[str, str]]] = {}
    out = set()
    for source, photo in wanted:
        if source not in tables:
            rows = read_consent(consent_file(photos, source))
            tables[source] = {row["photo"]: row for row in rows}
        row = tables[source].get(composed(photo))
        if required if row is None else invalid(row, today):
            out.add((source, photo))
    return out


def write_consent(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """The inverse of `read_consent`, whole or not at all."""
    with atomic(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
