"""The tool `generate.py`: faces from seeds, mixed, projected or moved, as pictures, sheets and films."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import Progress, track
from torch import Tensor

from stylebot import films, latents, provenance
from stylebot.checkpoints import load_networks
from stylebot.dataset import png_bytes
from stylebot.dist import device
from stylebot.errors import StylebotError
from stylebot.files import sha256_file, write_bytes
from stylebot.generator import Generator
from stylebot.lookalikes import Guard
from stylebot.perceptual import Perceptual
from stylebot.plans import Face, Look, Plan, Source, plan_of
from stylebot.portions import pictures
from stylebot.projection import Projection, face_crop, project
from stylebot.psp import inverter
from stylebot.render import NOISE_MODES, weights_sha256
from stylebot.sheets import contact_sheet

_WIDEST_PX = 12_000  # of a sheet, about; WebP ends at 16,383
_GUARDED = 8  # pictures that are compared with the training set at a time


@dataclass(frozen=True)
class Target:
    """Where to: a folder of pictures of one kind, a sheet, a film; and who may object and sign."""

    out: Path | None = None
    grid: Path | None = None
    film: Path | None = None
    kind: str = "png"
    frames: int = 60
    fps: int = 30
    guard: Callable[[], Guard] | None = None
    signer: provenance.Signer | None = None


@dataclass(frozen=True)
class Fit:
    """What a projection needs: models, steps per space, and whether the photo is a crop already."""

    landmarks: Path
    perceptual: Path
    steps: int = 500
    cropped: bool = False


def _checked(source: Source, look: Look, target: Target, batch: int | None) -> None:
    given = [f"--{name}" for name, value in vars(source).items() if value is not None]
    if len(given) != 1:
        raise StylebotError("say which faces: one of --seeds, --mix, --latents and --project"
                            + (f", not {' and '.join(given)}" if given else ""))  # fmt: skip
    if target.out is None and target.grid is None and target.film is None:
        raise StylebotError("say where to: --out FOLDER, --grid FILE.png, --film FILE.mp4, or several")
    if source.project is not None and (target.out is None or target.grid or target.film):
        raise StylebotError("--project writes to --out FOLDER; --latents makes sheets and films of its .npz")
    if source.mix is not None and (target.film or look.directions):
        raise StylebotError("--mix goes with --out and --grid only")
    if look.psi is not None and not math.isfinite(look.psi):
        raise StylebotError(f"--psi {look.psi} is not a finite number")
    if look.cutoff is not None and look.cutoff < 0:
        raise StylebotError(f"--cutoff {look.cutoff}: 0 or more layers are truncated")
    if look.noise_mode not in NOISE_MODES:
        raise StylebotError(f"--noise-mode {look.noise_mode!r} is none of {', '.join(NOISE_MODES)}")
    if not math.isfinite(look.strength) or look.strength <= 0:
        raise StylebotError(f"--strength {look.strength} is not a number above 0")
    if batch is not None and batch < 1:
        raise StylebotError(f"--batch {batch}: 1 or more pictures at a time")
    if f".{target.kind}" not in provenance.PICTURES:
        raise StylebotError(f"--kind {target.kind!r} is none of png, jpg, webp")
    if target.grid is not None:
        provenance.check_name(target.grid)
    if target.frames < 1:
        raise StylebotError(f"--frames {target.frames}: 1 or more from face to face")


@dataclass(frozen=True)
class _Studio:
    """The generator, what every picture's metadata say of it, and where pictures go."""

    g: Generator
    facts: dict[str, str]
    target: Target
    guard: Guard | None
    batch: int | None
    noise_mode: str

    def write(self, path: Path, rgb: np.ndarray | Image.Image, facts: dict[str, str],
              comment: str = provenance.NOBODY) -> None:  # fmt: skip
        """One picture with its metadata, signed if asked for."""
        picture = rgb if isinstance(rgb, Image.Image) else Image.fromarray(rgb)
        content = provenance.encode(picture, path.suffix, self.facts | facts, comment)
        write_bytes(path, self.signed(content, path))

    def signed(self, content: bytes, path: Path) -> bytes:
        """The file with a C2PA manifest, or as it is without a signer."""
        signer = self.target.signer
        return content if signer is None else signer.sign(content, path.suffix, path.name)

    def allowed(self, rgbs: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
        """Each picture and whether it may be written."""
        if self.guard is None:
            yield from ((rgb, True) for rgb in rgbs)
            return
        held: list[np.ndarray] = []
        for rgb in rgbs:
            held.append(rgb)
            if len(held) == _GUARDED:
                yield from zip(held, ~self.guard.too_near(held), strict=True)
                held = []
        if held:
            yield from zip(held, ~self.guard.too_near(held), strict=True)


def _stills(studio: _Studio, plan: Plan) -> int:
    """Write the pictures and the sheet of `plan`; return how many were withheld."""
    target, g = studio.target, studio.g
    longest = max(plan.columns, math.ceil(len(plan.faces) / plan.columns))
    cell_px = max(8, min(g.img_resolution, _WIDEST_PX // longest))
    grey = np.full((cell_px, cell_px, 3), 160, np.uint8)
    cells, captions = ([np.full_like(grey, 255)], [""]) if plan.corner else ([], [])
    withheld: list[Face] = []
    made = pictures(g, plan.ws_of, [face.seed for face in plan.faces], studio.batch, studio.noise_mode)
    steps = track(studio.allowed(made), "faces", len(plan.faces))
    for face, (rgb, good) in zip(plan.faces, steps, strict=True):
        if not good:
            withheld.append(face)
        elif target.out is not None:
            studio.write(target.out / f"{face.name}.{target.kind}", rgb, face.facts)
        if target.grid is not None:
            small = Image.fromarray(rgb).resize((cell_px, cell_px), Image.Resampling.LANCZOS)
            cells.append(np.asarray(small) if good else grey)
            captions.append(face.caption if good else f"{face.caption} withheld")
    if len(withheld) == len(plan.faces):
        raise StylebotError(f"all {len(withheld)} faces are withheld: each is too near to a training face")
    if target.grid is not None:
        sheet = contact_sheet(cells, plan.columns, captions, cell_px=cell_px)
        gone = {face.name for face in withheld}
        shown = [face.facts for face in plan.faces if face.name not in gone]
        studio.write(target.grid, sheet, _together(shown))
    return len(withheld)


def _together(facts: list[dict[str, str]]) -> dict[str, str]:
    """Facts of a sheet: the seeds in order, and the rest picture by picture where there is more."""
    seeds = [int(each["Seed"]) for each in facts if set(each) == {"Seed"}]
    told = {"Seeds": json.dumps(seeds)} if seeds else {}
    return told if len(seeds) == len(facts) else told | {"Faces": json.dumps(facts, sort_keys=True)}


def _film(studio: _Studio, plan: Plan) -> int:
    """Write the film that goes round through the faces of `plan`; return how many frames were withheld."""
    target, count = studio.target, len(plan.faces) * studio.target.frames
    films.check(target.film, target.fps, count, studio.g.img_resolution)
    path = latents.closed_path(plan.ws_of(range(len(plan.faces))), target.frames)
    first = plan.faces[0].seed  # one seed for all frames: with random noise the film would flicker
    made = pictures(studio.g, lambda part: path[part.start : part.stop], [first] * count, studio.batch,
                    studio.noise_mode)  # fmt: skip
    withheld = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal withheld
        for rgb, good in track(studio.allowed(made), "frames", count):
            withheld += not good
            if good:
                yield rgb

    facts = studio.facts | _together([face.facts for face in plan.faces])
    films.write(target.film, frames(), target.fps, facts, lambda content: studio.signed(content, target.film))
    return withheld


def _projected(studio: _Studio, photo: Path, fit: Fit, encode: Callable[[Tensor], Tensor] | None) -> None:
    """Write target, projections (w, w+, and the encoder's if there is one), their .npz, and all in a row."""
    g, out = studio.g, studio.target.out
    rgb = face_crop(photo, fit.landmarks, g.img_resolution, fit.cropped)
    perceptual = Perceptual(fit.perceptual).to(g.mapping.w_avg.device)
    with Progress() as bars:
        bar = bars.add_task("projection", total=2 * fit.steps)
        found = project(g, rgb, perceptual, fit.steps, tick=lambda: bars.advance(bar),
                        encode=encode)  # fmt: skip
    rgbs = [next(pictures(g, lambda part, p=p: p.ws, [0], 1)) for p in found]
    if studio.guard is not None and studio.guard.too_near(rgbs).any():
        raise StylebotError(f"{photo} is withheld: its projection is too near to a training face")
    write_bytes(out / "target.png", png_bytes(rgb, 9))
    for one, picture in zip(found, rgbs, strict=True):
        name = f"projected-{_word(one)}"
        latents.save_ws(out / f"{name}.npz", one.ws)
        told = {"Projection": one.space, "Steps": str(fit.steps), "Distance": f"{one.distance:.4f}"}
        studio.write(out / f"{name}.{studio.target.kind}", picture, told, provenance.IMITATION)
        print(f"{one.space}: perceptual distance {one.distance:.4f}", file=sys.stderr)
    captions = ["the photo", *(f"{one.space}: {one.distance:.3f}" for one in found)]
    sheet = contact_sheet([rgb, *rgbs], len(captions), captions, cell_px=g.img_resolution)
    shown = ", ".join(["photo", *(one.space for one in found)])
    studio.write(out / "beside.png", sheet, {"Projection": shown}, provenance.BESIDE)


def _word(found: Projection) -> str:
    return found.space.replace("+", "plus")


def generate(
    generator: Path, source: Source, look: Look, target: Target, fit: Fit, batch: int | None = None
) -> None:
    """Write the faces of `source` as `target` says, each with metadata that say that it is synthetic.

    The picture of a seed is the same in every batch (to the rounding of one level in 255) and on every run.
    With a guard, faces too near to a training face are not written; how many is said on stderr.
    Raises StylebotError for options that do not fit together or are out of range.
    """
    _checked(source, look, target, batch)
    networks = load_networks(generator, need=("G_ema",))
    g = networks.G_ema.eval().requires_grad_(False).to(device())
    model = weights_sha256(g) if generator.is_dir() else sha256_file(generator)
    facts = {"Software": "Stylebot", "Model": model, "NoiseMode": look.noise_mode}
    facts |= {} if look.cutoff is None else {"Cutoff": str(look.cutoff)}
    facts |= {} if look.label is None else {"Label": str(look.label)}
    plan = None if source.project else plan_of(g, source, look)
    if target.film is not None:
        films.check(target.film, target.fps, len(plan.faces) * target.frames, g.img_resolution)
    if plan is not None and plan.psi is not None:
        facts["Psi"] = f"{plan.psi:g}"
    guard = None if target.guard is None else target.guard()
    studio = _Studio(g, facts, target, guard, batch, look.noise_mode)
    if plan is None:
        kind = str(networks.meta.get("opts", {}).get("encoder_type"))
        encode = inverter(networks.encoder, g, kind) if networks.encoder else None
        _projected(studio, source.project, fit, encode)
        return
    if target.out is not None or target.grid is not None:
        _said(_stills(studio, plan), len(plan.faces), "faces")
    if target.film is not None:
        _said(_film(studio, plan), len(plan.faces) * target.frames, "frames")


def _said(withheld: int, of: int, what: str) -> None:
    if withheld:
        print(f"{withheld} of {of} {what} withheld: too near to a training face", file=sys.stderr)
