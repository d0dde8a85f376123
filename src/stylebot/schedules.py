"""Learning rates over a run."""

import math
from typing import Literal

Schedule = Literal["cosine", "constant"]


def lr_factor(schedule: Schedule, done: float) -> float:
    """Factor of a learning rate after the share `done` of a run: 1, or half a cosine from 1 to 0.01."""
    return 1.0 if schedule == "constant" else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
