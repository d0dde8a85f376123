"""Stage `superres`: the measures against their definitions, the table, the sheet, bad inputs."""

from collections.abc import Sequence
from dataclasses import replace
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
from stylebot.degrade import to_rgb
from stylebot.encoder import Encoder, save_encoder
from stylebot.enlarging import Enlarger, enlarge, psnr_db, ssim
from stylebot.errors import StylebotError
from stylebot.files import sha256_file
from stylebot.render import render
from stylebot.superres import Inputs, SuperresParams, interval, metrics_of, superres, table_of

PARAMS = {"inputs": "heldout", "mode": "pure", "degradation": "bicubic", "factors": [2, 4],
          "same_person_distance": 0.5, "base_faces": 10, "sheet_faces": 3, "seed": 0}  # fmt: skip


def params(**changes: object) -> SuperresParams:
    return SuperresParams.model_validate(PARAMS | changes)


class MeanColour:
    """Stands in for dlib: a face's embedding is its mean colour and its contrast."""

    def __init__(self, path: Path) -> None:
        assert path.exists()

    def embed(self, rgbs: Sequence[np.ndarray]) -> np.ndarray:
        rows = [[*(rgb.reshape(-1, 3).mean(0) / 255), rgb.std() / 255] for rgb in rgbs]
        return np.pad(np.array(rows, np.float32).reshape(-1, 4), ((0, 0), (0, 124)))


class Colours:
    """Stands in for Inception: 12 numbers of each picture."""

    sha256 = "c01"

    def __init__(self, *_: object) -> None:
        pass

    def features(self, rgb: torch.Tensor, _resize: str = "clean") -> np.ndarray:
        return torch.nn.functional.adaptive_avg_pool2d(rgb.float() / 255, 2).flatten(1).cpu().numpy()


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """Tiny files under the names of the stage's inputs; results go to `out` beside them."""
    monkeypatch.setattr("stylebot.domains.Identity", MeanColour)
    monkeypatch.setattr("stylebot.domains.Inception", Colours)
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    paths = {name: tmp_path / name for name in ("encoder", "generator", "identity", "base", "inception")}
    generator = tiny_generator()
    for name in ("generator", "base"):
        save_networks(paths[name], Networks(G=None, D=None, G_ema=generator))
    paths["identity"].write_bytes(b"")
    encoder = Encoder("light", 32, w_dim=8)
    encoder.latent_avg.copy_(generator.mapping.w_avg.expand_as(encoder.latent_avg))
    save_encoder(paths["encoder"], encoder, {"generator_sha256": sha256_file(paths["generator"])})
    return Inputs(**paths, heldout=faces_zip(tmp_path / "heldout.zip", 12),
                  dataset=faces_zip(tmp_path / "dataset.zip", 16),
                  perceptual=narrow_perceptual(tmp_path / "p.pth"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


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


def test_enlarge_gives_three_pictures_per_face(inputs: Inputs) -> None:
    rgbs = torch.from_numpy(Dataset(inputs.heldout).read_all())
    networks = Enlarger(Encoder("light", 32, w_dim=8).eval(), tiny_generator().eval())
    found = enlarge(rgbs, 4, networks)
    assert found.small.shape == (12, 3, 8, 8)
    assert found.bicubic.shape == found.result.shape == rgbs.shape
    rgb = np.ascontiguousarray(found.small[0].permute(1, 2, 0))
    wanted = np.asarray(Image.fromarray(rgb).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(found.bicubic[0].permute(1, 2, 0).numpy().astype(int) - wanted).max() <= 4  # of 255


def test_pulling_leads_to_the_average_face(inputs: Inputs) -> None:
    rgbs = torch.from_numpy(Dataset(inputs.heldout).read_all())
    g = tiny_generator().eval()
    networks = Enlarger(Encoder("light", 32, w_dim=8).eval(), g)
    average = to_rgb(g.synthesis(g.mapping.w_avg.expand(1, g.num_ws, -1), noise_mode="const"))
    gaps = [float((enlarge(rgbs, 2, replace(networks, pull=pull)).result.float() - average).abs().mean())
            for pull in (1, 0.5, 0)]
    assert gaps[0] > gaps[1] > gaps[2] == 0


def test_photo_is_a_function_of_the_seed(inputs: Inputs) -> None:
    rgbs = torch.from_numpy(Dataset(inputs.heldout).read_all())
    networks = Enlarger(Encoder("light", 32, w_dim=8).eval(), tiny_generator().eval(), "photo")
    one = enlarge(rgbs, 2, networks)
    assert torch.equal(one.small, enlarge(rgbs, 2, networks).small)
    assert not torch.equal(one.small, enlarge(rgbs, 2, replace(networks, seed=1)).small)
    clean = enlarge(rgbs, 2, replace(networks, degradation="bicubic"))
    assert 1 < float((one.small.float() - clean.small.float()).abs().mean()) < 20


def test_writes_a_table_a_sheet_and_few_metrics(inputs: Inputs, out: Path) -> None:
    metrics = superres(inputs, out, params())
    table = pd.read_csv(out / "table.csv")
    assert len(table) == 2 * 2 * 5
    assert set(table["factor"]) == {2, 4}
    assert (table["low"] <= table["mean"]).all() and (table["mean"] <= table["high"]).all()
    assert (table["faces"] == 12).all()
    row = table[(table.factor == 4) & (table.method == "bicubic") & (table.measure == "lpips")]
    assert metrics["superres_lpips_bicubic_x4"] == pytest.approx(row["mean"].item(), rel=1e-4)
    assert metrics["superres_psnr_bicubic_x2"] > metrics["superres_psnr_bicubic_x4"]
    assert metrics["superres_psnr_bicubic_x4"] > metrics["superres_psnr_x4"]  # nothing was trained
    sheet = Image.open(out / "sheet.png")
    assert sheet.width > 4 * 128 and sheet.height > 6 * 128
    assert "ynthetic" in sheet.text["Comment"]
    originals = Dataset(inputs.heldout)
    for factor in (2, 4):
        rows = np.asarray(Image.open(out / f"rows_x{factor}.png"))
        assert rows.shape == (3 * 32, 4 * 32, 3)
        assert np.array_equal(rows[:32, -32:], originals.read(0).transpose(1, 2, 0))


def test_drift_has_numbers_and_intervals(inputs: Inputs, out: Path) -> None:
    metrics = superres(inputs, out, params())
    assert len(metrics) == 12 + 4
    table = pd.read_csv(out / "drift.csv").set_index("name")
    for name in ("superres_drift_x2", "superres_drift_x4", "superres_kid_x2", "superres_kid_base_x2",
                 "superres_kid_x4", "superres_kid_base_x4"):  # fmt: skip
        row = table.loc[name]
        assert row["low"] < row["value"] < row["high"]
        if name not in ("superres_kid_x2", "superres_kid_base_x2"):  # few numbers in the metrics file
            assert metrics[name] == pytest.approx(row["value"], rel=1e-3)
    # an untrained encoder gives the base generator's own faces
    assert table.loc["superres_drift_x4", "low"] > table.loc["superres_drift_bicubic_x4", "high"]
    assert table.loc["superres_kid_x4", "low"] > table.loc["superres_kid_base_x4", "high"]
    assert table.loc["superres_domains_clear", "value"] > 0.75


def test_domains_that_look_alike_have_no_drift(
    inputs: Inputs, out: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylebot.probes.CLEAR", 1.01)
    metrics = superres(inputs, out, params())
    assert not [name for name in metrics if "drift" in name]
    assert "drift is left out" in capsys.readouterr().out
    assert not pd.read_csv(out / "drift.csv")["name"].str.contains("drift").any()


def test_the_same_again_is_the_same(inputs: Inputs, out: Path) -> None:
    first = superres(inputs, out, params(degradation="photo"))
    files = {p.name: p.read_bytes() for p in out.iterdir()}
    assert superres(inputs, out, params(degradation="photo")) == first
    assert {p.name: p.read_bytes() for p in out.iterdir()} == files


def test_generated_faces_are_improved_too(inputs: Inputs, out: Path) -> None:
    superres(inputs, out, params(inputs="generated", sheet_faces=12))
    table = pd.read_csv(out / "drift.csv").set_index("name")
    assert "superres_kid_given" in table.index
    rows = torch.from_numpy(np.array(Image.open(out / "rows_x2.png")))
    wanted = render(tiny_generator().eval(), range(12), noise_mode="random").permute(0, 2, 3, 1)
    assert torch.equal(rows[:, -32:].reshape(12, 32, 32, 3), wanted)


def test_a_folder_of_pictures_is_rebuilt_as_it_is(inputs: Inputs, out: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    rng = np.random.default_rng(0)
    for name, side in (("b.jpg", 32), ("a.png", 20), ("c.webp", 8)):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(own / name)
    assert superres(inputs, out, params(inputs=str(own))) == {"superres_pictures": 3}
    assert sorted(p.name for p in (out / "results").iterdir()) == ["a.png.png", "b.jpg.png", "c.webp.png"]
    rows = np.asarray(Image.open(out / "rows_own.png"))
    assert rows.shape == (3 * 32, 3 * 32, 3)
    with Image.open(out / "results" / "b.jpg.png") as result:
        assert np.array_equal(np.asarray(result), rows[32:64, 64:])
        assert "imitation of a photograph" in result.text["Comment"]
    with Image.open(own / "b.jpg") as given:
        assert np.array_equal(rows[32:64, :32], np.asarray(given))  # already at the generator's side


@pytest.mark.parametrize(("name", "content", "says"), [
    ("bad.png", b"\x89PNG no picture", r"bad\.png is no readable picture"),
    ("wide.png", None, "20 x 10 px; square"),
    (None, None, "holds no pictures")])
def test_bad_pictures_of_a_folder_are_one_line(inputs: Inputs, out: Path, tmp_path: Path, name: str | None,
                                               content: bytes | None, says: str) -> None:  # fmt: skip
    own = tmp_path / "own"
    own.mkdir()
    if name and content:
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(own / "a.png")
        (own / name).write_bytes(content)
    elif name:
        Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(own / name)
    with pytest.raises(StylebotError, match=says) as caught:
        superres(inputs, out, params(inputs=str(own)))
    assert "\n" not in str(caught.value)
    with pytest.raises(StylebotError, match="nowhere is neither heldout nor generated nor a folder"):
        superres(inputs, out, params(inputs="nowhere"))


def test_metrics_name_the_baseline() -> None:
    found = [(4, how, {name: np.full(3, value) for name in stage.MEASURES})
             for how, value in (("bicubic", 2.0), ("result", 1.0))]
    metrics = metrics_of(table_of(found, 0))
    assert metrics["superres_id_x4"] == 1
    assert metrics["superres_id_bicubic_x4"] == 2
    assert set(metrics) == {f"superres_{m}{b}_x4" for m in ("psnr", "lpips", "id") for b in ("", "_bicubic")}


def test_says_when_encoder_and_pictures_do_not_belong_together(
    inputs: Inputs, out: Path, capsys: pytest.CaptureFixture
) -> None:
    superres(inputs, out, params())
    said = capsys.readouterr().out
    assert "another generator" not in said and "was trained on" not in said
    other = tiny_generator()
    other.mapping.w_avg.add_(1)
    save_networks(inputs.generator, Networks(G=None, D=None, G_ema=other))
    superres(inputs, out, params(degradation="photo"))
    said = capsys.readouterr().out
    assert "another generator" in said and "trained on bicubic, the small faces here are photo" in said


@pytest.mark.parametrize(("resolution", "w_dim", "says"), [(64, 8, "64 px and w_dim 8"), (32, 9, "w_dim 9")])
def test_an_encoder_for_another_generator(inputs: Inputs, out: Path, resolution: int, w_dim: int,
                                          says: str) -> None:
    save_encoder(inputs.encoder, Encoder("light", resolution, w_dim=w_dim), {})
    with pytest.raises(StylebotError, match=rf"{says}.*this one has 32 px and w_dim 8"):
        superres(inputs, out, params())


def test_other_inputs_that_do_not_fit(inputs: Inputs, out: Path, tmp_path: Path) -> None:
    with pytest.raises(StylebotError, match="less than 2 px"):
        superres(inputs, out, params(factors=[32]))
    with pytest.raises(StylebotError, match="faces of 64 px"):
        superres(replace(inputs, heldout=faces_zip(tmp_path / "large.zip", resolution=64)), out, params())
    for name in ("heldout", "dataset"):
        few = replace(inputs, **{name: faces_zip(tmp_path / "few.zip", 9)})
        with pytest.raises(StylebotError, match=r"few\.zip holds 9 pictures, 10 is the least"):
            superres(few, out, params())


@pytest.mark.parametrize("factors", [[], [1], [3], [4, 4]])
def test_impossible_factors(factors: list[int]) -> None:
    with pytest.raises(ValueError, match="factors"):
        params(factors=factors)
