"""Whose enlarged faces stay in the region: `python src/drift.py --encoder-b … --generator-b …`."""

from pathlib import Path
from typing import Annotated

from typer import Option

from stylebot.cli import Dep, run
from stylebot.drift import Files, How, drift, write_table
from stylebot.errors import StylebotError
from stylebot.params import load_params
from stylebot.superres import SuperresParams

STAGES = Path("stages")


def main(
    encoder_b: Dep,
    generator_b: Dep,
    encoder_a: Dep = Dep(STAGES / "encode/encoder.safetensors"),  # noqa: B008
    generator_a: Dep = Dep(STAGES / "train/networks.safetensors"),  # noqa: B008
    pull: Annotated[str, Option(help="pull results to the average face, such as 1,0.8,0.6")] = "1",
    out: Annotated[Path | None, Option(help="write all numbers to this CSV file, too")] = None,
    stages: Annotated[Path, Option(help="folder of the faces and models to measure by")] = STAGES,
) -> None:
    """Compare two encoders with their generators on held-out faces: drift, KID to two domains, identity.

    encoder_a: the first encoder
    generator_a: the networks that it was trained against
    encoder_b: the second one, such as one trained against the base generator
    generator_b: its networks, such as stages/fetch/generator.safetensors
    """
    try:
        pulls = [float(word) for word in pull.split(",")]
    except ValueError:
        raise StylebotError(f"--pull {pull}: numbers from 0 to 1 are wanted, such as 1,0.8,0.6") from None
    p = load_params("superres", SuperresParams)
    how = How(p.degradation, p.factors, p.base_faces, p.seed, pulls)
    table, said = drift((encoder_a, generator_a), (encoder_b, generator_b), Files.of(stages), how)
    if out is not None:
        write_table(out, table)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    print("\n".join(said))


if __name__ == "__main__":
    run(main)
