"""The four losses of StyleGAN2 training, as functions of networks and drawn numbers."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stylebot.discriminator import Discriminator
from stylebot.generator import Generator, Randn

Augment = Callable[[Tensor], Tensor]


def mixed_ws(
    mapping: Callable[..., Tensor], z: Tensor, c: Tensor | None, z_mix: Tensor | None = None,
    cutoff: int | None = None,
) -> Tensor:  # fmt: skip
    """ws [N, num_ws, w_dim] that G's mapping makes of z, from layer `cutoff` on of z_mix (style mixing).

    Source: Karras et al. 2018, arXiv 1812.04948, section 3.1.
    """
    ws = mapping(z, c)
    if z_mix is None or cutoff is None:
        return ws
    other = mapping(z_mix, c, skip_w_avg_update=True)
    return torch.cat([ws[:, :cutoff], other[:, cutoff:]], dim=1)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss [N] of logits [N, 1] of generated pictures. Source: arXiv 1406.2661, section 3."""
    return F.softplus(-fake_logits)[:, 0]


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of reals [N] and of fakes [N], each from logits [N, 1]."""
    return F.softplus(-real_logits)[:, 0], F.softplus(fake_logits)[:, 0]


def lecam_penalty(real_logits: Tensor, fake_logits: Tensor, anchors: Tensor) -> Tensor:
    """[N]: squared distance of each kind's logits [N, 1] from the running mean of the other kind.

    anchors [2]: running means of D's logits of reals and of fakes, without gradient.
    Source: Tseng et al. 2021, arXiv 2104.03310, equation 3.
    """
    return ((real_logits - anchors[1]).square() + (fake_logits - anchors[0]).square())[:, 0]


def r1_penalty(
    D: Discriminator, augment: Augment, real: Tensor, c: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(‖∇ D(augment(real))‖² [N], logits [N, 1]): gradient by the picture before augmentation.

    Source: Mescheder et al. 2018, arXiv 1801.04406, equation 9 (times 2/gamma).
    """
    real = real.detach().requires_grad_(True)
    logits = D(augment(real), c)
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return gradient.square().sum(dim=[1, 2, 3]), logits


def path_lengths(
    G: Generator, ws: Tensor, randn: Randn, noise_mode: str = "random", noise_randn: Randn | None = None
) -> Tensor:
    """Length [N] of Jᵀy for a random picture y ~ N(0, I)/√(HW): how far img moves per step in each w.

    The square is averaged over the num_ws styles. Source: arXiv 1912.04958, section 3.2.
    """
    ws = ws if ws.requires_grad else ws.detach().requires_grad_(True)  # a frozen mapping network
    img = G.synthesis(ws, noise_mode=noise_mode, randn=noise_randn)
    y = path_direction(img, img.shape[1], img.shape[2], randn)
    (gradient,) = torch.autograd.grad((img * y).sum(), ws, create_graph=True)
    return slope_length(gradient)


def path_direction(like: Tensor, channels: int, side: int, randn: Randn) -> Tensor:
    """The random picture y [N, channels, side, side] of path_lengths; N and kind of `like` [N, …]."""
    return randn((len(like), channels, side, side)).to(like) / side


def slope_length(gradient: Tensor) -> Tensor:
    """[N]: root of the squares of gradient [N, num_ws, w_dim], summed over w and averaged over styles."""
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(
    lengths: Tensor, pl_mean: Tensor, decay: float = 0.01, average: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(penalty [N], new running mean []): squared distance of lengths [N] from the mean that includes them.

    average [], without gradient: mean of the lengths over all processes, when `lengths` is a share of them.
    Mean over samples and processes, the gradient of `penalty` is that of the whole, the mean's own included.
    Source: arXiv 1912.04958, equation 4 with the exponential moving average of its section 3.2.
    """
    average = lengths.detach().mean() if average is None else average
    mean = pl_mean.lerp(average, decay)
    through_mean = 2 * decay * (average - mean) * (lengths - lengths.detach())  # 0, with a gradient
    return (lengths - mean).square() - through_mean, mean
