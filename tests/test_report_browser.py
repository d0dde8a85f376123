"""The report in a real browser: on a phone and on a screen, without network, by keyboard, with contrast."""

from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from test_report import made, page  # noqa: F401  fixtures

CONTRASTS = """(() => {
  const parse = (text) => (text.match(/[0-9.]+/g) || [0, 0, 0, 0]).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((v, i) => a * v + (1 - a) * under[i]);
  const ground = (e) => e === null ? [255, 255, 255]
    : over(parse(getComputedStyle(e).backgroundColor), ground(e.parentElement));
  const faded = (e) => e === null ? 1 : getComputedStyle(e).opacity * faded(e.parentElement);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), under = ground(e);
    const [r, g, b, a = 1] = parse(e.closest("svg") ? style.fill : style.color);
    const ends = [light(over([r, g, b, a * faded(e)], under)), light(under)].sort((x, y) => y - x);
    found.push([(ends[0] + 0.05) / (ends[1] + 0.05), parseFloat(style.fontSize), text.slice(0, 40)]);
  }
  return found;
})()"""  # of each piece of text: contrast by WCAG 2, size in px, and how it begins

FOCUS = """(() => {
  const e = document.activeElement, ring = e.closest(".cut") || e, style = getComputedStyle(ring);
  const box = ring.getBoundingClientRect();
  return {ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && style.outlineColor,
          seen: box.bottom > 0 && box.top < innerHeight,
          at: [...document.querySelectorAll("a, input, [tabindex]")].indexOf(e)};
})()"""

SHOWN = """[document.querySelector("output[for=step]").value, document.getElementById("step").ariaValueText,
  [...document.querySelectorAll("#steps > div")].filter((div) => div.getClientRects().length).length,
  document.querySelector("#steps > div:not([hidden])").dataset.label]"""

CUT = """(() => {
  const cut = document.querySelector(".cut"), box = cut.getBoundingClientRect();
  const clip = getComputedStyle(cut.children[1]).clipPath;
  return [clip, cut.querySelector("input").valueAsNumber, box.left, box.right];
})()"""


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(params=[390, 1440])
def width_px(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def shown(page: Path, screen: browser.Page, width_px: int) -> browser.Page:  # noqa: F811
    """The page on a screen of that width, as it is at first."""
    screen.open(page, width_px)
    return screen


@browser.needed
def test_a_browser_shows_it_without_network(shown: browser.Page, width_px: int) -> None:
    """It asks no network and says nothing to the console; every picture is there and nothing sticks out."""
    assert shown.value("innerWidth") == width_px
    assert shown.value("document.documentElement.scrollWidth") <= width_px
    assert shown.value("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    assert shown.value("document.images.length") > 20
    assert shown.asked == [] and shown.said == []


@browser.needed
def test_text_is_large_and_dark_enough(shown: browser.Page) -> None:
    """WCAG's AA, 4.5 for all text, in charts too; nothing below 11 px."""
    found = shown.value(CONTRASTS)
    assert len(found) > 100
    assert not [text for contrast, _, text in found if contrast < 4.5]
    assert not [text for _, size_px, text in found if size_px < 11]
    shown.value("document.querySelector('h1').style.color = '#888'")
    assert min(shown.value(CONTRASTS))[2] == "Faces <of> here", "the measure sees a pale heading"


@browser.needed
def test_the_keyboard_reaches_and_moves_everything(shown: browser.Page, width_px: int) -> None:
    count, rings, order = shown.value('document.querySelectorAll("a, input, [tabindex]").length'), set(), []
    for _ in range(count):
        shown.press("Tab")
        focus = shown.value(FOCUS)
        assert focus["seen"]
        rings.add(focus["ring"])
        order.append(focus["at"])
    assert order == list(range(count)) and count > 15
    assert rings == {"rgb(11, 92, 158)"}, "a visible ring, 6.9:1 on white"
    shown.value("document.getElementById('step').focus()")
    assert shown.value(SHOWN) == ["10 kimg", "10 kimg", 1, "10 kimg"]
    shown.press("ArrowLeft")
    assert shown.value(SHOWN) == ["4 kimg", "4 kimg", 1, "4 kimg"]
    shown.press("Home")
    assert shown.value(SHOWN) == ["0 kimg", "0 kimg", 1, "0 kimg"]
    clip, at, left, right = shown.value(CUT)
    assert at == 50 and "50%" in clip and 0 <= left < right <= width_px
    shown.value("document.querySelector('.cut input').focus()")
    for _ in range(3):
        shown.press("ArrowRight")
    assert shown.value(CUT)[1] == 53 and "47%" in shown.value(CUT)[0]
    assert shown.said == []
