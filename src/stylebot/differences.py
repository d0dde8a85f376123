"""Whether two runs differ by more than chance: numbers with intervals, side by side."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from stylebot.meanings import meaning

# What to decide by comes first; numbers that no pattern names follow, and after them the yardsticks.
_FIRST = (
    "kid_ratio", "kid_tuned", "superres_drift_.*", "superres_id_x.*", "audit_copies", "audit_same_person",
    "fid_tuned", "superres_kid_x.*", "superres_lpips_x.*", "superres_psnr_x.*",
)  # fmt: skip
_YARDSTICK = r".*_base|.*_heldout|.*_bicubic_.*|.*_base_.*"


@dataclass(frozen=True)
class Number:
    """A number of one run and the ends of its interval, None where it has none."""

    value: float
    low: float | None = None
    high: float | None = None

    def reach(self, upwards: bool) -> float | None:
        """How far the interval goes to one side, 0 or more; None without an interval.

        A missing end counts as far away as the other one.
        """
        down = None if self.low is None else max(0.0, self.value - self.low)
        up = None if self.high is None else max(0.0, self.high - self.value)
        one, other = (up, down) if upwards else (down, up)
        return one if one is not None else other


@dataclass(frozen=True)
class Difference:
    """One number of two runs. `noise`: the difference that chance alone explains; >= 0."""

    name: str
    a: float
    b: float
    noise: float

    @property
    def real(self) -> bool:
        """Whether the difference exceeds what chance explains."""
        return abs(self.b - self.a) > self.noise

    @property
    def verdict(self) -> str:
        """The second run is "better", "worse", or "other" where no direction is better; "same" if equal."""
        said = meaning(self.name)
        if self.a == self.b:
            return "same"
        if said is None or not said.better:
            return "other"
        return "better" if (self.b > self.a) == (said.better == "higher") else "worse"


def numbers_of(
    values: Mapping[str, object], intervals: Mapping[str, tuple[float, float]]
) -> dict[str, Number]:
    """The numbers of a run: `values` of its metrics files, whose `_low` and `_high` are ends of intervals.

    intervals: low and high by name, for numbers whose ends are not among the metrics.
    """
    plain = {n: v for n, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    ends = {f"{name}_{side}" for name in plain for side in ("low", "high")} & plain.keys()
    found = {}
    for name in plain.keys() - ends:
        low, high = intervals.get(name, (None, None))
        found[name] = Number(plain[name], plain.get(f"{name}_low", low), plain.get(f"{name}_high", high))
    return found


def difference(name: str, a: Number, b: Number) -> Difference | None:
    """Compare one number of two runs; None when neither has an interval.

    The two reaches that face each other add as roots of squares do, which is right for independent runs and
    careful for runs measured on the same faces, whose errors go the same way. A run without an interval is
    taken to be as uncertain as the other.
    """
    upwards = b.value >= a.value
    one, other = a.reach(upwards), b.reach(not upwards)
    if one is None and other is None:
        return None
    one, other = (other if one is None else one), (one if other is None else other)
    return Difference(name, a.value, b.value, math.hypot(one, other))


def _rank(found: Difference) -> tuple:
    first = next((i for i, p in enumerate(_FIRST) if re.fullmatch(p, found.name)), len(_FIRST))
    return not found.real, re.fullmatch(_YARDSTICK, found.name) is not None, first, found.name


def differences(a: Mapping[str, Number], b: Mapping[str, Number]) -> tuple[list[Difference], list[str]]:
    """What two runs share: numbers with intervals, and names of those that differ without one.

    Real differences come before those within noise, and within each what to decide by before the rest.
    """
    both = sorted(a.keys() & b.keys())
    compared = {name: difference(name, a[name], b[name]) for name in both}
    undecided = [n for n in both if compared[n] is None and a[n].value != b[n].value]
    return sorted((d for d in compared.values() if d is not None), key=_rank), undecided
