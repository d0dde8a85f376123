"""Stage `fid`: how far the generated faces are from the held-out real ones."""

from stylebot.cli import Dep, Metric, Out, run
from stylebot.fid import FidParams, measure
from stylebot.files import write_json
from stylebot.params import load_params


def main(generator: Dep, base: Dep, heldout: Dep, inception: Dep, out: Out, metrics: Metric) -> None:
    """FID and KID of the fine-tuned and of the base generator against held-out faces, with intervals.

    generator: the fine-tuned networks
    base: the weights that training started from
    heldout: real faces that training never saw (dataset zip)
    inception: the Inception network of FID (TorchScript)
    out: folder for table.csv and sheet.png
    metrics: the few numbers to compare experiments by
    """
    params = load_params("fid", FidParams)
    write_json(metrics, measure(generator, base, heldout, inception, out, params))


if __name__ == "__main__":
    run(main)
