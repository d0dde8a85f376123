"""Find the limits of stage `filter` from faces that you have labelled good or bad."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console

from stylebot.calibrate import LEAST_BAD, calibrate, choose, read_labels, report
from stylebot.cli import run
from stylebot.errors import StylebotError
from stylebot.filter import FilterParams
from stylebot.params import load_params

Labels = Annotated[Path, typer.Argument(help="CSV with source, face_id, verdict (good or bad), reason")]
Choose = Annotated[int, typer.Option(min=0, help="write the CSV for so many faces, and a sheet of them")]
Beta = Annotated[
    float, typer.Option(min=0.1, max=10, help="below 1: rather keep a bad face than lose a good one")
]


def main(labels: Labels, choose_faces: Choose = 0, beta: Beta = 0.5, stages: Path = Path("stages")) -> None:
    """Choose faces to label, or say which limits fit the labels, with precision, recall and intervals."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    path = stages / "filter" / "faces.parquet"
    if not path.exists():
        raise StylebotError(f"{path} does not exist: `dvc repro filter` writes it")
    table = pd.read_parquet(path)
    if choose_faces:
        sheet = choose(table, stages / "align", choose_faces, labels)
        console.print(
            f"{labels}: write good or bad into column verdict, and why into reason; pictures: {sheet}"
        )
        return
    params = load_params("filter", FilterParams)
    limits = {"celebrity": params.celebrity, "id": params.id}
    for section, fits in calibrate(table, read_labels(labels), limits, beta).items():
        console.print(report(section, fits) if fits else
                      f"filter.{section}: no reason has {LEAST_BAD} bad faces")  # fmt: skip
        for fit in fits:
            console.print(f"  -S filter.{section}.{fit.limit}={fit.best[0]:.3g}")


if __name__ == "__main__":
    run(main)
