"""Whose enlarged faces stay in the region: `python src/drift.py`; with `--check 64`: whether that shows."""

from pathlib import Path
from typing import Annotated

from typer import Option

from stylebot.cli import Dep, run
from stylebot.drift import Files, How, check, drift, trained_so, write_table
from stylebot.encode import EncodeParams, encode
from stylebot.errors import StylebotError
from stylebot.files import scratch
from stylebot.params import load_params
from stylebot.superres import SuperresParams

STAGES = Path("stages")


def main(
    generator_b: Dep = Dep(STAGES / "fetch/generator.safetensors"),  # noqa: B008
    encoder_b: Annotated[Path | None, Option(help="the second encoder; without, it is trained")] = None,
    encoder_a: Dep = Dep(STAGES / "encode/encoder.safetensors"),  # noqa: B008
    generator_a: Dep = Dep(STAGES / "train/networks.safetensors"),  # noqa: B008
    pull: Annotated[str, Option(help="pull results to the average face, such as 1,0.8,0.6")] = "1",
    check_with: Annotated[int, Option("--check", help="instead: what so many known faces show")] = 0,
    out: Annotated[Path | None, Option(help="write all numbers to this CSV file, too")] = None,
    stages: Annotated[Path, Option(help="folder of the faces and models to measure by")] = STAGES,
) -> None:
    """Compare two encoders with their generators on held-out faces: drift, KID to two domains, identity.

    generator_b: the other networks: the base generator
    encoder_a: the first encoder
    generator_a: the networks that it was trained against
    """
    try:
        pulls = [float(word) for word in pull.split(",")]
    except ValueError:
        raise StylebotError(f"--pull {pull}: numbers from 0 to 1 are wanted, such as 1,0.8,0.6") from None
    p, files = load_params("superres", SuperresParams), Files.of(stages)
    how = How(p.degradation, p.factors, p.base_faces, p.seed, pulls)
    if check_with:
        table, said = check(generator_a, files, how, check_with, p.same_person_distance)
    else:
        if encoder_b is None:
            encoder_b = scratch() / "base" / "encoder.safetensors"
            recipe = load_params("encode", EncodeParams)
            if not trained_so(encoder_b, generator_b, recipe.model_dump(mode="json")):
                encode(generator_b, files.dataset, files.perceptual, encoder_b, recipe)
        table, said = drift((encoder_a, generator_a), (encoder_b, generator_b), files, how)
    if out is not None:
        write_table(out, table)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    print("\n".join(said))


if __name__ == "__main__":
    run(main)
