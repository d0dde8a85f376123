"""Which lines of a program read what may run code: pickles, TorchScript, evaluated text, a shell."""

import ast
from collections.abc import Iterator

RUNS_CODE = {
    "builtins.eval", "builtins.exec", "os.system", "os.popen", "runpy.run_path", "yaml.load",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "pickle._Unpickler", "_pickle.load", "_pickle.loads",
    "_pickle.Unpickler", "joblib.load", "pandas.read_pickle", "torch.hub.load", "torch.jit.load",
    "torch.package.PackageImporter", "torch.storage._load_from_bytes", "numpy.ctypeslib.load_library",
}  # fmt: skip
MODULES = {"cloudpickle", "dill", "marshal", "shelve"}
TORCH_LOAD = {"torch.load", "torch.serialization.load"}


def _origins(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each imported name in the program, and what it stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                first = each.name.partition(".")[0]
                yield each.asname or first, each.name if each.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                yield each.asname or each.name, f"{node.module}.{each.name}"


def _constant(call: ast.Call | None, keyword: str) -> object:
    """The keyword's value if it is written out; "?" if it is computed; None if it is not given."""
    for given in call.keywords if call else ():
        if given.arg == keyword:
            return given.value.value if isinstance(given.value, ast.Constant) else "?"
    return None


def unsafe(text: str) -> list[str]:
    """LINE NAME of whatever may run code in the program `text`, however it was imported or handed on.

    Not counted: what a test pickles and reads back in one expression, and arguments of its class Call.
    """
    tree = ast.parse(text)
    origin = dict(_origins(tree))
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    harmless = {id(argument) for call in calls.values() if ast.unparse(call.func) == "Call"
                for argument in call.args}  # fmt: skip
    found = [(1, name) for name in origin.values() if name.partition(".")[0] in MODULES]

    def dotted(node: ast.AST) -> str:
        if isinstance(node, ast.Attribute):
            return f"{dotted(node.value)}.{node.attr}"
        return origin.get(node.id, f"builtins.{node.id}") if isinstance(node, ast.Name) else "?"

    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in harmless:
            name, call = dotted(node), calls.get(id(node))
            own = call is not None and call.args and ast.unparse(call.args[0]).startswith("pickle.dumps(")
            if name in RUNS_CODE and not own:
                found.append((node.lineno, name))
            if name in TORCH_LOAD and _constant(call, "weights_only") is not True:
                found.append((node.lineno, name))
        if isinstance(node, ast.Call):
            risky = [k for k in ("allow_pickle", "shell") if _constant(node, k) in (True, "?")]
            found += [(node.lineno, f"{key}=") for key in risky]
    return [f"{line} {name}" for line, name in sorted(found)]
