"""The shape of the code: imports point downwards, functions and files are small, nothing unsafe is read."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from unsafe import unsafe

from stylebot.params import STAGES

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "src" / "stylebot"
LAYERS = (
    "errors cli params files",
    "colours ops convolutions ema draws wavelets degrade geometry pose quality duplicates identities "
    "likeness fivepoints frechet neighbours parquet schedules sheets charts meanings differences tables "
    "jpeg probes embedded scenes scenery staging",
    "generator discriminator losses augment encoder psp skips",
    "photos sources consent entries faces confidence crops limits lineups inspection workers machines "
    "dataset weights arrays pickles torchfile official rosinality legacy checkpoints dist randomness "
    "compiled trainer restarts inception perceptual render download facemaker latents provenance films "
    "projection lookalikes portions plans watch features domains enlarging runs costs recipes fitting "
    "faithful lockstep recogniser starts lessons resemblance",
    " ".join(STAGES) + " base sample generate export forget verify doctor guard card settings calibrate "
    "compare drift plan review",
)
LAYER = {module: number for number, names in enumerate(LAYERS) for module in names.split()}
TORCH_FREE = {"errors", "cli", "params", "files", "geometry", "sheets", "photos", "dataset"}
MODULES = sorted(p.stem for p in LIBRARY.glob("*.py") if p.stem != "__init__")
SOURCES = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("bench/**/*.py")])


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, everywhere: bool = True) -> Iterator[str]:
    """Dotted names that a file imports: everywhere, or only when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{short(path)}: relative import"
            whole = node.module == "stylebot"
            yield from (f"stylebot.{alias.name}" for alias in node.names) if whole else (node.module,)


def siblings(module: str) -> set[str]:
    """Modules of the library that `module` imports."""
    return {name.split(".")[1] for name in imports(LIBRARY / f"{module}.py") if name.startswith("stylebot.")}


def test_every_module_has_a_layer() -> None:
    assert not (new := set(MODULES) - LAYER.keys()), f"put {sorted(new)} into LAYERS of {Path(__file__).name}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module: str) -> None:
    top = len(LAYERS) - 1
    for other in siblings(module):
        below = LAYER[other] < LAYER[module] or LAYER[other] == LAYER[module] < top
        assert below, f"{module} (layer {LAYER[module]}) imports {other} (layer {LAYER[other]})"


def test_imports_form_no_cycle() -> None:
    tuple(TopologicalSorter({module: siblings(module) for module in MODULES}).static_order())


def test_the_package_itself_imports_nothing() -> None:
    assert list(imports(LIBRARY / "__init__.py")) == []


@pytest.mark.parametrize("module", sorted(TORCH_FREE & set(MODULES)))
def test_light_modules_do_not_load_torch(module: str) -> None:
    seen, todo = set(), {module}
    while todo:
        path = LIBRARY / f"{todo.pop()}.py"
        seen.add(path.stem)
        loaded = {tuple(name.split(".")) for name in imports(path, everywhere=False)}
        assert not {"torch", "torchvision"} & {name[0] for name in loaded}, f"{module} by way of {path.stem}"
        todo |= {name[1] for name in loaded if name[0] == "stylebot"} - seen


def test_scripts_are_thin_and_import_only_the_library() -> None:
    scripts = sorted((ROOT / "src").glob("*.py"))
    for path in scripts:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60, short(path)
        local = {n.split(".")[0] for n in imports(path)} & {p.stem for p in scripts}
        assert not local, f"{short(path)} imports the script {local}"


def test_only_dist_names_the_gpu() -> None:
    word = re.compile(r"\bcu" + "da")
    found = [short(p) for p in ROOT.glob("src/**/*.py") if word.search(p.read_text(encoding="utf-8"))]
    assert found in ([], ["src/stylebot/dist.py"])


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_nothing_that_runs_code_is_read(path: Path) -> None:
    """Weights come from strangers: no pickle, no torch.load without weights_only, no eval, no shell."""
    found = unsafe(path.read_text(encoding="utf-8"))
    if short(path) in ("src/stylebot/inception.py", "tests/test_inception.py"):  # by its sha256 alone
        found = [line for line in found if not line.endswith("torch.jit.load")]
    assert not found, short(path)


@pytest.mark.parametrize("text", [
    "import torch\ntorch.load(x)", "import torch as t\nt.load(x, weights_only=False)",
    "from torch import load\nload(x)", "import torch\nread = torch.load",
    "import torch\ntorch.load(x, weights_only=flag)", "from torch.serialization import load as z\nz(x)",
    "import torch\ntorch.jit.load(x)", "from torch import jit\njit.load(x)",
    "import pickle\npickle.Unpickler(x).load()", "from pickle import loads as f\nf(x)",
    "import pickle\nclass A(pickle.Unpickler): pass", "import joblib\njoblib.load(x)",
    "import numpy as np\nnp.load(x, allow_pickle=True)", "import numpy\nnumpy.load(x, allow_pickle=flag)",
    "import pandas as pd\npd.read_pickle(x)", "eval(x)", "list(map(eval, x))", "import dill",
    "import subprocess\nsubprocess.run(x, shell=True)", "import yaml\nyaml.load(x)",
])
def test_what_runs_code_is_seen_however_it_is_written(text: str) -> None:
    assert unsafe(text)


@pytest.mark.parametrize("text", [
    "import torch\ntorch.load(x, weights_only=True)", "import numpy as np\nnp.load(x, allow_pickle=False)",
    "import numpy as np\nnp.load(x)", "import pickle\npickle.loads(pickle.dumps(x))",
    "import subprocess\nsubprocess.run(x)", "import json\njson.load(x)"])
def test_what_runs_no_code_is_allowed(text: str) -> None:
    assert not unsafe(text)


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300, short(path)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{short(path)}: {node.name}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("src/**/*.py")), ids=short)
def test_public_names_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), short(path)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{short(path)}: {node.name}"


def tracked() -> list[Path]:
    """Text files that git tracks or would track, without the embedded remote."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.split("\0")
    found = [ROOT / name for name in listed if name and not name.startswith(".dvc/sample/")]
    return [p for p in found if p.is_file() and b"\0" not in p.read_bytes()[:8192]]


def test_no_path_of_a_machine() -> None:
    mine = {str(ROOT), f"{Path.home()}/", sys.prefix} - {"/usr", "/usr/local"}
    machine = re.compile("|".join([*map(re.escape, mine), r"/(?:home|Users)/\w+/"]))
    found = [f"{short(p)}: {hit[0]}" for p in tracked()
             if (hit := machine.search(p.read_text(encoding="utf-8", errors="replace")))]
    assert not found
