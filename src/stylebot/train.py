"""Stage `train`: fine-tune StyleGAN2 on the packed faces from fetched weights, with Freeze-D and ADA."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from dvclive import Live
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from pydantic import ValidationInfo as Info
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from stylebot import dist
from stylebot.checkpoints import at_resolution, descent, load_networks, save_networks
from stylebot.dataset import Dataset
from stylebot.errors import StylebotError, TrainingDiverged
from stylebot.files import sha256_file, write_bytes
from stylebot.params import Section
from stylebot.provenance import encode
from stylebot.render import stream
from stylebot.restarts import Restarts, asked_to_stop, copy_whole
from stylebot.schedules import Schedule, lr_factor
from stylebot.sheets import contact_sheet
from stylebot.trainer import Recipe, TrainState, compile_phases, read_stats, set_lr, start_state, train_step
from stylebot.watch import Watch, start_watch
from stylebot.weights import Networks, at_initialisation

PROGRESS_FACES = 24  # faces in each grid of training progress, always of the same latents
MAX_SKIPPED = 20  # steps in a row without a finite gradient: training has diverged


class TrainParams(Section):
    """Section `train` of params.yaml, and the top-level `freeze_d`."""

    freeze_d: NonNegativeInt
    allow_missing: bool
    kimg: PositiveFloat
    batch: PositiveInt
    batch_gpu: PositiveInt
    lr_g: PositiveFloat = Field(lt=1)
    lr_d: PositiveFloat = Field(lt=1)
    lr_mapping: float = Field(ge=0, le=1)
    lr_noise: float = Field(ge=0, le=1)
    lr_schedule: Schedule
    r1_gamma: NonNegativeFloat
    pl_weight: NonNegativeFloat
    lecam_weight: NonNegativeFloat
    style_mixing_prob: float = Field(ge=0, le=1)
    G_reg_interval: PositiveInt
    D_reg_interval: PositiveInt
    ema_kimg: NonNegativeFloat
    augment: Literal["none", "face", "blit", "geom", "color", "filter", "noise", "cutout",
                     "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"]  # fmt: skip
    ada_target: float = Field(ge=-1, le=1)
    ada_kimg: PositiveFloat
    p_initial: float = Field(ge=0, le=1)
    p_max: float = Field(ge=0, le=1)
    mirror: bool
    compile: dist.When
    amp: dist.When
    tick_kimg: PositiveFloat
    snap_ticks: PositiveInt
    eval_snaps: NonNegativeInt
    eval_images: int = Field(ge=10, le=100_000)
    keep: Literal["last", "best"]
    patience: NonNegativeInt
    seed: NonNegativeInt

    def recipe(self) -> Recipe:
        """The numbers that the trainer needs."""
        names = Recipe.__dataclass_fields__.keys() & type(self).model_fields.keys()
        return Recipe(**self.model_dump(include=names), ema_rampup=None)

    @field_validator("keep", "patience")
    @classmethod
    def _looked_at(cls, value: str | int, info: Info) -> str | int:
        if value not in ("last", 0) and not info.data.get("eval_snaps"):
            raise ValueError("needs train.eval_snaps of at least 1")
        return value


def read_faces(dataset: Dataset, resolution: int, batch: int) -> Tensor:
    """All pictures of `dataset` as [N, 3, R, R] uint8.

    Raises StylebotError when they do not fit networks of `resolution`, or are fewer than one batch.
    """
    if dataset.resolution != resolution or dataset.channels != 3:
        raise StylebotError(
            f"{dataset.path}: pictures of {dataset.resolution} px and {dataset.channels} channels; the start "
            f"weights make {resolution} px RGB; set pack.resolution to {resolution} or less, "
            "or fetch other weights"
        )
    if len(dataset) < batch:
        found = f"{dataset.path}: {len(dataset)} faces"
        raise StylebotError(f"{found} are too few for train.batch {batch}; add photos or lower it")
    return torch.from_numpy(dataset.read_all())


def write_grid(state: TrainState, path: Path) -> None:
    """A PNG of faces that G_ema makes of fixed seeds, with constant noise and no truncation."""
    batches = stream(state.G_ema, range(PROGRESS_FACES), 8)
    rgbs = [rgb for batch in batches for rgb in batch.permute(0, 2, 3, 1).cpu().numpy()]
    sheet = contact_sheet(rgbs, columns=8, cell_px=max(96, min(state.G_ema.img_resolution, 256)),
                          title=f"{state.cur_nimg / 1000:.1f} kimg")  # fmt: skip
    write_bytes(path, encode(sheet, ".png", {}))


def _stats(state: TrainState) -> dict[str, float]:
    """The tick's numbers, named for people: losses, ADA's p, r_t (share of overfitting), penalties.

    A mean that a step without finite loss has spoilt is left out.
    """
    means = {name: mean for name, mean in read_stats(state).items() if math.isfinite(mean)}
    numbers = {"r_t" if name == "real_sign" else name: mean for name, mean in means.items()}
    return numbers | {"p": float(state.augment.p) if state.augment else 0.0}


def load_start(generator: Path, resolution: int, allow_missing: bool) -> Networks:
    """The start networks at `resolution`, cut down if the file's is higher; says what starts anew.

    Raises StylebotError when something is missing and was not asked to, and for a higher resolution.
    """
    networks = load_networks(generator, need=("G", "D", "G_ema"), allow_missing=allow_missing)
    try:
        networks = at_resolution(networks, resolution)
    except StylebotError as error:
        raise StylebotError(f"{generator}: {error}; pack.resolution may be {networks.G.img_resolution} "
                            "or less") from None  # fmt: skip
    if dist.rank() == 0:
        for line in at_initialisation(networks):
            print(f"train: {line}", file=sys.stderr)
    return networks


def _start(
    generator: Path, dataset: Dataset, params: TrainParams
) -> tuple[TrainState, Tensor, Restarts, dict, dict]:
    """The run (state, real faces, its restart states, what the newest holds) and its weights' descent."""
    networks = load_start(generator, dataset.resolution, params.allow_missing)
    reals = read_faces(dataset, networks.G.img_resolution, params.batch)
    half = dist.device().type == "cpu" and dist.wants_half(params.amp)
    state = start_state(networks.G, networks.D, networks.G_ema, params.recipe(), half)
    sha256 = sha256_file(generator)
    restarts = Restarts("train", {"params": params.model_dump(), "dataset": dataset.fingerprint,
                                  "weights": sha256, "half": half, "format": 5})  # fmt: skip
    saved = restarts.newest()
    if dist.rank() == 0:
        for line in restarts.told(saved):
            print(f"train: {line}", file=sys.stderr)
    if saved is not None:
        state.load_state_dict(saved)
    if params.compile == "always" or (params.compile == "auto" and dist.device().type != "cpu"):
        compile_phases(state, params.recipe())
    return state, reals.to(dist.device()), restarts, saved or {}, descent(networks.meta, sha256)


def _save(
    state: TrainState, restarts: Restarts, out: Path, numbers: dict[str, float], watch: Watch | None,
    grid: bool = True,
) -> None:  # fmt: skip
    """Restart state, a grid, and the live folder's copy, so that curves survive DVC's cleaning too."""
    dist.all_reduce_mean(state.stats.values())  # one process saves for all
    if dist.rank() == 0:
        if grid:
            write_grid(state, out / "progress" / f"{state.cur_nimg:09d}.png")
        for name in ("progress", "live"):
            copy_whole(out / name, restarts.folder_for("kept") / name)
        looks = watch.looks if watch is not None else []
        restarts.save(state.cur_nimg, state.state_dict() | {"numbers": numbers, "looks": looks})
    dist.barrier()


def train(
    generator: Path, dataset: Path, heldout: Path, inception: Path, out: Path, params: TrainParams
) -> dict[str, float]:
    """Fine-tune the networks of `generator` on the faces of `dataset`; returns the metrics.

    heldout, inception: faces and network of the KID that is watched; not read with eval_snaps 0
    out: folder; gets networks.safetensors, progress/*.png and live/ (dvclive). Interrupted at any moment, the
    same call goes on from the last saved state, bit for bit on a CPU.
    Raises StylebotError for inputs that do not fit, TrainingDiverged when gradients stay non-finite.
    """
    data, recipe = Dataset(dataset), params.recipe()
    state, reals, restarts, saved, origin = _start(generator, data, params)
    numbers, watch = saved.get("numbers", {}), _watch(heldout, inception, params, restarts, saved)
    if dist.rank() == 0:
        copy_whole(restarts.folder_for("kept"), out)
    total, tick = _whole_batches(params.kimg, recipe.batch), _whole_batches(params.tick_kimg, recipe.batch)
    lost = 0  # steps in a row without a finite gradient
    with asked_to_stop() as stop, _progress(total, state.cur_nimg) as bar, _live(out / "live") as live:
        if state.cur_nimg == 0:
            _save(state, restarts, out, numbers, watch)
        over = _has_risen(watch, params)
        if watch is not None and state.cur_nimg >= total and not watch.looks:
            numbers["kid"] = watch.look(_networks(state), state.cur_nimg / 1000)
        while state.cur_nimg < total and not over:
            before = state.skipped_steps
            set_lr(state, lr_factor(params.lr_schedule, state.cur_nimg / total))
            train_step(state, reals, recipe)
            bar(state.cur_nimg, numbers)
            at = f"{state.cur_nimg / 1000:.2f} kimg"
            lost = lost + 1 if state.skipped_steps > before else 0
            if lost >= MAX_SKIPPED:
                raise TrainingDiverged(f"no finite gradient at {at}; lower train.lr_g and train.lr_d")
            if dist.anywhere(bool(stop)):  # a signal may reach one process a step before another
                _save(state, restarts, out, numbers, watch, grid=False)  # an undisturbed run has none here
                raise StylebotError(f"stopped at {at}; the same command goes on from there")
            if state.cur_nimg % tick and state.cur_nimg < total:
                continue
            numbers, ticks, last = _stats(state), state.cur_nimg // tick, state.cur_nimg >= total
            if watch is not None and (last or ticks % (params.snap_ticks * params.eval_snaps) == 0):
                numbers["kid"] = watch.look(_networks(state), state.cur_nimg / 1000)
            if live is not None:
                _log(live, state.cur_nimg, numbers)
            if last or ticks % params.snap_ticks == 0:
                _save(state, restarts, out, numbers, watch)
                over = _has_risen(watch, params)
    return _deliver(state, restarts, out, params, data, origin, numbers, watch)


def _watch(
    heldout: Path, inception: Path, params: TrainParams, restarts: Restarts, saved: dict
) -> Watch | None:
    if not params.eval_snaps or dist.rank() != 0:
        return None
    best = restarts.folder_for("best") / "networks.safetensors" if params.keep == "best" else None
    watch = start_watch(heldout, inception, params.eval_images, best)
    if problem := watch.go_on([tuple(pair) for pair in saved.get("looks", [])]):
        print(f"train: {problem}; the best is chosen among the looks from here on", file=sys.stderr)
    return watch


def _has_risen(watch: Watch | None, params: TrainParams) -> bool:
    return dist.anywhere(watch is not None and watch.has_risen(params.patience))


def _networks(state: TrainState) -> Networks:
    return Networks(state.G, state.D, state.G_ema, meta={"kimg": state.cur_nimg / 1000})


def _deliver(
    state: TrainState, restarts: Restarts, out: Path, params: TrainParams, data: Dataset,
    origin: dict[str, object], numbers: dict[str, float], watch: Watch | None,
) -> dict[str, float]:  # fmt: skip
    metrics = {"train_kimg": state.cur_nimg / 1000, "train_faces": len(data)}
    metrics |= {"train_frozen_layers": params.freeze_d, "train_skipped_steps": state.skipped_steps}
    metrics |= {f"train_{name}": value for name, value in numbers.items()}
    if dist.rank() == 0:
        kept = _networks(state)
        if watch is not None:
            metrics |= dict(zip(("train_best_kimg", "train_best_kid"), watch.best(), strict=True))
            kept = kept if watch.snapshot is None else load_networks(watch.snapshot, need=("G", "D", "G_ema"))
        meta = origin | {"kimg": kept.meta["kimg"], "dataset": data.fingerprint,
                         "recipe": asdict(params.recipe())}  # fmt: skip
        nets = [net.cpu().requires_grad_(True) for net in (kept.G, kept.D, kept.G_ema)]
        save_networks(out / "networks.safetensors", Networks(*nets, meta=meta))
        restarts.clear()
    dist.barrier()
    return metrics


def _whole_batches(kimg: float, batch: int) -> int:
    return max(round(kimg * 1000 / batch), 1) * batch


@contextmanager
def _live(folder: Path) -> Iterator[Live | None]:
    if dist.rank() != 0:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with Live(str(folder), dvcyaml=None, save_dvc_exp=False, resume=(folder / "plots").exists()) as live:
        yield live


def _log(live: Live, nimg: int, numbers: dict[str, float]) -> None:
    live.step = nimg
    for name, value in numbers.items():
        live.log_metric(name, value)
    live.make_summary()


@contextmanager
def _progress(total: int, done: int) -> Iterator:
    columns = ("train", BarColumn(), MofNCompleteColumn(), "images", TimeRemainingColumn(),
               TextColumn("{task.fields[note]}"))  # fmt: skip
    with Progress(*columns, disable=dist.rank() != 0) as progress:
        task = progress.add_task("train", total=total, completed=done, note="")

        def update(nimg: int, numbers: dict[str, float]) -> None:
            shown = (n for n in ("loss_g", "loss_d", "p", "r_t") if n in numbers)
            note = " ".join(f"{name} {numbers[name]:.3g}" for name in shown)
            progress.update(task, completed=nimg, note=note)

        yield update
