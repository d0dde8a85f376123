"""Before hours are spent: `python src/plan.py ffhq256-8gpu -S freeze_d=13` checks and estimates a recipe."""

from typing import Annotated

from typer import Argument, Option

from stylebot.cli import run
from stylebot.plan import Photos, photos_here, plan


def main(
    recipe: Annotated[str, Argument(help="name after `dvc exp run -n` in the README")] = "laptop",
    set_param: Annotated[list[str] | None, Option("--set-param", "-S", help="as in dvc exp run")] = None,
    gpus: Annotated[int | None, Option(min=0, help="0: the CPU [default: the recipe's]")] = None,
    machine: Annotated[str | None, Option(help="cpu, v100 or a100: what speeds are known of")] = None,
    photos: Annotated[int | None, Option(min=1, help="how many [default: those of stages/photos]")] = None,
    photo_mb: Annotated[float | None, Option(min=0, help="size of one, MB [default: as those]")] = None,
) -> None:
    """Check the parameters of a recipe and estimate memory, time and disk. Runs nothing, changes nothing.

    -S changes parameters as in `dvc exp run -S`, sweeps included. Exit code 1 when a parameter is not valid.
    """
    here = photos_here()
    count = photos or here.count
    each = photo_mb * 1e6 if photo_mb is not None else here.total_bytes / max(here.count, 1)
    print("\n".join(plan(recipe, set_param or [], gpus, machine, Photos(count, round(count * each)))))


if __name__ == "__main__":
    run(main)
