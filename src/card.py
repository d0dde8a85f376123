"""The model's card: `python src/card.py --out MODEL_CARD.md` writes it from what the pipeline recorded."""

from stylebot.card import write_card
from stylebot.cli import Out, run


def main(out: Out) -> None:
    """Describe the fine-tuned networks: data, licences, parameters, numbers, intended use.

    out: the card, Markdown with the header that model hubs read
    """
    write_card(out)


if __name__ == "__main__":
    run(main)
