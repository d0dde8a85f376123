"""Head pose from 68 landmarks, by a rigid head of our own and weak perspective: no OpenCV, no iterations."""

from typing import NamedTuple

import numpy as np

# Landmark: (right, down, towards the camera), in about millimetres. Ours: the landmarks of 1,600 generated
# faces and of their mirror images, factorised into one rigid shape and one camera each (Tomasi and Kanade
# 1992, scaled orthography). Chin, lips and jaw line are left out: they move, or slide along the head.
_HEAD = {
    17: (-60.3, -39.1, -19.3), 21: (-11.9, -43.8, 7.3), 22: (11.9, -43.8, 7.3), 26: (60.3, -39.1, -19.3),
    27: (0.0, -29.5, 8.3), 28: (0.0, -17.0, 13.9), 29: (0.0, -4.7, 20.4), 30: (0.0, 8.2, 26.6),
    31: (-15.4, 16.6, 8.0), 33: (0.0, 21.6, 13.4), 35: (15.4, 16.6, 8.0),
    36: (-45.1, -27.0, -12.8), 39: (-19.3, -25.5, -7.7), 42: (19.3, -25.5, -7.7), 45: (45.1, -27.0, -12.8),
    48: (-30.6, 38.8, -14.9), 54: (30.6, 38.8, -14.9),
}
_POINTS = list(_HEAD)
_SHAPE = np.array(list(_HEAD.values())).T
_INVERSE = np.linalg.pinv(_SHAPE - _SHAPE.mean(axis=1, keepdims=True))


class Pose(NamedTuple):
    """Angles in degrees: the head is turned by yaw, then nods by pitch, then the picture turns by roll."""

    yaw_deg: float  # > 0: the nose points to the right of the picture
    pitch_deg: float  # > 0: the head looks up
    roll_deg: float  # > 0: the head leans clockwise in the picture


def head_pose(landmarks: np.ndarray) -> Pose:
    """Pose of a head from its landmarks [68,2], px, y down.

    The affine camera that maps the rigid head to the points in the least-squares sense, taken to the nearest
    scaled rotation. Mirroring the points changes the signs of yaw and roll, and nothing else.
    Source: the weak-perspective camera (Hartley and Zisserman, 6.3.2); head shape ours, see above.
    """
    if landmarks.shape != (68, 2):
        raise ValueError(f"landmarks must be [68,2], not {list(landmarks.shape)}")
    seen = landmarks[_POINTS].astype(np.float64)
    camera = (seen - seen.mean(axis=0)).T @ _INVERSE
    left, _, right = np.linalg.svd(camera, full_matrices=False)
    across, down = left @ right
    towards = np.cross(across, down)
    yaw = np.degrees(np.arctan2(-towards[0], towards[2]))
    pitch = np.degrees(np.arcsin(np.clip(towards[1], -1.0, 1.0)))
    roll = np.degrees(np.arctan2(-across[1], down[1]))
    return Pose(float(yaw), float(pitch), float(roll))
