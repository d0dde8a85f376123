"""The stage `fid`, with a stand-in for Inception where the network itself is not the point."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from stylebot import fid as stage
from stylebot.checkpoints import save_networks
from stylebot.dataset import Dataset, write_dataset
from stylebot.errors import StylebotError
from stylebot.fid import FidParams, compare, measure
from stylebot.generator import Generator
from stylebot.inception import Inception, features_of
from stylebot.params import load_params
from stylebot.render import load_generator, render
from stylebot.weights import Networks

PARAMS = FidParams(images=40, psi=1.0, noise_mode="random", seed=0, legacy=False, bootstrap=100,
                   confidence=0.95)  # fmt: skip


class Colours:
    """Instead of Inception: 24 numbers of each picture, and a count of the pictures it was shown."""

    sha256 = "c01"
    shown = 0

    def __init__(self, *_: object) -> None:
        pass

    def features(self, rgb: torch.Tensor, resize: str = "clean") -> np.ndarray:
        type(self).shown += len(rgb)
        small = torch.nn.functional.adaptive_avg_pool2d(rgb.float() / 255, (4, 2 if resize == "clean" else 1))
        return small.flatten(1).cpu().numpy()


@pytest.fixture(autouse=True)
def _own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    Colours.shown = 0


def networks(path: Path, seed: int, resolution: int = 16) -> Path:
    torch.manual_seed(seed)
    g = Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=resolution, mapping_layers=2, channel_base=64)
    save_networks(path, Networks(G=None, D=None, G_ema=g, meta={}))
    return path


def real_faces(path: Path, count: int, side_px: int = 16) -> Path:
    rng = np.random.default_rng(3)
    write_dataset(path, [rng.integers(0, 256, (side_px, side_px, 3)).astype(np.uint8) for _ in range(count)])
    return path


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ...]:
    monkeypatch.setattr(stage, "Inception", Colours)
    tuned, base = networks(tmp_path / "tuned.safetensors", 1), networks(tmp_path / "base.safetensors", 2, 32)
    return tuned, base, real_faces(tmp_path / "heldout.zip", 14), tmp_path / "inception.pt", tmp_path / "out"


def test_numbers_table_and_sheet(inputs: tuple[Path, ...]) -> None:
    metrics = measure(*inputs, PARAMS)
    assert set(metrics) == {"fid_tuned", "fid_base", "kid_tuned", "kid_base", "kid_ratio", "kid_tuned_low",
                            "kid_tuned_high", "kid_ratio_low", "kid_ratio_high"}  # fmt: skip
    assert metrics["kid_ratio"] == pytest.approx(metrics["kid_tuned"] / metrics["kid_base"])
    table = pd.read_csv(io.BytesIO((inputs[4] / "table.csv").read_bytes())).set_index("name")
    for what in ("fid", "fid_infinity", "kid", "kid_full", "precision", "density", "recall", "coverage"):
        for name in ("tuned", "base"):
            row = table.loc[f"{what}_{name}"]
            assert row["low"] <= row["value"] <= row["high"] and (row["fakes"], row["real"]) == (40, 14), what
    assert table.loc["fid_tuned", "value"] == pytest.approx(metrics["fid_tuned"], rel=1e-4)
    with Image.open(inputs[4] / "sheet.png") as sheet:
        assert sheet.width > 12 * 96 and sheet.height > 3 * 96 and "ynthetic" in sheet.text["Comment"]


def test_the_same_features_as_of_the_written_files(inputs: tuple[Path, ...], tmp_path: Path) -> None:
    """Streaming without PNGs changes nothing: features of the uint8 pictures, whatever the batch."""
    g = load_generator(inputs[0], torch.device("cpu"))
    params = PARAMS.model_copy(update={"noise_mode": "const"})
    streamed = features_of(Colours(), stage._fakes(g, params, 16, ""), ("clean",))["clean"]
    files = []
    for seed in range(params.images):
        buffer = io.BytesIO()
        Image.fromarray(render(g, [seed])[0].permute(1, 2, 0).numpy()).save(buffer, "PNG")
        files.append(np.asarray(Image.open(buffer)))
    stored = Colours().features(torch.from_numpy(np.stack(files).transpose(0, 3, 1, 2).copy()))
    assert np.allclose(streamed, stored, atol=1 / 255)


def test_features_are_remembered_until_something_changes(inputs: tuple[Path, ...], tmp_path: Path) -> None:
    first = measure(*inputs, PARAMS)
    assert Colours.shown == 14 + 2 * 40
    assert measure(*inputs, PARAMS) == first and Colours.shown == 94
    measure(networks(tmp_path / "other.safetensors", 5), *inputs[1:], PARAMS)
    assert Colours.shown == 94 + 40
    measure(*inputs, PARAMS.model_copy(update={"psi": 0.5}))
    assert Colours.shown == 134 + 80
    measure(*inputs, PARAMS.model_copy(update={"bootstrap": 60, "confidence": 0.9}))
    assert Colours.shown == 214


def test_a_generator_against_itself_gains_nothing(inputs: tuple[Path, ...]) -> None:
    metrics = measure(inputs[0], inputs[0], *inputs[2:], PARAMS)
    assert metrics["kid_ratio"] == metrics["kid_ratio_low"] == metrics["kid_ratio_high"] == 1


def test_legacy_stands_beside_clean(inputs: tuple[Path, ...]) -> None:
    measure(*inputs, PARAMS.model_copy(update={"legacy": True}))
    names = pd.read_csv(inputs[4] / "table.csv")["name"].tolist()
    assert {"fid_tuned", "fid_legacy_tuned", "kid_legacy_base"} <= set(names)
    assert len(names) == len(set(names))


def test_the_nearer_generator_wins_and_the_interval_says_so() -> None:
    rng = np.random.default_rng(0)
    real, near, far = (rng.normal(shift, 1, (200, 16)).astype(np.float32) for shift in (0, 0.3, 1))
    numbers = compare({"tuned": {"clean": near}, "base": {"clean": far}}, {"clean": real},
                      PARAMS.model_copy(update={"images": 200}))  # fmt: skip
    assert numbers["kid_ratio"].high < 0.5 and numbers["fid_gain"].low > 0
    assert numbers["coverage_tuned"].value > numbers["coverage_base"].value


def test_inputs_that_do_not_fit(inputs: tuple[Path, ...], tmp_path: Path) -> None:
    tuned, base, _, inception, out = inputs
    with pytest.raises(StylebotError, match=r"few\.zip holds 9 pictures, 10 is the least"):
        measure(tuned, base, real_faces(tmp_path / "few.zip", 9), inception, out, PARAMS)
    with pytest.raises(StylebotError, match=r"the tuned generator makes 16 px, .* has 32 px"):
        measure(tuned, base, real_faces(tmp_path / "large.zip", 12, 32), inception, out, PARAMS)
    assert not out.exists()


@pytest.mark.parametrize("line", [
    "images: 3", "psi: 0", "psi: 1.5", "noise_mode: loud", "bootstrap: 1", "confidence: 1", "legacy: maybe",
    "sorcery: 1"])  # fmt: skip
def test_parameters_out_of_range(tmp_path: Path, line: str) -> None:
    values = {key: str(value).lower() for key, value in PARAMS.model_dump().items()}
    key, value = line.split(": ")
    text = "\n".join(f"  {k}: {v}" for k, v in (values | {key: value}).items())
    (tmp_path / "params.yaml").write_text(f"fid:\n{text}\n")
    with pytest.raises(StylebotError, match=rf"fid\.{key}"):
        load_params("fid", FidParams, path=tmp_path / "params.yaml")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning", "ignore:Matrix is singular")
@pytest.mark.skipif(sys.platform == "win32", reason="clean-fid's loader wants fork")
def test_the_stage_gives_what_clean_fids_own_calls_give_of_the_files(
    model_file: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """compute_fid and compute_kid on folders of PNGs, all 2048 columns, to 1e-3; the stage streams its fakes.

    Of the library only the download of its network is replaced, by fetch's file.
    """
    cleanfid = pytest.importorskip("cleanfid.fid")
    params = PARAMS.model_copy(update={"images": 12, "psi": 0.8})
    tuned, heldout = networks(tmp_path / "g.safetensors", 1), real_faces(tmp_path / "heldout.zip", 10)
    ours = measure(tuned, tuned, heldout, model_file("inception.pt"), tmp_path / "out", params)
    g = load_generator(tuned, torch.device("cpu"))
    made = {"real": Dataset(heldout).read_all(),
            "fake": render(g, range(12), psi=0.8, noise_mode="random").numpy()}  # fmt: skip
    for name, rgbs in made.items():
        (tmp_path / name).mkdir()
        for i, rgb in enumerate(rgbs):
            Image.fromarray(rgb.transpose(1, 2, 0)).save(tmp_path / name / f"{i:03d}.png")
    plain = Inception(model_file("inception.pt"), torch.device("cpu")).net
    monkeypatch.setattr(cleanfid, "build_feature_extractor",
                        lambda *_, **__: lambda x: plain((x - 128) / 128))  # fmt: skip
    folders = {"fdir1": str(tmp_path / "real"), "fdir2": str(tmp_path / "fake"), "mode": "clean"}
    how = {"num_workers": 0, "device": torch.device("cpu"), "verbose": False}
    assert ours["fid_tuned"] == pytest.approx(float(cleanfid.compute_fid(**folders, **how)), rel=1e-3)
    np.random.seed(0)  # noqa: NPY002  the library draws from numpy's global state
    assert ours["kid_tuned"] == pytest.approx(cleanfid.compute_kid(**folders, **how), rel=1e-3)
