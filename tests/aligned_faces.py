"""Helper: what stage `align` would have written for given faces, made without dlib."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from stylebot.align import AlignParams
from stylebot.dataset import png_bytes
from stylebot.files import write_zip

MARGIN_PX = 100  # of each photo around the face's square


def write_aligned(root: Path, faces: list[dict]) -> Path:
    """ROOT/align and ROOT/photos for `faces`: dicts with source, name, rgb [256,256,3], landmarks [68,2].

    Further keys replace columns of the table. The photo is the face before a grey wall; returns ROOT/align.
    """
    rows, members = [], {}
    for face in faces:
        rgb = face["rgb"]
        wall = np.full((rgb.shape[0] + 2 * MARGIN_PX, rgb.shape[1] + 2 * MARGIN_PX, 3), 128, np.uint8)
        wall[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = rgb
        path = root / "photos" / face["source"] / face["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(wall).save(buffer, "JPEG", quality=face.get("jpeg", 90))
        path.write_bytes(buffer.getvalue())
        rows.append(_row(face, hashlib.sha256(buffer.getvalue()).hexdigest(), wall.shape[0]))
        members.setdefault(face["source"], []).append((f"{rows[-1]['face_id']}.png", png_bytes(rgb, 1)))
    for source, pngs in members.items():
        write_zip(root / "align" / f"{source}.zip", sorted(pngs))
    table = pd.DataFrame(rows).sort_values(["source", "photo", "face_index"])
    table.to_parquet(root / "align" / "faces.parquet", index=False)
    table[["source", "photo", "sha256"]].to_parquet(root / "align" / "photos.parquet", index=False)
    return root / "align"


def _row(face: dict, sha256: str, side_px: int) -> dict:
    landmarks, center = face["landmarks"] + MARGIN_PX, side_px / 2 - 0.5
    (x0, y0), (x1, y1) = landmarks.min(0), landmarks.max(0)
    size = float(face["rgb"].shape[0])
    row = {
        "face_id": f"{sha256[:16]}-0", "source": face["source"], "photo": face["name"], "sha256": sha256,
        "face_index": 0, "n_faces": 1, "det_score": 2.0,
        "x0": x0, "y0": y0, "x1": x1, "y1": y1,
        "landmarks": landmarks.ravel().tolist(), "ied_px": 0.247 * size,
        "qsize_px": size, "scale": 1.0,
        "roll_deg": 0.0,
        "pad_fraction": 0.0, "second_area_ratio": 0.0, "center_x": center, "center_y": center,
        "quad_x": size / 2, "quad_y": 0.0, "orientation": 1, "rotated_deg": 0, "width_px": side_px,
        "height_px": side_px, "grey": False, "flags": "",
    }
    return row | {key: face[key] for key in row if key in face and key != "landmarks"}


def align_params(**changes) -> AlignParams:
    """Section `align` for small tests, with some numbers changed."""
    usual = {"resolution": 64, "recipe": "stylebot", "padding": "edge", "faces": "largest",
             "landmarks": "dlib68", "min_eye_distance_px": 16, "min_det_score": 0.1,
             "max_megapixels": 30}  # fmt: skip
    return AlignParams(**usual | changes)
