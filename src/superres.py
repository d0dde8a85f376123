"""Stage `superres`: super-resolve held-out faces with the encoder and the generator, and measure it."""

from stylebot.cli import Dep, Metric, Out, run
from stylebot.files import write_json
from stylebot.params import load_params
from stylebot.superres import SuperresParams, superres


def main(encoder: Dep, generator: Dep, heldout: Dep, perceptual: Dep, identity: Dep, out: Out,
         metrics: Metric) -> None:
    """Shrink held-out faces, rebuild them, and compare with the originals and with bicubic.

    encoder: the encoder (safetensors)
    generator: the networks it was trained against (safetensors), of which G_ema decodes
    heldout: faces of people never trained on (dataset zip)
    perceptual: the perceptual network (plain state dict of ST-LPIPS, AlexNet)
    identity: dlib's face recogniser
    out: folder for sheet.png, rows_x*.png (one per factor) and table.csv
    metrics: PSNR in dB, perceptual and identity distance per factor, and bicubic's
    """
    params = load_params("superres", SuperresParams)
    write_json(metrics, superres(encoder, generator, heldout, perceptual, identity, out, params))


if __name__ == "__main__":
    run(main)
