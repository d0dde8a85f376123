"""Published settings are those that the published code resolves its configurations to, row by row."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from oracle import FOLDER
from ruamel.yaml import YAML

from stylebot.discriminator import Discriminator, freeze_d
from stylebot.errors import StylebotError
from stylebot.params import read_params
from stylebot.settings import freeze_depth, published, recipe
from stylebot.train import TrainParams

ROOT = Path(__file__).parents[1]
RECORDED = json.loads((FOLDER / "recipes.json").read_text())

@pytest.mark.parametrize("row", RECORDED["stylegan2-ada-pytorch"])
def test_every_row_of_stylegan2_ada(row: dict) -> None:
    options = row["options"]
    given = (options["cfg"], row["resolution"], row["gpus"], options.get("batch"))
    if "error" in row:
        with pytest.raises(StylebotError, match=r"^--(gpus|batch)"):
            published(*given)
        return
    found, wanted = asdict(published(*given)), row["wanted"]
    for name in wanted.keys() - ({"r1_gamma"} if "gamma" in options else set()):
        assert found[name] == pytest.approx(wanted[name], rel=1e-12), name


@pytest.mark.parametrize("row", RECORDED["stylegan3"], ids=lambda r: r["options"])
def test_stylegan3_writes_the_same_settings_out(row: dict) -> None:
    """Its documentation lists options that stand for `auto` (two mapping layers) and for the named ones."""
    wanted = row["wanted"]
    if wanted["mapping_layers"] == 2:
        name = "auto"
    else:
        named = {1: "paper256", 0.5: "paper512", 2: "paper1024", 10: "stylegan2"}
        name = named[wanted["r1_gamma"]]
    found = asdict(published(name, row["resolution"], row["gpus"]))
    for key in ("batch", "mbstd_group", "lr", "r1_gamma", "ema_kimg", "channel_base", "mapping_layers",
                "pl_weight", "style_mixing_prob"):  # fmt: skip
        assert found[key] == pytest.approx(wanted[key], rel=1e-12), key


@pytest.mark.parametrize("case", RECORDED["freezed"], ids=lambda r: str(r["feature_loc"]))
@pytest.mark.parametrize("resolution", [64, 256, 1024])
def test_freezed_counts_whole_blocks(case: dict, resolution: int) -> None:
    """FreezeD's discriminator has nine blocks, the last one at 4x4; ours has its last ones."""
    sizes = [4 << k for k in range(9) if 4 << k <= resolution]
    trainable = {4 << (8 - block) for block in case["blocks"]}
    blocks = len([r for r in sizes if r not in trainable])
    assert case["other"] == ["linear"]  # its colour layers never learn
    if 4 not in trainable:
        with pytest.raises(StylebotError, match=f"--freeze-blocks {blocks}: .* 0 to {blocks - 1} blocks"):
            freeze_depth(resolution, blocks)
        return
    D = Discriminator(img_resolution=resolution, channel_base=4096, channel_max=4)
    freeze_d(D, freeze_depth(resolution, blocks))
    learn = {int(n.partition(".")[0][1:]) for n, p in D.named_parameters() if p.requires_grad}
    assert learn == {r for r in sizes if r in trainable}
    assert not [n for n, p in D.named_parameters() if p.requires_grad and "fromrgb" in n]


def test_four_blocks_are_thirteen_layers() -> None:
    assert [freeze_depth(256, blocks) for blocks in (0, 3, 4)] == [1, 10, 13]  # NVIDIA's 10 and 13


@pytest.mark.parametrize("name", ["auto", "stylegan2", "paper256", "cifar"])
def test_what_it_prints_is_what_train_reads(name: str) -> None:
    shown = recipe(name, 256, 8, None, 4)
    settings = dict(re.findall(r"-S ([\w.]+)=(\S+)", shown))
    assert settings.pop("freeze_d") == "13" and settings.pop("pack.resolution") == "256"
    data = read_params(ROOT / "params.yaml")
    for key, text in settings.items():
        data["train"][key.removeprefix("train.")] = YAML(typ="safe").load(text)
    params = TrainParams.model_validate(data["train"] | {"freeze_d": 13}).recipe()
    wanted = published(name, 256, 8)
    assert params.lr_g == params.lr_d == wanted.lr
    assert (params.batch, params.batch_gpu) == (wanted.batch, wanted.batch_gpu)
    assert params.r1_gamma == pytest.approx(wanted.r1_gamma, rel=1e-5) and params.augment == "bgc"
    assert (params.style_mixing_prob, params.pl_weight) == (wanted.style_mixing_prob, wanted.pl_weight)


@pytest.mark.parametrize(("arguments", "words"), [
    (("ffhq", 256, 8, None, None), "'ffhq' is none of auto"),
    (("auto", 100, 8, None, None), "--resolution 100"), (("auto", 256, 3, None, None), "--gpus 3"),
    (("auto", 256, 4, 6, None), "--batch 6"),
    (("auto", 256, 4, None, 7), "0 to 6 blocks")])  # fmt: skip
def test_what_cannot_be_is_one_line(arguments: tuple, words: str) -> None:
    with pytest.raises(StylebotError, match=words):
        recipe(*arguments)
