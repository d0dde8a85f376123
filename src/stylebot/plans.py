"""Which faces a user asks for: from seeds, from files of latents, mixed, moved along found directions."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stylebot import latents
from stylebot.errors import StylebotError
from stylebot.generator import Generator

_LAST_SEED = 2**32 - 1
_MOST_SEEDS = 10_000_000
_MOST_AT_ONCE = 10_000  # mixes and strips, whose latents are made before the first picture
_PSI = 0.7  # of seeds, where nothing else is asked for
_STEPS = 7  # of a strip along a direction


@dataclass(frozen=True)
class Source:
    """Which faces: exactly one of seeds ("0-35"), mix ("0-3x10-14"), latents and project."""

    seeds: str | None = None
    mix: str | None = None
    latents: Path | None = None
    project: Path | None = None


@dataclass(frozen=True)
class Look:
    """How faces are made of them; `layers` ("0-3") are those that are mixed, or moved along directions."""

    psi: float | None = None
    cutoff: int | None = None
    noise_mode: str = "const"
    label: int | None = None
    layers: str | None = None
    directions: int | None = None
    strength: float = 0.3


@dataclass(frozen=True)
class Face:
    """One picture to make; `seed` is that of its noise."""

    name: str
    caption: str
    seed: int
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The faces in order, the ws [n, num_ws, w_dim] of a range of them, and how a sheet lays them out."""

    faces: list[Face]
    ws_of: Callable[[range], Tensor]
    columns: int
    psi: float | None  # the truncation that was applied, if any
    corner: bool = False  # whether the sheet's first cell stays empty


def parse_numbers(text: str, option: str, last: int, most: int = _MOST_SEEDS) -> list[int]:
    """Numbers of "0-35,100": numbers and ranges with both ends, in the order given, repeats dropped.

    Raises StylebotError for anything else, a range that falls, and numbers beyond `last`.
    """
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,10})\s*(?:-\s*([0-9]{1,10})\s*)?", part)
        if not found:
            raise StylebotError(f"{option}: {part.strip()!r} is neither a number nor a range like 0-35")
        start, end = int(found[1]), int(found[2] or found[1])
        if not start <= end <= last:
            raise StylebotError(f"{option}: {part.strip()!r} must rise and end below {last + 1}")
        if len(numbers) + end - start >= most:
            raise StylebotError(f"{option}: more than {most} pictures; ask for fewer at a time")
        numbers += range(start, end + 1)
    return list(dict.fromkeys(numbers))


def parse_seeds(text: str, option: str = "--seeds") -> list[int]:
    """Seeds of "0-35,100", as `parse_numbers`."""
    return parse_numbers(text, option, _LAST_SEED)


def _layers(g: Generator, look: Look, otherwise: range) -> Sequence[int]:
    return otherwise if look.layers is None else parse_numbers(look.layers, "--layers", g.num_ws - 1)


def _square(count: int) -> int:
    return math.ceil(math.sqrt(count))


def _seeds_plan(g: Generator, seeds: list[int], look: Look) -> Plan:
    faces = [Face(f"seed{seed:04d}", str(seed), seed, {"Seed": str(seed)}) for seed in seeds]
    psi = _PSI if look.psi is None else look.psi
    of = partial(latents.of_seeds, g, psi=psi, cutoff=look.cutoff, label=look.label)
    return Plan(faces, lambda part: of([seeds[i] for i in part]), _square(len(seeds)), psi)


def _latents_plan(g: Generator, path: Path, look: Look) -> Plan:
    if look.label is not None:
        raise StylebotError("--label goes with --seeds and --mix only")
    ws = latents.read_ws(path, g)
    if look.psi is not None:
        cut = g.num_ws if look.cutoff is None else look.cutoff
        ws = torch.cat([g.mapping.w_avg.lerp(ws[:, :cut], look.psi), ws[:, cut:]], 1)
    faces = [Face(f"{path.stem}-{i:04d}", f"{path.stem} {i}", i, {"Latents": path.name, "Number": str(i)})
             for i in range(len(ws))]  # fmt: skip
    return Plan(faces, lambda part: ws[part.start : part.stop], _square(len(ws)), look.psi)


def _mix_plan(g: Generator, text: str, look: Look) -> Plan:
    """The column faces, then row by row the row's face and it with each column's styles."""
    sides = text.split("x")
    if len(sides) != 2:
        raise StylebotError(f"--mix {text!r}: say the seeds of rows and columns, such as 0-3x10-14")
    rows, columns = (parse_seeds(side, "--mix") for side in sides)
    if len(rows) * len(columns) > _MOST_AT_ONCE:
        raise StylebotError(f"--mix: more than {_MOST_AT_ONCE} pictures; ask for fewer at a time")
    layers = _layers(g, look, range(round(0.4 * g.num_ws)))
    above, beside = _seeds_plan(g, columns, look), _seeds_plan(g, rows, look)
    tops, lefts = above.ws_of(range(len(columns))), beside.ws_of(range(len(rows)))
    mixes = latents.mixed(lefts, tops, layers).unflatten(0, (len(rows), len(columns)))
    faces, ws = list(above.faces), [tops]
    told = ",".join(map(str, layers))
    for row, left, mixture in zip(beside.faces, lefts, mixes, strict=True):
        faces += [row, *(Face(f"mix{row.seed:04d}-{c:04d}", f"{row.seed} + {c}", row.seed,
                              {"Seed": str(row.seed), "StylesOf": str(c), "Layers": told}) for c in columns)]
        ws += [left[None], mixture]
    all_ws = torch.cat(ws)
    return Plan(faces, lambda part: all_ws[part.start : part.stop], len(columns) + 1, above.psi, corner=True)


def _strips_plan(g: Generator, plan: Plan, look: Look) -> Plan:
    """Of every face one strip of steps per direction."""
    layers = _layers(g, look, range(g.num_ws))
    ways = latents.directions(g, look.directions, layers)
    shares = np.linspace(-look.strength, look.strength, _STEPS)
    steps = shares * latents.typical_distance(g)
    faces = [
        replace(face, name=f"{face.name}-direction{way}-step{n}",
                caption=f"{face.caption}: {way} {share:+.2f}",
                facts=face.facts | {"Direction": str(way), "Step": f"{share:+.3f}"})
        for face in plan.faces for way in range(1, len(ways) + 1) for n, share in enumerate(shares, 1)
    ]  # fmt: skip
    if len(faces) > _MOST_AT_ONCE:
        raise StylebotError(f"--directions: more than {_MOST_AT_ONCE} pictures; ask for fewer at a time")
    ws = latents.moved(plan.ws_of(range(len(plan.faces))), ways, steps, layers)
    return Plan(faces, lambda part: ws[part.start : part.stop], _STEPS, plan.psi)


def plan_of(g: Generator, source: Source, look: Look) -> Plan:
    """The faces of `source`, as `look` says; not for `project`.

    Raises StylebotError for what cannot be read and what this network does not have.
    """
    if source.mix is not None:
        return _mix_plan(g, source.mix, look)
    if source.latents is not None:
        plan = _latents_plan(g, source.latents, look)
    else:
        plan = _seeds_plan(g, parse_seeds(source.seeds), look)
    return plan if look.directions is None else _strips_plan(g, plan, look)
