"""Stage `train`: fine-tune StyleGAN2 with Freeze-D and ADA, on all the GPUs of the machine or on its CPU."""

from stylebot import dist
from stylebot.cli import Dep, Metric, Out, die_with_parent, run
from stylebot.files import write_json
from stylebot.params import load_params
from stylebot.train import TrainParams, train


def main(generator: Dep, dataset: Dep, heldout: Dep, inception: Dep, out: Out, metrics: Metric) -> None:
    """Fine-tune the generator on the packed faces; interrupted, the same command goes on where it was.

    generator: start weights, any checkpoint of the family that holds G, D and G_ema
    dataset: training faces (dataset zip)
    heldout: faces that training never sees (dataset zip), for the KID of train.eval_snaps
    inception: Inception network, for the same
    out: folder for networks.safetensors, progress pictures and live curves
    metrics: losses, ADA's p and counts at the end
    """
    params = load_params("train", TrainParams, top=("freeze_d",))
    dist.init()
    numbers = train(generator, dataset, heldout, inception, out, params)
    if dist.rank() == 0:
        write_json(metrics, numbers)
    dist.finish()


if __name__ == "__main__":
    die_with_parent()
    if not dist.launch(__file__):
        run(main)
