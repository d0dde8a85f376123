"""Snapshots of the TensorFlow code come in: same numbers, turned kernels, nothing executed."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensorflow_files import Network, pickled, tf_discriminator, tf_generator

from stylebot import ops
from stylebot.checkpoints import load_networks
from stylebot.discriminator import Discriminator
from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.weights import ROLES

SIZES = {"num_channels": 3, "resolution": 16, "fmap_base": 128, "fmap_max": 16}
G_ARGS = SIZES | {"latent_size": 12, "dlatent_size": 16, "mapping_layers": 2, "truncation_psi": 0.5,
                  "mapping_fmaps": 16}
def filled(net: torch.nn.Module, seed: int) -> torch.nn.Module:
    rng = torch.Generator().manual_seed(seed)
    for tensor in net.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=rng))
    return net.eval()


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """`save(value, protocol)`: a file with the pickled value."""

    def write(value: object, protocol: int = 2) -> Path:
        (tmp_path / "network.pkl").write_bytes(pickled(value, protocol))
        return tmp_path / "network.pkl"

    return write


def nets(architecture: str = "skip") -> tuple[Generator, Discriminator]:
    d_architecture = "resnet" if architecture == "skip" else "skip" if architecture == "resnet" else "orig"
    G = Generator(12, 0, 16, 16, 3, mapping_layers=2, channel_base=256, channel_max=16,
                  architecture=architecture)
    D = Discriminator(0, 16, 3, d_architecture, channel_base=256, channel_max=16)
    return filled(G, 1), filled(D, 2)


def refusal(path: Path) -> str:
    with pytest.raises(StylebotError) as caught:
        load_networks(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_snapshots_come_in_bit_for_bit(save: Callable, architecture: str, protocol: int) -> None:
    G, D = nets(architecture)
    G_ema = filled(copy.deepcopy(G), 3)
    back = load_networks(save((
        tf_generator(G, G_ARGS | {"architecture": architecture}),
        tf_discriminator(D, SIZES | {"architecture": D.config["architecture"], "mbstd_group_size": 4}),
        tf_generator(G_ema, G_ARGS | {"architecture": architecture})), protocol), need=ROLES)
    for role, net in (("G", G), ("D", D), ("G_ema", G_ema)):
        mine, wanted = getattr(back, role).state_dict(), net.state_dict()
        assert mine.keys() == wanted.keys()
        for name, tensor in wanted.items():
            exact = tensor - 1 + 1 if name.endswith("affine.bias") else tensor  # the +1 there is rounded
            assert torch.equal(mine[name], exact), name
    assert back.D.config["mbstd_group_size"] == 4 and back.meta["source"] == "TensorFlow pickle"


def test_an_upsampling_kernel_is_a_correlation_there(save: Callable) -> None:
    """The definition of upsample_conv_2d: zero-stuff, low-pass, then conv2d, which correlates.

    The fused forms pad between the two, so the outermost pixels differ from this plain one.
    """
    G, _ = nets()
    stub = tf_generator(G, G_ARGS)
    kernel = torch.tensor(dict(stub.components["synthesis"].variables)["8x8/Conv0_up/weight"])
    layer = load_networks(save(stub)).G_ema.synthesis.b8.conv0
    x = torch.randn(2, 16, 4, 4)
    up = ops.upfirdn2d(x, ops.blur_filter(), up=2, padding=(2, 1, 2, 1), gain=4)
    wanted = F.conv2d(up, kernel.permute(3, 2, 0, 1), padding=1)
    got, inside = ops.conv_up2(x, layer.weight, ops.blur_filter()), (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(got[inside], wanted[inside], rtol=1e-4, atol=1e-4)


def test_labels_and_the_older_functions_defaults(save: Callable) -> None:
    G = filled(Generator(12, 3, 16, 16, 3, mapping_layers=2, channel_base=256, channel_max=16), 1)
    D = filled(Discriminator(3, 16, 3, channel_base=256, channel_max=16, mapping_layers=0,
                             lr_multiplier=0.1, mbstd_group_size=1 << 16), 2)
    labels = {"label_size": 3}
    arguments = G_ARGS | labels | {"dlatent_avg_beta": None}
    three = tf_generator(G, arguments), tf_discriminator(D, SIZES | labels), tf_generator(G, arguments)
    back = load_networks(save(three))
    c, img = torch.eye(3), torch.randn(3, 3, 16, 16)
    assert torch.equal(back.D(img, c), D(img, c)) and back.D.config["mbstd_group_size"] == 1 << 16
    assert back.G.config["w_avg_beta"] == 1 and back.G.c_dim == 3
    G, D = nets()
    plain = tf_generator(G, G_ARGS)
    older = load_networks(save((plain, tf_discriminator(D, SIZES, "D_stylegan2"), plain)))
    assert older.D.config["mbstd_group_size"] == 4


def test_one_generator_alone_is_the_average(save: Callable) -> None:
    G, _ = nets()
    back = load_networks(save(tf_generator(G, G_ARGS)))
    assert back.G is None and back.D is None
    z = torch.randn(2, 12)
    torch.testing.assert_close(back.G_ema(z, noise_mode="const"), G(z, noise_mode="const"))


def change(stub: Network, **changes: object) -> Network:
    stub.__dict__.update(changes)
    return stub


@pytest.mark.parametrize(("broken", "words"), [
    (lambda s: change(s, version=3), "version 3"),
    (lambda s: change(s, build_func_name="G_style"), "built by 'G_style'"),
    (lambda s: s.static_kwargs.update(use_spectral_norm=True), "use_spectral_norm is True"),
    (lambda s: s.static_kwargs.update(resolution=32), "resolution is 32 here and 16 there"),
    (lambda s: s.static_kwargs.update(magic=1), "has not: magic"),
    (lambda s: s.static_kwargs.update(resample_kernel=[1, 2, 1]), "filter_taps"),
    (lambda s: s.static_kwargs.update(fmap_max=8), "other shapes"),
    (lambda s: s.variables.append(("extra/weight", np.zeros(2, np.float32))), "no place for: extra/weight"),
    (lambda s: s.variables.append(("extra", math.inf)), "neither an array nor a number"),
    (lambda s: s.variables.pop(), "dlatent_avg is missing"),
    (lambda s: s.components["synthesis"].variables.pop(), "missing synthesis.b16"),
    (lambda s: change(s, variables=[1]), "no list of names"),
    (lambda s: change(s, static_kwargs=None), "without its arguments"),
    (lambda s: s.components.update(mapping=s), "built by 'G_main'"),
])
def test_what_does_not_fit_is_named(save: Callable, broken: Callable, words: str) -> None:
    G, _ = nets()
    stub = tf_generator(G, G_ARGS)
    broken(stub)
    assert words in refusal(save(stub))
