"""Tool `sample`: make the sample photographs, of people who do not exist."""

from stylebot.cli import Out, run
from stylebot.facemaker import FILES, FaceMaker
from stylebot.fetch import Model, bring_model
from stylebot.files import scratch
from stylebot.sample import SEED, write_sample


def main(photos: Out, truth: Out, seed: int = SEED) -> None:
    """Make 240 photographs in the wild and 100 ID portraits, the same ones for the same seed.

    photos: folder for the folders celebrity and id
    truth: table of what each photo is meant to be (CSV)
    """
    weights = scratch() / "random_face"
    for name, (source, sha256, licence) in FILES.items():
        bring_model(Model(sources=[source], sha256=sha256, licence=licence), weights / name)
    write_sample(photos, truth, seed, FaceMaker(weights, seed).face)


if __name__ == "__main__":
    run(main)
