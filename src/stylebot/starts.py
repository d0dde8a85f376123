"""What the training of an encoder begins with: an encoder of ours, or the one in a pSp checkpoint."""

import re
from pathlib import Path

import torch
from torch import Tensor

from stylebot.checkpoints import load_networks
from stylebot.encoder import Encoder, load_encoder
from stylebot.errors import StylebotError

_HEAD = re.compile(r"styles\.(\d+)\.")


def begin_with(encoder: Encoder, path: Path) -> None:
    """Give `encoder` the weights in `path`, so that it answers with the codes that the file's own would give.

    Its latent_avg, our generator's average, stays; the difference from the file's goes into the heads.
    path: a file of `encode` (its generator may be another one of the same size), or a checkpoint of pSp,
    whose encoder is kept and whose decoder is left out. A pSp encoder for a larger generator lends the styles
    of its lower layers.
    Raises: StylebotError, one line, for a file that is missing, damaged or of another shape.
    """
    if not path.is_file():
        raise StylebotError(f"encode.start: no such file: {path}")
    with path.open("rb") as file:
        ours = file.read(9)[8:] == b"{"  # safetensors begin with a length and a description
    net, average = _ours(encoder, path) if ours else _published(encoder, path)
    wanted = {name: tuple(t.shape) for name, t in encoder.net.state_dict().items()}
    wrong = sorted(name for name in wanted.keys() | net.keys()
                   if name not in net or wanted.get(name) != tuple(net[name].shape))  # fmt: skip
    if wrong:
        raise StylebotError(f"encode.start: {path} does not fit a {encoder.config['variant']} encoder for "
                            f"{encoder.config['resolution']} px: {', '.join(wrong[:4])}"
                            f"{f' and {len(wrong) - 4} more' if len(wrong) > 4 else ''}")  # fmt: skip
    encoder.net.load_state_dict(net)
    _shift(encoder, average.expand_as(encoder.latent_avg) - encoder.latent_avg)


def _ours(encoder: Encoder, path: Path) -> tuple[dict[str, Tensor], Tensor]:
    other, _ = load_encoder(path)
    if other.config != encoder.config:
        unlike = ", ".join(f"{name} {other.config[name]}" for name in encoder.config
                           if other.config[name] != encoder.config[name])  # fmt: skip
        wanted = ", ".join(str(encoder.config[name]) for name in encoder.config
                           if other.config[name] != encoder.config[name])  # fmt: skip
        raise StylebotError(f"encode.start: {path} is an encoder with {unlike}, wanted: {wanted}")
    return other.net.state_dict(), other.latent_avg


def _published(encoder: Encoder, path: Path) -> tuple[dict[str, Tensor], Tensor]:
    networks = load_networks(path)
    if not networks.encoder:
        raise StylebotError(f"encode.start: {path} holds no encoder")
    kind = networks.meta.get("opts", {}).get("encoder_type", "GradualStyleEncoder")
    if encoder.config["variant"] != "psp" or kind != "GradualStyleEncoder":
        raise StylebotError(f"encode.start: {path} holds pSp's encoder of type {str(kind)[:60]}: only its "
                            "GradualStyleEncoder can begin, with encode.variant psp")  # fmt: skip
    net = {name: tensor for name, tensor in networks.encoder.items() if name != "latent_avg"}
    kept = {name: tensor for name, tensor in net.items()
            if not (head := _HEAD.match(name)) or int(head[1]) < encoder.n_styles}  # fmt: skip
    average = networks.encoder.get("latent_avg", torch.zeros(1, encoder.latent_avg.shape[1]))
    average = average.float().reshape(-1, average.shape[-1])
    return kept, average[: encoder.n_styles]


def _shift(encoder: Encoder, by: Tensor) -> None:
    """Add `by` [n_styles,w_dim] to whatever codes `encoder` gives."""
    first = 0
    with torch.no_grad():
        for head in encoder.net.heads:
            bias = head.linear_bias if hasattr(head, "linear_bias") else head.bias
            count = bias.numel() // by.shape[1]
            bias += by[first : first + count].reshape(bias.shape)
            first += count
