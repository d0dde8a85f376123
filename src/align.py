"""Stage `align`: from folders of photos to aligned faces."""

from stylebot.align import AlignParams, align
from stylebot.cli import Dep, Metric, Out, run
from stylebot.files import write_json
from stylebot.params import load_params


def main(photos: Dep, landmarks: Dep, out: Out, metrics: Metric) -> None:
    """Find the faces in every photo and cut them out the way FFHQ does; say what became of every file.

    photos: a folder with one folder (or zip) of photos per source, such as celebrity/ and id/
    landmarks: dlib's landmark model of 68 or 5 points, the one that align.landmarks names
    out: the faces as one zip per source, with faces.parquet and photos.parquet
    metrics: how many photos and faces, and the share of photos with a face
    """
    params = load_params("align", AlignParams)
    write_json(metrics, align(photos, landmarks, out, params))


if __name__ == "__main__":
    run(main)
