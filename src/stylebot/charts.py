"""Line and bar charts as inline SVG: no library in the page, sharp at any width, readable without colour."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

COLOURS = ("#0b5c9e", "#b3400f", "#2f6f2f", "#6d3a8c", "#6b5500", "#8a1f4a")  # each 5:1 or more on white
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "1 4")
_WIDTH, _HEIGHT = 420, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 12, 44
_POINTS = 300  # a curve has at most so many; more are averaged in groups


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round numbers (1, 2 or 5 times a power of ten apart) that enclose [low, high].

    Ends nearer than a millionth of themselves count as one value, which gets room on both sides.
    """
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        spread = abs(low) / 2 or 1.0
        low, high = low - spread, high + spread
    rough = (high - low) / (wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{n * step:.10g}") for n in range(first, last + 1)]


def thin(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The finite points of a curve, averaged in equal groups where there are more than a screen can show."""
    points = np.asarray([x, y], float)
    points = points[:, np.isfinite(points).all(0)]
    if points.shape[1] > _POINTS:
        points = np.stack([group.mean(1) for group in np.array_split(points, _POINTS, axis=1)], 1)
    return points[0], points[1]


def _text(x: float, y: float, text: str, anchor: str = "middle", turn: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}>{escape(text)}</text>'


@dataclass(frozen=True)
class _Scale:
    """From a value to its place: `low` and `high` lie at `start` and `end` of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: np.ndarray | float) -> np.ndarray | float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _axes(across: _Scale, up: _Scale, x_label: str, y_label: str) -> list[str]:
    """Grid lines, numbers and labels."""
    parts = []
    for tick in nice_ticks(up.low, up.high):
        y = up(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{tick:g}", "end"))
    for tick in nice_ticks(across.low, across.high):
        if across.low <= tick <= across.high:
            parts.append(_text(across(tick), _HEIGHT - _BOTTOM + 18, f"{tick:g}",
                               "end" if across(tick) > _WIDTH - 2 * _RIGHT else "middle"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    turn = f' transform="rotate(-90 14 {middle:.1f})"'
    below = _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x_label)
    return [*parts, below, _text(14, middle, y_label, turn=turn)]


def line_chart(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, x_label: str,
               y_label: str) -> str:
    """An SVG of curves name -> (x, y), each with its own colour and dash; a legend when there are several.

    The text for screen readers gives each curve's first and last value. Non-finite points are left out.
    Raises ValueError when no curve has a finite point.
    """
    curves = {name: thin(*points) for name, points in series.items()}
    curves = {name: points for name, points in curves.items() if len(points[0])}
    if not curves:
        raise ValueError(f"{title}: nothing to draw")
    every_x, every_y = (np.concatenate([points[i] for points in curves.values()]) for i in (0, 1))
    low, high = float(every_x.min()), float(every_x.max())
    ticks = nice_ticks(float(every_y.min()), float(every_y.max()))
    across = _Scale(*((low, high) if low < high else (low - 1, low + 1)), _LEFT, _WIDTH - _RIGHT)
    up = _Scale(ticks[0], ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    parts, legend, told = _axes(across, up, x_label, y_label), [], []
    for (name, (x, y)), colour, dash in zip(curves.items(), COLOURS * 9, _DASHES * 9, strict=False):
        at_x, at_y = across(x), up(y)
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(at_x, at_y, strict=True))
        stroke = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        parts.append(f'<path d="{path}" {stroke}/>' if len(x) > 1 else
                     f'<circle cx="{at_x[0]:.1f}" cy="{at_y[0]:.1f}" r="4" fill="{colour}"/>')
        line = f'<svg width="34" height="10" aria-hidden="true"><path d="M0 5H34" {stroke}/></svg>'
        legend.append(f"<li>{line} {escape(name)}</li>")
        told.append(f"{name} from {y[0]:.3g} to {y[-1]:.3g}")
    label = escape(f"{title}: {'; '.join(told)}", quote=True)
    view = f'class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}"'
    below = f'<ul class="legend">{"".join(legend)}</ul>' if len(legend) > 1 else ""
    return f"<svg {view}>{''.join(parts)}</svg>{below}"
