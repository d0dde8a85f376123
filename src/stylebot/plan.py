"""The tool `plan.py`: are an experiment's parameters valid, and what will it need, before hours are spent."""

import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from ruamel.yaml import YAML

from stylebot.checkpoints import at_resolution, load_networks
from stylebot.cli import one_line
from stylebot.costs import EncoderCost, StepCost, encoder_cost, step_cost
from stylebot.errors import StylebotError
from stylebot.files import sha256_file
from stylebot.params import STAGES, Section, load_params
from stylebot.recipes import NamedRecipe, named_recipes

_GIB = 2**30
_PARAMS = Path("params.yaml")
_OVERHEAD_GIB, _WASTE = 1.0, 1.2  # ours, guessed: context and libraries; holes between tensors, workspaces
_ALIGN_SEC = 0.3  # of one core, per photo (dlib's detector at a megapixel; measured for the design)
_PNG_SHARE = 0.6  # of the raw pixels; FFHQ's own files have 0.40 at 1024 px, the sample's 0.49 at 256 px
_OWN_64 = {"img_resolution": 64, "channel_base": 2048, "channel_max": 128, "num_fp16_res": 0}


class Reference(NamedTuple):
    """A measured speed of training, and what one kimg costs there as `costs.step_cost` counts it."""

    machine: str
    units: int  # GPUs, or CPU cores
    resolution: int
    sec_per_kimg: float
    tflop_per_kimg: float
    source: str


_NVIDIA = "NVIDIA's figure for their code (stylegan3, docs/configs.md)"
REFERENCES = (
    Reference("cpu", 2, 64, 60.0, 4.6, "this project's sample on two cores"),
    *(Reference(machine, units, px, sec, tflop, _NVIDIA) for px, tflop, machine, units, sec in (
        (256, 411.4, "v100", 1, 20.84), (256, 411.4, "v100", 8, 4.01),
        (256, 411.4, "a100", 1, 12.53), (256, 411.4, "a100", 8, 2.47),
        (512, 1681.5, "v100", 1, 71.59), (512, 1681.5, "v100", 8, 9.11),
        (512, 1681.5, "a100", 1, 41.06), (512, 1681.5, "a100", 8, 5.28),
        (1024, 2521.0, "v100", 1, 141.83), (1024, 2521.0, "v100", 8, 18.56),
        (1024, 2521.0, "a100", 1, 90.39), (1024, 2521.0, "a100", 8, 11.75),
    )),
)  # fmt: skip
MACHINES = tuple(dict.fromkeys(r.machine for r in REFERENCES))


class Photos(NamedTuple):
    """What DVC tracks below stages/photos."""

    count: int
    total_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What one experiment needs. Every number but `photos` is an estimate."""

    train: StepCost
    encode: EncoderCost
    gpus: int  # 0: the CPU
    reference: Reference
    sec_per_kimg: float
    hours: dict[str, float]  # by stage
    disk_bytes: dict[str, float]  # by what needs it
    again_bytes: float  # of disk, for each further experiment that changes training alone
    photos: Photos
    resolution: int

    def memory_gib(self, cost: StepCost | EncoderCost) -> float:
        """Memory per device of training the networks, or the encoder."""
        return (cost.fixed_bytes + cost.peak_bytes) * _WASTE / _GIB + _OVERHEAD_GIB


def experiments(settings: Sequence[str]) -> list[list[str]]:
    """The settings of each experiment that `dvc exp run -S …` would make of these: several for a sweep.

    Raises StylebotError for what DVC cannot read.
    """
    if not settings:
        return [[]]
    try:
        return [sweep["params.yaml"] for sweep in get_hydra_sweeps({"params.yaml": list(settings)})]
    except Exception as error:  # hydra's parser raises errors of its own, which DVC does not wrap here
        raise StylebotError(f"-S {' '.join(settings)[:200]}: {one_line(error)[:300]}") from None


def checked(settings: Sequence[str], gpus: int, path: Path = _PARAMS) -> dict[str, Section]:
    """Every section of params.yaml with `settings` applied as DVC does it, each checked by its own stage.

    Raises StylebotError naming all that is wrong, also between sections.
    """
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / path.name
        shutil.copy(path, changed)
        try:
            apply_overrides(changed, list(settings))
        except DvcException as error:
            raise StylebotError(f"-S: {one_line(error.__cause__ or error)}") from None
        sections, wrong = {}, []
        for stage in STAGES:
            cls = getattr(import_module(f"stylebot.{stage}"), f"{stage.capitalize()}Params")
            try:
                sections[stage] = load_params(stage, cls, ("freeze_d",) if stage == "train" else (), changed)
            except StylebotError as error:
                wrong.append(str(error).removeprefix(f"{changed}: "))
    wrong = wrong or list(_contradictions(sections, max(gpus, 1)))
    if wrong:
        raise StylebotError("; ".join(wrong))
    return sections


def _contradictions(p: Mapping[str, Section], processes: int) -> list[str]:
    """What no single section can know."""
    wrong, train = [], p["train"]
    if p["pack"].resolution > p["align"].resolution:
        wrong.append(f"pack.resolution {p['pack'].resolution} is above align.resolution "
                     f"{p['align'].resolution}")  # fmt: skip
    if train.batch % (train.batch_gpu * processes):
        wanted = f"{processes} processes x train.batch_gpu {train.batch_gpu}"
        wrong.append(f"train.batch {train.batch} is not a multiple of {wanted}")
    if max(p["superres"].factors) > max(p["encode"].factors):
        wrong.append(f"superres.factors go to {max(p['superres'].factors)}, encode.factors only to "
                     f"{max(p['encode'].factors)}")  # fmt: skip
    if p["superres"].mode == "faithful" and not p["encode"].faithful.kimg:
        wrong.append("superres.mode is faithful, but encode.faithful.kimg is 0")
    return wrong


def architecture(fetch: Section, resolution: int) -> tuple[dict, dict, str]:
    """(constructor arguments of G, of D, where they come from) of the start weights at `resolution`.

    From the weights when a source is a file of this machine, else the configuration that NVIDIA trained at
    that resolution with, or the sample's.
    Raises StylebotError when the weights cannot start this resolution.
    """
    model = fetch.generator
    files = [Path(s) for s in model.sources] + [Path("stages/fetch/generator.safetensors")]
    for path in files:
        if path.exists() and sha256_file(path) == model.sha256:
            networks = at_resolution(load_networks(path, need=("G", "D"), allow_missing=True), resolution)
            return networks.G.config, networks.D.config, str(path)
    if resolution <= 64:
        config = _OWN_64 | {"img_resolution": resolution}
        return config, config | {"filter_taps": (1.0,)}, "the sample's, as its weights are not here"
    base = 32768 if resolution >= 512 else 16384
    config = {"img_resolution": resolution, "channel_base": base, "channel_max": 512, "num_fp16_res": 4}
    return config, config, "NVIDIA's for this resolution, as the weights are not here"


def photos_here(folder: Path = Path("stages/photos")) -> Photos:
    """What the .dvc files of the photo folders say."""
    outs = [out for path in sorted(folder.glob("*.dvc"))
            for out in YAML(typ="safe").load(path.read_text(encoding="utf-8"))["outs"]]  # fmt: skip
    return Photos(sum(out.get("nfiles", 1) for out in outs), sum(out.get("size", 0) for out in outs))


def nearest(machine: str, units: int, resolution: int) -> Reference:
    """The measured speed that is most like it: first by number of GPUs, then by resolution."""

    def gap(r: Reference) -> tuple[float, float]:
        return abs(math.log2(r.units / max(units, 1))), abs(math.log2(r.resolution / resolution))

    return min((r for r in REFERENCES if r.machine == machine), key=gap)


def estimate(p: Mapping[str, Section], gpus: int, machine: str, photos: Photos,
             networks: tuple[dict, dict]) -> Estimate:  # fmt: skip
    """Needs of an experiment with checked parameters `p` on `gpus` GPUs (0: the CPU of this machine).

    Raises StylebotError for a freeze_d beyond the layers of D.
    """
    train, encode, side = p["train"], p["encode"], p["pack"].resolution
    step = step_cost(*networks, train.recipe())
    coder = encoder_cost(networks[0], encode.variant, encode.batch, 1 - encode.synthetic_share)
    cores = os.cpu_count() or 1
    units = gpus or cores
    ref = nearest(machine, units, side)
    rate = ref.tflop_per_kimg * 1e12 / ref.sec_per_kimg / ref.units  # operations per second and unit
    sec_per_kimg = step.flops_per_kimg / rate / units
    hours = {"align": photos.count * _ALIGN_SEC / cores, "train": sec_per_kimg * train.kimg,
             "encode": coder.flops_per_kimg * encode.kimg / rate / (1 if gpus else cores)}  # fmt: skip
    aligned = photos.count * 3 * p["align"].resolution ** 2 * _PNG_SHARE
    packed = photos.count * 3 * side**2 * (_PNG_SHARE if side > 64 else 1.0)
    made = step.network_bytes + 4 * coder.parameters
    disk = {"photos and their copy in the cache": 2 * photos.total_bytes,
            "faces and their copies": 2 * (aligned + packed),
            "weights and results with their copies": 4 * step.network_bytes + 2 * made,
            "restart states": 3 * (step.fixed_bytes + 12 * coder.parameters)}  # fmt: skip
    return Estimate(step, coder, gpus, ref, sec_per_kimg, {k: v / 3600 for k, v in hours.items()}, disk, made,
                    photos, side)  # fmt: skip


def _memory(e: Estimate) -> Iterator[str]:
    """Two lines on memory."""
    peak, phase = max((cost.peak_bytes, phase) for phase, cost in e.train.phases.items())
    unit = "GPU" if e.gpus else "CPU"
    yield (f"memory    train {e.memory_gib(e.train):.1f} GiB per {unit}: weights, averages and Adam "
           f"{e.train.fixed_bytes / _GIB:.1f}, activations and gradients {peak / _GIB:.1f} (phase {phase}, "
           f"train.batch_gpu {e.train.recipe.batch_gpu}), the rest a margin")  # fmt: skip
    gib = e.memory_gib(e.encode)
    yield (f"          encode {gib:.1f} GiB on one {unit} (encode.batch {e.encode.batch}), "
           "LPIPS not counted")  # fmt: skip


def lines(name: str, e: Estimate, kimg: float, source: str) -> Iterator[str]:
    """The screen, a line for each fact."""
    where = f"{e.gpus} x {e.reference.machine.upper()}" if e.gpus else f"{os.cpu_count()} CPU cores"
    ref, ratio = e.reference, e.train.flops_per_kimg / 1e12 / e.reference.tflop_per_kimg
    yield f"recipe    {name}: parameters valid"
    yield (f"networks  {e.resolution} px, G {e.train.parameters_G / 1e6:.1f} and D "
           f"{e.train.parameters_D / 1e6:.1f} million parameters ({source})")  # fmt: skip
    yield from _memory(e)
    yield (f"speed     train {e.sec_per_kimg:.3g} sec/kimg on {where}: {ratio:.2f} times the operations of "
           f"{ref.sec_per_kimg:g} sec/kimg, {ref.resolution} px, {ref.units} x {ref.machine.upper()}, "
           f"{ref.source}")  # fmt: skip
    spent = ", ".join(f"{stage} {hours:.2g}" for stage, hours in e.hours.items())
    yield (f"time      {sum(e.hours.values()):.2g} hours, {e.photos.count} photos, {kimg:g} kimg: {spent}; "
           "filter, encode.faithful, fid, superres, audit not counted")  # fmt: skip
    wanted = ", ".join(f"{what} {size / _GIB:.1f}" for what, size in e.disk_bytes.items())
    yield (f"disk      {sum(e.disk_bytes.values()) / _GIB:.1f} GiB: {wanted}; each further experiment "
           f"{e.again_bytes / _GIB:.1f}")  # fmt: skip


def plan(name: str, settings: Sequence[str], gpus: int | None, machine: str | None,
         photos: Photos) -> Iterator[str]:  # fmt: skip
    """Check recipe `name` with `settings` on top, and say what it needs.

    gpus: None for those of the recipe's command; 0 is the CPU. machine: one of MACHINES, None for the usual.
    Raises StylebotError when the recipe is unknown or its parameters are not valid.
    """
    known = named_recipes()
    if name not in known:
        raise StylebotError(f"no recipe {name!r} in the README; there are {', '.join(known)}")
    recipe: NamedRecipe = known[name]
    gpus = (recipe.gpus or 0) if gpus is None else gpus
    machine = machine or ("a100" if gpus else "cpu")
    if machine not in MACHINES or (machine == "cpu") != (gpus == 0):
        known = ", ".join(MACHINES)
        raise StylebotError(f"--machine {machine} with {gpus} GPUs: known are {known}; cpu goes with 0")
    runs = experiments([*recipe.settings, *settings])
    sections = [checked(run, gpus) for run in runs]
    *networks, source = architecture(sections[0]["fetch"], sections[0]["pack"].resolution)
    found = estimate(sections[0], gpus, machine, photos, tuple(networks))
    yield from lines(name, found, sections[0]["train"].kimg, source)
    if len(runs) > 1:
        yield f"sweep     {len(runs)} experiments, all valid; the estimates are for the first"
    for path in recipe.absent:
        yield f"missing   {path}: the command takes its sha256"
    yield "Estimates all, but for the counts of parameters. python bench/speed.py measures this machine."
