"""Networks for other programs: `python src/export.py --kind rosinality --out generator.pt`."""

from pathlib import Path
from typing import Annotated

from typer import Option

from stylebot.cli import Dep, run
from stylebot.export import export


def main(
    kind: Annotated[str, Option(help="rosinality (.pt), psp (.pt), official (folder) or onnx (folder)")],
    out: Annotated[Path, Option(help="the file or folder to write")],
    generator: Dep = Dep(Path("stages/train/networks.safetensors")),  # noqa: B008
    encoder: Annotated[Path | None, Option(help="for psp: what stage encode wrote, variant psp")] = None,
    allow_missing: Annotated[bool, Option(help="start tensors that are missing anew, and list them")] = False,
) -> None:
    """Write the networks of any checkpoint of the family for another program.

    generator: the checkpoint to export
    """
    export(generator, kind, out, allow_missing, encoder)


if __name__ == "__main__":
    run(main)
