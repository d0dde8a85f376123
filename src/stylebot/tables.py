"""The intervals that stages write into table.csv, under the names of the metrics."""

import csv
import io
from collections.abc import Iterable, Mapping

TABLES = ("stages/fid/table.csv", "stages/audit/table.csv", "stages/superres/table.csv",
          "stages/superres/drift.csv")  # fmt: skip
_SHORT = {"psnr_db": "psnr", "lpips": "lpips", "id_distance": "id"}
_CLOSE = 1e-3  # relative; tables and metrics are rounded to about five digits


def _name(path: str, row: Mapping[str, str]) -> str:
    if "measure" in row:
        method = "" if row["method"] == "result" else f"_{row['method']}"
        return f"superres_{_SHORT.get(row['measure'], row['measure'])}{method}_x{row['factor']}"
    if "/audit/" in path:
        return f"audit_{row['name']}" + ("" if row["faces"] == "generated" else f"_{row['faces']}")
    return row["name"]


def rows_of(path: str, content: bytes) -> Iterable[tuple[str, float, float, float]]:
    """Name, value, low and high of each row of a table that has all three."""
    for row in csv.DictReader(io.StringIO(content.decode())):
        value = row.get("mean", row.get("value"))
        if value and row["low"] and row["high"]:
            yield _name(path, row), float(value), float(row["low"]), float(row["high"])


def intervals(
    tables: Mapping[str, bytes], values: Mapping[str, object]
) -> dict[str, tuple[float, float]]:
    """Low and high of the `values` that the tables (content by path) hold.

    A row with another value than the metric's is of another run and is left out.
    """
    found = {}
    for path, content in tables.items():
        for name, value, low, high in rows_of(path, content):
            known = values.get(name)
            if isinstance(known, int | float) and abs(known - value) <= _CLOSE * max(abs(value), 1e-3):
                found[name] = low, high
    return found
