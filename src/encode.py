"""Stage `encode`: train an encoder that finds the fine-tuned generator's styles for small faces."""

from stylebot import dist
from stylebot.cli import Dep, Metric, Out, die_with_parent, run
from stylebot.encode import EncodeParams, encode
from stylebot.files import write_json
from stylebot.params import load_params


def main(generator: Dep, dataset: Dep, perceptual: Dep, out: Out, metrics: Metric) -> None:
    """Train the super-resolution encoder against the frozen generator; a killed run goes on.

    generator: the fine-tuned networks (safetensors), of which G_ema decodes
    dataset: training faces (dataset zip)
    perceptual: the perceptual network (plain state dict of ST-LPIPS, AlexNet)
    out: the encoder (safetensors)
    metrics: mean losses of the last tenth of the run
    """
    params = load_params("encode", EncodeParams)
    dist.init()
    numbers = encode(generator, dataset, perceptual, out, params)
    if dist.rank() == 0:
        write_json(metrics, numbers)
    dist.finish()


if __name__ == "__main__":
    die_with_parent()
    if not dist.launch(__file__):
        run(main)
