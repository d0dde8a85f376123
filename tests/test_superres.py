"""Stage `superres`: the measures against their definitions, the table, the sheet, bad inputs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_encode import faces_zip, narrow_perceptual, tiny_generator

from stylebot import superres as stage
from stylebot.checkpoints import Networks, save_networks
from stylebot.dataset import Dataset
from stylebot.encoder import Encoder, save_encoder
from stylebot.errors import StylebotError
from stylebot.files import sha256_file
from stylebot.superres import SuperresParams, enlarge, interval, metrics_of, psnr_db, ssim, superres, table_of

PARAMS = {"factors": [2, 4], "same_person_distance": 0.5, "sheet_faces": 3, "seed": 0}


def params(**changes: object) -> SuperresParams:
    return SuperresParams.model_validate(PARAMS | changes)


class MeanColour:
    """Stands in for dlib: a face's embedding is its mean colour."""

    def __init__(self, path: Path) -> None:
        assert path.exists()

    def embed(self, rgbs: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([rgb.reshape(-1, 3).mean(0) / 255 for rgb in rgbs]).astype(np.float32)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Tiny files under the names of the stage's arguments."""
    monkeypatch.setattr(stage, "Identity", MeanColour)
    paths = {name: tmp_path / name for name in ("encoder", "generator", "identity", "out")}
    generator = tiny_generator()
    save_networks(paths["generator"], Networks(G=None, D=None, G_ema=generator))
    paths["identity"].write_bytes(b"")
    encoder = Encoder("light", 32, w_dim=8)
    encoder.latent_avg.copy_(generator.mapping.w_avg.expand_as(encoder.latent_avg))
    save_encoder(paths["encoder"], encoder, {"generator_sha256": sha256_file(paths["generator"])})
    return {**paths, "heldout": faces_zip(tmp_path / "heldout.zip"),
            "perceptual": narrow_perceptual(tmp_path / "p.pth")}


def test_psnr_of_a_known_error() -> None:
    a = torch.zeros(2, 3, 8, 8)
    b = torch.stack([torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 2.0)])
    assert psnr_db(a, b).tolist() == pytest.approx([20.0, 0.0], abs=1e-4)


def naive_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004 spelt out for one channel, window by window."""
    x = np.arange(11) - 5
    window = np.exp(-(x[:, None] ** 2 + x**2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            variances = (mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)
            found.append((2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / variances)
    return float(np.mean(found))


def test_ssim_is_the_papers(rng: torch.Generator) -> None:
    a = torch.rand(2, 3, 16, 14, generator=rng, dtype=torch.float64)
    b = (a + 0.2 * torch.randn(a.shape, generator=rng, dtype=torch.float64)).clamp(0, 1)
    # the constants above are for a range of 1; pictures in [-1,1] have the range 2, but not the same means
    found = ssim(2 * a, 2 * b)
    wanted = [np.mean([naive_ssim(a[n, c].numpy(), b[n, c].numpy()) for c in range(3)]) for n in range(2)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-9)
    assert ssim(a, a).tolist() == pytest.approx([1, 1])


def test_interval_holds_the_mean_and_narrows() -> None:
    values = np.random.default_rng(1).normal(3, 1, 400)
    low, high = interval(values, 0)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.2)
    assert interval(values[:50], 0)[1] - interval(values[:50], 0)[0] > high - low


def test_enlarge_gives_three_pictures_per_face(inputs: dict[str, Path]) -> None:
    rgbs = torch.from_numpy(Dataset(inputs["heldout"]).read_all())
    found = enlarge(rgbs, 4, Encoder("light", 32, w_dim=8).eval(), tiny_generator().eval())
    assert found.small.shape == (6, 3, 8, 8)
    assert found.bicubic.shape == found.result.shape == rgbs.shape
    rgb = np.ascontiguousarray(found.small[0].permute(1, 2, 0))
    wanted = np.asarray(Image.fromarray(rgb).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(found.bicubic[0].permute(1, 2, 0).numpy().astype(int) - wanted).max() <= 4  # of 255


def test_writes_a_table_a_sheet_and_few_metrics(inputs: dict[str, Path]) -> None:
    metrics = superres(**inputs, params=params())
    table = pd.read_csv(inputs["out"] / "table.csv")
    assert len(table) == 2 * 2 * 5
    assert set(table["factor"]) == {2, 4}
    assert (table["low"] <= table["mean"]).all() and (table["mean"] <= table["high"]).all()
    assert (table["faces"] == 6).all()
    row = table[(table.factor == 4) & (table.method == "bicubic") & (table.measure == "lpips")]
    assert metrics["superres_lpips_bicubic_x4"] == pytest.approx(row["mean"].item(), rel=1e-4)
    assert len(metrics) == 12
    assert metrics["superres_psnr_bicubic_x2"] > metrics["superres_psnr_bicubic_x4"]
    assert metrics["superres_psnr_bicubic_x4"] > metrics["superres_psnr_x4"]  # nothing was trained
    sheet = Image.open(inputs["out"] / "sheet.png")
    assert sheet.width > 4 * 128
    assert sheet.height > 6 * 128
    originals = Dataset(inputs["heldout"])
    for factor in (2, 4):
        rows = np.asarray(Image.open(inputs["out"] / f"rows_x{factor}.png"))
        assert rows.shape == (3 * 32, 4 * 32, 3)
        assert np.array_equal(rows[:32, -32:], originals.read(0).transpose(1, 2, 0))


def test_the_same_again_is_the_same(inputs: dict[str, Path]) -> None:
    first = superres(**inputs, params=params())
    files = {p.name: p.read_bytes() for p in inputs["out"].iterdir()}
    assert superres(**inputs, params=params()) == first
    assert {p.name: p.read_bytes() for p in inputs["out"].iterdir()} == files


def test_metrics_name_the_baseline() -> None:
    found = [(4, how, {name: np.full(3, value) for name in stage.MEASURES})
             for how, value in (("bicubic", 2.0), ("result", 1.0))]
    metrics = metrics_of(table_of(found, 0))
    assert metrics["superres_id_x4"] == 1
    assert metrics["superres_id_bicubic_x4"] == 2
    assert set(metrics) == {f"superres_{m}{b}_x4" for m in ("psnr", "lpips", "id") for b in ("", "_bicubic")}


def test_says_when_the_generator_is_another(inputs: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    superres(**inputs, params=params())
    assert "another generator" not in capsys.readouterr().out
    other = tiny_generator()
    other.mapping.w_avg.add_(1)
    save_networks(inputs["generator"], Networks(G=None, D=None, G_ema=other))
    superres(**inputs, params=params())
    assert "another generator" in capsys.readouterr().out


@pytest.mark.parametrize(("resolution", "w_dim", "says"), [(64, 8, "64 px and w_dim 8"), (32, 9, "w_dim 9")])
def test_an_encoder_for_another_generator(inputs: dict[str, Path], resolution: int, w_dim: int,
                                          says: str) -> None:
    save_encoder(inputs["encoder"], Encoder("light", resolution, w_dim=w_dim), {})
    with pytest.raises(StylebotError, match=rf"{says}.*this one has 32 px and w_dim 8"):
        superres(**inputs, params=params())


def test_other_inputs_that_do_not_fit(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StylebotError, match="less than 2 px"):
        superres(**inputs, params=params(factors=[32]))
    inputs["heldout"] = faces_zip(tmp_path / "large.zip", resolution=64)
    with pytest.raises(StylebotError, match="faces of 64 px"):
        superres(**inputs, params=params())


@pytest.mark.parametrize("factors", [[], [1], [3], [4, 4]])
def test_impossible_factors(factors: list[int]) -> None:
    with pytest.raises(ValueError, match="factors"):
        params(factors=factors)
