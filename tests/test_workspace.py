"""dvc.yaml, params.yaml, dvc.lock and .dvc/config agree with the code, and avoid DVC's known traps."""

import ast
import hashlib
import importlib
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import cache, reduce
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest
from ruamel.yaml import YAML

from stylebot.files import read_json
from stylebot.params import STAGES, TOP_LEVEL, load_params, read_params

ROOT = Path(__file__).parents[1]
MAX_NUMBERS = 16  # of one stage's metrics: `dvc exp show` has to fit a terminal


class Stage(NamedTuple):
    """One stage as DVC resolves it, matrices and ${} included."""

    name: str
    cmd: str
    deps: set[str]
    params: set[str]
    outs: set[str]
    metrics: set[str]


class Script(NamedTuple):
    """One stage script as its source says it."""

    path: str
    paths: dict[str, str]  # option -> Dep, Out or Metric
    others: set[str]  # options that are no paths
    params: set[str]
    classes: dict[str, tuple[str, tuple[str, ...]]]  # section -> (class, top-level keys beside it)


@cache
def yaml(name: str) -> dict:
    return YAML(typ="safe").load((ROOT / name).read_text(encoding="utf-8"))


@cache
def stages() -> tuple[Stage, ...]:
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    def read(stage) -> Stage:
        params = [d for d in stage.deps if isinstance(d, ParamsDependency)]
        return Stage(
            stage.addressing, stage.cmd, deps={d.def_path for d in stage.deps if d not in params},
            params=set(chain.from_iterable(d.params for d in params)),
            outs={o.def_path for o in stage.outs if not o.metric},
            metrics={o.def_path for o in stage.outs if o.metric})

    with Repo(str(ROOT)) as repo:
        return tuple(read(s) for s in repo.index.stages if getattr(s, "name", None))


def imported(tree: ast.Module) -> Iterator[str]:
    """Modules of the library that a source names, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "stylebot":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stylebot."):
            yield node.module.split(".")[1]


@cache
def parse(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


@cache
def closure(script: str) -> frozenset[str]:
    """Paths of the script, of what it imports from the library, and of the templates beside those modules."""
    seen, todo = set(), {script}
    while todo:
        path = todo.pop()
        seen.add(path)
        if path.endswith(".py"):
            files = (f for m in imported(parse(path)) for f in (ROOT / "src" / "stylebot").glob(f"{m}.*"))
            todo |= {f.relative_to(ROOT).as_posix() for f in files if f.is_file()} - seen
    return frozenset(seen)


@cache
def script(path: str) -> Script:
    main = next(n for n in parse(path).body if isinstance(n, ast.FunctionDef) and n.name == "main")
    kinds = {a.arg.replace("_", "-"): ast.unparse(a.annotation)
             for a in main.args.args + main.args.kwonlyargs}
    paths = {name: kind for name, kind in kinds.items() if kind in ("Dep", "Out", "Metric")}
    classes = {}
    for source in closure(path):
        for node in ast.walk(parse(source)) if source.endswith(".py") else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "load_params":
                given = [*node.args, *(k.value for k in node.keywords if k.arg == "top")]
                top = ast.literal_eval(given[2]) if len(given) > 2 else ()
                classes[ast.literal_eval(given[0])] = (ast.unparse(given[1]), top)
    params = set(classes) | set(chain.from_iterable(top for _, top in classes.values()))
    return Script(path, paths, kinds.keys() - paths.keys(), params, classes)


def command(stage: Stage) -> tuple[Script, dict[str, str]]:
    """The script that a stage runs and the values of its options."""
    words = shlex.split(stage.cmd)
    at = next(i for i, word in enumerate(words) if word.endswith(".py"))
    options = words[at + 1:]
    assert len(options) % 2 == 0 and all(o.startswith("--") for o in options[::2]), stage.cmd
    return script(words[at]), {o[2:]: v for o, v in zip(options[::2], options[1::2], strict=True)}


def covers(declared: str, used: str) -> bool:
    """Whether one of two paths is the other or lies in it."""
    a, b = Path(declared), Path(used)
    return a == b or a in b.parents or b in a.parents


def block(key: str, names: Iterable[str]) -> str:
    return "\n".join([f"    {key}:", *(f"    - {name}" for name in names)])


def by_name(stage: Stage) -> str:
    return stage.name


def entries() -> dict[str, dict]:
    """Stages as dvc.yaml writes them, the body of a foreach in its place."""
    return {name: entry.get("do", entry) for name, entry in yaml("dvc.yaml")["stages"].items()}


def param(name: str) -> object:
    """The value of a dotted name in params.yaml."""
    return reduce(lambda data, key: data[key], name.split("."), yaml("params.yaml"))


IDS = {"argvalues": stages() if (ROOT / "dvc.yaml").exists() else (), "ids": by_name}


def test_dvc_yaml_holds_the_stages_in_order() -> None:
    assert tuple(yaml("dvc.yaml")["stages"]) == STAGES


@pytest.mark.parametrize("stage", **IDS)
def test_a_stage_is_one_described_command(stage: Stage) -> None:
    entry = entries()[stage.name.split("@")[0]]
    assert len(entry.get("desc", "")) > 15, f"{stage.name} needs a desc"
    assert not re.search(r"[|;&<>\n`]|\$\(", stage.cmd), "one program, no shell"
    assert not {"always_changed", "frozen", "wdir", "vars"} & entry.keys()
    assert command(stage)[0].path == f"src/{stage.name.split('@')[0]}.py"


@pytest.mark.parametrize("stage", **IDS)
def test_options_of_the_command_are_those_of_main(stage: Stage) -> None:
    code, options = command(stage)
    assert options.keys() == code.paths.keys() | (options.keys() & code.others)


@pytest.mark.parametrize("stage", **IDS)
def test_deps_are_the_import_closure_and_the_inputs(stage: Stage) -> None:
    code, options = command(stage)
    inputs = {value for name, value in options.items() if code.paths.get(name) == "Dep"}
    data = {d for d in stage.deps if not d.startswith("src/")}
    wanted = closure(code.path) | {i for i in inputs if not any(covers(d, i) for d in data)} \
        | {d for d in data if any(covers(d, i) for i in inputs)}
    paste = block("deps", sorted(wanted))
    assert stage.deps == wanted, f"paste into stage {stage.name.split('@')[0]} of dvc.yaml:\n{paste}"


@pytest.mark.parametrize("stage", **IDS)
def test_params_are_the_sections_that_the_code_reads(stage: Stage) -> None:
    wanted, found = command(stage)[0].params, {name.split(".")[0] for name in stage.params}
    paste = block("params", sorted(wanted))
    assert found == wanted, f"paste into stage {stage.name.split('@')[0]} of dvc.yaml:\n{paste}"


@pytest.mark.parametrize("stage", **IDS)
def test_outs_and_metrics_are_the_outputs(stage: Stage) -> None:
    code, options = command(stage)
    outs = {value for name, value in options.items() if code.paths.get(name) == "Out"}
    metrics = {value for name, value in options.items() if code.paths.get(name) == "Metric"}
    assert all(any(covers(o, out) for o in stage.outs) for out in outs), block("outs", sorted(outs))
    assert all(any(covers(o, out) for out in outs) for o in stage.outs), block("outs", sorted(outs))
    assert stage.metrics == metrics, block("metrics", sorted(metrics))
    word = stage.name.split("@")[0]
    assert all(Path(out).parts[:2] == ("stages", word) for out in stage.outs)
    assert metrics <= {f"metrics/{word}.json"}


def test_metrics_and_plots_leave_the_run_cache_on() -> None:
    """`persist` and uncached outs (other than metrics) switch the run cache off; metrics are in git."""
    for name, entry in entries().items():
        for out in chain(entry.get("outs", ()), entry.get("plots", ()), entry.get("metrics", ())):
            flags = next(iter(out.values())) if isinstance(out, dict) else {}
            assert not flags.get("persist"), name
            assert flags.get("cache", True) is not (out in entry.get("metrics", ())), f"{name}: {out}"


def plot_files(entry: dict | str) -> Iterator[str]:
    """Files that an entry of the top-level `plots` shows."""
    for key, settings in entry.items() if isinstance(entry, dict) else [(entry, None)]:
        y = (settings or {}).get("y")
        yield from y if isinstance(y, dict) else (key,)


def test_plots_show_what_stages_write() -> None:
    written = set(chain.from_iterable(s.outs | s.metrics for s in stages()))
    for name in chain.from_iterable(map(plot_files, yaml("dvc.yaml").get("plots", ()))):
        assert any(Path(o) == Path(name) or Path(o) in Path(name).parents for o in written), name


def keys_of(data: object, above: str = "") -> Iterator[str]:
    """Dotted names of all keys, at any depth."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield f"{above}{key}"
            yield from keys_of(value, f"{above}{key}.")
    elif isinstance(data, list):
        for value in data:
            yield from keys_of(value, above)


def test_params_avoid_the_traps_of_dvc() -> None:
    """The run cache ignores keys named size and nfiles, ${} breaks -S, and -S rewrites flow lists."""
    assert not [k for k in keys_of(yaml("params.yaml")) if k.split(".")[-1] in ("size", "nfiles")]
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert "${" not in text
    code = "\n".join(line.split("#")[0] for line in text.splitlines())
    assert not re.search(r"[\[\]{}]", code), "lists and mappings in block style"


def test_params_are_explained() -> None:
    """Every section, and every top-level key, begins with a comment."""
    lines = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    for i, line in enumerate(lines):
        if re.match(r"\w+:", line):
            near = [line, lines[i - 1] if i else ""] + (lines[i + 1:i + 2] if line.endswith(":") else [])
            assert any("#" in text for text in near), f"params.yaml: say what {line} is for"


def test_every_section_fits_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    read = {name: found for stage in stages() for name, found in command(stage)[0].classes.items()}
    unread = read_params().keys() - read.keys() - set(TOP_LEVEL)
    assert not unread, f"no stage reads {unread}"
    for section, (cls, top) in read.items():
        load_params(section, getattr(importlib.import_module(f"stylebot.{section}"), cls), top)


def test_metrics_are_few_flat_and_unique() -> None:
    files = sorted(set(chain.from_iterable(s.metrics for s in stages())))
    assert files and sorted(f"metrics/{path.name}" for path in (ROOT / "metrics").iterdir()) == files
    seen: dict[str, str] = {}
    for file in files:
        values = read_json(ROOT / file)
        assert 0 < len(values) <= MAX_NUMBERS, f"{file}: {len(values)} numbers"
        for name, value in values.items():
            assert isinstance(value, int | float | str), f"{file}: {name} is not flat"
            assert re.fullmatch(r"[a-z][a-z0-9_]*", name), f"{file}: {name}"
            assert seen.setdefault(name, file) == file, f"{name} is in {seen[name]} and in {file}"


def test_lock_is_current_with_the_code() -> None:
    """What `dvc repro --dry --allow-missing` asks, without the data: commands, code and params as locked."""
    locked, stale = yaml("dvc.lock")["stages"], []
    for stage in stages():
        entry = locked[stage.name]
        sources = {d["path"]: d["md5"] for d in entry["deps"] if d["path"].startswith("src/")}
        found = {path: hashlib.md5((ROOT / path).read_bytes()).hexdigest() for path in sources}
        wanted = {name: param(name) for name in stage.params}
        data = {d["path"] for d in entry["deps"]}
        if (sources, entry.get("params", {}).get("params.yaml", {}), data) != (found, wanted, stage.deps) \
                or entry["cmd"] != stage.cmd:
            stale.append(stage.name)
    assert not stale, f"`dvc repro`, then commit dvc.lock: {stale}"
    assert locked.keys() == {stage.name for stage in stages()}
