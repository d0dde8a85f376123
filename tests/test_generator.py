"""The generator against the reference, and what holds for any generator."""

import math

import pytest
import torch
from oracle import close, read, with_weights
from torch import Tensor

from stylebot.errors import StylebotError
from stylebot.generator import Generator, SynthesisLayer, ToRGB

SMALL = {"z_dim": 8, "w_dim": 8, "img_resolution": 16, "mapping_layers": 2, "channel_base": 128,
         "channel_max": 8}  # fmt: skip


def small(**options) -> Generator:
    torch.manual_seed(0)
    G = Generator(**SMALL | options)
    with torch.no_grad():
        for name, tensor in G.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                tensor += torch.randn(tensor.shape) * 0.3
    return G.eval()


@pytest.mark.parametrize("name", ["generator_skip", "generator_resnet"])
@pytest.mark.parametrize("gradients", [True, False])
def test_reference(name: str, gradients: bool) -> None:
    options, arrays = read(name)
    G = with_weights(Generator(**options["network"]), arrays, "net/").eval()
    z, cutoff, found = arrays["in/z"], options["cutoff"], {}
    with torch.set_grad_enabled(gradients):
        found["ws"], found["ws_psi0.7"] = G.mapping(z), G.mapping(z, truncation_psi=0.7)
        found["ws_psi0.7_cutoff"] = G.mapping(z, truncation_psi=0.7, truncation_cutoff=cutoff)
        found["img_none"] = G(z, noise_mode="none")
        found["img_const"] = G(z, noise_mode="const")
        found["img_const_psi0.7_cutoff"] = G(
            z, truncation_psi=0.7, truncation_cutoff=cutoff, noise_mode="const")
        G.train().mapping(z)
        found["w_avg_after_one_train_forward"] = G.mapping.w_avg
    assert {k[4:] for k in arrays if k.startswith("out/")} == found.keys()
    for key, value in found.items():  # the last image is stored in float32 only
        close(value, arrays[f"out/{key}"], 3e-6 if key == "img_const_psi0.7_cutoff" else 1e-9, key)


@pytest.mark.parametrize("name", ["generator_skip", "generator_resnet"])
def test_single_precision_is_as_exact_as_it_can_be(name: str) -> None:
    options, arrays = read(name)
    G = with_weights(Generator(**options["network"]), arrays, "net/").eval().float()
    z = arrays["in/z"].float()
    close(G(z, noise_mode="const"), arrays["out/img_const"], 5e-6)
    with torch.no_grad():
        close(G(z, noise_mode="const"), arrays["out/img_const"], 5e-6)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("resolution", [4, 8, 64])
def test_shapes(architecture: str, resolution: int) -> None:
    G = small(img_resolution=resolution, architecture=architecture, img_channels=1)
    assert G.num_ws == 2 * math.log2(resolution) - 2
    ws = G.mapping(torch.randn(3, 8))
    assert ws.shape == (3, G.num_ws, 8)
    assert G.synthesis(ws).shape == (3, 1, resolution, resolution)


def test_config_and_state_rebuild_the_network() -> None:
    G = small(architecture="resnet", conv_clamp=2.0)
    twin = Generator(**G.config).eval()
    twin.load_state_dict(G.state_dict())
    z = torch.randn(2, 8)
    assert torch.equal(G(z, noise_mode="const"), twin(z, noise_mode="const"))


def test_state_has_the_official_names() -> None:
    layer = ("weight", "bias", "noise_strength", "noise_const", "affine.weight", "affine.bias")
    rgb = ("weight", "bias", "affine.weight", "affine.bias")
    wanted = {"mapping.w_avg", "synthesis.b4.const"}
    wanted |= {f"mapping.fc{i}.{n}" for i in range(2) for n in ("weight", "bias")}
    wanted |= {f"synthesis.{b}.{n}" for b in ("b4.conv1", "b8.conv0", "b8.conv1") for n in layer}
    wanted |= {f"synthesis.b{r}.torgb.{n}" for r in (4, 8) for n in rgb}
    assert set(small(img_resolution=8).state_dict()) == wanted


def test_truncation() -> None:
    G, z = small(), torch.randn(4, 8)
    G.mapping.w_avg.copy_(torch.randn(8))
    ws = G.mapping(z)
    torch.testing.assert_close(G.mapping(z, truncation_psi=0), G.mapping.w_avg.expand(4, G.num_ws, 8))
    half = G.mapping(z, truncation_psi=0.5, truncation_cutoff=2)
    assert torch.equal(half[:, 2:], ws[:, 2:])
    torch.testing.assert_close(half[:, :2], (ws[:, :2] + G.mapping.w_avg) / 2)


def test_w_avg_follows_the_mean_in_training_alone() -> None:
    G, z = small(w_avg_beta=0.9), torch.randn(64, 8)
    before = G.mapping.w_avg.clone()
    mean = G.mapping(z)[:, 0].mean(dim=0)
    assert torch.equal(G.mapping.w_avg, before)
    G.train().mapping(z, skip_w_avg_update=True)
    assert torch.equal(G.mapping.w_avg, before)
    G.mapping(z)
    torch.testing.assert_close(G.mapping.w_avg, 0.9 * before + 0.1 * mean)


def test_length_of_the_latent_does_not_matter() -> None:
    G, z = small(), torch.randn(2, 8)
    torch.testing.assert_close(G.mapping(z), G.mapping(z * 100))


def test_labels() -> None:
    G, z = small(c_dim=3), torch.randn(2, 8)
    with pytest.raises(StylebotError, match="labels of 3 numbers"):
        G(z)
    one, other = (G.mapping(z, torch.eye(3)[[i, i]]) for i in (0, 1))
    assert (one - other).abs().max() > 1e-2


def test_noise_modes() -> None:
    G = small()
    ws = G.mapping(torch.randn(2, 8))
    shapes: list[tuple[int, ...]] = []

    def ones(shape: tuple[int, ...]) -> Tensor:
        shapes.append(shape)
        return torch.ones(shape)

    const, none, given = (G.synthesis(ws, mode, ones) for mode in ("const", "none", "random"))
    assert shapes == [(2, 1, r, r) for r in (4, 8, 8, 16, 16)]
    assert len({float(x.detach().sum()) for x in (const, none, given, G.synthesis(ws))}) == 4
    for module in G.modules():
        if isinstance(module, SynthesisLayer):
            module.noise_const.fill_(1)
    torch.testing.assert_close(G.synthesis(ws, "const"), given)


def test_clamp_bounds_every_layer() -> None:
    G, largest = small(conv_clamp=0.25), []
    for module in G.modules():
        if isinstance(module, SynthesisLayer | ToRGB):
            module.register_forward_hook(lambda m, i, out: largest.append(float(out.detach().abs().max())))
    G(torch.randn(4, 8))
    assert len(largest) == 5 + 3 and max(largest) == 0.25


def test_half_precision_is_for_gpus_alone() -> None:
    z = torch.randn(2, 8)
    assert torch.equal(small(num_fp16_res=4)(z, noise_mode="const"), small()(z, noise_mode="const"))


@pytest.mark.parametrize(("options", "said"), [
    ({"img_resolution": 48}, "48 is not a power of two"), ({"img_resolution": 2}, "2 is not"),
    ({"architecture": "unet"}, "'unet' is none of orig, skip, resnet")])  # fmt: skip
def test_impossible_shapes_are_one_clear_line(options: dict, said: str) -> None:
    with pytest.raises(StylebotError, match=said):
        small(**options)
