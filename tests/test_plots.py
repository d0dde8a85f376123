"""`dvc plots show` without internet: the page brings vega along, as its authors published it."""

import hashlib
import re
from pathlib import Path

import pytest
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


def test_titles_are_no_javascript() -> None:
    """DVC writes a title into a script between single quotes: one with an apostrophe shows no plot at all."""
    from ruamel.yaml import YAML

    plots = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    titles = [title for entry in plots if isinstance(entry, dict) for title in entry]
    assert titles and not [title for title in titles if re.search(r"""['"\\]""", title)]
