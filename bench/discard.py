"""Error versus discard: does the quality score refuse the faces that a recogniser would get wrong?

    python bench/discard.py --faces base_faces_128.zip --landmarks FILE --identity FILE [--people 100]

Of each generated person (a zip of FFHQ-framed faces) one clean photo, mirrored, is the reference, and four
photos, each spoilt by one or two random degradations of random strength, are compared with it. All go
through align and filter's own measures. The recogniser's limit is where 1 % of different people pass for
one. The curve is the share of misses among what remains after discarding the lowest scores; its area up to
30 % is given as a share of the mean of 200 random orders. The people are halved: who chooses anything by
looking looks at half A, and reports half B. Deterministic. Copy the table into bench/RESULTS.md.
"""

import io
import zipfile
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from PIL import Image, ImageDraw, ImageFilter

from stylebot import quality
from stylebot.align import AlignParams, align_photo
from stylebot.confidence import face_score
from stylebot.faces import Identity
from stylebot.filter import RANKED, recognisable
from stylebot.inspection import crop_landmarks

SIDE_PX, PER_PERSON, FALSE_MATCHES, UP_TO = 512, 4, 0.01, 0.30
PARAMS = AlignParams(resolution=256, recipe="stylebot", padding="edge", faces="largest", landmarks="dlib68",
                     min_eye_distance_px=16, min_det_score=0.0, max_megapixels=10)  # fmt: skip


def _gain(picture: Image.Image, gain: float, about: float = 0.0) -> Image.Image:
    return picture.point(lambda value: about + (value - about) * gain)


def _noisy(picture: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
    rgb = np.asarray(picture, np.float32)
    return Image.fromarray((rgb + rng.normal(0, sigma, rgb.shape)).clip(0, 255).astype(np.uint8))


def _jpeg(picture: Image.Image, level: int) -> Image.Image:
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=level)
    return Image.open(io.BytesIO(packed.getvalue())).convert("RGB")


def _small(picture: Image.Image, factor: float) -> Image.Image:
    side = max(24, round(picture.width / factor))
    return picture.resize((side, side), Image.Resampling.BOX).resize(picture.size, Image.Resampling.BICUBIC)


def _covered(picture: Image.Image, share: float) -> Image.Image:
    """The lower `share` of the face's height, from the chin upwards, under a plain dark cloth."""
    covered, side = picture.copy(), picture.width
    top = side * (0.93 - 0.6 * share)
    ImageDraw.Draw(covered).rectangle((0.15 * side, top, 0.85 * side, side), fill=(60, 60, 70))
    return covered


def _motion(picture: Image.Image, px: float, angle_deg: float) -> Image.Image:
    turned = picture.rotate(angle_deg, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
    rgb = np.asarray(turned, np.float32)
    reach = round(px / 2)
    moved = np.mean([np.roll(rgb, shift, axis=1) for shift in range(-reach, reach + 1)], axis=0)
    back = Image.fromarray(moved.astype(np.uint8)).rotate(-angle_deg, Image.Resampling.BICUBIC)
    inside = Image.radial_gradient("L").resize(picture.size).point(lambda value: 255 * (value < 230))
    return Image.composite(back, picture, inside)


def _side_lit(picture: Image.Image, strength: float) -> Image.Image:
    ramp = np.linspace(1 - strength, 1, picture.width, dtype=np.float32)[None, :, None]
    return Image.fromarray((np.asarray(picture, np.float32) * ramp).astype(np.uint8))


def spoilt(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """`picture`, with one or two degradations of random strength (0: hardly seen, 1: ruined)."""
    for kind in rng.choice(10, size=int(rng.integers(1, 3)), replace=False):
        much = float(rng.uniform(0.1, 1.0))
        picture = (
            lambda p, s: p.filter(ImageFilter.GaussianBlur(16 * s)),
            lambda p, s: _noisy(p, 90 * s, rng),
            lambda p, s: _gain(p, 1 - 0.93 * s),
            lambda p, s: _gain(p, 1 + 2.0 * s),
            lambda p, s: _gain(p, 1 - 0.9 * s, 128),
            lambda p, s: _jpeg(p, round(60 - 57 * s)),
            lambda p, s: _small(p, 2 + 16 * s),
            lambda p, s: _covered(p, 0.9 * s),
            lambda p, s: _motion(p, 70 * s, float(rng.uniform(0, 180))),
            lambda p, s: _side_lit(p, s),
        )[int(kind)](picture, much)
    return picture


def judged(picture: Image.Image, landmarks: Path, network: Identity) -> tuple[dict, np.ndarray] | None:
    """Component scores and embedding [128] of a photo's face by align and filter; None: no face found."""
    packed = io.BytesIO()
    picture.save(packed, "PNG", compress_level=1)
    entry = align_photo(packed.getvalue(), landmarks, PARAMS)
    if entry.outcome != "faces":
        return None
    row, rgb = entry.rows[0], np.asarray(Image.open(io.BytesIO(entry.pngs[0])))
    values = vars(quality.measure(rgb, crop_landmarks(row, rgb.shape[0]))) | row
    values["face_score"] = face_score(rgb)
    box = [round(row[name]) for name in ("x0", "y0", "x1", "y1")]
    values["blockiness"] = quality.blockiness(np.asarray(picture.crop(box).convert("L")))
    scores = {name: quality.score(name, float(values[name])) for name in quality.SCALES}
    return scores, network.embed([rgb])[0]


def collected(faces: Path, landmarks: Path, identity: Path, chosen: slice) -> pd.DataFrame:
    """A row per spoilt photo whose face was found: person, scores, distance to all references."""
    network, rows, references = Identity(identity), [], {}
    with zipfile.ZipFile(faces) as packed:
        names = sorted(packed.namelist())[::-1][chosen]
        for person, name in enumerate(names):
            face = Image.open(io.BytesIO(packed.read(name))).convert("RGB")
            face = face.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
            clean = judged(face.transpose(Image.Transpose.FLIP_LEFT_RIGHT), landmarks, network)
            if clean is None:
                continue
            references[person], rng = clean[1], np.random.default_rng(person)
            for _ in range(PER_PERSON):
                found = judged(spoilt(face, rng), landmarks, network)
                if found is not None:
                    distance = float(np.linalg.norm(found[1] - clean[1]))
                    others = [float(np.linalg.norm(found[1] - reference))
                              for other, reference in references.items() if other != person]
                    rows.append(found[0] | {"person": person, "distance": distance, "others": others})
    return pd.DataFrame(rows)


def area(missed: np.ndarray, order: np.ndarray) -> float:
    """Mean share of misses bool [N] after discarding 0 to `UP_TO` of the faces, first in `order` first."""
    steps = range(int(UP_TO * len(order)) + 1)
    return float(np.mean([missed[order[step:]].mean() for step in steps]))


def relative(missed: np.ndarray, worth: np.ndarray) -> float:
    """The area of discarding by `worth`, lowest first, over that of random orders."""
    rng = np.random.default_rng(0)
    chance = np.mean([area(missed, rng.permutation(len(missed))) for _ in range(200)])
    return area(missed, np.argsort(worth, kind="stable")) / float(chance)


def main(faces: Annotated[Path, typer.Option(help="zip of FFHQ-framed faces, a person each")],
         landmarks: Annotated[Path, typer.Option(help="dlib's 68-point model")],
         identity: Annotated[Path, typer.Option(help="dlib's identity model")],
         people: Annotated[int, typer.Option(help="the last so many faces of the zip", min=20)] = 100,
         skip: Annotated[int, typer.Option(help="but not the last so many", min=0)] = 0,
         out: Annotated[Path | None, typer.Option(help="keep what was measured (parquet)")] = None) -> None:
    """Measure and print the table."""
    table = collected(faces, landmarks, identity, slice(skip, skip + people))
    if out is not None:
        table.to_parquet(out, index=False)
    limit = float(np.quantile(np.concatenate(table["others"].tolist()), FALSE_MATCHES))
    table["missed"] = table["distance"] > limit
    print(f"{len(table)} of {people * PER_PERSON} spoilt faces found; limit {limit:.3f}; "
          f"misses {100 * table['missed'].mean():.1f} %\n")
    print("| ranked by | half A | half B | all |\n|---|---|---|---|")
    worths = {"score (geometric mean)": np.array([quality.overall({n: row[n] for n in RANKED})
                                                  for row in table.to_dict("records")]),
              "identity_score": np.array([recognisable({n: row[n] for n in RANKED})
                                         for row in table.to_dict("records")]),
             "least component": table[list(RANKED)].min(axis=1).to_numpy(),
              "perfect": -table["distance"].to_numpy()}
    worths |= {name: table[name].to_numpy() for name in RANKED}
    missed, even = table["missed"].to_numpy(), (table["person"] % 2 == 0).to_numpy()
    for name, worth in worths.items():
        parts = (even, ~even, np.ones_like(even))
        print(f"| {name} | {' | '.join(f'{relative(missed[p], worth[p]):.2f}' for p in parts)} |")


if __name__ == "__main__":
    typer.run(main)
