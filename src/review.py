"""Look at the faces that `filter` judged: refusals by skin tone and folder, people in the wrong folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from stylebot.cli import run
from stylebot.crops import AlignedFaces
from stylebot.errors import StylebotError
from stylebot.review import rates, stranger_sheet, strangers, tones

Output = Annotated[Path, typer.Option(help="folder for rates.csv, strangers.csv and strangers.png")]


def main(stages: Path = Path("stages"), out: Output = Path(".scratch/review")) -> None:
    """Print refusal rates per source and per apparent skin tone, and who lies in somebody else's folder."""
    paths = [stages / "filter" / "faces.parquet", stages / "align" / "faces.parquet"]
    if not all(path.exists() for path in paths):
        raise StylebotError(f"{paths[0]} or {paths[1]} does not exist: `dvc repro filter` writes them")
    table, aligned = (pd.read_parquet(path) for path in paths)
    rows = {(row["source"], row["face_id"]): row for row in aligned.to_dict("records")}
    crops = AlignedFaces(stages / "align")
    apparent = [f"skin: {name}" for name in tones(table, rows, crops)]
    reasons = table["reasons"].tolist()
    found = rates(table["source"].tolist(), reasons) + rates(apparent, reasons)
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([asdict(rate) for rate in found]).to_csv(out / "rates.csv", index=False)
    shown = Table("group", "faces", "refused for quality", "95 %", "first reasons")
    for rate in found:
        inside = f"{rate.low:.1%} to {rate.high:.1%}"
        shown.add_row(rate.group, str(rate.faces), f"{rate.refused:.1%}", inside, rate.reasons)
    Console(width=110).print(shown)
    other = strangers(table)
    other[["source", "photo", "face_id", "identity", "stays"]].to_csv(out / "strangers.csv", index=False)
    stranger_sheet(other, crops, out / "strangers.png")
    print(f"{len(other)} faces are not of the person whose folder they lie in: {out / 'strangers.png'}")


if __name__ == "__main__":
    run(main)
