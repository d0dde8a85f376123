"""Verdicts: the right reasons, worst first; copies and people; what is remembered; sheets and errors."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from aligned_faces import write_aligned
from PIL import Image
from ruamel.yaml import YAML
from test_quality import FACES, blurred, clip, jpeg

from stylebot import filter as stage
from stylebot import inspection
from stylebot.errors import StylebotError
from stylebot.filter import FilterParams, select
from stylebot.inspection import crop_landmarks
from stylebot.limits import REASONS, Thresholds, margins, nearest, refusals
from stylebot.lineups import Sheets
from stylebot.params import load_params

ROOT = Path(__file__).parents[1]


def thresholds(**limits: object) -> Thresholds:
    return Thresholds(**(dict.fromkeys(Thresholds.model_fields) | {"grey": True} | limits))


LIMITS = {"min_face_score": 0.5, "max_scale": 2.0, "max_pad_fraction": 0.1, "min_sharpness_db": -12.0,
          "min_highlight": 0.08, "max_luminance": 0.65, "max_over_exposed": 0.1,
          "min_dynamic_bits": 5.0, "max_blockiness": 2.5, "max_noise": 5.0}


ANYBODY = {"identity_distance": 1.9, "identity_contrast": 1.99}  # everybody is the same person


def params(**changed: object) -> FilterParams:
    base = {"consent": "optional", "identity_distance": 0.45, "identity_contrast": 0.55,
            "duplicate_bits": 8, "duplicate_correlation": 0.98,
            "max_per_identity": None, "target_faces": None, "sheet_faces": 50,
            "celebrity": thresholds(**LIMITS), "id": thresholds(**LIMITS | {"grey": False})}
    return FilterParams(**(base | changed))


class FakeIdentity:
    """Embeddings by mean colour: copies are alike, different pictures are not; counts its calls."""

    calls = 0

    def __init__(self, path: Path) -> None:
        pass

    def embed(self, rgbs: list[np.ndarray]) -> np.ndarray:
        FakeIdentity.calls += len(rgbs)
        seeds = [round(float(rgb.mean())) for rgb in rgbs]
        vectors = np.stack([np.random.default_rng(seed).normal(size=128) for seed in seeds])
        return np.float32(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture(autouse=True)
def in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No processes, no dlib, an empty scratch folder."""
    monkeypatch.setenv("STYLEBOT_WORKERS", "1")
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(inspection.faces, "Identity", FakeIdentity)
    inspection._recogniser.cache_clear()


def face(number: int, source: str = "celebrity", name: str = "", **more: object) -> dict:
    rgb, points = FACES[number]
    return {"source": source, "name": name or f"{number:02d}.jpg", "rgb": rgb, "landmarks": points} | more


def sheets(folder: Path) -> Sheets:
    return Sheets(*(folder / f"{name}.png" for name in ("good", "bad", "borderline", "copies", "people")))


def against(values: dict[str, float], grey: bool, limits: Thresholds) -> list[str]:
    return refusals(margins(values, grey, limits), grey, limits)


def run(tmp_path: Path, faces: list[dict], settings: FilterParams) -> tuple[dict, pd.DataFrame]:
    aligned = write_aligned(tmp_path, faces)
    model = tmp_path / "identity.dat"
    model.write_bytes(b"a model")
    table = tmp_path / "faces.parquet"
    metrics = select(aligned, tmp_path / "photos", model, table, sheets(tmp_path), settings)
    return metrics, pd.read_parquet(table).set_index("photo")


def test_each_fault_is_refused_for_its_own_reason(tmp_path: Path) -> None:
    rgb = FACES[4][0]
    faces = [face(0), face(1), face(2, grey=True), face(3, "id"), face(11, "id", grey=True),
             face(4, name="blurred.jpg", rgb=blurred(rgb, 3)),
             face(5, name="dark.jpg", rgb=clip(FACES[5][0] * 0.2)),
             face(6, name="bright.jpg", rgb=clip(FACES[6][0] * 2.5)),
             face(7, name="padded.jpg", pad_fraction=0.4),
             face(8, name="compressed.jpg", jpeg=6), face(9, name="face_too_small.jpg", scale=4.0),
             face(10, name="low_confidence.jpg", rgb=np.rot90(FACES[10][0]).copy()),
             face(4, name="noisy.jpg", rgb=clip(rgb + np.random.default_rng(0).normal(0, 25, rgb.shape)))]
    metrics, table = run(tmp_path, faces, params())
    assert table.loc[["00.jpg", "01.jpg", "02.jpg", "03.jpg"], "accepted"].all(), table["reasons"]
    assert table.loc["11.jpg", "reasons"].tolist() == ["grey"]
    for name, reasons in table.loc[[n for n in table.index if not n[0].isdigit()], "reasons"].items():
        assert reasons[0] == name.removesuffix(".jpg"), (name, reasons)
    assert metrics["filter_faces"] == 13 and metrics["filter_accepted"] == 4
    with Image.open(tmp_path / "good.png") as good, Image.open(tmp_path / "bad.png") as bad:
        assert good.width == bad.width == 1204 and bad.height > good.height - 60


def test_confidence_and_sharpness_say_who_is_recognised() -> None:
    good = dict.fromkeys(stage.RANKED, 80.0)
    assert stage.recognisable(good) == stage.recognisable(good | {"luminance": 0.0, "yaw_deg": np.nan}) == 80
    assert stage.recognisable(good | {"face_score": 30.0}) == 55
    assert stage.recognisable(good | {"sharpness_db": 0.0}) == 40


def test_all_reasons_are_kept_worst_first() -> None:
    values = dict.fromkeys(REASONS, 0.0) | {"sharpness_db": -20.0, "highlight": 0.06, "face_score": 0.45,
                                            "dynamic_bits": 7.0, "pad_fraction": 0.1}
    assert against(values, False, thresholds(**LIMITS)) == ["blurred", "dark", "low_confidence"]
    assert against(values | {"yaw_deg": -50.0}, False, thresholds(max_yaw_deg=40.0)) == ["pose"]
    assert against(values | {"luminance": 0.9}, False, thresholds(**LIMITS))[0] == "bright"
    assert against(values | {"colour_cast": 99.0}, True, thresholds(max_colour_cast=10.0)) == []


def test_the_nearest_limit_is_named() -> None:
    values = dict.fromkeys(REASONS, 0.0) | {"face_score": 0.9, "dynamic_bits": 6.2, "yaw_deg": -38.0}
    limits = thresholds(min_face_score=0.5, min_dynamic_bits=5.0, max_yaw_deg=40.0, max_second_area_ratio=0.1)
    assert margins(values, False, limits) == pytest.approx(
        {"min_face_score": 1.0, "min_dynamic_bits": 1.0, "max_yaw_deg": 0.25})
    assert nearest(margins(values, False, limits)) == ("max_yaw_deg", 0.25)
    assert nearest(margins(values | {"face_score": 0.1}, False, limits))[0] == "min_face_score"
    assert nearest(margins(values | {"second_area_ratio": 0.09}, False, limits))[0] == "max_second_area_ratio"
    name, margin = nearest(margins(values, False, thresholds()))
    assert name == "" and margin != margin


def test_the_best_copy_stays_and_identity_alone_refuses_nobody(tmp_path: Path) -> None:
    rgb = FACES[4][0]
    faces = [face(4), face(4, name="again.jpg", rgb=jpeg(rgb, 40), scale=1.9),
             face(4, name="mirrored.jpg", rgb=rgb[:, ::-1].copy(), scale=1.8), face(5), face(6),
             face(5, name="half.jpg", rgb=jpeg(FACES[5][0], 90), scale=0.8, qsize_px=120.0)]
    _, table = run(tmp_path, faces, params())
    assert table.loc["04.jpg", "accepted"] and table.loc["04.jpg", "duplicate_of"] == ""
    for name in ("again.jpg", "mirrored.jpg"):
        assert table.loc[name, "reasons"].tolist() == ["duplicate"]
        assert table.loc[name, "duplicate_of"] == table.loc["04.jpg", "face_id"]
    assert table["duplicate_of"]["half.jpg"] == table["face_id"]["05.jpg"], "a bit better, half the size"
    assert table["score"]["half.jpg"] > table["score"]["05.jpg"]
    assert table["identity"]["04.jpg"] == table["identity"]["mirrored.jpg"] != table["identity"]["05.jpg"]
    shutil.rmtree(tmp_path / "align")
    _, table = run(tmp_path, [face(n) for n in range(6)], params(**ANYBODY))
    assert table["identity"].nunique() == 1 and table["accepted"].all()


def test_photos_without_consent_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "celebrity"
    folder.mkdir(parents=True)
    rows = "00.jpg,kim,consent,own,\n01.jpg,lee,withdrawn,own,\n"
    (folder / "consent.csv").write_text("photo,subject,basis,licence,expires\n" + rows)
    for consent, refused in (("optional", {"01.jpg"}), ("required", {"01.jpg", "02.jpg"})):
        _, table = run(tmp_path, [face(n) for n in range(3)], params(consent=consent))
        reasons = table["reasons"].map(list)
        assert {name for name, found in reasons.items() if found == ["no_consent"]} == refused
        assert not table.loc[list(refused), "accepted"].any()


def test_caps_keep_the_best(tmp_path: Path) -> None:
    faces = [face(n, pad_fraction=0.01 * n) for n in range(6)]
    _, table = run(tmp_path, faces, params(**ANYBODY, max_per_identity=4))
    assert sorted(r.tolist() for r in table["reasons"] if len(r)) == [["identity_cap"]] * 2
    assert table[table["accepted"]]["score"].min() > table[~table["accepted"]]["score"].max()
    _, table = run(tmp_path, faces, params(target_faces=3))
    assert table["accepted"].sum() == 3
    assert {tuple(r) for r in table[~table["accepted"]]["reasons"]} == {("surplus",)}


def test_faces_are_measured_once_and_files_are_the_same_again(tmp_path: Path) -> None:
    faces = [face(n) for n in range(3)]
    FakeIdentity.calls = 0
    run(tmp_path, faces, params())
    first = [(tmp_path / name).read_bytes() for name in ("faces.parquet", "good.png", "bad.png")]
    run(tmp_path, faces, params())
    assert [(tmp_path / name).read_bytes() for name in ("faces.parquet", "good.png", "bad.png")] == first
    assert FakeIdentity.calls == 3
    run(tmp_path, [*faces, face(3)], params())
    assert FakeIdentity.calls == 4


def test_landmarks_are_mapped_into_a_turned_crop() -> None:
    inside = np.random.default_rng(0).uniform(0, 256, (68, 2))
    half, center = np.array([90.0, 40.0]), np.array([300.0, 200.0])
    down = np.array([-half[1], half[0]])
    shares = (inside + 0.5) / 128 - 1
    row = {"landmarks": (center + shares[:, :1] * half + shares[:, 1:] * down).ravel().tolist(),
           "center_x": 300.0, "center_y": 200.0, "quad_x": 90.0, "quad_y": 40.0}
    assert crop_landmarks(row, 256) == pytest.approx(inside, abs=1e-9)


def test_a_source_without_a_usable_face_is_one_clear_line(tmp_path: Path) -> None:
    faces = [face(0), face(1, "id", rgb=blurred(FACES[1][0], 4))]
    with pytest.raises(StylebotError, match=r"no usable face in id: all 1 are refused \(blurred 1") as error:
        run(tmp_path, faces, params())
    assert "filter.id" in str(error.value) and (tmp_path / "bad.png").exists()


def test_missing_crops_and_photos_are_named(tmp_path: Path) -> None:
    run(tmp_path, [face(0)], params())
    shutil.rmtree(tmp_path / "scratch")
    outs = [tmp_path / "a", sheets(tmp_path)]
    with pytest.raises(StylebotError, match=r"celebrity/01.jpg is gone"):
        aligned = write_aligned(tmp_path, [face(1)])
        (tmp_path / "photos" / "celebrity" / "01.jpg").unlink()
        select(aligned, tmp_path / "photos", tmp_path / "identity.dat", *outs, params())
    (tmp_path / "align" / "celebrity.zip").write_bytes(b"no zip")
    with pytest.raises(StylebotError, match="cannot be read"):
        select(aligned, tmp_path / "photos", tmp_path / "identity.dat", *outs, params())


def test_the_workspace_s_own_section_is_valid() -> None:
    settings = load_params("filter", FilterParams, path=ROOT / "params.yaml")
    assert settings.thresholds("id") is settings.id and settings.thresholds("holiday") is settings.celebrity


@pytest.mark.parametrize(("change", "message"), [
    ({"identity_distance": 3.0}, "filter.identity_distance = 3.0"),
    ({"sharpnes": 1}, "filter.sharpnes is not a"),
    ({"celebrity": {"min_sharpness_db": "x"}}, "filter.celebrity.min_sharpness_db")])
def test_wrong_params_are_named(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "params.yaml"
    data = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for key, value in change.items():
        data["filter"][key] = data["filter"].get(key, {}) | value if isinstance(value, dict) else value
    YAML().dump(data, path)
    with pytest.raises(StylebotError, match=message):
        load_params("filter", FilterParams, path=path)


def test_every_limit_belongs_to_a_component() -> None:
    named = {name.split("_", 1)[1] for name in Thresholds.model_fields if name != "grey"}
    assert named == set(REASONS) and set(stage.RANKED) <= set(stage.quality.SCALES)


def test_who_is_who_is_sought_once_for_given_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sought, cluster = [], stage.identities.cluster

    def counted(*what: object) -> np.ndarray:
        sought.append(1)
        return cluster(*what)

    monkeypatch.setattr(stage.identities, "cluster", counted)
    faces = [face(n) for n in range(3)]
    labels = [run(tmp_path, faces, params())[1]["identity"].tolist() for _ in range(2)]
    assert len(sought) == 1 and labels[0] == labels[1]
    run(tmp_path, faces, params(identity_distance=0.5))
    run(tmp_path, [*faces, face(3)], params())
    assert len(sought) == 3
