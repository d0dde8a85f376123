"""Both recipes side by side: our crop, the published one, and where they differ.

    python bench/recipes.py stages/photos/id/0001.jpg stages/photos/celebrity/0119.jpg \\
      --landmarks stages/fetch/landmarks.dat --out docs/alignment.png

A row per photo, of its main face: padding `edge`, padding `background`, the published recipe, and four times
the difference of first and third, about grey.
"""

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from stylebot.align import AlignParams, align_photo
from stylebot.errors import StylebotError
from stylebot.faces import Landmarker
from stylebot.sheets import contact_sheet

SIDE_PX = 256
RECIPES = (("stylebot", "edge"), ("stylebot", "background"), ("ffhq", "ffhq"))


def crop(photo: Path, landmarks: Path, points: int, recipe: str, padding: str) -> np.ndarray:
    """The main face of a photo by one recipe, uint8 [SIDE_PX, SIDE_PX, 3]."""
    params = AlignParams(resolution=SIDE_PX, recipe=recipe, padding=padding, faces="largest",
                         landmarks=f"dlib{points}", min_eye_distance_px=16, min_det_score=0.1,
                         max_megapixels=120)  # fmt: skip
    entry = align_photo(photo.read_bytes(), landmarks, params)
    if entry.outcome != "faces":
        raise StylebotError(f"{photo}: {entry.outcome} {entry.detail}")
    return np.asarray(Image.open(io.BytesIO(entry.pngs[0])))


def main(photos: Annotated[list[Path], typer.Argument(help="photos with a face each")],
         landmarks: Annotated[Path, typer.Option(help="dlib's landmark model")],
         out: Annotated[Path, typer.Option(help="the picture")]) -> None:
    """Draw the picture and say how far the recipes are apart."""
    points, rgbs, captions = Landmarker(landmarks).points, [], []
    for photo in photos:
        crops = [crop(photo, landmarks, points, *recipe) for recipe in RECIPES]
        apart = crops[0].astype(np.float32) - crops[2]
        rgbs += [*crops, (128 + 4 * apart).clip(0, 255).astype(np.uint8)]
        captions += [*(f"recipe: {recipe}, padding: {padding}" for recipe, padding in RECIPES),
                     "first less third, four times"]  # fmt: skip
        print(f"{photo}: mean difference {abs(apart).mean():.2f} grey levels, most {abs(apart).max():.0f}")
    contact_sheet(rgbs, 1 + len(RECIPES), captions, SIDE_PX).save(out, "PNG", optimize=True)


if __name__ == "__main__":
    typer.run(main)
