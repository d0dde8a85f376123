"""Pictures by seed."""

import numpy as np
import pytest
import torch

from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.render import labels, latents, render, stream, to_rgb, weights_sha256

SMALL = {"z_dim": 8, "w_dim": 8, "img_resolution": 16, "mapping_layers": 2, "channel_base": 64}


def generator(seed: int = 0, **options) -> Generator:
    torch.manual_seed(seed)
    g = Generator(**SMALL | {"c_dim": 0, "img_channels": 3} | options)
    for name, value in g.named_parameters():
        if name.endswith("noise_strength"):
            value.data.fill_(0.3)
    g.mapping.w_avg.normal_()
    return g.eval().requires_grad_(False)


def test_latents_are_the_official_ones() -> None:
    z = latents([7, 3], 5)
    assert z.dtype == torch.float32
    assert np.allclose(z[0], np.random.RandomState(7).randn(1, 5)[0])
    assert torch.equal(z[1:], latents([3], 5))


def test_levels_are_quantised_as_the_official_code_does() -> None:
    img = torch.tensor([-2.0, -1.0, -0.9999, 0.0, 0.9999, 1.0, 2.0]).reshape(1, 1, 1, 7)
    assert to_rgb(img)[0, :, 0].tolist() == [[0, 0, 0, 128, 255, 255, 255]] * 3


@pytest.mark.parametrize("noise_mode", ["const", "none", "random"])
def test_a_seeds_picture_does_not_depend_on_its_batch(noise_mode: str) -> None:
    g, seeds = generator(), [5, 0, 9, 2, 7]
    together = torch.cat(list(stream(g, seeds, 2, psi=0.7, noise_mode=noise_mode))).int()
    for seed, rgb in zip(seeds, together, strict=True):
        alone = render(g, [seed], psi=0.7, noise_mode=noise_mode)[0].int()
        assert (alone - rgb).abs().max() <= 1
    assert (together[0] - together[1]).abs().float().mean() > 1


def test_random_noise_follows_the_seed_and_leaves_torchs_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    g = generator()
    before = torch.get_rng_state()
    first, again = (render(g, [4], noise_mode="random") for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, render(g, [4], noise_mode="const"))
    z_of_4 = latents([4], g.z_dim)
    monkeypatch.setattr("stylebot.render.latents", lambda seeds, z_dim: z_of_4.expand(len(seeds), -1))
    assert not torch.equal(first, render(g, [5], noise_mode="random"))
    assert torch.equal(before, torch.get_rng_state())


def test_truncation_pulls_to_the_average_face() -> None:
    g = generator()
    average = render(g, [1, 2], psi=0.0, noise_mode="none").float()
    assert torch.equal(average[0], average[1])
    pulled = [render(g, [1], psi, noise_mode="none").float() for psi in (0.2, 0.6, 1)]
    near, far, free = ((rgb - average[:1]).abs().mean() for rgb in pulled)
    assert near < far < free
    assert torch.equal(render(g, [1], psi=0.3, cutoff=0), render(g, [1]))


def test_grey_generators_give_three_equal_channels() -> None:
    rgb = render(generator(img_channels=1), [0])
    assert rgb.shape == (1, 3, 16, 16) and torch.equal(rgb[:, 0], rgb[:, 2])


def test_classes_take_turns_or_are_chosen() -> None:
    assert labels([0, 4, 5], 0, None) is None
    assert labels([0, 4, 5], 3, None).argmax(1).tolist() == [0, 1, 2]
    assert labels([0, 4], 3, 2).tolist() == [[0, 0, 1]] * 2
    for c_dim, label in ((3, 3), (3, -1), (0, 0)):
        with pytest.raises(StylebotError, match="class"):
            labels([0], c_dim, label)
    g = generator(c_dim=3)
    assert not torch.equal(render(g, [0], label=0), render(g, [0], label=1))


def test_the_hash_is_of_names_and_values() -> None:
    g, same, other = generator(0), generator(0), generator(1)
    assert weights_sha256(g) == weights_sha256(same) != weights_sha256(other)
    same.mapping.w_avg[0] += 1e-6
    assert weights_sha256(g) != weights_sha256(same)
