"""Stage `report`: everything that a run found, on one page that needs no network."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image
from pydantic import Field, field_validator

from stylebot.charts import line_chart
from stylebot.differences import Difference, differences
from stylebot.dist import device
from stylebot.embedded import Picture, picture, read_picture
from stylebot.errors import StylebotError
from stylebot.files import read_json, write_bytes
from stylebot.meanings import Meaning, meaning
from stylebot.params import STAGES, Section
from stylebot.parquet import read_table
from stylebot.render import load_generator, render
from stylebot.runs import Run
from stylebot.tables import TABLES, rows_of

_TEMPLATE = Path(__file__).with_suffix(".html.j2")


class ReportParams(Section):
    """What `report` reads from params.yaml; explained there."""

    title: str = Field(min_length=1)
    seeds: int = Field(ge=1, le=64)
    psi: list[float] = Field(min_length=1)
    progress_pictures: int = Field(ge=2, le=50)

    @field_validator("psi")
    @classmethod
    def _sensible(cls, psi: list[float]) -> list[float]:
        if any(not 0 <= p <= 2 for p in psi):
            raise ValueError("each psi must lie between 0 and 2")
        return psi


@dataclass(frozen=True)
class Inputs:
    """What the page is made of: folders and files of the other stages."""

    align: Path
    filter: Path
    pack: Path
    generator: Path
    progress: Path
    live: Path
    superres: Path
    fid: Path
    audit: Path
    fetch: Path
    metrics: Path


def words(reason: str) -> str:
    """A reason of the tables in plain words: `face_too_small` is "face too small"."""
    return reason.replace("_", " ")


@dataclass(frozen=True)
class Step:
    """One bar of the funnel."""

    label: str
    count: int
    share: float  # of the widest bar


@dataclass(frozen=True)
class Refusals:
    """How many were refused for what: columns are sources, rows are reasons, most frequent first."""

    sources: list[str]
    rows: list[tuple[str, list[int]]]


def refusals(sources: Iterable[str], reasons: Iterable[str]) -> Refusals:
    """Count pairs of source and reason; every pair is one refused photo or face."""
    pairs = Counter(zip(sources, reasons, strict=True))
    names = sorted({source for source, _ in pairs})
    total = Counter()
    for (_, reason), count in pairs.items():
        total[reason] += count
    ordered = sorted(total, key=lambda reason: (-total[reason], reason))
    return Refusals(names, [(words(r), [pairs[source, r] for source in names]) for r in ordered])


def funnel(inputs: Inputs) -> tuple[list[Step], Refusals, Refusals]:
    """From photos to training faces: the bars, the refused photos and the refused faces by first reason."""
    photos = read_table(inputs.align / "photos.parquet", columns=["source", "outcome"])
    faces = read_table(inputs.filter / "faces.parquet", columns=["source", "accepted", "reasons"])
    split = read_table(inputs.pack / "faces.parquet", columns=["split"])["split"]
    counts = {
        "photos": len(photos), "photos with a face": int((photos["outcome"] == "faces").sum()),
        "faces": len(faces), "accepted faces": int(faces["accepted"].sum()),
        "for training": int((split == "train").sum()), "held out": int((split == "heldout").sum())}
    widest = max(counts.values())
    steps = [Step(label, count, count / max(widest, 1)) for label, count in counts.items()]
    bad_photos, bad_faces = photos[photos["outcome"] != "faces"], faces[~faces["accepted"]]
    return (steps, refusals(bad_photos["source"], bad_photos["outcome"]),
            refusals(bad_faces["source"], (reasons[0] for reasons in bad_faces["reasons"])))


def progress(folder: Path, most: int) -> list[tuple[str, Picture]]:
    """At most `most` of the pictures {images shown}.png of the same seeds, evenly over time, labelled."""
    shown = {int(path.stem): path for path in folder.glob("*.png") if path.stem.isdigit()}
    if not shown:
        raise StylebotError(f"{folder} holds no pictures of the training's progress")
    steps = sorted(shown)
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))
    labels = {steps[i]: f"{steps[i] / 1000:.3g} kimg" for i in chosen}
    return [(label, read_picture(shown[step], f"Faces that the generator makes at {label}, same seeds"))
            for step, label in labels.items()]


_CHARTS = {"loss_g": "losses", "loss_d": "losses", "r_t": "discriminator's verdict (1 real, -1 generated)",
           "fake_sign": "discriminator's verdict (1 real, -1 generated)", "p": "augmentation probability p",
           "r1_penalty": "penalties", "pl_penalty": "penalties"}  # what shares a chart; others have their own


def curves(live: Path) -> list[tuple[str, Markup]]:
    """Charts of dvclive's curves over thousands of images shown: title and SVG."""
    charts: dict[str, dict[str, tuple]] = {}
    for path in sorted((live / "plots" / "metrics").rglob("*.tsv")):
        table = pd.read_csv(path, sep="\t")
        values = pd.to_numeric(table[path.stem], errors="coerce")
        if np.isfinite(values).any():
            chart = charts.setdefault(_CHARTS.get(path.stem, words(path.stem)), {})
            chart[words(path.stem)] = (table["step"] / 1000).tolist(), values.tolist()
    if not charts:
        raise StylebotError(f"{live} holds no curves of the training")
    return [(title, Markup(line_chart(series, title, "kimg", ""))) for title, series in charts.items()]


def generated(generator: Path, params: ReportParams) -> list[tuple[str, list[Picture]]]:
    """Faces of the same seeds at each truncation."""
    g, out = load_generator(generator, device()), []
    for psi in params.psi:
        rgbs = render(g, range(params.seeds), psi).permute(0, 2, 3, 1).cpu().numpy()
        faces = [picture(Image.fromarray(rgb), f"Generated face, seed {seed}, truncation {psi:g}")
                 for seed, rgb in enumerate(rgbs)]
        out.append((f"ψ = {psi:g}", faces))
    return out


def comparisons(folder: Path) -> list[tuple[str, list[tuple[Picture, Picture, Picture | None]]]]:
    """Super-resolution by factor: (bicubic, result, original) of each face.

    Reads rows_x{factor}.png: one face a row, four squares side by side without gaps: given, bicubic,
    result, original; and rows_own.png, whose pictures have no original.
    """
    files = sorted(folder.glob("rows_x*.png"), key=lambda path: int(path.stem[6:]))
    own = sorted(folder.glob("rows_own.png"))
    if not files + own:
        raise StylebotError(f"{folder} holds no rows_x*.png")
    what = ("enlarged by bicubic", "our result", "original")
    out = []
    for path in files + own:
        columns, name = (3, "own pictures") if path in own else (4, f"×{path.stem[6:]}")
        with Image.open(path) as image:
            side = image.width // columns
            cells = [[image.crop((c * side, y, (c + 1) * side, y + side)) for c in range(1, columns)]
                     for y in range(0, image.height, side)]
        rows = [[picture(cell, f"Face {n}, {name}: {text}", lossless=True)
                 for cell, text in zip(row, what, strict=False)] for n, row in enumerate(cells, 1)]
        out.append((name, [(*row, None)[:3] for row in rows]))
    return out


def drift(folder: Path) -> list[tuple[str, str, str, str]]:
    """Rows of drift.csv, without those that lack an interval: label, value with interval, better, text."""
    path = folder / "drift.csv"
    if not path.exists():
        return []
    said = [(meaning(name) or Meaning(words(name), "", ""), *ends)
            for name, *ends in rows_of(path.as_posix(), path.read_bytes())]
    return [(m.label, f"{value:.3g} ({low:.3g} to {high:.3g})", m.better, m.text)
            for m, value, low, high in said]


def changes(inputs: Inputs, found: dict[str, object], before: Run | None) -> list[Difference]:
    """What differs from the run before, numbers with intervals only, the most important first."""
    if before is None:
        return []
    tables = {path: getattr(inputs, path.split("/")[1]) / Path(path).name for path in TABLES}
    now = Run(found, {path: file.read_bytes() for path, file in tables.items() if file.exists()})
    return [d for d in differences(before.numbers(), now.numbers())[0] if d.a != d.b]


def values_of(folder: Path) -> dict[str, object]:
    """All metrics of the folder by name."""
    return {name: value for path in sorted(folder.glob("*.json")) for name, value in read_json(path).items()}


def numbers(folder: Path) -> list[tuple[str, list[tuple[str, str, str, str, str]]]]:
    """Every number by stage: (name, value, label, which way is better, what it says).

    The ends of an interval stand beside their number.
    """
    out = []
    for path in sorted(folder.glob("*.json"), key=lambda path: STAGES.index(path.stem)):
        text = {name: f"{value:.4g}" if isinstance(value, float) else str(value)
                for name, value in read_json(path).items()}
        ends = {name: [f"{name}_low", f"{name}_high"] for name in text}
        ends = {name: pair for name, pair in ends.items() if text.keys() >= set(pair)}
        rows = []
        for name in text.keys() - set(chain.from_iterable(ends.values())):
            interval = f" ({' to '.join(text[end] for end in ends[name])})" if name in ends else ""
            said = meaning(name) or Meaning(words(name), "", "")
            rows.append((name, text[name] + interval, said.label, said.better, said.text))
        out.append((path.stem, sorted(rows)))
    return out


def licences(folder: Path) -> list[dict[str, str]]:
    """What `fetch` recorded about every weight file, by name."""
    return [read_json(path) | {"model": path.stem} for path in sorted(folder.glob("*.json"))]


def headlines(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """The few sentences that a reader should leave with: value, what it is, how to read it."""
    m = metrics
    try:
        gain = ("nearer to real faces of the region" if m["kid_ratio_high"] < 1 else
                "farther from real faces than before" if m["kid_ratio_low"] > 1 else
                "no difference beyond noise")
        verdict = "within the limit" if m["audit_ok"] else "more than audit.max_copies allows"
        return [
            (f"{m['filter_accepted']} of {m['filter_faces']}", "faces accepted",
             f"{m['filter_identities']} people; {m['pack_heldout']} faces held out"),
            (f"{m['kid_ratio']:.2f} ×", "the base generator's KID",
             f"interval {m['kid_ratio_low']:.2f} to {m['kid_ratio_high']:.2f}: {gain}"),
            (f"{m['audit_copies']:.1%}", "of generated faces copy a training face",
             f"at most {m['audit_copies_high']:.1%} by the interval: {verdict}")]
    except KeyError as error:
        raise StylebotError(f"the metrics lack {error}: `dvc repro` brings them up to date") from None


def render_page(inputs: Inputs, params: ReportParams, before: Run | None) -> str:
    """The whole page."""
    steps, bad_photos, bad_faces = funnel(inputs)
    found = values_of(inputs.metrics)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=params.title, headlines=headlines(found),
        steps=steps, bad_photos=bad_photos, bad_faces=bad_faces,
        accepted=read_picture(inputs.filter / "accepted.png", "Accepted faces, best first"),
        refused=read_picture(inputs.filter / "refused.png", "Refused faces with the reasons below each"),
        progress=progress(inputs.progress, params.progress_pictures), curves=curves(inputs.live),
        generated=generated(inputs.generator, params), comparisons=comparisons(inputs.superres),
        drift=drift(inputs.superres), changes=changes(inputs, found, before),
        since=before.name if before else "",
        fid=read_picture(inputs.fid / "sheet.png", "Rows of real, fine-tuned and base faces"),
        audit=read_picture(inputs.audit / "pairs.png", "Generated faces beside their nearest training faces"),
        numbers=numbers(inputs.metrics), licences=licences(inputs.fetch))


def report(inputs: Inputs, out: Path, params: ReportParams, before: Run | None = None) -> None:
    """Write the page: one HTML file that needs nothing else; `before` is a run to compare the numbers with.

    Raises StylebotError when an input lacks what the page shows.
    """
    try:
        page = render_page(inputs, params, before)
    except FileNotFoundError as error:
        raise StylebotError(f"{error}; `dvc repro` brings it") from None
    write_bytes(out, page.encode())
