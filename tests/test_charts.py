"""Charts: round ticks, honest curves, text for those who do not see them."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylebot.charts import COLOURS, line_chart, nice_ticks, thin

NUMBERS = st.floats(-1e9, 1e9)


@given(low=NUMBERS, spread=st.floats(1e-3, 1e9), wanted=st.integers(3, 8))
def test_ticks_enclose_and_are_round(low: float, spread: float, wanted: int) -> None:
    ticks = nice_ticks(low, low + spread, wanted)
    tolerance = 1e-6 * max(abs(low), spread)
    assert ticks[0] <= low + tolerance and ticks[-1] >= low + spread - tolerance
    assert 2 <= len(ticks) <= max(wanted, 5) + 2
    step = np.diff(ticks).mean()
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-6), 2) in (1, 2, 5, 10)


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_ticks_of_one_value(value: float) -> None:
    ticks = nice_ticks(value, value)
    assert ticks[0] < value < ticks[-1]


def test_thinning_keeps_mean_and_drops_what_is_not_finite() -> None:
    x = np.arange(10_000.0)
    y = np.where(x == 7, np.nan, x)
    few_x, few_y = thin(x, y)
    assert len(few_x) <= 300 and np.allclose(few_x, few_y)
    assert few_y.mean() == pytest.approx(np.nanmean(y), rel=1e-2)


def parts_of(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{chart}</div>")


def test_a_chart_is_wellformed_says_its_ends_and_escapes() -> None:
    root = parts_of(line_chart({"G <loss>": ([0, 1, 2], [3.0, 2.0, 1.25]), "D": ([1], [9.0])},
                               'Losses "now"', "kimg", "loss"))
    svg = root.find("svg")
    assert svg.get("aria-label") == 'Losses "now": G <loss> from 3 to 1.25; D from 9 to 9'
    assert svg.get("role") == "img"
    assert [li.find("svg").tail.strip() for li in root.iter("li")] == ["G <loss>", "D"]
    assert len(svg.findall("circle")) == 1


def test_points_lie_inside_and_go_the_right_way() -> None:
    svg = parts_of(line_chart({"up": ([0, 10], [-5, 100])}, "t", "x", "y")).find("svg")
    numbers = [tuple(map(float, p.split())) for p in svg.find("path").get("d")[1:].split("L")]
    (x0, y0), (x1, y1) = numbers
    assert 0 < x0 < x1 <= 420 and 0 <= y1 < y0 < 240  # SVG counts downwards


def test_no_finite_point_is_an_error() -> None:
    with pytest.raises(ValueError, match="losses: nothing to draw"):
        line_chart({"G": ([0, 1], [math.nan, math.inf])}, "losses", "x", "y")


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_have_contrast(colour: str) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 : 1 against white."""
    channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    assert 1.05 / (luminance + 0.05) >= 4.5
