"""Published training settings: `python src/settings.py paper256 --gpus 8` prints what to type."""

from typing import Annotated

from typer import Argument, Option

from stylebot.cli import run
from stylebot.settings import NAMES, recipe


def main(
    name: Annotated[str, Argument(help=", ".join(NAMES))] = "auto",
    resolution: Annotated[int, Option(help="of the training pictures, px")] = 256,
    gpus: Annotated[int, Option(help="that train together")] = 8,
    batch: Annotated[int | None, Option(help="pictures per step, instead of the configuration's")] = None,
    freeze_blocks: Annotated[int | None, Option(help="whole blocks of D, as FreezeD counts them")] = None,
) -> None:
    """Print the `dvc exp run` with the settings that StyleGAN2-ADA's configuration NAME stands for."""
    print(recipe(name, resolution, gpus, batch, freeze_blocks))


if __name__ == "__main__":
    run(main)
