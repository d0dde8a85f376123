"""Stage `fetch`: bring one model's weights, verified."""

from typing import Annotated

import typer

from stylebot.cli import Out, run
from stylebot.fetch import FetchParams, fetch
from stylebot.params import load_params

NAMES = typer.Option(help=", ".join(FetchParams.model_fields))


def main(model: Annotated[str, NAMES], out: Out, licence: Out) -> None:
    """Bring a model from the first of its sources in params.yaml whose bytes have its sha256.

    out: where the weights go
    licence: record of licence, sha256 and sources
    """
    fetch(model, out, load_params("fetch", FetchParams), licence)


if __name__ == "__main__":
    run(main)
