"""Light and colour of sRGB pixels."""

import numpy as np

_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                 [0.0193339, 0.1191920, 0.9503041]])
_WHITE = _XYZ.sum(axis=1)


def linear(rgb: np.ndarray) -> np.ndarray:
    """Linear light 0-1 float32 of sRGB uint8 (IEC 61966-2-1)."""
    v = np.arange(256) / 255.0
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)[rgb]


def lab(light: np.ndarray) -> np.ndarray:
    """CIELAB (D65) [...,3] of linear sRGB 0-1 [...,3]."""
    t = light @ _XYZ.T / _WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
