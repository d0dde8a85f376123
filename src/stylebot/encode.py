"""Stage `encode`: an encoder that finds the generator's styles for a small, blurred face."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator

from stylebot import dist
from stylebot.checkpoints import load_networks
from stylebot.dataset import Dataset
from stylebot.degrade import Degradation, degrade, to_img
from stylebot.dist import When, device, halved, wants_half
from stylebot.encoder import Encoder, save_encoder
from stylebot.errors import StylebotError
from stylebot.faithful import FaithfulParams, restoring
from stylebot.files import sha256_file
from stylebot.fitting import Pace, State, fit
from stylebot.generator import Generator
from stylebot.lessons import Batch, Faces, frozen, make_faces
from stylebot.lockstep import compiled, synchronised
from stylebot.params import Section
from stylebot.perceptual import Perceptual, pooled
from stylebot.randomness import drawer
from stylebot.recogniser import Recogniser
from stylebot.schedules import Schedule
from stylebot.skips import skips_for
from stylebot.starts import begin_with

NOTHING = "nothing"
_VERSION = 2  # of the training below: another number starts anew
_NO_ID = ("the identity loss is left out: it needs ArcFace weights (IR-SE50), which no source of `fetch` "
          "offers, and dlib's network has no gradients; nothing takes its place. "
          "encode.id_weights takes a file")


class EncodeParams(Section):
    """What `encode` reads from params.yaml; explained there."""

    variant: Literal["light", "psp"]
    start: str = Field(min_length=1)
    kimg: float = Field(gt=0)
    batch: int = Field(ge=2)
    lr: float = Field(gt=0, le=0.1)
    lr_schedule: Schedule
    l2_weight: float = Field(ge=0)
    lpips_weight: float = Field(ge=0)
    id_weight: float = Field(ge=0)
    id_weights: str = Field(min_length=1)
    w_norm_weight: float = Field(ge=0)
    w_weight: float = Field(ge=0)
    factors: list[int] = Field(min_length=1)
    degradation: Degradation
    mirror: bool
    synthetic_share: float = Field(ge=0, le=1)
    synthetic_faces: int = Field(ge=1)
    synthetic_psi: float = Field(gt=0, le=1)
    faithful: FaithfulParams
    amp: When
    compile: When
    seed: int = Field(ge=0)

    @field_validator("factors")
    @classmethod
    def _sensible(cls, factors: list[int]) -> list[int]:
        if any(f < 1 or f & (f - 1) for f in factors):
            raise ValueError("factors must be powers of two: 1, 2, 4, …")
        return factors


@dataclass(frozen=True)
class Judges:
    """The frozen networks of the losses, and whether the decoder computes in bfloat16."""

    perceptual: Perceptual
    recogniser: Recogniser | None = None
    half: bool = False


def batch_at(faces: Faces, params: EncodeParams, cur_nimg: int) -> Batch:
    """The batch that follows `cur_nimg` pictures: a function of (seed, cur_nimg) alone."""
    rng = np.random.default_rng([params.seed, 2, cur_nimg])
    n_real = params.batch - round(params.batch * params.synthetic_share)
    real = rng.integers(0, len(faces.real), n_real)
    fake = rng.integers(0, len(faces.fake), params.batch - n_real) if n_real < params.batch else []
    factors = rng.choice(params.factors, params.batch)
    mirrored = rng.random(n_real) < 0.5 * params.mirror
    target = to_img(torch.cat([faces.real[real], faces.fake[fake]]).to(device()))
    flips = torch.from_numpy(np.flatnonzero(mirrored)).to(device())
    target[flips] = target[flips].flip(3)
    random = drawer(params.seed, cur_nimg, "photo") if params.degradation == "photo" else None
    small = degrade(target, factors.tolist(), random)
    ws = faces.fake_w[fake].to(device())
    return Batch(target, small, ws, n_real, faces.w_variance, tuple(factors.tolist()))


def losses(batch: Batch, codes: torch.Tensor, generator: Generator, judges: Judges,
           params: EncodeParams) -> dict[str, torch.Tensor]:
    """Unweighted mean losses of `codes` [N,n_styles,w_dim] by name.

    Real faces: `l2`, `lpips` and `id` of the decoded picture, `w_norm` = ||codes - w_avg||_2 (pSp, eq. 1-4).
    Generated faces: `w`, the mean squared distance to the styles that made them over those styles' variance,
    which the best constant guess makes 1 (ours).
    """
    n, found = batch.n_real, {}
    if n:
        with halved(judges.half):
            img = generator.synthesis(codes[:n], noise_mode="const")
        img, target, see = pooled(img.float()), pooled(batch.target[:n]), judges.perceptual
        found["l2"] = F.mse_loss(img, target)
        if params.lpips_weight:
            with torch.no_grad():
                wanted = see.features(target)
            found["lpips"] = see.compare(see.features(img), wanted).mean()
        if judges.recogniser is not None:
            with torch.no_grad():
                person = judges.recogniser(target)
            found["id"] = judges.recogniser.distance(img, person).mean()
        found["w_norm"] = (codes[:n] - generator.mapping.w_avg).flatten(1).norm(dim=1).mean()
    if n < len(codes):
        found["w"] = F.mse_loss(codes[n:], batch.w[:, None].expand_as(codes[n:])) / batch.w_variance
    return found


def _check(generator: Generator, dataset: Dataset, params: EncodeParams) -> None:
    res = generator.img_resolution
    if dataset.resolution != res:
        raise StylebotError(f"{dataset.path} holds faces of {dataset.resolution} px, "
                            f"the generator makes {res} px")
    if dataset.channels != 3 or generator.img_channels != 3:
        raise StylebotError("encode needs colour faces and a generator of 3 channels, "
                            f"not {dataset.channels} and {generator.img_channels}")
    if res // max(params.factors) < 2:
        raise StylebotError(f"encode.factors: {max(params.factors)} leaves less than 2 px of {res} px")
    n_fake = round(params.batch * params.synthetic_share)
    if n_fake % dist.world() or (params.batch - n_fake) % dist.world():
        raise StylebotError(f"encode.batch {params.batch} has {params.batch - n_fake} real and {n_fake} "
                            f"generated faces, which {dist.world()} processes cannot share evenly")


def step_of(net: Encoder, faces: Faces, generator: Generator, judges: Judges,
            params: EncodeParams) -> Callable[[int], dict[str, torch.Tensor]]:  # fmt: skip
    """The losses of the batch after so many pictures, one compiled function if encode.compile says so."""
    n_fake = round(params.batch * params.synthetic_share)
    n_real = (params.batch - n_fake) // dist.world()

    def step(target: torch.Tensor, small: torch.Tensor, w: torch.Tensor) -> dict[str, torch.Tensor]:
        with halved(judges.half):
            codes = net(small)
        batch = Batch(target, small, w, n_real, faces.w_variance)
        return losses(batch, codes.float(), generator, judges, params)

    def pictures(cur_nimg: int) -> tuple[torch.Tensor, ...]:
        batch = batch_at(faces, params, cur_nimg).share()
        return batch.target, batch.small, batch.w

    run = compiled(step, net, lambda: pictures(0), params.compile, "encode")
    return lambda cur_nimg: run(*pictures(cur_nimg))


def _styles(state: State, pace: Pace, faces: Faces, generator: Generator, judges: Judges,
            params: EncodeParams) -> dict[str, float]:  # fmt: skip
    """Train the encoder, the net of `state`."""
    weights = {"l2": params.l2_weight, "lpips": params.lpips_weight, "id": params.id_weight,
               "w_norm": params.w_norm_weight, "w": params.w_weight}  # fmt: skip
    state.net.train()
    return fit(state, pace, step_of(state.net, faces, generator, judges, params), weights)


def _skips(identity: dict[str, object], encoder: Encoder, faces: Faces, generator: Generator,
           perceptual: Perceptual, params: EncodeParams) -> tuple[State, dict[str, float]]:  # fmt: skip
    """Train skip connections for the finished encoder, which stays as it is, like the generator.

    The batches are those that the encoder would have met next. The state's net are the `Skips`.
    """
    pace = Pace(params.faithful.kimg, params.batch, params.faithful.lr, params.lr_schedule)
    torch.manual_seed(params.seed)
    identity = identity | {"faithful": params.faithful.model_dump()}
    state = State.start("faithful", "encode.faithful.lr", identity, skips_for(generator), pace)
    first = Pace(params.kimg, params.batch, params.lr, params.lr_schedule).total
    weights = {"l2": params.l2_weight, "lpips": params.lpips_weight,
               "consistency": params.faithful.consistency_weight}  # fmt: skip
    encoder.eval().requires_grad_(False)

    def of(cur_nimg: int) -> dict[str, torch.Tensor]:
        batch = batch_at(faces, params, first + cur_nimg).share()
        return restoring(batch.target, batch.small, batch.factors, encoder, state.net, generator, perceptual,
                         weights)  # fmt: skip

    means = fit(state, pace, of, weights)
    return state, {f"faithful_{name}": value for name, value in means.items()}


def _judges(perceptual: Path, params: EncodeParams) -> tuple[Judges, dict[str, str]]:
    """The networks of the losses, and why a loss that has a weight is left out, by its name."""
    distance, recogniser, left_out = Perceptual(perceptual).to(device()), None, {}
    if params.id_weight and params.id_weights != NOTHING:
        recogniser = Recogniser(Path(params.id_weights)).to(device())
    elif params.id_weight:
        left_out["id"] = _NO_ID
    return Judges(distance, recogniser, wants_half(params.amp)), left_out


def _new_encoder(decoder: Generator, params: EncodeParams) -> Encoder:
    torch.manual_seed(params.seed)  # the initial weights; nothing after this line draws from it
    encoder = Encoder(params.variant, decoder.img_resolution, decoder.w_dim)
    encoder.latent_avg.copy_(decoder.mapping.w_avg.expand_as(encoder.latent_avg))
    if params.start != NOTHING:
        begin_with(encoder, Path(params.start))
    return synchronised(encoder)


def encode(generator: Path, dataset: Path, perceptual: Path, out: Path,
           params: EncodeParams) -> dict[str, float]:
    """Train the encoder against the frozen G_ema and write it to `out`; returns the metrics.

    Killed and started again, it goes on where it was. Under torchrun each process takes an equal share of
    every batch; the first writes. Raises: StylebotError for inputs that do not fit.
    """
    decoder, data = frozen(load_networks(generator, need=("G_ema",)).G_ema), Dataset(dataset)
    _check(decoder, data, params)
    judges, left_out = _judges(perceptual, params)
    for why in left_out.values() if dist.rank() == 0 else ():
        print(f"encode: {why}")
    encoder = _new_encoder(decoder, params)
    recorded = params.model_dump(mode="json", exclude=None if params.faithful.kimg else {"faithful"})
    files = [Path(name) for name in (params.start, params.id_weights) if name != NOTHING]
    parents = {str(path): sha256_file(path) for path in files}
    sha256 = sha256_file(generator)
    identity = {"version": _VERSION, "params": params.model_dump(exclude={"faithful"}), "weights": sha256,
                "dataset": data.fingerprint, "perceptual": sha256_file(perceptual), **parents}  # fmt: skip
    pace = Pace(params.kimg, params.batch, params.lr, params.lr_schedule)
    state = State.start("encode", "encode.lr", identity, encoder, pace)
    faces = Faces(torch.from_numpy(data.read_all()),
                  *make_faces(decoder, params.synthetic_faces, params.synthetic_psi, params.seed))
    means = _styles(state, pace, faces, decoder, judges, params)
    meta = {"params": recorded, "left_out": left_out, "generator_sha256": sha256,
            "kimg": state.cur_nimg / 1000}  # fmt: skip
    if parents:
        meta["parents"] = parents
    skips: State | None = None
    if params.faithful.kimg:
        state.save()  # a restart finds the encoder finished
        skips, more = _skips(identity, encoder, faces, decoder, judges.perceptual, params)
        means |= more
    dist.barrier()  # nobody reads a restart state any more
    if dist.rank() == 0:
        save_encoder(out, encoder, meta, skips.net if skips else None)
        for run in filter(None, (state, skips)):
            run.restarts.clear()
    return {f"encode_{name}": value for name, value in sorted(means.items())}
