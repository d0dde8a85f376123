"""Remove a person from the workspace: photos, consent rows, remembered work, tables, pictures."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stylebot.cli import run
from stylebot.forget import advice, find_person, forget

Who = Annotated[str, typer.Argument(help="a photo such as celebrity/a.jpg, or a subject of consent.csv")]
Yes = Annotated[bool, typer.Option("--yes", help="do it; without it nothing is removed")]


def main(who: Who, yes: Yes = False) -> None:
    """Remove a person, or one photo, everywhere; say which datasets and networks were made with it."""
    stages = Path("stages")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    person = find_person(stages, who)
    notes = advice(stages, person)
    if yes:
        for line in forget(stages, Path(".dvc/cache"), person):
            console.print(f"removed: {line}")
    else:
        for item in person.photos:
            console.print(f"would be removed: {item.source}/{item.photo}")
        console.print("and every output that shows people; add --yes to do it")
    for line in notes:
        console.print(line)


if __name__ == "__main__":
    run(main)
