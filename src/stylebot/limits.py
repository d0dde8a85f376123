"""Limits on what a face may be: the reasons to refuse it, and how near it is to a limit."""

import math
from collections.abc import Mapping

from stylebot import quality
from stylebot.params import Section

Limit = float | None  # None: this limit is off


class Thresholds(Section):
    """Limits on native values for the faces of one source; None turns a limit off."""

    min_face_score: Limit
    max_second_area_ratio: Limit
    max_scale: Limit
    max_pad_fraction: Limit
    max_yaw_deg: Limit
    max_pitch_deg: Limit
    max_roll_deg: Limit
    min_sharpness_db: Limit
    min_worst_direction_db: Limit
    max_noise: Limit
    max_blockiness: Limit
    min_highlight: Limit
    min_luminance: Limit
    max_luminance: Limit
    max_under_exposed: Limit
    max_over_exposed: Limit
    min_dynamic_bits: Limit
    max_light_stops: Limit
    max_colour_cast: Limit
    min_eyes_open: Limit
    max_mouth_open: Limit
    min_skin_share: Limit
    min_shading: Limit
    min_background: Limit
    max_background_std: Limit
    min_head_share: Limit
    max_head_share: Limit
    grey: bool


REASONS = {
    "face_score": "low_confidence",
    "second_area_ratio": "several_faces",
    "scale": "face_too_small",
    "pad_fraction": "padded",
    "yaw_deg": "pose",
    "pitch_deg": "pose",
    "roll_deg": "pose",
    "sharpness_db": "blurred",
    "worst_direction_db": "blurred",
    "noise": "noisy",
    "blockiness": "compressed",
    "highlight": "dark",
    "luminance": "dark",
    "under_exposed": "dark",
    "over_exposed": "bright",
    "dynamic_bits": "low_contrast",
    "light_stops": "uneven_light",
    "colour_cast": "colour_cast",
    "eyes_open": "eyes_closed",
    "mouth_open": "mouth_open",
    "skin_share": "occluded",
    "shading": "drawn",
    "background": "background",
    "background_std": "background",
    "head_share": "head_size",
}
_ABOVE = {"luminance": "bright"}  # components with limits on both sides whose upper one has another name
_WIDTHS = {"background": 20.0, "background_std": 10.0, "head_share": 0.05}  # of components without a score


def reason_of(limit: str) -> str:
    """The reason for which a face beyond `limit` (min_luminance, max_luminance, …) is refused."""
    name = component(limit)
    return _ABOVE.get(name, REASONS[name]) if limit.startswith("max_") else REASONS[name]


def margins(values: Mapping[str, float], grey: bool, limits: Thresholds) -> dict[str, float]:
    """How far inside each limit that is on a face with native `values` lies; negative: beyond it.

    In widths of the component's score (`quality.SCALES`), so that components compare; angles count by their
    size. A grey photo has no colour to cast; NaN is a value that is not known, and not judged; what is not
    there at all (a second face) is near no upper limit. Ours.
    """
    found: dict[str, float] = {}
    for name in REASONS:
        if grey and name == "colour_cast":
            continue
        size = abs(values[name]) if name.endswith("_deg") else values[name]
        if math.isnan(size):
            continue
        width = quality.SCALES[name].width if name in quality.SCALES else _WIDTHS[name]
        low, high = getattr(limits, f"min_{name}", None), getattr(limits, f"max_{name}", None)
        if low is not None:
            found[f"min_{name}"] = (size - low) / width
        if high is not None and (size != 0 or high < 0):
            found[f"max_{name}"] = (high - size) / width
    return found


def component(limit: str) -> str:
    """The component that a limit is on: `sharpness_db` for `min_sharpness_db`."""
    return limit.split("_", 1)[1]


def nearest(margin: Mapping[str, float]) -> tuple[str, float]:
    """The limit that decides: the one crossed farthest, else the one nearest to being crossed; its margin.

    ("", nan) when every limit is off.
    """
    return min(margin.items(), key=lambda item: item[1], default=("", math.nan))


def refusals(margin: Mapping[str, float], grey: bool, limits: Thresholds) -> list[str]:
    """Every reason to refuse a face with these `margins`, worst first; empty when it passes."""
    excess: dict[str, float] = {}
    for limit, inside in margin.items():
        if inside < 0:
            reason = reason_of(limit)
            excess[reason] = max(excess.get(reason, 0.0), -inside)
    if grey and not limits.grey:
        excess["grey"] = 1.0
    return sorted(excess, key=lambda reason: (-excess[reason], reason))
