"""Photographs put together: a person cut out of a generated face, carried on below the frame, before a scene.

Positions in a person's frame are (u, v) in units of the side of the FFHQ square: (0, 0) is its upper left
corner, (1, 1) its lower right one, v > 1 the chest below it. Pictures are float32 [H, W, 3] in 0 … 255.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

_FALL = 0.55  # how far the shoulder line falls per unit to the side
_ARMS = 0.8  # half the width of a trunk with its arms
_SKULL = 0.36  # radius of a head of hair
_MIRROR = 0.12  # width of the border strip of which a continuation is made
_SLOW = 0.35  # units of that strip used per unit of continuation


@dataclass(frozen=True)
class Person:
    """A generated face, rgb [R, R, 3] uint8 (the whole square), and its matte, alpha [r, r] in 0 … 1."""

    rgb: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True)
class Placing:
    """Where the FFHQ square of a person lies in a photo: centre and side in px, roll in degrees clockwise."""

    center_x: float
    center_y: float
    side_px: float
    roll_deg: float = 0.0


def resized(picture: np.ndarray, width: int, height: int, resample: int = Image.Resampling.LANCZOS
            ) -> np.ndarray:
    """Float picture [H, W, 3] or [H, W] at another size."""
    planes = picture[..., None] if picture.ndim == 2 else picture
    parts = [np.ascontiguousarray(planes[..., i], np.float32) for i in range(planes.shape[2])]
    out = np.stack([np.asarray(Image.fromarray(p).resize((width, height), resample)) for p in parts], axis=-1)
    return out[..., 0] if picture.ndim == 2 else out


def blend(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`low` where `share` [H, W] is 0, `high` where it is 1."""
    return (low + (high - low) * share[..., None]).astype(np.float32)


def blurred(picture: np.ndarray, sigma_px: float) -> np.ndarray:
    """Gaussian blur in the plane, borders mirrored."""
    spread = (sigma_px, sigma_px) + (0,) * (picture.ndim - 2)
    return ndimage.gaussian_filter(picture, spread, mode="reflect").astype(np.float32)


def filled(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`picture` [S, S, 3] where `known` [S, S] is 1, smoothly carried on from there where it is 0.

    S is a power of two. Each level averages what is known over 2x2 px and fills its gaps from the next one.
    """
    side = known.shape[0]
    if side == 1:
        return picture
    total = known.reshape(side // 2, 2, side // 2, 2).sum((1, 3))
    colours = (picture * known[..., None]).reshape(side // 2, 2, side // 2, 2, 3).sum((1, 3))
    coarse = filled(colours / np.maximum(total, 1e-6)[..., None], np.minimum(total, 1))
    carried = resized(coarse, side, side, Image.Resampling.BILINEAR)
    return (carried + (picture - carried) * known[..., None]).astype(np.float32)


def refine_matte(logits: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """A soft matte [R, R] in 0 … 1 that follows the edges of `rgb` [R, R, 3], from coarse logits [r, r].

    Source: He, Sun, Tang, Guided Image Filtering (ECCV 2010), equations 5, 6 and 8, with a grey guide.
    """
    side = rgb.shape[0]
    coarse = 1 / (1 + np.exp(-np.clip(2 * logits, -20, 20)))
    labels, count = ndimage.label(coarse > 0.5)
    if count > 1:
        largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
        coarse = coarse * (ndimage.binary_dilation(labels == largest, iterations=2))
    matte = resized(coarse.astype(np.float32), side, side, Image.Resampling.BICUBIC)
    guide = rgb.astype(np.float32).mean(axis=2) / 255
    width = max(side // 40, 3)

    def box(x: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(x, width, mode="nearest")

    mean_g, mean_m = box(guide), box(matte)
    a = (box(guide * matte) - mean_g * mean_m) / (box(guide * guide) - mean_g**2 + 1e-3)
    b = mean_m - a * mean_g
    return np.clip((box(a) * guide + box(b) - 0.06) / 0.88, 0, 1).astype(np.float32)


def cut_out(rgb: np.ndarray, alpha: np.ndarray) -> Person:
    """The person of `rgb` [R, R, 3] with matte `alpha` [r, r], the old background taken out of its edge."""
    side, small = rgb.shape[0], alpha.shape[0]
    inside = filled(resized(rgb, small, small, Image.Resampling.BOX), (alpha > 0.97).astype(np.float32))
    full = resized(alpha, side, side, Image.Resampling.BILINEAR)
    inside = resized(inside, side, side, Image.Resampling.BILINEAR)
    mixed = inside + (rgb - inside) * (full**2)[..., None]
    return Person(np.clip(mixed + 0.5, 0, 255).astype(np.uint8), alpha)


DYES = np.array([[36, 40, 53], [55, 57, 63], [220, 220, 218], [114, 28, 36], [57, 80, 114], [195, 180, 157],
                 [27, 27, 28], [91, 110, 87], [162, 167, 177]], np.float32)  # the first three are formal


@dataclass(frozen=True)
class Clothes:
    """What a person wears below the square: colour [3], neckline, and how far hair falls over it.

    neck is the half width of the bare neck at the square's lower edge, left and right the half widths of the
    trunk there, hair [64] how much of each column there is hair, ends [64] how far down it reaches.
    """

    colour: np.ndarray
    style: str
    middle: float
    neck: float
    left: float
    right: float
    hair: np.ndarray
    ends: np.ndarray


def clothes_for(rng: np.random.Generator, person: Person, formal: bool) -> Clothes:
    """Clothes in the colour that the square's lower edge shows, or in one of their own if it shows none."""
    rgb = resized(person.rgb, 64, 64, Image.Resampling.BOX)
    alpha = resized(person.alpha, 64, 64, Image.Resampling.BOX)
    skin = np.median(rgb[36:44, 24:40].reshape(-1, 3), axis=0)
    low, cover = rgb[61:].mean(axis=0), alpha[61:].mean(axis=0)
    bright = low.mean(axis=1)
    tone = np.abs(low / (bright[:, None] + 8) - skin / (skin.mean() + 8)).sum(axis=1)
    bare = (cover > 0.5) & (tone < 0.35) & (bright > 0.3 * skin.mean())
    hanging = np.clip((95 - rgb[46:].mean(axis=2)) / 40, 0, 1) * np.clip(alpha[46:] * 2 - 1, 0, 1)
    hair = np.quantile(hanging, 0.15, axis=0)  # dark all the way down from the jaw; a dark collar is not
    cloth = (cover > 0.9) & ~bare & (hair < 0.3)
    colour = DYES[int(rng.integers(3 if formal else len(DYES)))]
    if cloth.sum() >= 10:
        colour = np.median(low[cloth], axis=0)
    shown = np.flatnonzero(cover > 0.5)
    first, last = (shown[0] / 64, (shown[-1] + 1) / 64) if len(shown) else (0.35, 0.65)
    skins = np.flatnonzero(bare)
    neck = (skins[-1] + 1 - skins[0]) / 128 if len(skins) > 4 else 0.0
    middle = (skins[-1] + 1 + skins[0]) / 128 if len(skins) > 4 else (first + last) / 2
    ends = rng.uniform(0.03, 0.4) + ndimage.gaussian_filter1d(rng.normal(0, 0.35, 64), 5)
    strands = rng.normal(0, 0.05, 64)
    cloths = np.flatnonzero(cloth)
    left = max(middle - cloths[0] / 64, 0.2) if len(cloths) else 0.2
    right = max((cloths[-1] + 1) / 64 - middle, 0.2) if len(cloths) else 0.2
    style = str(rng.choice(["round", "shirt", "suit" if formal else "vee"]))
    hair = ndimage.gaussian_filter1d(hair**2, 1.0)
    return Clothes(colour.astype(np.float32), style, middle, min(neck, 0.3), left, right, hair,
                   np.maximum(ends + strands, 0.02).astype(np.float32))


def _mirrored(outside: np.ndarray) -> np.ndarray:
    """Depth into the border strip for a distance `outside` the square: 0 … _MIRROR and back, slowly."""
    phase = np.mod(outside * _SLOW, 2 * _MIRROR)
    return np.where(phase > _MIRROR, 2 * _MIRROR - phase, phase)


def _dome(alpha: np.ndarray, u: np.ndarray) -> np.ndarray:
    """How far above the square a head goes that the upper border cuts, at each u."""
    cut = np.flatnonzero(alpha[: max(1, len(alpha) // 64)].mean(axis=0) > 0.5)
    if not len(cut):
        return np.full_like(u, -1)
    first, last = cut[0] / alpha.shape[1], (cut[-1] + 1) / alpha.shape[1]
    half = max((last - first) / 2, 1e-3)
    radius = max(_SKULL, 1.1 * half)
    return np.sqrt(np.clip(radius**2 - (u - (first + last) / 2) ** 2, 0, None)) - np.sqrt(radius**2 - half**2)


def continued(alpha: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where in the square to look for (u, v), and a factor for alpha: inside the square itself and 1.

    Above it a head ends in a dome; beside it hair ends soon and shoulders fall; below it the neck goes on.
    """
    beside = np.maximum(np.maximum(-u, u - 1), 0)
    fallen = v - _FALL * beside * np.clip((v - 0.7) / 0.1, 0, 1)
    above, below = np.maximum(-fallen, 0), np.maximum(fallen - 1, 0)
    look_u = np.where(u < 0, _mirrored(beside), np.where(u > 1, 1 - _mirrored(beside), u))
    look_v = np.where(fallen < 0, _mirrored(above) / 2, np.where(fallen > 1, 1 - _mirrored(below), fallen))
    reach = 0.03 + 0.12 * np.clip((v - 0.8) / 0.15, 0, 1)
    dome = np.where(above > 0, np.clip(1 + (_dome(alpha, u) - above) / 0.012, 0, 1), 1)
    return look_u, look_v, dome * np.clip(1.5 - beside / reach, 0, 1) * np.clip(1.5 - below / 0.3, 0, 1)


def _dressed(clothes: Clothes, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour [H, W, 3] and cover [H, W] of the clothes."""
    off, below = u - clothes.middle, np.maximum(v - 1, 0)
    grown = 1 - np.exp(-below / 0.13)
    half = np.where(off < 0, clothes.left + np.maximum(_ARMS - clothes.left, 0) * grown,
                    clothes.right + np.maximum(_ARMS - clothes.right, 0) * grown)
    share = np.abs(off) / half
    throat = np.clip(1 - np.abs(off) / max(clothes.neck, 1e-3), 0, 1) if clothes.neck else np.zeros_like(off)
    depth = {"round": 0.07 * throat**0.5, "vee": 0.22 * throat, "shirt": 0.12 * throat, "suit": 0.06 * throat}
    line = 0.995 + depth[clothes.style]
    cover = np.clip((1 - share) / 0.02 + 0.5, 0, 1) * np.clip((v - line) / 0.008, 0, 1)
    fold = np.sin(7 * off + 5 * below + 2 * np.sin(4 * off - 3 * below)) * np.clip(below * 3, 0, 1)
    shadow = np.exp(-np.maximum(v - line, 0) / 0.04)
    shade = 1 - 0.3 * np.clip(share, 0, 1) ** 4 + 0.035 * fold - 0.22 * shadow
    colour = np.ones((*u.shape, 3), np.float32) * clothes.colour
    if clothes.style == "suit":
        white = np.clip((0.17 * (1 - below / 0.6) - np.abs(off)) / 0.006, 0, 1)
        lapel = np.exp(-(((np.abs(off) - 0.17 * (1 - below / 0.6)) / 0.008) ** 2)) * (below < 0.6)
        colour = blend(colour * (1 - 0.5 * lapel[..., None]), np.array([236, 236, 238], np.float32), white)
    if clothes.style in ("shirt", "suit"):
        rim = np.exp(-(((v - line - 0.05) / 0.006) ** 2)) * (np.abs(off) < clothes.neck + 0.06)
        seam = np.exp(-((off / 0.005) ** 2)) * (below > 0.1)
        shade = shade - 0.18 * rim - 0.1 * seam
    return colour * shade[..., None], cover


def frame_of(placing: Placing, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) [height, width] of every pixel's centre of a photo."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    dx, dy = (x - placing.center_x) / placing.side_px, (y - placing.center_y) / placing.side_px
    turn = np.deg2rad(placing.roll_deg)
    cos, sin = np.cos(turn), np.sin(turn)
    return 0.5 + cos * dx + sin * dy, 0.5 - sin * dx + cos * dy


def _looked_up(picture: np.ndarray, at: np.ndarray) -> np.ndarray:
    """`picture` [h, w, C] at fractional rows and columns `at` [2, H, W]: [H, W, C]."""
    planes = np.moveaxis(picture, -1, 0)
    found = [ndimage.map_coordinates(plane, at, order=1, mode="nearest") for plane in planes]
    return np.stack(found, axis=-1).astype(np.float32)


def paste(photo: np.ndarray, person: Person, placing: Placing, clothes: Clothes) -> np.ndarray:
    """`photo` [H, W, 3] with the person, dressed, in front of it."""
    u, v = frame_of(placing, photo.shape[1], photo.shape[0])
    inside = (np.abs(u - 0.5) < 1.35) & (v > -0.16)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return photo
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    out = photo.copy()
    out[part] = _in_front(photo[part], person, clothes, placing.side_px, u[part], v[part])
    return out


def _in_front(photo: np.ndarray, person: Person, clothes: Clothes, side_px: float, u: np.ndarray,
              v: np.ndarray) -> np.ndarray:
    look_u, look_v, keep = continued(person.alpha, u, v)
    side = int(min(person.rgb.shape[0], max(32, round(side_px * 1.4))))
    alpha = resized(person.alpha, side, side, Image.Resampling.BOX)
    layers = np.dstack([resized(person.rgb, side, side), alpha])
    found = _looked_up(layers, np.stack([look_v * side - 0.5, look_u * side - 0.5]))
    front = blend(photo, found[..., :3], found[..., 3] * keep)
    front = blend(front, *_dressed(clothes, u, v))
    column = np.clip(u, 0, 1) * 63
    hair = np.interp(column, np.arange(64), clothes.hair) * (u > 0) * (u < 1) * (v > 0.98)
    ends = np.interp(column, np.arange(64), clothes.ends)
    return blend(front, found[..., :3], hair * np.clip((ends - (v - 1)) / 0.14, 0, 1))


def own_scenery(rgb: np.ndarray, alpha: np.ndarray, width: int, height: int, placing: Placing) -> np.ndarray:
    """The generated background of `rgb`, the person painted out, mirrored outwards over a whole photo."""
    side = 128
    small = resized(rgb, side, side)
    alpha = resized(alpha, side, side, Image.Resampling.BOX)
    empty = filled(small, (ndimage.grey_dilation(alpha, 7) < 0.04).astype(np.float32))
    u, v = frame_of(placing, width, height)
    at = [np.abs(np.mod(c - 1, 2) - 1) * side - 0.5 for c in (v, u)]
    return _looked_up(empty, np.stack(at))


def palette_of(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Three colours [3, 3] of what lies behind the person, dark to light, paler: terciles of brightness."""
    colours = resized(rgb, 64, 64, Image.Resampling.BOX).reshape(-1, 3)
    behind = colours[resized(alpha, 64, 64, Image.Resampling.BOX).ravel() < 0.05]
    shown = behind if len(behind) >= 12 else colours
    parts = np.array_split(shown[np.argsort(shown.sum(axis=1), kind="stable")], 3)
    means = np.stack([p.mean(axis=0) for p in parts])
    return (0.6 * means + 0.4 * means.mean(axis=1, keepdims=True)).astype(np.float32)


def finished(rng: np.random.Generator, photo: np.ndarray, noise: float, vignette: float, gain: np.ndarray,
             gamma: float) -> np.ndarray:
    """The camera's part: white balance, tone curve, darker corners, sensor noise; uint8 [H, W, 3]."""
    height, width = photo.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    tone = 255 * (np.clip(photo * gain / 255, 0, 1) ** gamma)
    tone *= (1 - vignette * (x * x + y * y) / 2)[..., None]
    grain = rng.standard_normal((height, width, 1), np.float32)
    colour = resized(rng.standard_normal((height // 2, width // 2, 3), np.float32), width, height,
                     Image.Resampling.BILINEAR)
    return np.clip(tone + noise * (grain + colour) + 0.5, 0, 255).astype(np.uint8)
