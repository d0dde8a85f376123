"""Projection: the w whose picture looks most like a given face, by optimisation."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stylebot import faces, geometry, photos
from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.latents import of_seeds
from stylebot.perceptual import Perceptual, pooled

_MEAN_OF = 4096  # seeds behind the starting point and the spread
_CHUNK = 1024
_LEAST_PX = 128  # smaller ones are enlarged: at 64 px it hardly tells a melted mouth from a whole one
_STAY = 0.3  # weight of w+'s mean squared distance from its start, in units of the spread
_RATE = 0.01  # learning rate as a share of the spread of w
_NOISE, _NOISE_UNTIL = 0.05, 0.75  # of the exploration, as a share of the spread and of the steps
_RISE, _FALL = 0.05, 0.25  # shares of the steps in which the learning rate rises and falls
_MOST_PIXELS = 100_000_000
_OFF_CENTRE, _OFF_SIZE = 0.06, 0.12  # of the side: a photo this near to FFHQ's frame is a crop already


@dataclass(frozen=True)
class Projection:
    """What was found: ws [1, num_ws, w_dim], its perceptual `distance` to the target, the space.

    space: w, w+, or "encoder" for what an encoder answered at once.
    """

    ws: Tensor
    distance: float
    space: str


def face_crop(path: Path, landmarks: Path, resolution: int, cropped: bool = False) -> np.ndarray:
    """The face of a photo in FFHQ's frame, rgb [R, R, 3] uint8: the largest one, if there are several.

    A square photo whose face lies in that frame already is only scaled; with `cropped` none is searched.
    Raises StylebotError for a photo that cannot be read, without a face, or (with `cropped`) not square.
    """
    try:
        photo = photos.read_photo(path, _MOST_PIXELS)
    except photos.PhotoError as error:
        raise StylebotError(f"{path}: {error.detail}") from None
    square = photo.width == photo.height
    if cropped and not square:
        raise StylebotError(f"{path} is {photo.width} x {photo.height} px: a face crop is square")
    if not cropped:
        found = faces.Detector().find(photo.picture)
        if not len(found.boxes):
            raise StylebotError(f"{path}: no frontal face found; if it is a face crop already, say --cropped")
        areas = (found.boxes[:, 2] - found.boxes[:, 0]) * (found.boxes[:, 3] - found.boxes[:, 1])
        frame = geometry.ffhq_square(faces.Landmarker(landmarks).landmarks(found, int(areas.argmax())))
        if found.rotated_deg or not (square and _is_frame(frame, photo.width)):
            picture = faces.turned(photo.picture, found.rotated_deg)
            return np.asarray(photo.srgb(geometry.warp(picture, frame, resolution, "edge")))
    side = (resolution, resolution)
    return np.asarray(photo.srgb(photo.picture).resize(side, Image.Resampling.LANCZOS))


def _is_frame(frame: geometry.Square, side_px: int) -> bool:
    off = np.hypot(*(np.array(frame.center) + 0.5 - side_px / 2)) / side_px
    sized = abs(frame.side_px / side_px - 1) < _OFF_SIZE
    return bool(off < _OFF_CENTRE and sized and abs(frame.roll_deg) < 5)


def _enlarged(img: Tensor) -> Tensor:
    """img as the perceptual distance gets it."""
    if img.shape[2] >= _LEAST_PX:
        return img
    return F.interpolate(img, (_LEAST_PX, _LEAST_PX), mode="bilinear", align_corners=False)


@torch.inference_mode()
def _centre(g: Generator) -> tuple[Tensor, float]:
    """Mean w [w_dim] and the root of the mean squared distance from it."""
    starts = range(0, _MEAN_OF, _CHUNK)
    ws = torch.cat([of_seeds(g, range(start, start + _CHUNK))[:, 0] for start in starts])
    return ws.mean(0), float((ws - ws.mean(0)).square().sum(1).mean().sqrt())


def _rate(done: float) -> float:
    """Factor of the learning rate after the share `done` of the steps: a linear rise and a cosine fall."""
    fall = min(1.0, (1 - done) / _FALL)
    return (0.5 - 0.5 * np.cos(fall * np.pi)) * min(1.0, done / _RISE if done else 1 / 32)


def project(
    g: Generator, rgb: np.ndarray, perceptual: Perceptual, steps: int, seed: int = 0,
    tick: Callable[[], None] = lambda: None, encode: Callable[[Tensor], Tensor] | None = None,
) -> list[Projection]:  # fmt: skip
    """The w, and after it the w+ (a w per layer), whose pictures are nearest to rgb [R, R, 3] uint8.

    Each takes `steps` steps of Adam on the perceptual distance plus the mean squared error, from the average
    face to w and from there to w+; `tick` is called after each step. The noise maps stay as they are, so that
    no detail hides in them. W's search is blurred by noise that fades; w+'s is not, and pays for each layer's
    distance from where it started: free, it pulls layers apart and melts mouths for less error. `encode`
    (of a checkpoint with an encoder) gives a third answer, first in the list; w+ starts from it where it is
    nearer than w.
    Source: Karras et al. 2020, arXiv 1912.04958, section 5 and appendix D (W); Abdal et al. 2019,
    arXiv 1904.03189 (W+); learning rates in units of the spread of w are ours.
    """
    where = g.mapping.w_avg.device
    target = pooled(_target(rgb, where))
    with torch.no_grad():
        wanted = perceptual.features(_enlarged(target))
    centre, spread = _centre(g)
    draws = torch.Generator().manual_seed(seed)
    found = []

    def seen(ws: Tensor, space: str) -> Projection:
        with torch.no_grad():
            distance = perceptual.compare(perceptual.features(_enlarged(pooled(_picture(g, ws)))), wanted)
        return Projection(ws, float(distance), space)

    if encode is not None:
        found.append(seen(encode(_target(rgb, where)), "encoder"))
    w = centre.clone()[None, None]
    for space in ("w", "w+"):
        if space == "w+":
            w = min(found, key=lambda one: one.distance).ws
        begun = w.detach()
        w = begun.clone().requires_grad_(True)
        adam = torch.optim.Adam([w], betas=(0.9, 0.999))
        for step in range(steps):
            done = step / steps
            adam.param_groups[0]["lr"] = _RATE * spread * _rate(done)
            blur = spread * _NOISE * max(0.0, 1 - done / _NOISE_UNTIL) ** 2 if space == "w" else 0.0
            moved = w + torch.randn(w.shape, generator=draws).to(where) * blur
            img = pooled(_picture(g, moved))
            loss = perceptual.compare(perceptual.features(_enlarged(img)), wanted).mean()
            loss = loss + (img - target).square().mean()
            if space == "w+":
                loss = loss + _STAY * (w - begun).square().sum(-1).mean() / spread**2
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            tick()
        found.append(seen(w.detach().expand(-1, g.num_ws, -1).clone(), space))
    return found


def _target(rgb: np.ndarray, where: torch.device) -> Tensor:
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].to(where).float() / 127.5 - 1


def _picture(g: Generator, w: Tensor) -> Tensor:
    img = g.synthesis(w.expand(-1, g.num_ws, -1), noise_mode="const")
    return img.expand(-1, 3, -1, -1) if img.shape[1] == 1 else img
