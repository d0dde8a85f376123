"""The tool `review.py`: who is refused, by apparent skin tone; whose photos lie in somebody else's folder."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from stylebot import fivepoints, quality
from stylebot.colours import lab, linear
from stylebot.crops import AlignedFaces
from stylebot.files import atomic
from stylebot.inspection import crop_landmarks
from stylebot.sheets import contact_sheet

# upper ends of the individual typology angle, degrees (Chardon et al. 1991)
_TONES = ((-30.0, "dark"), (10.0, "brown"), (28.0, "tan"), (41.0, "intermediate"), (55.0, "light"),
          (np.inf, "very light"))  # fmt: skip
GREY = "grey photo"
_FEWEST = 3  # photos in a folder from which its person can be told
NOT_QUALITY = frozenset({"duplicate", "no_consent", "identity_cap", "surplus"})


@dataclass(frozen=True)
class Rate:
    """Faces of one group, the share refused for quality with its interval of 95 %, the first reasons."""

    group: str
    faces: int
    refused: float
    low: float
    high: float
    reasons: str


def typology_deg(rgb: np.ndarray, landmarks: np.ndarray) -> float:
    """Individual typology angle of the cheeks: arctan((L* - 50) / b*), degrees; low for dark skin.

    rgb: uint8 [N,N,3], FFHQ frame; landmarks [68 or 5, 2] px of it. Dim light lowers it as dark skin does.
    Source: Chardon, Cretois and Hourseau 1991, on the median colour of both cheeks in CIELAB.
    """
    shape = rgb.shape[:2]
    points = fivepoints.mean_face(shape[0]) if len(landmarks) == fivepoints.POINTS else landmarks
    left, right = quality.cheeks(points, shape)
    light, _, yellow = np.median(lab(linear(rgb[left | right])), axis=0)
    return float(np.degrees(np.arctan2(light - 50.0, yellow)))


def tone(angle_deg: float) -> str:
    """The class of a typology angle, dark to very light."""
    return next(name for end, name in _TONES if angle_deg <= end)


def interval(hits: int, count: int) -> tuple[float, float]:
    """Wilson's interval of 95 % for a share of `hits` in `count`."""
    found = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def rates(groups: Sequence[str], reasons: Sequence[Iterable[str]]) -> list[Rate]:
    """A rate per group, in order of name; copies, caps and missing consent are no matter of quality."""
    found = []
    own = [[reason for reason in each if reason not in NOT_QUALITY] for each in reasons]
    for group in sorted(set(groups)):
        inside = [each for name, each in zip(groups, own, strict=True) if name == group]
        refused = sum(map(bool, inside))
        first = Counter(each[0] for each in inside if each).most_common(3)
        told = ", ".join(f"{reason} {count}" for reason, count in first)
        found.append(Rate(group, len(inside), refused / len(inside), *interval(refused, len(inside)), told))
    return found


def tones(table: pd.DataFrame, rows: Mapping[tuple[str, str], Mapping], crops: AlignedFaces) -> list[str]:
    """The apparent skin tone of each face of the filter table; grey photos have none."""
    found = []
    for face in table.itertuples():
        row = rows[face.source, face.face_id]
        rgb = crops.rgb(row)
        found.append(GREY if face.grey else tone(typology_deg(rgb, crop_landmarks(row, rgb.shape[0]))))
    return found


def strangers(table: pd.DataFrame) -> pd.DataFrame:
    """Faces of others in a folder that is meant for one person: the table's columns, and `stays`.

    A folder inside a source (`kim/01.jpg`) with at least 3 faces is one person's when more than half of its
    faces are of one identity; every other face in it is listed with the id of the person's best-scored face.
    Identities are those of stage `filter`; nobody is refused for this.
    """
    known = table[table["identity"] >= 0]
    folder = known["source"] + "/" + known["photo"].map(lambda name: str(PurePosixPath(name).parent))
    found = []
    for _, part in known[folder.map(lambda name: not name.endswith("/."))].groupby(folder):
        counts = part["identity"].value_counts()
        if len(part) < _FEWEST or 2 * counts.iloc[0] <= len(part):
            continue
        own = part[part["identity"] == counts.index[0]]
        own = own.sort_values(["score", "face_id"], ascending=[False, True])
        found.append(part[part["identity"] != counts.index[0]].assign(stays=own.iloc[0]["face_id"]))
    return pd.concat(found) if found else known.head(0).assign(stays="")


def stranger_sheet(found: pd.DataFrame, crops: AlignedFaces, out: Path) -> None:
    """Pairs in neighbouring cells: the person of the folder, and the face that is somebody else's."""
    rgbs, captions = [], []
    for face in found.itertuples():
        folder = PurePosixPath(face.photo).parent.name
        for face_id, text in ((face.stays, folder), (face.face_id, face.photo)):
            rgbs.append(crops.rgb({"source": face.source, "face_id": face_id}))
            captions.append(text)
    title = f"{len(found)} faces that are not the folder's person"
    with atomic(out) as part:
        contact_sheet(rgbs, 8, captions, title=title).save(part, "PNG")
