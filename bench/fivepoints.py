"""The numbers of stylebot.fivepoints: fitted to generated faces, and how exact they are on photographs.

    python bench/fivepoints.py fit --faces base_faces_128.zip --dlib68 FILE --dlib5 FILE [--count 1200]
    python bench/fivepoints.py measure --photos stages/photos/celebrity --dlib68 FILE --dlib5 FILE

`fit` prints what src/stylebot/fivepoints.py holds; a zip of FFHQ-framed faces is wanted, which are enlarged
to 512 px, searched and measured with both of dlib's models. `measure` prints how far, for the faces of a
folder's photos, the frame of 5 points lies from that of 68, in px of a 1024 px crop. Nothing is written.
"""

import io
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from stylebot import faces, fivepoints, geometry, photos
from stylebot.errors import StylebotError

SIDE_PX, CROP_PX = 512, 1024
MOST_PIXELS = 120_000_000
Pair = tuple[np.ndarray, np.ndarray]  # landmarks [68, 2] and [5, 2] px of one face
Dlib68 = Annotated[Path, typer.Option(help="shape_predictor_68_face_landmarks.dat")]
Dlib5 = Annotated[Path, typer.Option(help="shape_predictor_5_face_landmarks.dat")]
app = typer.Typer(add_completion=False)


class Both:
    """Detector and both landmark models."""

    def __init__(self, dlib68: Path, dlib5: Path) -> None:
        self._detector = faces.Detector()
        self._models = faces.Landmarker(dlib68, 68), faces.Landmarker(dlib5, 5)

    def pairs(self, picture: Image.Image, least_score: float) -> Iterator[Pair]:
        """Landmarks by both models of every face of a picture with at least that confidence."""
        found = self._detector.find(picture)
        for index in np.flatnonzero(found.scores >= least_score):
            yield tuple(model.landmarks(found, int(index)) for model in self._models)


def rounded(name: str, values: np.ndarray, digits: int) -> str:
    """Lines of Python that make this array [n, m], the numbers rounded."""
    rows = [f"({', '.join(f'{value:g}' for value in row)})" for row in np.round(values, digits) + 0.0]
    return textwrap.fill(f"{name} = np.array(({', '.join(rows)}))", 109, subsequent_indent=" " * 4)


@app.command()
def fit(faces: Annotated[Path, typer.Option(help="zip of FFHQ-framed faces")], dlib68: Dlib68, dlib5: Dlib5,
        count: Annotated[int, typer.Option(help="the zip's first so many faces", min=100)] = 1200) -> None:
    """Fit the regression and the mean face, and print them as Python."""
    both, pairs = Both(dlib68, dlib5), []
    with zipfile.ZipFile(faces) as packed:
        for name in sorted(packed.namelist())[:count]:
            face = Image.open(io.BytesIO(packed.read(name))).convert("RGB")
            face = face.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
            pairs += list(both.pairs(face, 1.0))[:1]
    if len(pairs) < 100:
        raise StylebotError(f"{len(pairs)} faces were found in {faces}, at least 100 are wanted")
    wanted = np.array([geometry.anchors(many) for many, _ in pairs])
    for name, values in zip(("_KNOWN", "_WANTED", "_MATRIX"),
                            fivepoints.fit(np.array([few for _, few in pairs]), wanted), strict=True):
        print(rounded(name, values, 4))
    print(rounded("_MEAN_FACE", mean_face([many for many, _ in pairs]), 3))


def mean_face(landmarks: list[np.ndarray]) -> np.ndarray:
    """Mean of landmarks [68, 2] in the faces' own squares, 0..1."""
    places = []
    for points in landmarks:
        square = geometry.ffhq_square(points)
        half = np.array(square.half)
        axes = np.stack([half, [-half[1], half[0]]])
        places.append(((points - square.center) @ axes.T / float(half @ half) + 1) / 2)
    return np.mean(places, axis=0)


def eyes_apart(pair: Pair) -> bool:
    """Whether the face is large enough for `align`."""
    return geometry.eye_distance(pair[0]) >= 16


def errors(many: np.ndarray, few: np.ndarray) -> list[float]:
    """Distances of eye, mouth and frame centres (px of a 1024 px crop); log ratio of sides; turn in deg."""
    truth, guess = geometry.ffhq_square(many), geometry.ffhq_square(few)
    zoom = CROP_PX / truth.side_px
    parts = np.linalg.norm(geometry.anchors(few) - geometry.anchors(many), axis=1) * zoom
    centre = (np.array(guess.center) - truth.center) * zoom
    return [*parts, float(np.hypot(*centre)), *centre, np.log(guess.side_px / truth.side_px),
            (guess.roll_deg - truth.roll_deg + 180) % 360 - 180]


@app.command()
def measure(photos_folder: Annotated[Path, typer.Option("--photos", help="folder of photos")], dlib68: Dlib68,
            dlib5: Dlib5, least_score: Annotated[float, typer.Option(help="least confidence")] = 1.0) -> None:
    """Compare the frames of both models on every face that is at least 16 px between the eyes."""
    both, rows = Both(dlib68, dlib5), []
    for path in sorted(p for p in photos_folder.rglob("*") if p.is_file()):
        try:
            picture = photos.read_photo(path.read_bytes(), MOST_PIXELS).picture
        except photos.PhotoError:
            continue
        rows += [errors(*pair) for pair in both.pairs(picture, least_score) if eyes_apart(pair)]
    if not rows:
        raise StylebotError(f"no faces in {photos_folder}")
    found = np.array(rows)
    print(f"{len(found)} faces; px of a {CROP_PX} px crop: median, 95 % below")
    parts = ("eye on the left", "eye on the right", "mouth", "frame centre")
    for name, values in zip(parts, found.T[:4], strict=True):
        print(f"| {name} | {np.median(values):.1f} | {np.quantile(values, 0.95):.1f} |")
    x, y, side, turn = found.T[4:]
    print("mean and standard deviation: "
          f"frame centre x {x.mean():.1f} ± {x.std():.1f}, y {y.mean():.1f} ± {y.std():.1f} px, "
          f"side {100 * side.mean():.1f} ± {100 * side.std():.1f} %, "
          f"turn {turn.mean():.2f} ± {turn.std():.2f} degrees")


if __name__ == "__main__":
    app()
