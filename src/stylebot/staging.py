"""Photographs staged: generated people in the wild, cut off, blurred, in the dark, on an ID photo."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from stylebot.scenery import SCENES
from stylebot.scenes import (
    Person,
    Placing,
    blurred,
    clothes_for,
    finished,
    own_scenery,
    palette_of,
    paste,
    resized,
)

FACE_SHARE = 0.6  # height from hairline to chin, of the side of the FFHQ square
Face = tuple[np.ndarray, Person]  # the generated square [R, R, 3] uint8 and the person cut out of it
Rng = np.random.Generator


@dataclass(frozen=True)
class Picture:
    """A finished photo, rgb [H, W, 3] uint8, and what is true of its main face."""

    rgb: np.ndarray
    side_px: float = 0.0
    roll_deg: float = 0.0


def half_extent(side_px: float, roll_deg: float) -> float:
    """Half the width of the upright box around a square of that side, turned by that angle."""
    turn = np.deg2rad(abs(roll_deg))
    return side_px / 2 * float(np.cos(turn) + np.sin(turn))


def backdrop(rng: Rng, face: Face, other: Face, placing: Placing, width: int, height: int) -> np.ndarray:
    """A busy, out-of-focus background [height, width, 3]: generated or drawn, as bright as the face's own."""
    rgb, person = face
    palette = palette_of(rgb, person.alpha)
    kind = rng.choice(["own", "other", "drawn"], p=[0.4, 0.15, 0.45])
    wide, high = width // 2, height // 2
    if kind == "own":
        turn = placing.roll_deg * float(rng.uniform())
        behind = Placing(placing.center_x / 2, placing.center_y / 2,
                         max(placing.side_px / 2, 0.8 * max(wide, high)), turn)
        scene = own_scenery(rgb, person.alpha, wide, high, behind)
    elif kind == "other":
        behind = Placing(wide * rng.uniform(), high * rng.uniform(), max(wide, high) * rng.uniform(0.6, 1.3))
        scene = own_scenery(other[0], other[1].alpha, wide, high, behind)
    else:
        scene = SCENES[int(rng.integers(len(SCENES)))](rng, palette, wide, high)
        scene = blurred(scene, min(wide, high) / rng.uniform(60, 260))
    gain = np.clip(palette.mean() / max(float(scene.mean()), 1.0), 0.5, 1.6) ** 0.7
    return resized(np.clip(scene * gain, 0, 255), width, height, Image.Resampling.BICUBIC)


def camera(rng: Rng, photo: np.ndarray) -> np.ndarray:
    """An ordinary camera's rendering of a scene."""
    return finished(rng, photo, noise=rng.uniform(0.2, 1.0) ** 2 * 2.5, vignette=rng.uniform(0, 0.3),
                    gain=rng.uniform(0.93, 1.07, 3).astype(np.float32), gamma=rng.uniform(0.85, 1.15))


def roll_of(rng: Rng) -> float:
    """In-plane rotation in degrees: mostly a few, sometimes up to 30 either way."""
    return float(np.clip(rng.normal(0, 5), -12, 12) if rng.uniform() < 0.6 else rng.uniform(-30, 30))


def framing(rng: Rng, side: float, roll: float, room: float = 0.0) -> tuple[int, int, float, float]:
    """Width, height and the face's centre for a photo holding the whole square; `room` px more beside it."""
    need = 2 * half_extent(side, roll) * 1.03
    short = max(need * rng.uniform(1.0, 1.0 + 0.7 * min(1.0, 280 / side)), rng.uniform(340, 480))
    aspect = float(rng.choice([1.0, 1.25, 4 / 3, 1.5, 16 / 9], p=[0.1, 0.2, 0.3, 0.3, 0.1]))
    width, height = (short * aspect, short) if rng.uniform() < 0.55 or room else (short, short * aspect)
    width = max(width, need + room)
    x = need / 2 + rng.uniform() * max(width - need - room, 0)
    y = height - need / 2 - rng.uniform() * np.clip(height - need, 0, 0.5 * side)
    return round(width), round(height), x, y


def wild(rng: Rng, faces: list[Face], other: Face, height_px: float) -> Picture:
    """One or two people somewhere in a busy picture, the first in front."""
    side, roll = height_px / FACE_SHARE, roll_of(rng)
    if len(faces) == 2:
        roll *= 0.4
    second = side * rng.uniform(0.7, 1.0)
    room = 0.5 * (side + second) * rng.uniform(0.95, 1.2) if len(faces) == 2 else 0.0
    width, height, x, y = framing(rng, side, roll, room)
    place = Placing(x, y, side, roll)
    photo = backdrop(rng, faces[0], other, place, width, height)
    if len(faces) == 2:
        beside = Placing(x + room, min(y + side * rng.uniform(-0.1, 0.1), height - second * 0.55), second,
                         float(rng.uniform(-8, 8)))
        photo = paste(photo, faces[1][1], beside, clothes_for(rng, faces[1][1], False))
    photo = paste(photo, faces[0][1], place, clothes_for(rng, faces[0][1], False))
    return Picture(camera(rng, photo), side, roll)


def cut_off(rng: Rng, face: Face, other: Face, height_px: float) -> Picture:
    """A face at the photo's border: about a third of its square lies outside."""
    side, roll = height_px / FACE_SHARE, float(rng.uniform(-6, 6))
    width, height, x, y = framing(rng, side, roll)
    shift = rng.uniform(0.27, 0.32)
    edge = rng.choice(["left", "right", "top"])
    x = {"left": side * (0.5 - shift), "right": width - side * (0.5 - shift)}.get(str(edge), x)
    y = side * (0.5 - shift) if edge == "top" else y
    place = Placing(x, y, side, roll)
    photo = backdrop(rng, face, other, place, width, height)
    photo = paste(photo, face[1], place, clothes_for(rng, face[1], False))
    return Picture(camera(rng, photo), side, roll)


def unsharp(rng: Rng, face: Face, other: Face, height_px: float) -> Picture:
    """Out of focus or shaken."""
    picture = wild(rng, [face], other, height_px)
    spread = picture.side_px * rng.uniform(0.0145, 0.018)
    soft = blurred(picture.rgb.astype(np.float32), spread)
    return replace(picture, rgb=finished(rng, soft, 1.0, 0.0, np.ones(3, np.float32), 1.0))


def underexposed(rng: Rng, face: Face, other: Face, height_px: float) -> Picture:
    """Far too dark, with the noise that comes with it."""
    picture = wild(rng, [face], other, height_px)
    gain = np.full(3, rng.uniform(0.2, 0.28), np.float32)
    return replace(picture, rgb=finished(rng, picture.rgb.astype(np.float32), 1.2, 0.1, gain, 1.0))


def empty(rng: Rng, face: Face, other: Face) -> Picture:
    """Nobody's face: a scene, in some a person cut off below the chin."""
    width, height = round(rng.uniform(520, 800)), round(rng.uniform(480, 640))
    side = rng.uniform(300, 500)
    place = Placing(width * rng.uniform(0.3, 0.7), -side * 0.52, side)
    photo = backdrop(rng, face, other, replace(place, center_y=height / 2), width, height)
    if rng.uniform() < 0.35:
        photo = paste(photo, face[1], place, clothes_for(rng, face[1], False))
    return Picture(camera(rng, photo))


def portrait(rng: Rng, face: Face) -> Picture:
    """A frontal ID photo, 3:4, before a plain light wall."""
    width = int(rng.choice([413, 413, 450, 480]))
    height, side = width * 4 // 3, width / rng.uniform(0.98, 1.12)
    roll = float(np.clip(rng.normal(0, 0.8), -2, 2))
    x, y = width * (0.5 + rng.normal(0, 0.008)), side * rng.uniform(0.53, 0.58) + 0.02 * height
    place = Placing(x, y, side, roll)
    tint = np.array([[244, 245, 246], [236, 240, 245], [225, 234, 246], [246, 243, 238], [230, 231, 232]])
    wall = tint[int(rng.integers(len(tint)))].astype(np.float32)
    down, right = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    light = 1 - 0.05 * np.hypot(right - rng.uniform(-0.3, 0.3), down + 0.3)
    photo = paste(wall * light[..., None], face[1], place, clothes_for(rng, face[1], True))
    even = finished(rng, photo, noise=rng.uniform(0.3, 0.9), vignette=0.0,
                    gain=np.full(3, rng.uniform(0.98, 1.06), np.float32), gamma=rng.uniform(0.85, 1.0))
    return Picture(even, side, roll)
