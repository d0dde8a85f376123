"""The tool `card.py`: a model card made of dvc.lock, params.yaml, metrics/ and the weights' records alone."""

import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from ruamel.yaml import YAML

from stylebot.errors import StylebotError
from stylebot.files import read_json, write_bytes
from stylebot.meanings import meaning
from stylebot.params import STAGES, read_params

NETWORKS = "stages/train/networks.safetensors"
_MEASURING = ("fid", "audit", "superres", "filter", "pack", "align")
_HEADER = """---
license: other
library_name: pytorch
tags:
- stylegan2
- face-generation
- synthetic
---
"""
_USE = """## Intended use

Making pictures of people who do not exist, of the region that the photos show, and enlarging small or
blurred faces into that region; research into how good, how new and how fair such pictures are.

Not for passing as a real person, for identity documents, for training face recognition, or for deciding
anything about anybody. An enlarged face is a plausible one, not the person's own: it proves nothing about
who is in a picture. Mark what is generated as generated; `generate.py` does so in each file. A small
truncation psi makes faces more average and a mixture less fair.
"""


def _yaml(path: Path) -> dict:
    if not path.exists():
        raise StylebotError(f"{path} does not exist: run from the root of the workspace, after dvc repro")
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def recorded(lock: Mapping) -> dict[str, dict]:
    """Every output that dvc.lock knows, by path: md5, size, number of files."""
    stages = lock["stages"].values()
    return {out["path"]: out for stage in stages for out in stage.get("outs", ())}


def numbers(outs: Mapping[str, dict]) -> dict[str, dict[str, object]]:
    """The stages' numbers, of the run that dvc.lock describes.

    Raises StylebotError when a file is missing or of another run: the card would praise another model.
    """
    found = {}
    for stage in _MEASURING:
        path = Path(f"metrics/{stage}.json")
        if not path.exists():
            raise StylebotError(f"{path} does not exist: dvc repro, or git checkout {path}")
        if hashlib.md5(path.read_bytes()).hexdigest() != outs.get(path.as_posix(), {}).get("md5"):
            raise StylebotError(f"{path} is not of the run in dvc.lock: dvc repro, or git checkout both")
        found[stage] = read_json(path)
    return found


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |"


def _flat(values: Mapping, above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _data(outs: Mapping[str, dict], found: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    yield "## Data\n"
    sources = sorted(Path("stages/photos").glob("*.dvc"))
    rows = [
        (
            f"`{p.with_suffix('').as_posix()}`",
            o.get("nfiles", 1),
            f"{o['size'] / 1e6:.1f} MB",
            f"`{o['md5']}`",
        )
        for p in sources
        for o in _yaml(p)["outs"]
    ]
    yield from _table(("photos", "files", "size", "version (md5)"), rows)
    align, chosen, pack = found["align"], found["filter"], found["pack"]
    yield (
        f"\n{align['align_photos']} photos gave {align['align_faces']} faces; {chosen['filter_accepted']} of "
        f"{chosen['filter_identities']} people were accepted. {pack['pack_train']} trained the networks at "
        f"{pack['pack_resolution']} px, {pack['pack_heldout']} of other people measured them.\n"
    )


def _measured(found: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    yield "## Numbers\n"
    for stage in _MEASURING[:3]:
        rows = [
            (f"`{name}`", value, meaning(name).better, meaning(name).text)
            for name, value in found[stage].items()
        ]
        yield from _table(("number", "value", "better", "what it says"), rows)
        yield ""
    if found["fid"]["kid_ratio_low"] > 1:
        yield "**Fine-tuning moved this generator away from the held-out faces** (`kid_ratio` is above 1).\n"
    elif found["fid"]["kid_ratio_high"] >= 1:
        yield "**Whether fine-tuning helped is not proven**: the interval of `kid_ratio` holds 1.\n"


def _licences(params: Mapping[str, object]) -> Iterator[str]:
    yield "## Licences\n\nThe strictest of these binds the networks too, as they are derived from them.\n"
    rows = [
        (name, ", ".join(f"`{s}`" for s in model["sources"]), model["licence"], f"`{model['sha256'][:16]}`")
        for name, model in params["fetch"].items()
    ]
    yield from _table(("weights", "source", "licence", "sha256"), rows)
    yield ""


def _commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "not in git"


def card() -> str:
    """The whole card. Raises StylebotError when files of the pipeline are missing or of different runs."""
    params, lock = read_params(), _yaml(Path("dvc.lock"))
    outs = recorded(lock)
    if NETWORKS not in outs:
        raise StylebotError(f"dvc.lock does not know {NETWORKS}: dvc repro")
    found, networks = numbers(outs), outs[NETWORKS]
    trained = {"freeze_d": params["freeze_d"]} | {
        s: params[s] for s in STAGES if s in ("pack", "train", "encode")
    }
    lines = [
        _HEADER,
        f"# {params['report']['title']}\n",
        "StyleGAN2 generator and discriminator, fine-tuned with "
        f"Freeze-D by Stylebot; `{NETWORKS}`, {networks['size'] / 1e6:.1f} MB, md5 `{networks['md5']}`.\n",
        _USE,
    ]
    lines += [*_data(outs, found), *_measured(found), *_licences(params), "## Parameters\n"]
    lines += [*_table(("parameter", "value"), [(f"`{k}`", v) for k, v in _flat(trained)]), ""]
    lines += ["## Make it again\n", f"```sh\ngit checkout {_commit()}\ndvc repro\n```"]
    return "\n".join(lines) + "\n"


def write_card(out: Path) -> None:
    """Write the card to `out`."""
    write_bytes(out, card().encode())
