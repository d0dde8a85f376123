"""What git must not carry: `python src/guard.py` looks at what the next commit would hold."""

from stylebot.cli import run
from stylebot.guard import guard


def main() -> None:
    """Refuse secrets in .dvc/config, .dvc/config.local, and photos or weights, in what is staged for git.

    The hook before each commit runs it (`make hooks`), and so does CI.
    """
    guard()


if __name__ == "__main__":
    run(main)
