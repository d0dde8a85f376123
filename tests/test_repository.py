"""What git holds besides code: DVC's configuration without secrets, and a README that shows the pipeline."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from test_workspace import command, stages

from stylebot.guard import faults
from stylebot.params import load_params

ROOT = Path(__file__).parents[1]


def test_config_holds_no_secret_and_verifies() -> None:
    text = (ROOT / ".dvc/config").read_text(encoding="utf-8")
    assert faults(text) == []
    settings = ("analytics = false", "check_update = false", "autostage = true", "html_template = plots.html")
    for wanted in settings:
        assert wanted in text


def test_readme_shows_the_current_graph() -> None:
    graph = subprocess.run([sys.executable, "-m", "dvc", "dag", "--md"], cwd=ROOT, check=True, text=True,
                           capture_output=True).stdout
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [{line.strip() for line in text.splitlines() if "-->" in line or "[" in line}
             for text in (graph, *re.findall(r"```mermaid\n(.+?)```", readme, re.DOTALL))]
    assert shown[0] and shown[0] in shown[1:], f"paste into README.md:\n{graph}"


def test_dvc_sees_every_data_file() -> None:
    """DVC skips folders that it takes for git-ignored by rules of its own, and their data."""
    from dvc.repo import Repo

    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.dvc"], cwd=ROOT, check=True,
                            text=True, capture_output=True).stdout.split()
    with Repo(str(ROOT)) as repo:
        seen = {Path(stage.path).relative_to(ROOT).as_posix() for stage in repo.index.stages}
    assert listed and not set(listed) - seen


def recipes() -> list[list[tuple[str, str]]]:
    """The -S settings of each `dvc exp run` in the README; of a sweep, the first value."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    runs = [line for line in text.splitlines() if line.startswith(("dvc exp run", "PET_NPROC_PER_NODE"))]
    found = [re.findall(r"-S ('[^']+'|[^\s$]+(?:\$\([^)]+\))?)", run) for run in runs]
    return [[tuple(one.strip("'").split("=", 1)) for one in some] for some in found if some]


@pytest.mark.parametrize("recipe", recipes(), ids=lambda r: r[0][0])
def test_recipes_of_the_readme_fit_the_parameters(recipe: list[tuple[str, str]], tmp_path: Path) -> None:
    yaml = YAML()
    params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, value in recipe:
        *above, last = name.split(".")
        place = params
        for key in above:
            place = place[key]
        assert last in place, f"README: no parameter {name}"
        first = value if value.startswith("[") else value.split(",")[0]
        place[last] = "0" * 64 if value.startswith("$(sha256sum") else YAML(typ="safe").load(first)
    path = tmp_path / "params.yaml"
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    for stage in stages():
        for section, (cls, top) in command(stage)[0].classes.items():
            load_params(section, getattr(importlib.import_module(f"stylebot.{section}"), cls), top, path)
