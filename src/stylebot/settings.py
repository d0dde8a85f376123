"""The tool `settings.py`: the published training settings, as a `dvc exp run` of this workspace."""

from dataclasses import dataclass, replace
from math import log2

from stylebot.errors import StylebotError

NAMES = ("auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar")


@dataclass(frozen=True)
class Published:
    """What stylegan2-ada-pytorch resolves a named configuration to, when it goes on from given weights."""

    batch: int
    batch_gpu: int  # pictures at once on a GPU
    mbstd_group: int
    lr: float  # of G and of D
    r1_gamma: float
    ema_kimg: float
    channel_base: int  # of the networks that the settings were found for; here the weights decide
    mapping_layers: int
    pl_weight: float = 2
    style_mixing_prob: float = 0.9
    ada_kimg: float = 100  # 500 from scratch
    ada_target: float = 0.6
    augment: str = "bgc"


_NAMED = {
    "stylegan2": Published(32, 4, 4, 0.002, 10, 10, 32768, 8),
    "paper256": Published(64, 8, 8, 0.0025, 1, 20, 16384, 8),
    "paper512": Published(64, 8, 8, 0.0025, 0.5, 20, 32768, 8),
    "paper1024": Published(32, 4, 4, 0.002, 2, 10, 32768, 8),
    "cifar": Published(64, 32, 32, 0.0025, 0.01, 500, 32768, 2, pl_weight=0, style_mixing_prob=0),
}


def published(name: str, resolution: int, gpus: int, batch: int | None = None) -> Published:
    """The settings of configuration `name` for `gpus` GPUs; `batch` instead of the configuration's own.

    A named batch keeps its size per GPU, so that fewer GPUs accumulate.
    Raises: StylebotError for an unknown name, a resolution or a number of GPUs that is no power of two, and
    a batch that does not divide by the GPUs.
    Source: Karras et al. 2020, arXiv 2006.06676, appendix C; values as its published code resolves them.
    """
    if name not in NAMES:
        raise StylebotError(f"configuration {name!r} is none of {', '.join(NAMES)}")
    if resolution < 4 or resolution & (resolution - 1):
        raise StylebotError(f"--resolution {resolution} is not a power of two from 4 up")
    if gpus < 1 or gpus & (gpus - 1):
        raise StylebotError(f"--gpus {gpus} is not a power of two")
    found = _auto(resolution, gpus) if name == "auto" else _NAMED[name]
    if batch is None:
        return found
    if batch < 1 or batch % gpus:
        raise StylebotError(f"--batch {batch} does not divide by {gpus} GPUs")
    return replace(found, batch=batch, batch_gpu=batch // gpus)


def _auto(resolution: int, gpus: int) -> Published:
    batch = max(min(gpus * min(4096 // resolution, 32), 64), gpus)
    return Published(
        batch, batch // gpus, min(batch // gpus, 4), 0.002 if resolution >= 1024 else 0.0025,
        0.0002 * resolution**2 / batch, batch * 10 / 32, 32768 if resolution >= 512 else 16384, 2,
    )  # fmt: skip


def freeze_depth(resolution: int, blocks: int) -> int:
    """`freeze_d` that freezes what FreezeD's own code freezes: `blocks` whole blocks, seen from the picture.

    A resnet block here has three layers, the first one a colour layer besides; FreezeD's colour layers are
    always frozen. Blocks from 0 (the colour layer alone) to all but the 4x4 one, which stays trainable here.
    Raises: StylebotError for other numbers.
    Source: Mo, Cho and Shin 2020, arXiv 2002.10964, section 3.
    """
    most = int(log2(resolution)) - 2
    if not 0 <= blocks <= most:
        raise StylebotError(f"--freeze-blocks {blocks}: at {resolution} px 0 to {most} blocks can be frozen")
    return 1 + 3 * blocks


def command(found: Published, resolution: int, freeze_d: int) -> str:
    """The `dvc exp run` that trains so; kimg, seed and everything else stay as params.yaml has them."""
    settings: dict[str, object] = {
        "freeze_d": freeze_d, "pack.resolution": resolution, "train.batch": found.batch,
        "train.batch_gpu": found.batch_gpu, "train.lr_g": found.lr, "train.lr_d": found.lr,
        "train.lr_mapping": 1, "train.lr_noise": 1, "train.lr_schedule": "constant",
        "train.r1_gamma": found.r1_gamma,
        "train.pl_weight": found.pl_weight, "train.style_mixing_prob": found.style_mixing_prob,
        "train.ema_kimg": found.ema_kimg, "train.augment": found.augment,
        "train.ada_target": found.ada_target, "train.ada_kimg": found.ada_kimg,
        "train.G_reg_interval": 4, "train.D_reg_interval": 16}  # fmt: skip
    shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in settings.items()}
    return " \\\n  ".join(["dvc exp run", *(f"-S {name}={value}" for name, value in shown.items())])


def recipe(name: str, resolution: int, gpus: int, batch: int | None, freeze_blocks: int | None) -> str:
    """What to type for a published configuration, and for which networks it was found.

    Raises: StylebotError as `published` and `freeze_depth` do.
    """
    found = published(name, resolution, gpus, batch)
    depth = 0 if freeze_blocks is None else freeze_depth(resolution, freeze_blocks)
    typed = command(found, resolution, depth)
    return (f"{typed}\n# found for networks with channel_base {found.channel_base}, "
            f"{found.mapping_layers} mapping layers, minibatch groups of {found.mbstd_group}; "
            "the weights decide, not these settings")  # fmt: skip
