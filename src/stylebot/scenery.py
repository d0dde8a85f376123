"""Busy backgrounds drawn from noise and rectangles, for a palette [3, 3] and a size in px."""

import numpy as np
from PIL import Image

from stylebot.scenes import blend, resized


def _octaves(rng: np.random.Generator, width: int, height: int, coarse: int, levels: int) -> np.ndarray:
    """Smooth noise [height, width] about 0 with deviation 1."""
    total = np.zeros((height, width), np.float32)
    for level in range(levels):
        cells = coarse * 2**level
        grid = rng.standard_normal((max(2, cells * height // width), max(2, cells))).astype(np.float32)
        total += resized(grid, width, height, Image.Resampling.BICUBIC) * 0.6**level
    return (total - total.mean()) / max(float(total.std()), 1e-6)


def foliage(rng: np.random.Generator, palette: np.ndarray, width: int, height: int) -> np.ndarray:
    """Leaves and light in two sizes."""
    mass = _octaves(rng, width, height, 4, 5)
    base = blend(palette[0] * 0.6, palette[1], np.clip(mass * 0.35 + 0.5, 0, 1))
    light = _octaves(rng, width, height, 14, 3)
    return blend(base, palette[2] * 0.5 + 125, np.clip((light - 1.1) * 0.9, 0, 0.85))


def lights(rng: np.random.Generator, palette: np.ndarray, width: int, height: int) -> np.ndarray:
    """A dim gradient with discs of out-of-focus light."""
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    share = np.clip(ramp + 0.2 * _octaves(rng, width, height, 3, 3), 0, 1)
    out = blend(palette[0] * 0.5, palette[1] * 0.9, share)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(int(rng.integers(14, 45))):
        radius = width * rng.uniform(0.008, 0.05)
        distance = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height * 0.85))
        disc = np.clip((radius - distance) / 1.5, 0, 1) * (0.75 + 0.25 * np.clip(distance / radius, 0, 1))
        colour = np.clip(palette[int(rng.integers(3))] * rng.uniform(0.8, 1.3) + rng.uniform(20, 110), 0, 255)
        out = blend(out, colour.astype(np.float32), disc * rng.uniform(0.25, 0.8))
    return out


def shelves(rng: np.random.Generator, palette: np.ndarray, width: int, height: int) -> np.ndarray:
    """Rows of upright things in many colours, as in a shop or a library."""
    out = np.ones((height, width, 3), np.float32) * palette[0] * 0.45
    rows = int(rng.integers(3, 7))
    for row in range(rows):
        top, bottom = row * height // rows, (row + 1) * height // rows - max(2, height // 90)
        x = 0
        while x < width:
            wide = max(2, int(width * rng.uniform(0.008, 0.045)))
            tall = int((bottom - top) * rng.uniform(0.55, 0.95))
            colour = palette[int(rng.integers(3))] * rng.uniform(0.35, 1.25) + rng.normal(0, 22, 3)
            out[bottom - tall : bottom, x : x + wide] = np.clip(colour, 5, 250)
            x += wide + int(rng.integers(0, 3))
    return out * (1 + 0.12 * _octaves(rng, width, height, 3, 3))[..., None]


def street(rng: np.random.Generator, palette: np.ndarray, width: int, height: int) -> np.ndarray:
    """Houses with windows under a sky, and a ground."""
    ramp = np.linspace(1, 0, height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    out = blend(np.array([225, 228, 232], np.float32), np.array([150, 178, 210], np.float32), ramp)
    x, ground = 0, int(height * rng.uniform(0.7, 0.9))
    while x < width:
        wide = int(width * rng.uniform(0.12, 0.3))
        top = int(height * rng.uniform(0, 0.4))
        wall = np.clip(palette[int(rng.integers(3))] * rng.uniform(0.6, 1.2) + rng.normal(15, 14, 3), 20, 235)
        out[top:ground, x : x + wide] = wall
        pitch = max(6, int(width * rng.uniform(0.03, 0.06)))
        pane = np.clip(wall * rng.choice([0.45, 1.35]), 0, 250)
        for wy in range(top + pitch // 2, ground - pitch, pitch):
            for wx in range(x + pitch // 3, min(x + wide, width) - pitch // 2, pitch):
                out[wy : wy + int(pitch * 0.6), wx : wx + pitch // 2] = pane * rng.uniform(0.7, 1.15)
        x += wide
    out[ground:] = palette[0] * 0.5 + 60
    return np.clip(out * (1 + 0.06 * _octaves(rng, width, height, 6, 4))[..., None], 0, 255)


def stripes(rng: np.random.Generator, palette: np.ndarray, width: int, height: int) -> np.ndarray:
    """A patterned wall: slanted bands of two colours with stains."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    slant, pitch = rng.uniform(-1.2, 1.2), width * rng.uniform(0.03, 0.12)
    wave = np.clip(np.sin(2 * np.pi * (x + slant * y) / pitch) * 6 + 0.5, 0, 1)
    out = blend(palette[1], np.clip(palette[2] * 0.8 + 25, 0, 255), wave)
    return out * (1 + 0.1 * _octaves(rng, width, height, 4, 5))[..., None]


SCENES = (foliage, lights, shelves, street, stripes)
