"""Can this machine run it? `python src/doctor.py` says so on one screen, recipe by recipe."""

from stylebot.cli import run
from stylebot.doctor import examine


def main() -> None:
    """Look at Python, packages, GPUs, disk, remotes and weights; say which recipes of the README run here.

    Changes nothing. Exit code 1 when not even the sample would run.
    """
    examine()


if __name__ == "__main__":
    run(main)
