"""Losses of super-resolution's mode "faithful": what skip connections into the generator are trained by."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from stylebot.degrade import resize
from stylebot.encoder import Encoder
from stylebot.generator import Generator
from stylebot.params import Section
from stylebot.perceptual import Perceptual, pooled
from stylebot.skips import Skips, synthesise


class FaithfulParams(Section):
    """What `encode.faithful` of params.yaml holds; explained there."""

    kimg: float = Field(ge=0)
    lr: float = Field(gt=0, le=0.1)
    consistency_weight: float = Field(ge=0)


def inconsistency(img: Tensor, small: Tensor, factors: Sequence[int]) -> Tensor:
    """Mean squared difference between `img` [N,C,R,R], made small by its factor and enlarged, and `small`.

    small [N,C,R,R]: what was given, made small and enlarged in the same way from the original.
    """
    again = img.clone()
    for factor in sorted(set(factors) - {1}):
        here = [i for i, f in enumerate(factors) if f == factor]
        again[here] = resize(resize(img[here], img.shape[2] // factor), img.shape[2], "bilinear")
    return F.mse_loss(again, small)


def restoring(target: Tensor, small: Tensor, factors: Sequence[int], encoder: Encoder, skips: Skips,
              generator: Generator, perceptual: Perceptual,
              weights: Mapping[str, float]) -> dict[str, Tensor]:  # fmt: skip
    """Unweighted losses by name of the faces rebuilt from `small` against `target`, both [N,3,R,R].

    `l2` at full size; unless their weight is 0, `lpips` and `consistency` with what was given.
    Gradients reach `skips` alone: with encoder and generator frozen one file serves both modes, and whatever
    "faithful" gains over "pure" is gained by the skips.
    """
    with torch.no_grad():
        codes = encoder(small)
    img = synthesise(generator, codes, skips(small))
    found = {"l2": F.mse_loss(img, target)}
    if weights["lpips"]:
        with torch.no_grad():
            wanted = perceptual.features(pooled(target))
        found["lpips"] = perceptual.compare(perceptual.features(pooled(img)), wanted).mean()
    if weights["consistency"]:
        found["consistency"] = inconsistency(img, small, factors)
    return found
