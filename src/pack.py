"""Stage `pack`: accepted faces as datasets, for training and held out."""

from stylebot.cli import Dep, Metric, Out, run
from stylebot.files import write_json
from stylebot.pack import PackParams, pack
from stylebot.params import load_params


def main(filtered: Dep, aligned: Dep, dataset: Out, heldout: Out, table: Out, metrics: Metric) -> None:
    """Shrink the accepted faces and split them by identity into a training and a held-out dataset.

    filtered: the verdicts that filter wrote (parquet)
    aligned: what align wrote: a zip of faces per source
    dataset: faces to train with, in the format of stylegan2-ada-pytorch (zip)
    heldout: faces of other people, never trained with, to measure against (zip)
    table: which face is where (parquet)
    metrics: how many faces and people
    """
    params = load_params("pack", PackParams)
    write_json(metrics, pack(filtered, aligned, dataset, heldout, table, params))


if __name__ == "__main__":
    run(main)
