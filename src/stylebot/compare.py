"""The tool `compare.py`: which differences between two runs are real, and which are noise."""

from stylebot.differences import Difference, differences
from stylebot.runs import read_run

_CAREFUL = ("pack_heldout", "pack_resolution")  # where these differ, distances to held-out faces do too


def _line(d: Difference, width: int) -> str:
    if not d.real:
        return f"within noise  {d.name:<{width}}  {d.a:.4g} -> {d.b:.4g} (noise {d.noise:.2g})"
    how = {"other": "different"}.get(d.verdict, d.verdict)
    return f"real          {d.name:<{width}}  {d.a:.4g} -> {d.b:.4g}, {how} by {abs(d.b - d.a):.2g} " \
           f"(noise {d.noise:.2g})"  # fmt: skip


def compare(a: str, b: str) -> list[str]:
    """One line for each number with an interval that differs, the most important first, and what is left out.

    Raises StylebotError for a name that is no folder, revision or experiment, and for one without numbers.
    """
    first, second = read_run(a), read_run(b)
    found, undecided = differences(first.numbers(), second.numbers())
    width = max((len(d.name) for d in found), default=0)
    lines = [_line(d, width) for d in found if d.a != d.b]
    for name in _CAREFUL:
        if (one := first.values.get(name)) != (other := second.values.get(name)):
            lines.append(f"careful: {name} is {one} and {other}, so distances are to other faces")
    if same := [d.name for d in found if d.a == d.b]:
        lines.append(f"equal: {', '.join(same)}")
    if undecided:
        lines.append(f"no interval, so no verdict: {', '.join(undecided)}")
    return lines or [f"{a} and {b} have no number in common"]
