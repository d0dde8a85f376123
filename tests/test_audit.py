"""The stage `audit`: planted copies, verdict, tables; dlib is replaced where it is not the point."""

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from stylebot import audit as stage
from stylebot.audit import AuditParams, audit
from stylebot.checkpoints import save_networks
from stylebot.dataset import write_dataset
from stylebot.errors import StylebotError
from stylebot.faces import Identity
from stylebot.generator import Generator
from stylebot.likeness import Faces, calibrate, luminance, nearest, prepare
from stylebot.params import load_params
from stylebot.weights import Networks

FACES = Path(__file__).parent / "data" / "faces_64.zip"
PARAMS = AuditParams(images=12, psi=0.7, seed=0, false_match_rate=0.001, same_person_distance=0.45,
                     max_copies=0.01, inception=False)  # fmt: skip


def photos() -> list[np.ndarray]:
    """44 faces of people who do not exist, all different, 64 px."""
    with zipfile.ZipFile(FACES) as archive:
        return [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in sorted(archive.namelist())]


class Colours:
    """Instead of dlib: 128 numbers from coarse colours, and a count of the faces it was shown."""

    shown = 0

    def __init__(self, *_: object) -> None:
        pass

    def embed(self, rgbs: Sequence[np.ndarray]) -> np.ndarray:
        type(self).shown += len(rgbs)
        small = [np.asarray(Image.fromarray(rgb).resize((7, 7)), np.float32).ravel()[:128] for rgb in rgbs]
        return np.stack([row / np.linalg.norm(row) for row in small])


@pytest.fixture(autouse=True)
def _own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    Colours.shown = 0


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ...]:
    """generator, dataset, heldout, faces, identity, inception, out."""
    monkeypatch.setattr(stage, "Identity", Colours)
    torch.manual_seed(0)
    g = Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=64, mapping_layers=2, channel_base=128)
    save_networks(tmp_path / "g.safetensors", Networks(G=None, D=None, G_ema=g, meta={}))
    every = photos()
    names = write_dataset(tmp_path / "dataset.zip", every[:30])
    write_dataset(tmp_path / "heldout.zip", every[30:])
    rows = [{"file": name, "split": "train", "identity": i} for i, name in enumerate(names)]
    rows += [row | {"split": "heldout", "identity": 99} for row in rows[:14]]
    pd.DataFrame(rows[::-1]).to_parquet(tmp_path / "faces.parquet")
    (tmp_path / "identity.dat").write_bytes(b"model")
    return tuple(tmp_path / name for name in ("g.safetensors", "dataset.zip", "heldout.zip", "faces.parquet",
                                              "identity.dat", "inception.pt", "out"))  # fmt: skip


def test_metrics_tables_and_sheet(inputs: tuple[Path, ...]) -> None:
    metrics = audit(*inputs, PARAMS)
    assert set(metrics) == {"audit_ok", "audit_copies", "audit_copies_high", "audit_same_person",
                            "audit_same_person_heldout", "audit_threshold", "audit_people"}  # fmt: skip
    assert metrics["audit_ok"] == 1 and metrics["audit_copies"] == 0
    table = pd.read_csv(inputs[6] / "table.csv")
    assert {("copies", "generated"), ("same_picture", "heldout"), ("people", "generated")} <= set(
        zip(table["name"], table["faces"], strict=True))  # fmt: skip
    people = table.set_index("name").loc["people"]
    assert 1 <= people["low"] <= people["value"] <= people["high"]
    assert metrics["audit_people"] == pytest.approx(min(people["value"], 1000), rel=1e-4)
    near = table[table["name"] == "identity_distance"].set_index("faces")
    assert near.loc["strangers", "low"] < near.loc["strangers", "value"] < near.loc["strangers", "high"]
    assert near.loc["heldout", "value"] < near.loc["strangers", "value"], "nearest of many, and any one"
    each = pd.read_csv(inputs[6] / "nearest.csv")
    assert sorted(each["seed"]) == list(range(12)) and each["identity_distance"].is_monotonic_increasing
    assert each["identity_file"].str.fullmatch(r"00000/img\d{8}\.png").all()
    with Image.open(inputs[6] / "pairs.png") as sheet:
        assert sheet.width > 8 * 96 and sheet.height > 3 * 96 and "ynthetic" in sheet.text["Comment"]


def test_copies_turn_the_verdict(inputs: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    planted = [(rgb // 1.25).astype(np.uint8) for rgb in photos()[:3]] + photos()[30:39]
    monkeypatch.setattr(stage, "generate", lambda path, params: planted)
    metrics = audit(*inputs, PARAMS)
    assert metrics["audit_copies"] == 0.25 and metrics["audit_ok"] == 0
    each = pd.read_csv(inputs[6] / "nearest.csv")
    assert each[each["copy"] == 1]["seed"].tolist() == each["seed"].tolist()[:3]
    assert set(each["seed"][:3]) == {0, 1, 2}
    assert audit(*inputs, PARAMS.model_copy(update={"max_copies": 0.3}))["audit_ok"] == 1


def test_real_faces_are_embedded_once(inputs: tuple[Path, ...]) -> None:
    first = audit(*inputs, PARAMS)
    assert Colours.shown == 44 + 12
    assert audit(*inputs, PARAMS) == first and Colours.shown == 56 + 12
    inputs[4].write_bytes(b"another model")
    audit(*inputs, PARAMS)
    assert Colours.shown == 68 + 56


def test_inputs_that_do_not_fit(inputs: tuple[Path, ...]) -> None:
    table = pd.read_parquet(inputs[3])
    table.assign(identity=-1).to_parquet(inputs[3])
    with pytest.raises(StylebotError, match="0 pairs of different people"):
        audit(*inputs, PARAMS)
    table.iloc[1:].query("file != '00000/img00000004.png'").to_parquet(inputs[3])
    with pytest.raises(StylebotError, match=r"faces\.parquet does not list the faces of .*dataset\.zip"):
        audit(*inputs, PARAMS)


@pytest.mark.parametrize("line", [
    "images: 5", "psi: 0", "false_match_rate: 0", "same_person_distance: 2", "max_copies: 2"])  # fmt: skip
def test_parameters_out_of_range(tmp_path: Path, line: str) -> None:
    key, value = line.split(": ")
    text = "\n".join(f"  {k}: {v}" for k, v in (PARAMS.model_dump() | {key: value}).items())
    (tmp_path / "params.yaml").write_text(f"audit:\n{text}\n")
    with pytest.raises(StylebotError, match=rf"audit\.{key}"):
        load_params("audit", AuditParams, path=tmp_path / "params.yaml")


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def zoomed(rgb: np.ndarray, zoom: float, right_px: float = 0, down_px: float = 0) -> np.ndarray:
    """rgb zoomed about its middle and moved; what comes in at the edges repeats them."""
    side, spare = rgb.shape[0] / zoom, 12
    wider = Image.fromarray(np.pad(rgb, ((spare, spare), (spare, spare), (0, 0)), mode="edge"))
    left, top = ((rgb.shape[0] - side) / 2 + by + spare for by in (right_px, down_px))
    box = (left, top, left + side, top + side)
    return np.asarray(wider.resize(rgb.shape[:2], Image.Resampling.BICUBIC, box))


def edited(name: str, value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rgb: np.asarray(getattr(ImageEnhance, name)(Image.fromarray(rgb)).enhance(value))


EDITS = {
    "re-encoded": lambda rgb: jpeg(rgb, 50),
    "mirrored": lambda rgb: rgb[:, ::-1].copy(),
    "brighter": edited("Brightness", 1.2),
    "greyer": edited("Color", 0.5),
    "softer": lambda rgb: np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(0.7))),
    "zoomed in by 7 %": lambda rgb: zoomed(rgb, 1.07),
    "zoomed in by 10 %": lambda rgb: zoomed(rgb, 1.1),
    "zoomed out by 9 %": lambda rgb: zoomed(rgb, 0.91),
    "moved": lambda rgb: zoomed(rgb, 1.0, -3, 2),
    "all at once": lambda rgb: jpeg(edited("Brightness", 1.15)(zoomed(rgb, 1.1, 2, -2))[:, ::-1].copy(), 75),
}


@pytest.mark.slow
def test_planted_copies_are_found_by_dlib_and_picture(model_file: Callable[[str], Path]) -> None:
    """At 0.1 % false alarms, 99 % of edited training faces are copies, and new faces are none."""
    model, every = Identity(model_file("identity.dat")), photos()
    train, new = every[:36], every[36:]
    grey = np.stack([luminance(rgb) for rgb in train])

    def known(rgbs: list[np.ndarray]) -> Faces:
        return prepare(np.stack([luminance(rgb) for rgb in rgbs]), model.embed(rgbs), grey.mean(0))

    among = known(train)
    limits = calibrate(among, np.arange(36), 0.001)
    planted = nearest(known([edit(rgb) for edit in EDITS.values() for rgb in train[:10]]), among, limits)
    right = planted.copy & (planted.copy_at == np.tile(np.arange(10), len(EDITS)))
    missed = [list(EDITS)[i // 10] for i in np.flatnonzero(~right)]
    assert right.mean() >= 0.99, missed
    assert not nearest(known(new), among, limits).copy.any()


@pytest.mark.slow
def test_new_faces_raise_no_alarm(model_file: Callable[[str], Path]) -> None:
    """0.1 % is less than one alarm in 132 looks: each face and two edits of it, against the other people."""
    model, every, folds = Identity(model_file("identity.dat")), photos(), 4
    edits = (lambda rgb: rgb, EDITS["mirrored"], EDITS["all at once"])
    shown = [np.stack([luminance(edit(rgb)) for rgb in every]) for edit in edits]
    people = [model.embed([edit(rgb) for rgb in every]) for edit in edits]
    alarms = 0
    for fold in range(folds):
        new = np.arange(len(every)) % folds == fold
        mean = shown[0][~new].mean(0)
        among = prepare(shown[0][~new], people[0][~new], mean)
        limits = calibrate(among, np.arange((~new).sum()), 0.001)
        for grey, numbers in zip(shown, people, strict=True):
            alarms += nearest(prepare(grey[new], numbers[new], mean), among, limits).copy.sum()
    assert alarms <= 1
