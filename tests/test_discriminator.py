"""The discriminator against the reference, minibatch stddev against a loop, and Freeze-D at every depth."""

import json
import math

import numpy as np
import pytest
import torch
from oracle import FOLDER, close, heads, read, with_weights
from torch import Tensor

from stylebot import losses
from stylebot.discriminator import Discriminator, freeze_d, freeze_order, minibatch_stddev
from stylebot.errors import StylebotError

SMALL = {"img_resolution": 16, "channel_base": 128, "channel_max": 8}
FREEZED = json.loads((FOLDER / "freezed.json").read_text())


@pytest.mark.parametrize("name", ["discriminator_labels", "discriminator_skip"])
def test_reference(name: str) -> None:
    options, arrays = read(name)
    D = with_weights(Discriminator(**options["network"]), arrays, "net/")
    img = arrays["in/img"].requires_grad_()
    logits = D(img, arrays["in/c"])
    close(logits, arrays["out/logits"])
    (gradient,) = torch.autograd.grad(logits.sum(), img, retain_graph=True)
    close(gradient, arrays["out/grad_img"])
    losses.generator_loss(logits).mean().backward()
    found = {k: p.grad for k, p in D.named_parameters()}
    assert found.keys() == set(options["names"])
    names = options["names"]
    close(torch.stack([found[k].norm() for k in names]), arrays["out/norms"], 1e-6)  # float32 there
    for row, wanted, k in zip(heads(found, names), arrays["out/heads"], names, strict=True):
        close(row, wanted, 2e-5, k)


@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
@pytest.mark.parametrize("resolution", [8, 32])
def test_shapes(architecture: str, resolution: int) -> None:
    D = Discriminator(**SMALL | {"img_resolution": resolution}, architecture=architecture, img_channels=1)
    assert D(torch.randn(4, 1, resolution, resolution)).shape == (4, 1)


def test_config_and_state_rebuild_the_network() -> None:
    D = Discriminator(**SMALL, c_dim=2, mapping_layers=1, mbstd_group_size=2)
    twin = Discriminator(**D.config)
    twin.load_state_dict(D.state_dict())
    img, c = torch.randn(4, 3, 16, 16), torch.eye(2)[[0, 1, 1, 0]]
    assert torch.equal(D(img, c), twin(img, c))


def test_labels_are_wanted() -> None:
    with pytest.raises(StylebotError, match="labels of 2 numbers"):
        Discriminator(**SMALL, c_dim=2)(torch.randn(4, 3, 16, 16))


def by_loop(x: np.ndarray, group: int, channels: int) -> np.ndarray:
    """Per group and slice of channels: the standard deviation over the group, averaged over all else."""
    n, c, h, w = x.shape
    extra = np.zeros((n, channels, h, w))
    for first in range(n // group):
        members = range(first, n, n // group)
        for k in range(channels):
            part = x[list(members), k * c // channels : (k + 1) * c // channels]
            extra[list(members), k] = np.sqrt(part.var(axis=0) + 1e-8).mean()
    return np.concatenate([x, extra], axis=1)


@pytest.mark.parametrize("shape", [(8, 4, 1), (8, 2, 2), (6, 3, 4), (3, 4, 1), (5, 1, 1)])
def test_minibatch_stddev_by_a_loop(shape: tuple[int, int, int], rng: torch.Generator) -> None:
    batch, group, channels = shape
    x = torch.randn(batch, 4, 3, 3, dtype=torch.float64, generator=rng)
    wanted = by_loop(x.numpy(), min(group, batch), channels)
    np.testing.assert_allclose(minibatch_stddev(x, group, channels).numpy(), wanted, atol=1e-12)


def test_minibatch_stddev_wants_whole_groups() -> None:
    with pytest.raises(StylebotError, match="a batch of 6 does not divide into groups of 4"):
        minibatch_stddev(torch.randn(6, 4, 4, 4), 4, 1)


def tiny(resolution: int, architecture: str) -> Discriminator:
    """A network whose widths do not matter."""
    return Discriminator(img_resolution=resolution, architecture=architecture, channel_base=4096,
                         channel_max=4)  # fmt: skip


@pytest.mark.parametrize("shape", sorted({(r["resolution"], r["architecture"]) for r in FREEZED}))
def test_freeze_d_at_every_depth(shape: tuple[int, str]) -> None:
    D = tiny(*shape)
    cases = [r for r in FREEZED if (r["resolution"], r["architecture"]) == shape]
    for case in cases:
        depth = min(case["layers"], len(freeze_order(D)))  # the reference takes more for all
        kept = {id(p) for p in freeze_d(D, depth)}
        assert [k for k, p in D.named_parameters() if id(p) not in kept] == case["frozen"], depth
        assert len(kept) == case["trainable"]
        assert all(p.requires_grad == (id(p) in kept) for p in D.parameters())
    assert len(cases) == 14


@pytest.mark.parametrize(("resolution", "most"), [(16, 7), (256, 19), (512, 22), (1024, 25)])
def test_freeze_d_has_a_maximum(resolution: int, most: int) -> None:
    D = tiny(resolution, "resnet")
    frozen = {id(p) for p in D.parameters()} - {id(p) for p in freeze_d(D, most)}
    assert frozen == {id(p) for k, p in D.named_parameters() if not k.startswith("b4.")}
    for depth in (-1, most + 1):
        with pytest.raises(StylebotError, match=f"freeze_d = {depth}: .* 0 to {most} layers"):
            freeze_d(D, depth)


def test_one_number_off_is_another_logit(rng: torch.Generator) -> None:
    """Every tensor of the network has a say."""
    D = Discriminator(**SMALL, c_dim=2, mapping_layers=1)
    img, c = torch.randn(4, 3, 16, 16, generator=rng), torch.eye(2)[[0, 1, 1, 0]]
    wanted: Tensor = D(img, c)
    for name, p in D.named_parameters():
        before = p.detach().clone()
        with torch.no_grad():
            p += torch.randn(p.shape, generator=rng) * (before.abs().mean() + 0.1)
        assert not math.isclose(float(D(img, c).sum()), float(wanted.sum()), rel_tol=1e-6), name
        p.data.copy_(before)
    assert torch.equal(D(img, c), wanted)
