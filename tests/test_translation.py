"""README.ko.md follows README.md: as many sections, the same commands, tables, pictures and links."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SYNC = "README.ko.md is behind README.md; bring it up to date: "


def sections(name: str) -> list[tuple[str, str]]:
    """(heading, text) of each section, the part before the first heading of level 2 included."""
    parts = re.split(
        r"^(#+ .+)$", FENCE.sub(hide, (ROOT / name).read_text(encoding="utf-8")), flags=re.MULTILINE
    )
    return list(zip(parts[1::2], parts[2::2], strict=True))


def hide(block: re.Match[str]) -> str:
    """A code block with its lines marked, so that a comment in it is no heading."""
    return "\n".join(f"\0{line}" for line in block[0].splitlines())


ENGLISH, KOREAN = sections("README.md"), sections("README.ko.md")
PAIRS = [pytest.param(e, k, id=e[0].strip("# ")) for e, k in zip(ENGLISH, KOREAN, strict=False)]


def code(text: str) -> list[str]:
    found = FENCE.findall(text.replace("\0", ""))
    return [f"{language}\n{body}" for language, body in found]


def tables(text: str) -> list[tuple[int, int]]:
    """Rows and columns of each table."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [(len(t.splitlines()), len(t.splitlines()[1].split("|")) - 2) for t in found]


def links(text: str) -> list[str]:
    """Files and addresses that a text points to; anchors are named after headings and so translated."""
    return sorted(target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("#"))


def names(text: str) -> set[str]:
    """Names of parameters, numbers, files and commands within sentences."""
    return {n for n in re.findall(r"`([^`\0]+)`", re.sub(r"^\0.*$", "", text, flags=re.MULTILINE))}


def test_sections_are_the_same() -> None:
    levels = [[heading.split()[0] for heading, _ in part] for part in (ENGLISH, KOREAN)]
    listed = "; ".join(heading for heading, _ in ENGLISH)
    assert levels[0] == levels[1], f"{SYNC}its headings must be those of: {listed}"


@pytest.mark.parametrize(("english", "korean"), PAIRS)
def test_code_blocks_are_the_same(english: tuple[str, str], korean: tuple[str, str]) -> None:
    wanted, found = code(english[1]), code(korean[1])
    missing = [block for block in wanted if block not in found]
    surplus = [block for block in found if block not in wanted]
    assert wanted == found, (
        f"{SYNC}section {korean[0]!r} needs the code of {english[0]!r}, letter by letter and in its order.\n"
        f"Put in:\n{''.join(missing) or '(nothing)'}\nTake out:\n{''.join(surplus) or '(nothing)'}"
    )


@pytest.mark.parametrize(("english", "korean"), PAIRS)
def test_text_names_the_same_things(english: tuple[str, str], korean: tuple[str, str]) -> None:
    where = f"{SYNC}section {korean[0]!r}, as in {english[0]!r}: "
    assert tables(english[1]) == tables(korean[1]), f"{where}tables (rows, columns)"
    assert links(english[1]) == links(korean[1]), f"{where}links and pictures"
    missing, surplus = names(english[1]) - names(korean[1]), names(korean[1]) - names(english[1])
    assert not missing, f"{where}put in {sorted(missing)}"
    if "```" not in english[1]:
        assert not surplus, f"{where}take out {sorted(surplus)}"


def test_anchors_lead_to_headings() -> None:
    for name, part in (("README.md", ENGLISH), ("README.ko.md", KOREAN)):
        known = {re.sub(r"[^\w\- ]", "", h.lstrip("# ").lower()).replace(" ", "-") for h, _ in part}
        for _, text in part:
            wanted = set(re.findall(r"\]\(#([^)]+)\)", text))
            assert wanted <= known, f"{name}: no heading {wanted - known}"
