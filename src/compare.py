"""Which differences between two runs are real: `python src/compare.py HEAD~1 HEAD`."""

from typing import Annotated

import typer

from stylebot.cli import run
from stylebot.compare import compare

A = Annotated[str, typer.Argument(help="git revision, experiment, or folder with metrics")]
B = Annotated[str, typer.Argument(help="the other one; . is this work tree")]


def main(a: A = "HEAD", b: B = ".") -> None:
    """Say of each number with an interval whether two runs differ by more than chance."""
    for line in compare(a, b):
        print(line)


if __name__ == "__main__":
    run(main)
