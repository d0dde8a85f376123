"""The sample's start weights: what needs neither the public network nor hours."""

import io
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training import faces, start

from stylebot import base
from stylebot.base import (
    Lesson,
    Pairs,
    compete,
    distil,
    fold_truncation,
    picture_loss,
    pictures_up_to,
    read_pairs,
)
from stylebot.errors import StylebotError
from stylebot.generator import Generator


def small(**options) -> Generator:
    torch.manual_seed(5)
    shape = {"z_dim": 512, "w_dim": 8, "img_resolution": 16, "mapping_layers": 2, "channel_base": 128}
    return Generator(**shape | {"channel_max": 8} | options)


def test_folded_truncation_is_truncation_about_zero() -> None:
    G, z, w_avg = small(), torch.randn(4, 512), torch.randn(8)
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


def test_the_discriminator_warms_up_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    state, numbers = start()
    monkeypatch.setattr(base, "RECIPE", numbers)
    before = {role: {k: p.clone() for k, p in getattr(state, role).named_parameters()} for role in ("G", "D")}
    pairs, shown = Pairs(torch.randn(len(faces()), state.G.w_dim), faces(), ""), []
    for nimg in compete(state, pairs, warm_kimg=0.016, kimg=0.04, cool_kimg=0.008):
        shown.append(nimg)
        for role, net in (("G", state.G), ("D", state.D)):
            still = all(torch.equal(p, before[role][k]) for k, p in net.named_parameters())
            assert still == (role == "G" and nimg <= 24)
    assert shown == [8, 16, 24, 32, 40]
