"""The report: whole, honest about its inputs, without network, readable by everybody."""

import html.parser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from stylebot.checkpoints import save_networks
from stylebot.discriminator import Discriminator
from stylebot.errors import StylebotError
from stylebot.files import read_json, write_json
from stylebot.generator import Generator
from stylebot.meanings import meaning
from stylebot.report import (
    Inputs,
    ReportParams,
    comparisons,
    curves,
    funnel,
    headlines,
    numbers,
    progress,
    report,
)
from stylebot.runs import Run
from stylebot.weights import Networks

ROOT = Path(__file__).parents[1]
PARAMS = ReportParams(title="Faces <of> here", seeds=3, psi=[0.5, 1.0], progress_pictures=3)


def write_picture(path: Path, width: int, height: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    Image.fromarray(rgb).resize((width, height)).save(path)


def write_tables(root: Path) -> None:
    for stage in ("align", "filter", "pack"):
        (root / stage).mkdir(parents=True)
    photos = pd.DataFrame({"source": ["celebrity"] * 7 + ["id"] * 2,
                           "outcome": ["faces"] * 5 + ["no_face"] * 2 + ["faces", "truncated"]})
    photos.to_parquet(root / "align" / "photos.parquet")
    faces = pd.DataFrame({"source": ["celebrity"] * 5 + ["id"], "accepted": [True] * 4 + [False] * 2,
                          "reasons": [[], [], [], [], ["blurred", "dark"], ["pose"]]})
    faces.to_parquet(root / "filter" / "faces.parquet")
    pd.DataFrame({"split": ["train"] * 3 + ["heldout"]}).to_parquet(root / "pack" / "faces.parquet")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Small outputs of all stages that the report reads."""
    root = tmp_path_factory.mktemp("stages")
    write_tables(root)
    for name in ("filter/accepted.png", "filter/refused.png", "fid/sheet.png", "audit/pairs.png"):
        write_picture(root / name, 1200, 400)
    for kimg in (0, 2, 4, 8, 10):
        write_picture(root / f"progress/{kimg * 1000:09d}.png", 256, 128, kimg)
    for factor in (8, 4):
        write_picture(root / f"superres/rows_x{factor}.png", 4 * 64, 2 * 64, factor)
    (root / "superres" / "drift.csv").write_text(
        "name,value,low,high,faces\nsuperres_drift_x8,0.31,0.2,0.42,63\nsuperres_domains_clear,0.98,,,63\n")
    (root / "live" / "plots" / "metrics").mkdir(parents=True)
    for name in ("loss_g", "loss_d", "p", "new_number"):
        curve = pd.DataFrame({"step": range(0, 10_001, 2500), name: [1.0, 2.0, np.nan, 3.0, 4.0]})
        curve.to_csv(root / "live" / "plots" / "metrics" / f"{name}.tsv", sep="\t", index=False)
    for name, content in {
        "fetch/landmarks": {"licence": "iBUG 300-W: not for commercial use", "sha256": "ab" * 32},
        "metrics/filter": {"filter_accepted": 4, "filter_faces": 6, "filter_identities": 3},
        "metrics/pack": {"pack_heldout": 1},
        "metrics/audit": {"audit_ok": 0, "audit_copies": 0.02, "audit_copies_high": 0.053},
        "metrics/fid": {"kid_ratio": 0.41, "kid_ratio_low": 0.3, "kid_ratio_high": 0.5},
    }.items():
        write_json(root / f"{name}.json", content)
    torch.manual_seed(0)
    arguments = {"c_dim": 0, "img_resolution": 16, "img_channels": 3, "channel_base": 128, "channel_max": 16}
    g = Generator(z_dim=8, w_dim=8, mapping_layers=2, **arguments)
    save_networks(root / "networks.safetensors", Networks(g, Discriminator(**arguments), g, {}))
    return Inputs(generator=root / "networks.safetensors", **{name: root / name for name in (
        "align", "filter", "pack", "progress", "live", "superres", "fid", "audit", "fetch", "metrics")})


BEFORE = Run({"kid_ratio": 0.8, "kid_ratio_low": 0.7, "kid_ratio_high": 0.9, "audit_copies": 0.01,
              "audit_copies_high": 0.05, "filter_faces": 5}, {}, "1a2b3c4")  # fmt: skip


@pytest.fixture(scope="session")
def page(made: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    report(made, out, PARAMS, BEFORE)
    return out


class Tags(html.parser.HTMLParser):
    """Every start tag with its attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="session")
def tags(page: Path) -> Tags:
    return Tags(page.read_text(encoding="utf-8"))


def test_the_page_needs_no_network(tags: Tags) -> None:
    policy = next(m["content"] for m in tags.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert all(image["src"].startswith("data:image/webp;base64,") for image in tags.of("img"))
    assert not tags.of("link") and not tags.of("iframe") and not any("src" in s for s in tags.of("script"))


def test_everybody_can_read_it(tags: Tags) -> None:
    assert tags.of("html") == [{"lang": "en"}]
    assert all(len(image["alt"]) > 10 and int(image["width"]) > 0 for image in tags.of("img"))
    ids = [attributes["id"] for _, attributes in tags.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in tags.of("a")} <= {f"#{name}" for name in ids}
    labelled = {label["for"] for label in tags.of("label")}
    assert all("aria-label" in slider or slider["id"] in labelled for slider in tags.of("input"))
    levels = [int(tag[1]) for tag, _ in tags.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_it_shows_what_was_found(tags: Tags) -> None:
    text = " ".join(tags.text.split())
    for part in ("Faces <of> here", "4 of 6", "3 people; 1 faces held out", "0.41 ×", "2.0%",
                 "at most 5.3%", "more than audit.max_copies", "nearer to real faces",
                 "blurred 1 0", "no face 2 0", "10 kimg", "ψ = 0.5", "×4", "not for commercial use",
                 "drift at ×8 0.31 (0.2 to 0.42) lower", "kid_ratio 0.8 0.41 better , real",
                 "audit_copies 0.01 0.02 within noise", "What changed since commit 1a2b3c4"):
        assert part in text, part
    assert text.index("×4") < text.index("×8")
    assert len(tags.of("img")) == 3 * 2 * 2 + 4 + 2 * 3 + 3  # superres, sheets, psi, progress
    charts = [svg["aria-label"] for svg in tags.of("svg") if svg.get("class") == "chart"]
    assert [label.split(":")[0] for label in charts] == ["losses", "new number", "augmentation probability p"]


def test_same_inputs_give_the_same_bytes(made: Inputs, page: Path, tmp_path: Path) -> None:
    report(made, tmp_path / "again.html", PARAMS, BEFORE)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_without_another_run_nothing_is_compared(made: Inputs, tmp_path: Path) -> None:
    report(made, tmp_path / "alone.html", PARAMS)
    assert "What changed" not in (tmp_path / "alone.html").read_text(encoding="utf-8")
    same = Run({"kid_ratio": 0.41, "kid_ratio_low": 0.3, "kid_ratio_high": 0.5}, {})
    report(made, tmp_path / "same.html", PARAMS, same)
    assert (tmp_path / "same.html").read_bytes() == (tmp_path / "alone.html").read_bytes()


def test_own_pictures_have_no_original(tmp_path: Path) -> None:
    write_picture(tmp_path / "rows_own.png", 3 * 64, 2 * 64)
    ((name, faces),) = comparisons(tmp_path)
    assert name == "own pictures" and [original for _, _, original in faces] == [None, None]
    assert {picture.width for face in faces for picture in face[:2]} == {64}


def test_the_funnel_adds_up(made: Inputs) -> None:
    steps, photos, faces = funnel(made)
    assert {s.label: s.count for s in steps} == {"photos": 9, "photos with a face": 6, "faces": 6,
                                                 "accepted faces": 4, "for training": 3, "held out": 1}
    assert photos.sources == ["celebrity", "id"]
    assert photos.rows == [("no face", [2, 0]), ("truncated", [0, 1])]
    assert faces.rows == [("blurred", [1, 0]), ("pose", [0, 1])]


def test_progress_is_thinned_evenly_with_both_ends(made: Inputs) -> None:
    assert [label for label, _ in progress(made.progress, 3)] == ["0 kimg", "4 kimg", "10 kimg"]
    assert len(progress(made.progress, 50)) == 5


@pytest.mark.parametrize("name", ["superres", "progress", "live", "fid", "audit", "align"])
def test_a_missing_part_is_one_clear_error(made: Inputs, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    broken = Inputs(**{**vars(made), name: tmp_path / "empty"})
    with pytest.raises(StylebotError, match="empty"):
        report(broken, tmp_path / "report.html", PARAMS)
    assert not (tmp_path / "report.html").exists()


def test_curves_without_a_number_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "plots" / "metrics"
    folder.mkdir(parents=True)
    (folder / "a.tsv").write_text("step\ta\n0\tnan\n")
    with pytest.raises(StylebotError, match="no curves"):
        curves(tmp_path)


def test_every_committed_number_is_explained() -> None:
    names = [name for path in (ROOT / "metrics").glob("*.json") for name in read_json(path)]
    assert not [name for name in names if meaning(name) is None]
    assert "fine-tuned" in meaning("fid_tuned").label and meaning("fid_tune") is None


@pytest.mark.parametrize(("low", "high", "said"), [
    (0.3, 0.9, "nearer to real"), (0.9, 1.1, "no difference"), (1.1, 1.5, "farther from")])
def test_the_headline_reads_the_interval(low: float, high: float, said: str) -> None:
    found = dict.fromkeys(("filter_accepted", "filter_faces", "filter_identities", "pack_heldout"), 1)
    found |= {"audit_ok": 1, "audit_copies": 0.0, "audit_copies_high": 0.1, "kid_ratio": 1.0}
    assert said in headlines(found | {"kid_ratio_low": low, "kid_ratio_high": high})[1][2]
    with pytest.raises(StylebotError, match="kid_ratio_high"):
        headlines(found | {"kid_ratio_low": low})


def test_numbers_follow_the_pipeline_and_carry_their_intervals(made: Inputs) -> None:
    assert [row[:2] for row in dict(numbers(made.metrics))["fid"]] == [("kid_ratio", "0.41 (0.3 to 0.5)")]
    assert [stage for stage, _ in numbers(made.metrics)] == ["filter", "pack", "fid", "audit"]
