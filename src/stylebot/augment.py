"""Adaptive discriminator augmentation: random flips, warps, colours and corruptions of pictures.

Every number that decides what happens to a sample is drawn and composed on the CPU (a few dozen per sample),
so that nothing waits for the device; the pictures themselves are only touched by a few large linear
operations, all differentiable as often as one likes, because R1 is taken with respect to the picture before
augmentation.

Source: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B.
"""

import math
from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylebot.draws import Draws, percentile_draws, random_draws
from stylebot.wavelets import SYM6, matrix, upsampling

BLIT = {"xflip": 1, "rotate90": 1, "xint": 1}
GEOM = {"scale": 1, "rotate": 1, "aniso": 1, "xfrac": 1}
COLOR = {"brightness": 1, "contrast": 1, "lumaflip": 1, "hue": 1, "saturation": 1}
FILTER, NOISE, CUTOUT = {"imgfilter": 1}, {"noise": 1}, {"cutout": 1}
FACE = {  # ours: what a portrait may really look like, so that a leak would be harmless
    "xflip": 1, "xint": 1, "scale": 1, "rotate": 1, "aniso": 1, "xfrac": 1, "brightness": 1, "contrast": 1,
    "hue": 1, "saturation": 1, "xint_max": 0.0625, "scale_std": 0.1, "rotate_max": 0.0833, "aniso_std": 0.1,
    "xfrac_std": 0.0625, "brightness_std": 0.1, "contrast_std": 0.25, "hue_max": 0.04, "saturation_std": 0.5,
}
PRESETS: dict[str, dict[str, float]] = {
    "blit": BLIT, "geom": GEOM, "color": COLOR, "filter": FILTER, "noise": NOISE, "cutout": CUTOUT,
    "bg": BLIT | GEOM, "bgc": BLIT | GEOM | COLOR, "bgcf": BLIT | GEOM | COLOR | FILTER,
    "bgcfn": BLIT | GEOM | COLOR | FILTER | NOISE, "bgcfnc": BLIT | GEOM | COLOR | FILTER | NOISE | CUTOUT,
    "face": FACE,
}
PROBABILITIES = tuple(PRESETS["bgcfnc"])
STRENGTHS = {
    "xint_max": 0.125, "scale_std": 0.2, "rotate_max": 1.0, "aniso_std": 0.2, "xfrac_std": 0.125,
    "brightness_std": 0.2, "contrast_std": 0.5, "hue_max": 1.0, "saturation_std": 1.0, "imgfilter_std": 1.0,
    "noise_std": 0.1, "cutout_size": 0.5,
}
PADDINGS = ("tight", "reference", "fixed")

BAND_POWER = np.array([10, 1, 1, 1]) / 13  # share of each octave in natural pictures (1/f), from low to high
REACH = len(SYM6) // 4  # px of the picture to either side that one filtered sample depends on


def _compose(**entries: np.ndarray | float) -> np.ndarray:
    """Batch of 3x3 matrices, identity but for entries named m{row}{column}; [N, 3, 3] float64."""
    count = max(np.size(v) for v in entries.values())
    out = np.tile(np.eye(3), (count, 1, 1))
    for name, value in entries.items():
        out[:, int(name[1]), int(name[2])] = value
    return out


def _turn(angle: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return _compose(m00=cos, m01=-sin, m10=sin, m11=cos)


class AugmentPipe(nn.Module):
    """The whole pipeline; `pipe(img)` augments each sample with probability multiplier · p per operation.

    `preset` is a name of PRESETS or a mapping of PROBABILITIES and STRENGTHS to numbers. The buffer `p`
    (float32 scalar) stays on the CPU wherever the module goes. `padding` says how far the picture is mirrored
    beyond its rim before it is warped: "tight" what this batch needs (fastest), "fixed" always the most (same
    result, shapes that never change), "reference" the reference implementation's bound, which leaves zeros at
    the rim of strongly shrunk pictures.
    """

    p: Tensor

    def __init__(self, preset: str | Mapping[str, float] = "bgc", padding: str = "tight") -> None:
        """Raises: ValueError for an unknown preset, operation or padding."""
        super().__init__()
        if isinstance(preset, str) and preset not in PRESETS:
            raise ValueError(f"augmentation preset {preset!r} is not one of {', '.join(PRESETS)}")
        given = dict(PRESETS[preset] if isinstance(preset, str) else preset)
        known = dict.fromkeys(PROBABILITIES, 0.0) | STRENGTHS
        if padding not in PADDINGS or not given.keys() <= known.keys():
            unknown = sorted(given.keys() - known.keys()) or [padding]
            raise ValueError(f"unknown augmentation setting {', '.join(unknown)}")
        self.settings = {name: float(value) for name, value in (known | given).items()}
        self.padding = padding
        self.register_buffer("p", torch.zeros(()))

    def _apply(self, fn, recurse: bool = True) -> Self:
        p = self.p
        super()._apply(fn, recurse)
        self.p = p  # every decision is taken on the CPU: reading p there never waits for a device
        return self

    def draw(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Draws:
        """The randomness for a batch of `shape` [N, C, H, W], a function of the generator's state alone."""
        return random_draws(shape, generator, bool(self.settings["noise"]))

    def forward(self, img: Tensor, generator: torch.Generator | None = None, draws: Draws | None = None,
                debug_percentile: float | None = None) -> Tensor:
        """Augment img [N, C, H, W] about [-1, 1] (C is 1 or 3); same shape, not clamped.

        `draws` (of `draw`, or a slice of it) decides everything if given, else `generator`, else torch's own.
        With p = 0 the picture itself is returned. `debug_percentile` applies everything at that percentile.
        """
        if img.ndim != 4 or img.shape[1] not in (1, 3):
            raise ValueError(f"augmentation works on [N, 1 or 3, H, W], not on {list(img.shape)}")
        if debug_percentile is not None:
            pixels = torch.randn_like(img) if self.settings["noise"] else None
            draws = percentile_draws(debug_percentile, tuple(img.shape), pixels)
        elif self.p == 0 and draws is None:
            return img
        elif draws is None:
            draws = self.draw(tuple(img.shape), generator)
        img = self._warp(img, draws)
        img = self._colour(img, draws)
        return self._corrupt(img, draws)

    def _gate(self, draws: Draws, operation: str, column: str | None = None) -> np.ndarray:
        """Which samples get `operation`, [N] bool."""
        multiplier = self.settings[operation]
        return (draws.u(f"{column or operation}?") < multiplier * float(self.p)) & (multiplier > 0)

    def _placement(self, draws: Draws, width: int, height: int) -> np.ndarray:
        """Where each output position comes from: [N, 3, 3], in px from the picture's centre, y downwards."""
        s, two_pi = self.settings, 2 * math.pi
        once = 1 - math.sqrt(1 - min(s["rotate"] * float(self.p), 1))  # twice `once` makes `rotate` · p
        count = len(draws.uniform)

        def pick(operation: str, value: np.ndarray) -> np.ndarray:
            return np.where(self._gate(draws, operation), value, 0.0)

        def turn(name: str) -> np.ndarray:
            on = (draws.u(f"{name}?") < once) & (s["rotate"] > 0)
            return _turn(np.where(on, (draws.u(name) - 0.5) * two_pi * s["rotate_max"], 0.0))

        flip = 1 - 2 * np.floor(2 * pick("xflip", draws.u("xflip")))
        quarter = np.round(_turn(np.floor(4 * pick("rotate90", draws.u("rotate90"))) * math.pi / 2))
        shift_x = pick("xint", np.rint((2 * draws.u("xint_x") - 1) * s["xint_max"] * width))
        shift_y = pick("xint", np.rint((2 * draws.u("xint_y") - 1) * s["xint_max"] * height))
        zoom = 2.0 ** pick("scale", draws.n("scale") * s["scale_std"])
        aspect = 2.0 ** pick("aniso", draws.n("aniso") * s["aniso_std"])
        drift_x = pick("xfrac", draws.n("xfrac_x") * s["xfrac_std"] * width)
        drift_y = pick("xfrac", draws.n("xfrac_y") * s["xfrac_std"] * height)
        steps = [_compose(m00=flip), quarter, _compose(m02=-shift_x, m12=-shift_y),
                 _compose(m00=1 / zoom, m11=1 / zoom), turn("rotate_pre"),
                 _compose(m00=1 / aspect, m11=aspect), turn("rotate_post"),
                 _compose(m02=-drift_x, m12=-drift_y)]
        out = np.tile(np.eye(3), (count, 1, 1))
        for step in steps:
            out = out @ step
        return out

    def _margins(self, placement: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
        """How many mirrored px are needed left, above, right and below."""
        most = np.array([width - 1, height - 1] * 2)
        if self.padding == "fixed":
            return tuple(most.tolist())
        centre = np.array([width - 1, height - 1]) / 2
        seen = 0 if self.padding == "reference" else REACH + 0.5
        x, y = centre + seen
        corners = placement @ np.array([[-x, x, x, -x], [-y, -y, y, y], [1, 1, 1, 1]])
        low, high = corners[:, :2].min(axis=(0, 2)), corners[:, :2].max(axis=(0, 2))
        slack = 2 * REACH if self.padding == "reference" else REACH + 0.5
        need = np.concatenate([-low, high]) + slack - np.tile(centre, 2)
        return tuple(np.ceil(need.clip(0, most)).astype(int).tolist())

    def _doubling(self, length: int, before: int, after: int, like: Tensor) -> Tensor:
        if self.padding == "reference":
            return torch.as_tensor(upsampling(length, before, after), dtype=like.dtype, device=like.device)
        whole = matrix("up", length, like.dtype, like.device)
        return whole[2 * (length - 1 - before): 2 * (2 * length - 1 + after)]

    def _warp(self, img: Tensor, draws: Draws) -> Tensor:
        """Flip, shift, scale, rotate and stretch: double the rate, look up, halve it."""
        height, width = img.shape[2:]
        placement = self._placement(draws, width, height)
        moved = np.flatnonzero((placement != np.eye(3)).any(axis=(1, 2)))
        asked = self.padding == "reference" and any(self.settings[name] for name in BLIT | GEOM)
        if not len(moved) and not asked:
            return img
        if self.padding == "tight" and len(moved) < len(img):
            which = torch.as_tensor(moved, device=img.device)
            return img.index_copy(0, which, self._resample(img.index_select(0, which), placement[moved]))
        return self._resample(img, placement)

    def _resample(self, img: Tensor, placement: np.ndarray) -> Tensor:
        (count, channels, height, width) = img.shape
        left, above, right, below = self._margins(placement, width, height)
        up_x, up_y = self._doubling(width, left, right, img), self._doubling(height, above, below, img)
        doubled = up_y @ (img @ up_x.T)
        rows, columns = 2 * (height + 2 * REACH), 2 * (width + 2 * REACH)
        # Grid of the output [-1, 1] -> px of the picture; then px of the picture -> [-1, 1] of the input.
        inward = _compose(m00=columns / 4, m02=0.25, m11=rows / 4, m12=0.25)
        outward = _compose(m00=4 / len(up_x), m02=(left - right - 0.5) * 2 / len(up_x),
                           m11=4 / len(up_y), m12=(above - below - 0.5) * 2 / len(up_y))
        theta = torch.as_tensor((outward @ placement @ inward)[:, :2], dtype=img.dtype).to(img.device)
        grid = F.affine_grid(theta, [count, channels, rows, columns], align_corners=False)
        warped = F.grid_sample(doubled, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        down_x = matrix("down", width, img.dtype, img.device)
        return matrix("down", height, img.dtype, img.device) @ (warped @ down_x.T)

    def _colour(self, img: Tensor, draws: Draws) -> Tensor:
        """Brightness, contrast, luma flip, hue and saturation, as one affine map of the colours."""
        s, count = self.settings, len(img)
        on = {name: self._gate(draws, name) for name in COLOR}
        if not any(gate.any() for gate in on.values()):
            return img

        def pick(operation: str, value: np.ndarray) -> np.ndarray:
            return np.where(on[operation], value, 0.0)[:, None, None]

        unit, grey = np.eye(3), np.full((3, 3), 1 / 3)
        cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
        offset = pick("brightness", draws.n("brightness") * s["brightness_std"])
        mix = unit * 2.0 ** pick("contrast", draws.n("contrast") * s["contrast_std"])
        mix = (unit - 2 * grey * np.floor(2 * pick("lumaflip", draws.u("lumaflip")))) @ mix
        if img.shape[1] == 3:
            angle = pick("hue", (2 * draws.u("hue") - 1) * math.pi * s["hue_max"])
            mix = (unit * np.cos(angle) + grey * (1 - np.cos(angle)) + cross * np.sin(angle)) @ mix
            vivid = 2.0 ** pick("saturation", draws.n("saturation") * s["saturation_std"])
            mix = (grey + (unit - grey) * vivid) @ mix
        shift = mix @ np.broadcast_to(offset, (count, 3, 1))
        if img.shape[1] == 1:
            mix = mix.mean(axis=1, keepdims=True).sum(axis=2, keepdims=True)
            shift = shift.mean(axis=1, keepdims=True)
        mix, shift = (torch.as_tensor(x, dtype=img.dtype).to(img.device) for x in (mix, shift))
        return torch.baddbmm(shift, mix, img.flatten(2)).view_as(img)

    def _corrupt(self, img: Tensor, draws: Draws) -> Tensor:
        """Amplify octave bands, add noise, cut a square out."""
        if self.settings["imgfilter"]:
            img = self._filter(img, draws)
        if self.settings["noise"]:
            sigma = np.abs(draws.n("noise")) * self.settings["noise_std"] * self._gate(draws, "noise")
            img = img + draws.pixels.to(img) * torch.as_tensor(sigma).to(img)[:, None, None, None]
        if self.settings["cutout"]:
            half = np.where(self._gate(draws, "cutout"), self.settings["cutout_size"] / 2, 0.0)
            x, y = ((np.arange(n) + 0.5) / n for n in (img.shape[3], img.shape[2]))
            keep_x = np.abs(x - draws.u("cutout_x")[:, None]) >= half[:, None]
            keep_y = np.abs(y - draws.u("cutout_y")[:, None]) >= half[:, None]
            keep = keep_x[:, None, :] | keep_y[:, :, None]
            img = img * torch.as_tensor(keep[:, None]).to(img)
        return img

    def _filter(self, img: Tensor, draws: Draws) -> Tensor:
        gains = np.ones((len(img), len(BAND_POWER)))
        for band in range(len(BAND_POWER)):
            on = self._gate(draws, "imgfilter", f"imgfilter{band}")
            factor = np.ones_like(gains)
            factor[:, band] = 2.0 ** (draws.n(f"imgfilter{band}") * self.settings["imgfilter_std"] * on)
            gains *= factor / np.sqrt((BAND_POWER * factor**2).sum(axis=1, keepdims=True))
        weights = torch.as_tensor(gains, dtype=img.dtype).to(img.device)
        by_x, by_y = (torch.einsum("nb,bij->nij", weights, matrix("bands", n, img.dtype, img.device))[:, None]
                      for n in (img.shape[3], img.shape[2]))
        return by_y @ (img @ by_x.mT)


def ada_update(p: float, sign_mean: float, target: float, batch: int, interval: int, ada_kimg: float,
               p_max: float = 0.8) -> float:
    """The next p: a step up if D is surer of reals than `target`, down if less; in [0, p_max].

    sign_mean: mean of sign(D(real)) over every real logit since the last update, over all processes
    batch: pictures per step of the global batch; interval: steps between updates
    ada_kimg: thousands of pictures in which p may go from 0 to 1
    Computed in float32, as p is stored. The upper bound is ours: beyond it augmentations leak into G.
    Source: Karras et al. 2020, section 3.
    """
    step = np.float32(np.sign(sign_mean - target) * (batch * interval) / (ada_kimg * 1000))
    return float(min(max(np.float32(p) + step, np.float32(0)), np.float32(p_max)))
