"""Tool: the sample's start weights, by distillation and GAN training from a public generator's pictures."""

from stylebot.base import make
from stylebot.checkpoints import save_networks
from stylebot.cli import Dep, Out, run


def main(pairs: Dep, mapping: Dep, out: Out) -> None:
    """Make G, D and G_ema at 64 px for the base domain.

    pairs: folder with base_faces_128.zip and base_faces_w.npz
    mapping: MappingNetwork.xml of random-face, beside its .bin
    out: the networks (safetensors)
    """
    save_networks(out, make(pairs, mapping), half=True)


if __name__ == "__main__":
    run(main)
