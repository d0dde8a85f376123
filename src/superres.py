"""Stage `superres`: super-resolve held-out faces with the encoder and the generator, and measure it."""

from stylebot.cli import Dep, Metric, Out, run
from stylebot.files import write_json
from stylebot.params import load_params
from stylebot.superres import Inputs, SuperresParams, superres


def main(encoder: Dep, generator: Dep, heldout: Dep, dataset: Dep, base: Dep, perceptual: Dep, identity: Dep,
         inception: Dep, out: Out, metrics: Metric) -> None:  # fmt: skip
    """Shrink held-out faces, rebuild them, and compare with the originals, with bicubic and with two domains.

    encoder: the encoder (safetensors)
    generator: the networks it was trained against (safetensors), of which G_ema decodes
    heldout: faces of people never trained on (dataset zip)
    dataset: training faces, which show what the region looks like (dataset zip)
    base: the weights that training started from, whose faces results may drift to
    perceptual: the perceptual network (plain state dict of ST-LPIPS, AlexNet)
    identity: dlib's face recogniser
    inception: the Inception network of FID (TorchScript)
    out: folder for sheet.png, rows_x*.png (one per factor), table.csv and drift.csv
    metrics: PSNR in dB, perceptual and identity distance, drift and KID, and bicubic's distances
    """
    inputs = Inputs(encoder, generator, heldout, dataset, base, perceptual, identity, inception)
    write_json(metrics, superres(inputs, out, load_params("superres", SuperresParams)))


if __name__ == "__main__":
    run(main)
