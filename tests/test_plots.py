"""`dvc plots show` without internet: the page brings vega along, as its authors published it."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from browser import browser, needed
from ruamel.yaml import YAML
from workspaces import ROOT, Workspace, new_workspace

SHA256 = {  # of build/NAME.min.js in the npm package
    "vega@5.33.0": "a71f14828abacac82fbe8adb07ce65cbb82561d8eef188053c4a1c09e0164dcb",
    "vega-lite@5.23.0": "58c27358e26f2d319cf62f45bc17a4c8362f08645001df2ec8d341eee4097c7f",
    "vega-embed@6.29.0": "12d02acfbe3ec59ef9a37dd4822a2e04e2961b5bbb671bbe661d2221715b99da",
}
SCRIPT = re.compile(rb'<script id="([^"]+)">(.*?)</script>', re.DOTALL)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = new_workspace(tmp_path / "ws")
    (found.root / ".dvc/plots.html").write_bytes((ROOT / ".dvc/plots.html").read_bytes())
    (found.root / "loss.csv").write_text("kimg,G\n0,2.5\n1,1.5\n")
    (found.root / "dvc.yaml").write_text("plots:\n- loss.csv:\n    x: kimg\n    y: G\n")
    return found


def test_the_scripts_are_those_of_the_registry() -> None:
    page = (ROOT / ".dvc/plots.html").read_bytes()
    assert {name.decode(): hashlib.sha256(code).hexdigest() for name, code in SCRIPT.findall(page)} == SHA256
    assert len(page) < 1_000_000, "keep git small"


def test_the_page_of_plots_loads_nothing(workspace: Workspace) -> None:
    workspace.dvc("plots", "show", "-o", "out")
    page = (workspace.root / "out/index.html").read_text(encoding="utf-8")
    rest = SCRIPT.sub(b"", page.encode()).decode()
    assert "vegaEmbed" in rest and '"kimg"' in rest, "no plot"
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", rest) and "{scripts}" not in rest


@needed
def test_every_number_of_fid_is_a_plot_with_its_interval(workspace: Workspace, tmp_path: Path) -> None:
    """As dvc.yaml has it; each number on a scale of its own: a KID of .1 beside a FID of 100."""
    (entry,) = (e for e in plots() if isinstance(e, dict) and "stages/fid/table.csv" in e)
    shutil.copytree(ROOT / ".dvc/plots", workspace.root / ".dvc/plots")
    (workspace.root / "table.csv").write_text(
        "name,value,low,high,fakes,real\nfid_tuned,108,101,115,40,14\nkid_tuned,0.12,0.1,0.14,40,14\n"
    )
    (workspace.root / "dvc.yaml").write_text(json.dumps({"plots": [{"table.csv": entry.popitem()[1]}]}))
    workspace.dvc("plots", "show", "-o", "out")
    page = workspace.root / "out/index.html"
    svg = page.with_name("svg.html")  # drawn as elements, which can be asked
    svg.write_text(page.read_text(encoding="utf-8").replace(", spec)", ", spec, {renderer: 'svg'})"))
    with browser(tmp_path / "profile") as shown:
        shown.open(svg, 900)
        texts = shown.value("[...document.querySelectorAll('svg text')].map((e) => e.textContent)")
        marks = shown.value("[...document.querySelectorAll('.mark-rule.role-mark line')].map((e) => "
                            "e.getBoundingClientRect().width)")
        assert shown.said == shown.asked == []
    assert {"fid_tuned", "kid_tuned", "0.12", "workspace"} <= set(texts)
    assert len(marks) == 2 and min(marks) > 400, "an interval fills its scale"


def plots() -> list:
    return YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]


def test_titles_are_no_javascript() -> None:
    """DVC writes a title into a script between single quotes: one with an apostrophe shows no plot at all."""
    drawn = [entry for entry in plots() if isinstance(entry, dict)]
    titles = [title for entry in drawn for name, how in entry.items() for title in (name, how.get("title"))]
    assert titles and not [title for title in titles if title and re.search(r"""['"\\]""", title)]
