"""Inception's input and features, against clean-fid's own code on the same files."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylebot.errors import StylebotError
from stylebot.inception import KNOWN, Inception, resize_matrix, resized

CPU = torch.device("cpu")


def faces(count: int, side_px: int, seed: int) -> np.ndarray:
    """Smooth coloured pictures with some grain, uint8 [N, side, side, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 6, 6, 3)).astype(np.uint8)
    large = [np.asarray(Image.fromarray(c).resize((side_px, side_px))) for c in coarse]
    grain = rng.normal(0, 4 + 4 * seed, (count, side_px, side_px, 3))
    return np.clip(np.stack(large) + grain, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def network(model_file: Callable[[str], Path]) -> Inception:
    return Inception(model_file("inception.pt"), CPU)


@pytest.mark.parametrize("side_px", [1, 4, 64, 100, 256, 299, 640])
def test_clean_resize_is_clean_fids(side_px: int) -> None:
    resizer = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    rgb = faces(1, side_px, 3)[0]
    ours = resized(torch.from_numpy(rgb.transpose(2, 0, 1))[None], "clean")[0].numpy().transpose(1, 2, 0)
    assert np.abs(ours - resizer(rgb)).max() < 1e-3
    assert (ours != np.round(ours)).any() or side_px in (1, 299)


@pytest.mark.parametrize("side_px", [5, 64, 299, 512])
def test_legacy_resize_is_bilinear_without_half_pixels(side_px: int) -> None:
    rgb = torch.from_numpy(faces(1, side_px, 4).transpose(0, 3, 1, 2).copy())
    step = torch.arange(299) / 299 * 2 - 1 + 1 / side_px  # the source of pixel j is j * side/299, in [-1, 1]
    grid = torch.stack(torch.meshgrid(step, step, indexing="xy"), -1)[None]
    sampled = torch.nn.functional.grid_sample(rgb.float(), grid, padding_mode="border", align_corners=False)
    assert (resized(rgb, "legacy") - sampled).abs().max() < 0.02


def test_resize_matrices_keep_flat_pictures_and_refuse_unknown_names() -> None:
    for resize in ("clean", "legacy"):
        assert np.allclose(resize_matrix(48, resize).sum(1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="clean"):
        resize_matrix(48, "nearest")


def test_features_do_not_depend_on_the_batch(network: Inception) -> None:
    rgb = torch.from_numpy(faces(3, 64, 0).transpose(0, 3, 1, 2).copy())
    whole = network.features(rgb)
    assert whole.shape == (3, 2048) and whole.dtype == np.float32 and (whole >= 0).all()
    assert np.allclose(whole[1:2], network.features(rgb[1:2]), atol=1e-4)
    assert network.features(rgb[:0]).shape == (0, 2048)


def test_grey_pictures_count_as_three_channels(network: Inception) -> None:
    grey = torch.from_numpy(faces(1, 32, 1)[..., :1].transpose(0, 3, 1, 2).copy())
    assert np.allclose(network.features(grey), network.features(grey.repeat(1, 3, 1, 1)), atol=1e-5)


@pytest.mark.skipif(sys.platform == "win32", reason="clean-fid's loader wants fork")
def test_features_of_files_are_clean_fids(network: Inception, tmp_path: Path) -> None:
    """A folder of PNGs through the library's loader and resize; FID and KID themselves are in test_fid."""
    cleanfid = pytest.importorskip("cleanfid.fid")
    rgbs = faces(6, 64, 2)
    for i, rgb in enumerate(rgbs):
        Image.fromarray(rgb).save(tmp_path / f"{i:03d}.png")
    plain = torch.jit.load(network.path, map_location="cpu").eval()
    theirs = cleanfid.get_folder_features(str(tmp_path), lambda x: plain((x - 128) / 128), num_workers=0,
                                          batch_size=4, device=CPU, verbose=False)  # fmt: skip
    ours = network.features(torch.from_numpy(rgbs.transpose(0, 3, 1, 2).copy()))
    assert np.allclose(ours, theirs, atol=1e-3)


def test_no_other_program_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.jit.script(torch.nn.Flatten()).save(tmp_path / "flat.pt")
    (tmp_path / "text.pt").write_text("no network")
    monkeypatch.setattr(torch.jit, "load", None)
    for name in ("flat.pt", "text.pt"):
        with pytest.raises(StylebotError, match=rf"{name} is not the Inception network: its sha256 is"):
            Inception(tmp_path / name, CPU)


def test_the_known_file_is_the_one_that_fetch_brings() -> None:
    params = (Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8")
    section = params.partition("  inception:")[2].partition("  perceptual:")[0]
    assert {section.partition("sha256: ")[2][:64]} == KNOWN
