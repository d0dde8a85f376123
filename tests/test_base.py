"""The sample's start weights: what needs neither the public network nor hours."""

import io
import math
import zipfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylebot import base
from stylebot.base import (
    Duel,
    Lesson,
    Pairs,
    distil,
    feature_gap,
    fight,
    fold_truncation,
    grown,
    looked_at,
    picture_loss,
    pictures_up_to,
    read_pairs,
)
from stylebot.discriminator import Discriminator
from stylebot.errors import StylebotError
from stylebot.generator import Generator


def small(**options) -> Generator:
    torch.manual_seed(5)
    shape = {"z_dim": 512, "w_dim": 8, "img_resolution": 16, "mapping_layers": 2, "channel_base": 128}
    return Generator(**shape | {"channel_max": 8} | options)


def test_folded_truncation_is_truncation_about_zero() -> None:
    G, z, w_avg = small(), torch.randn(4, 512), torch.randn(8)
    G.mapping.fc1.bias.data.normal_(std=100)
    wanted = G.eval().mapping(z) * 0.8
    fold_truncation(G, 0.8, w_avg)
    torch.testing.assert_close(G.mapping(z), wanted)
    torch.testing.assert_close(G.mapping.w_avg, w_avg * 0.8)


def archive(folder: Path, numbers: list[int]) -> list[np.ndarray]:
    """base_faces_128.zip with one flat picture per number; returns their colours."""
    colours = []
    with zipfile.ZipFile(folder / "base_faces_128.zip", "w") as file:
        for number in numbers:
            colours.append(np.array([number % 256, 100, 200 - number % 100]))
            picture, buffer = np.broadcast_to(colours[-1].astype(np.uint8), (128, 128, 3)), io.BytesIO()
            Image.fromarray(picture).save(buffer, "JPEG", quality=95)
            file.writestr(f"{number:05d}.jpg", buffer.getvalue())
    return colours


def test_pairs_are_matched_by_the_number_in_the_name(tmp_path: Path) -> None:
    numbers = [3, 40, 15999]
    colours, G = archive(tmp_path, numbers[::-1])[::-1], small().eval()
    pairs = read_pairs(tmp_path, G)
    assert pairs.ws.shape == (3, 8) and pairs.imgs.shape == (3, 3, 16, 16) and pairs.imgs.dtype == torch.uint8
    z = np.random.default_rng(1).standard_normal((16000, 512)).astype(np.float32)[numbers]
    torch.testing.assert_close(pairs.ws, G.mapping(torch.from_numpy(z))[:, 0].detach())
    means = pairs.imgs.float().mean(dim=[2, 3]).numpy()
    np.testing.assert_allclose(means, np.stack(colours), atol=3)
    archive(tmp_path, [3, 40, 15998])
    assert read_pairs(tmp_path, G).fingerprint != pairs.fingerprint


@pytest.mark.parametrize("content", [None, b"no zip"])
def test_unreadable_pairs(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "base_faces_128.zip").write_bytes(content)
    with pytest.raises(StylebotError, match=r"base_faces_128\.zip"):
        read_pairs(tmp_path, small())


def test_picture_loss() -> None:
    img = torch.rand(2, 3, 8, 8)
    assert float(picture_loss(img, img)) == 0
    assert float(picture_loss(img + 0.5, img)) == pytest.approx(0.5 + 0.25 + 0.5 * 0.5, rel=1e-5)
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4).expand(2, 3, 8, 8)
    assert float(picture_loss(checks, torch.zeros_like(checks))) == pytest.approx(2)  # coarsely: nothing


def test_low_blocks_make_what_the_whole_makes_of_them() -> None:
    G, w = small(), torch.randn(2, 8)
    with torch.no_grad():
        whole = G.synthesis(w.unsqueeze(1).repeat(1, G.num_ws, 1), noise_mode="random")
        assert pictures_up_to(G, w, 4).shape == (2, 3, 4, 4)
        torch.testing.assert_close(pictures_up_to(G, w, 16), whole)  # noise strength is 0 at first


def test_a_lesson_teaches(rng: torch.Generator) -> None:
    G = small(z_dim=8)
    ws = torch.randn(8, 8, generator=rng)
    colours = torch.randint(256, (8, 3, 1, 1), generator=rng, dtype=torch.uint8)
    pairs = Pairs(ws, colours.expand(8, 3, 16, 16).contiguous(), "")
    before = {k: p.clone() for k, p in G.named_parameters()}
    passed = list(distil(G, pairs, Lesson(8, 0.6, 4, 0.02, 0.7)))
    assert [nimg for nimg, _, _ in passed] == list(range(4, 601, 4))
    first, last = (np.mean([loss for _, _, loss in part]) for part in (passed[:20], passed[-20:]))
    assert last < 0.7 * first and all(math.isfinite(loss) for _, _, loss in passed)
    moved = {k for k, p in G.named_parameters() if not torch.equal(p, before[k])}
    assert moved and not {k for k in moved if k.startswith(("mapping", "synthesis.b16"))}
    G_ema = passed[-1][1]
    gap = (G_ema.synthesis.b4.const - G.synthesis.b4.const).abs().max()
    assert 0 < gap < (G.synthesis.b4.const - before["synthesis.b4.const"]).abs().max()


def small_D(resolution: int = 16) -> Discriminator:
    return Discriminator(img_resolution=resolution, channel_base=64, channel_max=8, filter_taps=(1.0,))


def test_looking_at_blocks_does_not_change_the_logits() -> None:
    D, img = small_D(), torch.randn(4, 3, 16, 16)
    logits, found = looked_at(D, img)
    torch.testing.assert_close(logits, D(img))
    assert [tuple(x.shape) for x in found] == [(4, 8, 8, 8), (4, 8, 4, 4)]


def test_feature_gap() -> None:
    a, b = torch.full((2, 3), 3.0), torch.full((2, 3), -2.0)
    assert float(feature_gap([a, b], [a, b])) == 0
    assert float(feature_gap([a, b], [2 * a, 4 * b])) == pytest.approx(3 / 6 + 6 / 8, rel=1e-3)


def test_a_grown_discriminator_keeps_the_smaller_ones_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "CONFIG_D", {"channel_base": 64, "channel_max": 8, "filter_taps": (1.0,)})
    small_one = small_D(8)
    large = grown(small_one, 16)
    own = large.state_dict()
    shared = set(own) & set(small_one.state_dict())
    assert "b8.conv0.weight" in shared and "b8.fromrgb.weight" not in own and "b16.fromrgb.weight" in own
    assert all(torch.equal(own[k], small_one.state_dict()[k]) for k in shared)


def test_a_fight_moves_both_and_pulls_g_towards_its_pairs(rng: torch.Generator) -> None:
    G, D = small(z_dim=8), small_D(8)
    G_ema = deepcopy(G)
    ws = torch.randn(16, 8, generator=rng)
    colours = torch.randint(256, (16, 3, 1, 1), generator=rng, dtype=torch.uint8)
    pairs = Pairs(ws, colours.expand(16, 3, 16, 16).contiguous(), "")
    before = {role: {k: p.clone() for k, p in net.named_parameters()} for role, net in (("G", G), ("D", D))}

    def error(net: Generator) -> float:
        with torch.no_grad():
            fake = pictures_up_to(net, ws, 8)
        return float((fake - (colours.float() / 127.5 - 1)).abs().mean())

    first = error(G)
    duel = Duel(8, 1.0, 8, 0.01, 0.002, 0.5, 0.2, 0.3)
    assert list(fight(G, G_ema, D, pairs, duel)) == list(range(8, 1001, 8))
    assert error(G) < 0.7 * first and error(G_ema) < 0.7 * first
    moved = {k for k, p in G.named_parameters() if not torch.equal(p, before["G"][k])}
    assert moved and not {k for k in moved if k.startswith(("mapping", "synthesis.b16"))}
    assert all(p.requires_grad and not torch.equal(p, before["D"][k]) for k, p in D.named_parameters())
