"""The named recipes, read from the README, where they stand as commands that only set parameters."""

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from stylebot.errors import StylebotError

_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
_GPUS = r"(?:PET_NPROC_PER_NODE=(?P<gpus>\d+) )?"
_RUN = re.compile(rf"^{_GPUS}dvc exp run -n (?P<name>\S+)(?P<rest>.*)$", re.MULTILINE)
_SUM = re.compile(r"\$\(sha256sum < (\S+) \| cut -c1-64\)")


@dataclass(frozen=True)
class NamedRecipe:
    """One `dvc exp run -n NAME -S …` of the README."""

    name: str
    gpus: int | None  # PET_NPROC_PER_NODE of the command; None when it says nothing
    settings: tuple[str, ...]  # what -S gets, each "section.key=value"
    absent: tuple[str, ...] = ()  # files whose sha256 the command would take and that are not here


def named_recipes(readme: Path = Path("README.md")) -> dict[str, NamedRecipe]:
    """All of them, by name, in the order of the README.

    `$(sha256sum < FILE | cut -c1-64)` becomes the sum, or a row of f when FILE is not here.
    Raises StylebotError without a README, or when a command does more than set parameters.
    """
    try:
        text = readme.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StylebotError(f"{readme} does not exist: run from the root of the workspace") from None
    commands = "\n".join(block.replace("\\\n", " ") for block in _BLOCK.findall(text))
    found = (_recipe(match) for match in _RUN.finditer(commands))
    return {recipe.name: recipe for recipe in found}


def _recipe(match: re.Match[str]) -> NamedRecipe:
    absent = []

    def digest(call: re.Match[str]) -> str:
        path = Path(call[1])
        if path.exists():
            return hashlib.sha256(path.read_bytes()).hexdigest()
        absent.append(call[1])
        return "f" * 64

    words = shlex.split(_SUM.sub(digest, match["rest"]), comments=True)
    if any(flag != "-S" for flag in words[::2]) or len(words) % 2:
        said = match["rest"][:80]
        raise StylebotError(f"README: recipe {match['name']} does more than set parameters: {said}")
    gpus = int(match["gpus"]) if match["gpus"] else None
    return NamedRecipe(match["name"], gpus, tuple(words[1::2]), tuple(absent))
