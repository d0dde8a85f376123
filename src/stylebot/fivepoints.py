"""Faces by dlib's 5-point model: from four eye corners and the nose to what an FFHQ square is made of.

That model is in the public domain, the 68-point one is not for commercial use. The numbers here are means and
a linear regression over generated faces, with the 68-point model's results as targets: `bench/fivepoints.py`
makes them again and measures them on photographs. Points in dlib's order: outer and inner corner of the eye
on the right of the picture, outer and inner corner of the left one, foot of the nose.
"""

import numpy as np

POINTS = 5
_USED = [4, 0, 2]  # nose and outer corners: in the eyes' frame the inner ones follow from the outer ones
_MIRRORED = [2, 3, 0, 1, 4]

# in the eyes' frame: where nose and outer corners are on average, and eyes and mouth; how these follow those
_KNOWN = np.array(((0, 0.7687), (0.6997, -0.0096), (-0.6997, -0.0096)))
_WANTED = np.array(((-0.5003, -0.0138), (0.5003, -0.0138), (0, 1.0357)))
_MATRIX = np.array((
    (0.028, -0.0057, 0.028, 0.0057, 0.425, 0),
    (-0.0037, 0.0076, 0.0037, 0.0076, 0, 0.9537),
    (-0.1325, -0.0417, -0.1122, -0.0057, 1.5897, 1.9936),
    (0.0302, -0.0095, -0.0207, 0.1255, 2.5109, 3.1971),
    (-0.1122, 0.0057, -0.1325, 0.0417, 1.5897, -1.9936),
    (0.0207, 0.1255, -0.0302, -0.0095, -2.5109, 3.1971),
))
# the 68 landmarks in the FFHQ frame, on average: x and y as shares of its side
_MEAN_FACE = np.array(((0.217, 0.482), (0.219, 0.557), (0.226, 0.632), (0.239, 0.705), (0.266, 0.774),
    (0.311, 0.834), (0.367, 0.883), (0.429, 0.924), (0.499, 0.936), (0.569, 0.925), (0.631, 0.885), (0.688,
    0.836), (0.733, 0.776), (0.761, 0.707), (0.775, 0.633), (0.782, 0.558), (0.785, 0.482), (0.271, 0.43),
    (0.305, 0.396), (0.355, 0.385), (0.407, 0.392), (0.455, 0.412), (0.545, 0.411), (0.593, 0.391), (0.644,
    0.385), (0.694, 0.396), (0.728, 0.429), (0.5, 0.466), (0.5, 0.515), (0.5, 0.563), (0.5, 0.613), (0.441,
    0.645), (0.469, 0.656), (0.5, 0.665), (0.53, 0.656), (0.558, 0.646), (0.329, 0.475), (0.36, 0.458),
    (0.395, 0.458), (0.427, 0.482), (0.393, 0.486), (0.358, 0.486), (0.573, 0.482), (0.605, 0.459), (0.64,
    0.458), (0.67, 0.476), (0.642, 0.486), (0.607, 0.486), (0.384, 0.731), (0.428, 0.717), (0.47, 0.709),
    (0.5, 0.716), (0.53, 0.709), (0.573, 0.717), (0.616, 0.731), (0.575, 0.774), (0.533, 0.793), (0.5,
    0.796), (0.467, 0.793), (0.426, 0.774), (0.401, 0.734), (0.469, 0.731), (0.499, 0.735), (0.531, 0.731),
    (0.6, 0.734), (0.531, 0.757), (0.5, 0.761), (0.469, 0.757)))


def _frame(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Midpoint [2] of the eye corners, and axes [2, 2]: from the left eye to the right one, and down."""
    right, left = points[:2].mean(0), points[2:4].mean(0)
    across = right - left
    return (left + right) / 2, np.stack([across, [-across[1], across[0]]])


def _within(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """places [n, 2] px in the eyes' frame of points [5, 2] px: origin between the eyes, their distance 1."""
    origin, axes = _frame(points)
    return (places - origin) @ axes.T / max(float(axes[0] @ axes[0]), 1e-12)


def anchors(points: np.ndarray) -> np.ndarray:
    """Centres of the left and right eye (in the picture) and of the mouth [3, 2] px, from points [5, 2] px.

    The places of the nose and of the outer eye corners in the eyes' frame, less their means, times a matrix.
    Scaling, turning, shifting and mirroring the points does the same to the result. Ours.
    """
    points = np.asarray(points, dtype=np.float64)
    origin, axes = _frame(points)
    known = (_within(points, points[_USED]) - _KNOWN).ravel()
    return origin + (_WANTED + (known @ _MATRIX).reshape(3, 2)) @ axes


def fit(faces: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_KNOWN` [3, 2], `_WANTED` [3, 2], `_MATRIX` [6, 6]: least squares over faces and their mirror images.

    faces: 5 points of each face [n, 5, 2]; wanted: its eye and mouth centres [n, 3, 2]; both px, y down
    """
    flip = np.array([-1.0, 1.0])
    pairs = list(zip(faces, wanted, strict=True))
    pairs += [(five[_MIRRORED] * flip, three[[1, 0, 2]] * flip) for five, three in pairs]
    known = np.array([_within(five, five[_USED]).ravel() for five, _ in pairs])
    places = np.array([_within(five, three).ravel() for five, three in pairs])
    means = known.mean(0), places.mean(0)
    matrix = np.linalg.lstsq(known - means[0], places - means[1], rcond=1e-6)[0]
    return means[0].reshape(3, 2), means[1].reshape(3, 2), matrix


def mean_face(side_px: int) -> np.ndarray:
    """Where 68 landmarks are on average in an FFHQ frame of side_px: [68, 2] px. Of nobody in particular.

    It says which parts of a crop are face, cheeks, eyes and mouth when only 5 points are known.
    """
    return _MEAN_FACE * side_px - 0.5
