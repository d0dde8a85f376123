"""What spoils a face is refused, clean faces are kept, and the score tells whose face is recognised."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_quality import FACES, LUMA, blurred, clip, covered, jpeg, moved, noisy, shrunk, side_lit

from stylebot import quality
from stylebot.confidence import face_score
from stylebot.filter import FilterParams
from stylebot.limits import REASONS, margins, refusals
from stylebot.params import load_params

ROOT = Path(__file__).parents[1]
LIMITS = load_params("filter", FilterParams, path=ROOT / "params.yaml").celebrity
INNOCENT = {"second_area_ratio": 0.0, "scale": 1.0, "pad_fraction": 0.0, "roll_deg": 0.0, "head_share": 0.3}
CAST = np.array([0.4, 0.7, 1.6])


def tilted(rgb: np.ndarray, degrees: float) -> np.ndarray:
    turned = Image.fromarray(rgb).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
    return np.asarray(turned)


WORST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blur": lambda x: blurred(x, 5),
    "motion across": lambda x: moved(x, 20, 0),
    "motion aslant": lambda x: moved(x, 20, 45),
    "motion down": lambda x: moved(x, 20, 90),
    "downscaled": lambda x: shrunk(x, 8),
    "noise": lambda x: noisy(x, 50),
    "dark": lambda x: clip(x * 0.12),
    "bright": lambda x: clip(x * 3.0),
    "flat": lambda x: clip(128 + (x - 128.0) * 0.1),
    "jpeg": lambda x: jpeg(x, 6),
    "side light": lambda x: side_lit(x, 0.97),
    "cast": lambda x: clip(x * CAST),
    "covered": lambda x: covered(x, 0.8),
    "tilted": lambda x: tilted(x, 70),
}


def values(rgb: np.ndarray, points: np.ndarray) -> dict[str, float]:
    """Native values of an aligned face that nothing but its pixels speaks against."""
    measured = vars(quality.measure(rgb, points)) | {"blockiness": quality.blockiness(rgb @ LUMA)}
    return INNOCENT | measured | {"face_score": face_score(rgb)}


def kept(worsened: Callable[[np.ndarray], np.ndarray]) -> float:
    """Share of the faces that pass the limits of params.yaml for photos in the wild."""
    margin = [margins(values(worsened(rgb), points), False, LIMITS) for rgb, points in FACES]
    return float(np.mean([not refusals(one, False, LIMITS) for one in margin]))


def test_clean_faces_are_kept() -> None:
    assert kept(lambda rgb: rgb) >= 0.95


@pytest.mark.parametrize("worst", WORST.values(), ids=WORST.keys())
def test_the_worst_of_each_degradation_is_refused(worst: Callable) -> None:
    assert kept(worst) <= 0.05


def test_every_limit_is_on_a_value_that_is_measured() -> None:
    assert set(REASONS) <= set(values(*FACES[0]))
