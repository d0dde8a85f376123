"""The tool `doctor.py`: what this machine has, which recipes it can run, and what to do otherwise."""

import importlib.metadata
import os
import platform
import queue
import re
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from stylebot.cli import one_line
from stylebot.errors import StylebotError
from stylebot.files import scratch, sha256_file
from stylebot.params import read_params

_GIB = 2**30
_REMOTE_SEC = 20
OK, WARN, BAD = "ok", "!", "no"


class Finding(NamedTuple):
    """One line of the screen: what was looked at, how it is, and what was found or what to do."""

    topic: str
    mark: str
    text: str


class Recipe(NamedTuple):
    """What a recipe of the README wants. GiB are estimates with a margin; `plan.py` says more."""

    name: str
    gpus: int
    gpu_gib: int
    memory_gib: int
    disk_gib: int


RECIPES = (
    Recipe("laptop, 64 px", 0, 0, 4, 4),
    Recipe("seed-paper, 256 px", 1, 12, 32, 60),
    Recipe("ffhq256-8gpu, 256 px", 8, 16, 32, 60),
    Recipe("ffhq1024-8gpu, 1024 px", 8, 40, 64, 300),
)


class Machine(NamedTuple):
    """The measurable part of a machine; sizes in GiB."""

    gpus: tuple[tuple[str, float], ...]  # name, memory
    memory_gib: float
    disk_gib: float


def memory_gib() -> float:
    """Memory of this machine, or of the container if that has less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return (whole if text == "max" else min(whole, int(text))) / _GIB


def python_finding() -> Finding:
    """Whether this Python is new enough."""
    system = f"{platform.system()} {platform.machine()}"
    text = f"{platform.python_version()}, {system}, {os.cpu_count()} CPU cores, {memory_gib():.0f} GiB memory"
    good = sys.version_info >= (3, 11)
    return Finding("python", OK if good else BAD, text if good else f"{text}; 3.11 or newer is needed")


def packages_finding(requirements: Path = Path("requirements.txt")) -> Finding:
    """Whether the packages are installed as pinned."""
    pins = re.findall(r"^([\w.-]+)==(\S+)", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    wrong = []
    for name, wanted in pins:
        try:
            found = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if found != wanted:
            wrong.append(f"{name} {found} instead of {wanted}")
    if not wrong:
        return Finding("packages", OK, f"{len(pins)} as pinned")
    return Finding("packages", WARN, f"{', '.join(wrong)}; `make setup`, then `. .venv/bin/activate`")


def gpu_findings() -> tuple[list[Finding], tuple[tuple[str, float], ...]]:
    """What torch sees: GPUs with their memory in GiB, and NCCL, by which they talk to each other."""
    import torch

    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    if not torch.accelerator.is_available():
        text = "none; training runs on the CPU, for the sample only"
        if driver:
            text = "a driver is there, but torch sees no GPU: driver too old, or a CPU build of torch"
        return [Finding("GPUs", BAD if driver else OK, f"torch {torch.__version__}: {text}")], ()
    module = torch.get_device_module(torch.accelerator.current_accelerator())
    count = torch.accelerator.device_count()
    seen = [module.get_device_properties(i) for i in range(count)]
    gpus = tuple((p.name, p.total_memory / _GIB) for p in seen)
    kinds = ", ".join(f"{n} x {name} ({gib:.0f} GiB)" for (name, gib), n in Counter(gpus).items())
    found = [Finding("GPUs", OK, f"torch {torch.__version__}: {kinds}")]
    nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    if nccl:
        found.append(Finding("NCCL", OK, ".".join(map(str, module.nccl.version()))))
    elif count > 1:
        found.append(Finding("NCCL", BAD, "this torch has none: one GPU only, PET_NPROC_PER_NODE=1"))
    return found, gpus


def disk_findings() -> tuple[list[Finding], float]:
    """Free space where the pipeline writes, and the least of it in GiB."""
    places = {
        "here": Path.cwd(),
        "for restart states": scratch(),
        "for temporary files": Path(tempfile.gettempdir()),
    }
    free = {}
    for name, place in places.items():
        there = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
        free[name] = shutil.disk_usage(there).free / _GIB
    text, least = ", ".join(f"{gib:.0f} GiB {name}" for name, gib in free.items()), min(free.values())
    return [Finding("disk", OK if least >= RECIPES[0].disk_gib else BAD, f"free: {text}")], least


def within(seconds: float, work: Callable[[], str]) -> str:
    """What `work` returns; raises TimeoutError when it takes longer, and leaves it behind."""
    answers: queue.Queue[tuple[str | None, Exception | None]] = queue.Queue()

    def answer() -> None:
        try:
            answers.put((work(), None))
        except Exception as error:  # handed to the caller, whatever it is
            answers.put((None, error))

    threading.Thread(target=answer, daemon=True).start()
    try:
        text, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error:
        raise error
    return text


def remote_findings(seconds: float = _REMOTE_SEC) -> list[Finding]:
    """Whether each configured remote answers and lets us in."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        repo = Repo()
    except DvcException as error:
        return [Finding("remotes", BAD, one_line(error))]
    found = []
    with repo:
        default = repo.config["core"].get("remote")
        if not default:
            found.append(Finding("remotes", WARN, "no default remote: dvc remote default NAME"))
        for name in repo.config["remote"]:
            shown = f"remote {name}" + (" (default)" if name == default else "")

            def look(name=name) -> str:
                odb = repo.cloud.get_remote_odb(name, "doctor")  # not without the protocol's package
                try:
                    odb.fs.info(odb.path)  # exists() says no to wrong credentials and dead servers, too
                except FileNotFoundError:
                    return "answers, nothing pushed yet"
                return "answers"

            try:
                found.append(Finding(shown, OK, within(seconds, look)))
            except Exception as error:  # each protocol's library has errors of its own
                said = one_line(error) or type(error).__name__
                found.append(Finding(shown, BAD if name == default else WARN, said))
    return found


def weight_findings() -> list[Finding]:
    """Whether each model is here with the right bytes, or where `dvc repro` will look for it."""
    here, later, bad = [], [], []
    params = read_params()
    chosen = params["align"]["landmarks"]
    for name, model in params["fetch"].items():
        if name.startswith("dlib") and name != chosen:
            continue
        stem = "landmarks" if name == chosen else name
        files = [p for p in Path("stages/fetch").glob(f"{stem}.*") if p.suffix != ".json"]
        local = [s for s in model["sources"] if not s.startswith(("pypi:", "https://"))]
        if any(sha256_file(p) == model["sha256"] for p in files):
            here.append(name)
        elif local == model["sources"] and not any(Path(s).exists() for s in local):
            bad.append(f"{name}: {', '.join(local)} is missing (`dvc pull`, or put it there)")
        else:
            later.append(name)
    found = [Finding("weights", OK, f"{', '.join(here)}: here, sha256 right")] if here else []
    found += [Finding("weights", OK, f"{', '.join(later)}: `dvc repro` fetches them")] if later else []
    return found + [Finding("weights", BAD, text) for text in bad]


def lacks(recipe: Recipe, machine: Machine) -> list[str]:
    """What the machine is short of for a recipe; empty when it can run it."""
    big = [gib for _, gib in machine.gpus if gib >= recipe.gpu_gib]
    short = []
    if len(big) < recipe.gpus:
        short.append(f"{recipe.gpus} GPU(s) of {recipe.gpu_gib} GiB, found {len(big)}")
    for what, wanted, found in (
        ("memory", recipe.memory_gib, machine.memory_gib),
        ("disk", recipe.disk_gib, machine.disk_gib),
    ):
        if found < wanted:
            short.append(f"{wanted} GiB {what}, found {found:.0f}")
    return short


def recipe_findings(machine: Machine) -> list[Finding]:
    """For each recipe, whether it runs here."""
    found = []
    for recipe in RECIPES:
        short = lacks(recipe, machine)
        on = f"{len(machine.gpus)} GPU(s)" if recipe.gpus or machine.gpus else "the CPU"
        text = f"wants {'; '.join(short)}" if short else f"runs here, on {on}"
        found.append(Finding(recipe.name, BAD if short else OK, text))
    return found


def show(title: str, findings: list[Finding]) -> None:
    """Findings as a table of three columns."""
    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True, min_width=18)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(*finding)
    Console(markup=False, highlight=False).print(table)


def examine() -> None:
    """Print everything. Raises StylebotError, naming what is wrong, when even the sample cannot run."""
    if missing := [name for name in ("requirements.txt", "params.yaml") if not Path(name).is_file()]:
        raise StylebotError(f"no {missing[0]} here: run it in the repository's folder")
    findings = [python_finding(), packages_finding()]
    graphics, gpus = gpu_findings()
    disk, free_gib = disk_findings()
    findings += [*graphics, *disk, *remote_findings(), *weight_findings()]
    recipes = recipe_findings(Machine(gpus, memory_gib(), free_gib))
    show("This machine", findings)
    show("\nRecipes of the README", recipes)
    if gpus and any(f.mark == BAD for f in recipes):
        print(
            "Less memory per GPU: lower train.batch_gpu. Fewer GPUs: nothing to change, it only takes longer."
        )
    wrong = [f"{f.topic}: {f.text}" for f in [*findings, recipes[0]] if f.mark == BAD]
    if wrong:
        raise StylebotError(f"mend this first: {'; '.join(wrong)}")
