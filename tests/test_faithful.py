"""Mode faithful: skip connections into a frozen generator, trained in `encode`, used in `superres`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from test_encode import PARAMS, faces_zip, interrupted_at, narrow_perceptual, tiny_generator
from test_superres import Colours, MeanColour
from test_superres import params as superres_params

from stylebot import encode as stage
from stylebot.checkpoints import Networks, save_networks
from stylebot.dataset import Dataset
from stylebot.degrade import degrade, resize
from stylebot.encode import EncodeParams, encode
from stylebot.encoder import Encoder, load_encoder, save_encoder
from stylebot.enlarging import Enlarger, enlarge, load_enlarger
from stylebot.errors import StylebotError, TrainingDiverged
from stylebot.faithful import inconsistency, restoring
from stylebot.generator import Generator
from stylebot.perceptual import Perceptual
from stylebot.skips import Skips, changed, load_skips, skips_for, synthesise
from stylebot.superres import Inputs, metrics_of, superres

WEIGHTS = {"l2": 1.0, "lpips": 0.8, "consistency": 1.0}


def params(kimg: float = 0.02, consistency_weight: float = 1.0, **changes: object) -> EncodeParams:
    faithful = {"kimg": kimg, "lr": 0.01, "consistency_weight": consistency_weight}
    return EncodeParams.model_validate(PARAMS | {"kimg": 0.012, "faithful": faithful} | changes)


def drawn_skips(generator: Generator) -> Skips:
    """Skips whose last convolutions are not zero, always the same."""
    torch.manual_seed(3)
    skips = skips_for(generator)
    for head in skips.heads:
        torch.nn.init.normal_(head[1].weight, std=0.1)
    return skips.requires_grad_(False)


@pytest.fixture(autouse=True)
def narrow_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A light encoder of a few thousand parameters, for speed."""
    monkeypatch.setattr("stylebot.encoder._LIGHT_STAGES", ((16, 1), (16, 1), (16, 1), (16, 1)))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Tiny files under the names of `encode`'s arguments, and a scratch folder of the test's own."""
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    save_networks(tmp_path / "g.safetensors", Networks(G=None, D=None, G_ema=tiny_generator()))
    return {"generator": tmp_path / "g.safetensors", "dataset": faces_zip(tmp_path / "faces.zip", 12),
            "perceptual": narrow_perceptual(tmp_path / "p.pth"), "out": tmp_path / "e.safetensors"}


def tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@torch.no_grad()
def test_untrained_skips_change_no_bit(architecture: str, rng: torch.Generator) -> None:
    torch.manual_seed(1)
    g = Generator(4, 0, 8, 32, 3, 2, channel_base=512, channel_max=32, architecture=architecture).eval()
    ws, img = torch.randn(3, g.num_ws, 8, generator=rng), torch.randn(3, 3, 32, 32, generator=rng)
    pure = g.synthesis(ws, noise_mode="const")
    assert torch.equal(synthesise(g, ws, skips_for(g)(img)), pure)
    assert not torch.equal(synthesise(g, ws, drawn_skips(g)(img)), pure)
    assert torch.equal(g.synthesis(ws, noise_mode="const"), pure)  # nothing stays behind


@torch.no_grad()
def test_every_side_from_8_px_on_is_changed(rng: torch.Generator) -> None:
    g = tiny_generator().eval()
    ws, img = torch.randn(2, g.num_ws, 8, generator=rng), torch.randn(2, 3, 32, 32, generator=rng)
    conditions = drawn_skips(g)(img)
    assert {side: tuple(c.shape) for side, c in conditions.items()} == {s: (2, 4, s, s) for s in (8, 16, 32)}
    pure = g.synthesis(ws, noise_mode="const")
    for side, condition in conditions.items():
        assert not torch.allclose(synthesise(g, ws, {side: condition}), pure, atol=1e-4), side


def test_half_of_the_channels_are_scaled_and_shifted(rng: torch.Generator) -> None:
    x, condition = torch.randn(2, 5, 4, 4, generator=rng), torch.randn(2, 4, 4, 4, generator=rng)
    found = changed(x, condition)
    assert torch.equal(found[:, :3], x[:, :3])
    assert torch.equal(found[:, 3], x[:, 3] * (1 + condition[:, 0]) + condition[:, 2])
    assert torch.equal(found[:, 4], x[:, 4] * (1 + condition[:, 1]) + condition[:, 3])


@torch.no_grad()
def test_a_failure_leaves_the_generator_as_it_was(rng: torch.Generator) -> None:
    g = tiny_generator().eval()
    ws, conditions = torch.randn(2, g.num_ws, 8, generator=rng), drawn_skips(g)(torch.ones(2, 3, 32, 32))
    pure = g.synthesis(ws, noise_mode="const")
    with pytest.raises(RuntimeError):
        synthesise(g, ws, conditions | {16: torch.zeros(2, 4, 7, 7)})
    assert torch.equal(g.synthesis(ws, noise_mode="const"), pure)


def test_consistency_asks_for_the_given_pixels_alone(rng: torch.Generator) -> None:
    img = torch.rand(3, 3, 32, 32, generator=rng) - 0.5
    factors = (1, 4, 8)
    small = degrade(img, factors)
    assert float(inconsistency(img, small, factors)) < 1e-5  # 8 bit
    detail = resize(torch.randn(3, 3, 16, 16, generator=rng) * 0.2, 32)
    invented = img + detail - degrade(detail, factors)
    assert float((invented - img)[1:].square().mean()) > 0.01
    shifted = img + torch.tensor([0.0, 0.2, 0.2])[:, None, None, None]
    assert float(inconsistency(shifted, small, factors)) == pytest.approx(0.04 * 2 / 3, rel=0.02)
    assert float(inconsistency(invented, small, factors)) < 0.2 * 0.04


def test_only_the_skips_get_gradients(files: dict[str, Path]) -> None:
    g, encoder = stage.frozen(tiny_generator()), Encoder("light", 32, w_dim=8).eval()
    skips, target = skips_for(g), torch.rand(2, 3, 32, 32)
    small = degrade(target, [2, 4])
    found = restoring(target, small, [2, 4], encoder, skips, g, Perceptual(files["perceptual"]), WEIGHTS)
    assert found.keys() == WEIGHTS.keys()
    torch.stack(list(found.values())).sum().backward()
    assert not any(p.grad is not None for net in (g, encoder) for p in net.parameters())
    assert all(head[1].weight.grad.abs().sum() > 0 for head in skips.heads)
    few = {"l2": 1.0, "lpips": 0.0, "consistency": 0.0}
    assert restoring(target, small, [2, 4], encoder, skips, g, Perceptual(files["perceptual"]),
                     few).keys() == {"l2"}  # fmt: skip


def test_training_lowers_the_loss_and_nothing_else_moves(files: dict[str, Path]) -> None:
    first = encode(**files, params=params(kimg=0.004))  # one step: the losses of pure
    longer = encode(**files, params=params(kimg=0.06))
    names = {f"encode_faithful_{name}" for name in WEIGHTS}
    assert names <= longer.keys()
    assert longer["encode_faithful_l2"] < 0.7 * first["encode_faithful_l2"]
    trained = tensors(files["out"])
    assert load_encoder(files["out"])[1]["params"]["faithful"]["kimg"] == 0.06
    without = encode(**files, params=params(kimg=0))
    assert without == {name: value for name, value in longer.items() if name not in names}
    plain = tensors(files["out"])
    assert plain.keys() == {key for key in trained if not key.startswith("skips.")}
    assert all(torch.equal(plain[key], trained[key]) for key in plain)
    assert "faithful" not in load_encoder(files["out"])[1]["params"]


@pytest.mark.parametrize("at", [12, 20])  # before its first step, and after a restart point
def test_a_killed_run_goes_on_to_the_same_skips(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, at: int
) -> None:
    monkeypatch.setattr("stylebot.fitting._SAVE_EVERY", 2)
    wanted = encode(**files, params=params())
    whole = tensors(files["out"])
    files["out"].unlink()
    with monkeypatch.context() as patch:
        interrupted_at(at, patch)
        with pytest.raises(KeyboardInterrupt):
            encode(**files, params=params())
    capsys.readouterr()
    seen, real = [], stage.batch_at
    monkeypatch.setattr(stage, "batch_at", lambda *args: seen.append(args[2]) or real(*args))
    assert encode(**files, params=params()) == wanted
    said = capsys.readouterr().out
    assert "encode: going on from 0.01 kimg" in said and min(seen) == at  # the encoder was finished
    assert ("faithful: going on" in said) == (at == 20)
    again = tensors(files["out"])
    assert all(torch.equal(again[key], whole[key]) for key in whole)
    assert not list((files["out"].parent / "scratch").rglob("*.pt"))


def test_divergence_names_its_own_parameter(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylebot.faithful.inconsistency", lambda img, *_: img.mean() * float("nan"))
    with pytest.raises(TrainingDiverged, match=r"^faithful: .*lower encode\.faithful\.lr$"):
        encode(**files, params=params())


def saved(path: Path, generator: Generator, skips: Skips | None, meta: dict | None = None) -> Path:
    torch.manual_seed(2)
    encoder = Encoder("light", generator.img_resolution, w_dim=generator.w_dim)
    encoder.latent_avg.copy_(generator.mapping.w_avg.expand_as(encoder.latent_avg))
    save_encoder(path, encoder, meta or {}, skips)
    return path


def test_skips_come_back_as_they_were_saved(files: dict[str, Path]) -> None:
    g = tiny_generator().eval()
    skips = drawn_skips(g)
    saved(files["out"], g, skips)
    back = load_skips(files["out"], g)
    assert not any(p.requires_grad for p in back.parameters())
    given = torch.rand(2, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(back(given).values(), skips(given).values(), strict=True))
    networks = load_enlarger(files["out"], files["generator"], "bicubic", 0, "faithful")
    codes = networks.encoder(given)
    assert torch.allclose(networks.rebuild(given), synthesise(g, codes, skips(given)), atol=1e-5)
    assert load_enlarger(files["out"], files["generator"], "bicubic", 0).skips is None


def resaved(path: Path, change: Callable[[dict], object]) -> None:
    """Write the file again with other tensors."""
    with safe_open(path, "pt") as file:
        about, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(state)
    save_file(state, path, about)


def wider() -> Generator:
    return Generator(4, 0, 8, 32, 3, 2, channel_base=256, channel_max=8)


@pytest.mark.parametrize(("make", "damage", "says"), [
    (lambda: None, None, "trained without skip connections.*faithful.kimg above 0"),
    (lambda: drawn_skips(wider()), None, "for a generator with .*8, 8, 8.*this one has .*4, 4, 4"),
    (lambda: drawn_skips(tiny_generator(16)), None, "for a generator with .*4, 4].*this one has .*4, 4, 4"),
    (lambda: drawn_skips(tiny_generator()), lambda t: t.pop("skips.stem.0.weight"), "do not fit.*stem"),
], ids=["none", "other widths", "other resolution", "damaged"])
def test_skips_that_do_not_fit_are_one_line(files: dict[str, Path], make: Callable[[], Skips | None],
                                            damage: Callable[[dict], object] | None, says: str) -> None:
    saved(files["out"], tiny_generator(), make())
    if damage:
        resaved(files["out"], damage)
    load_enlarger(files["out"], files["generator"], "bicubic", 0)  # pure does not mind
    with pytest.raises(StylebotError, match=says) as caught:
        load_enlarger(files["out"], files["generator"], "bicubic", 0, "faithful")
    assert "\n" not in str(caught.value)


def test_a_generator_too_small_for_skips() -> None:
    with pytest.raises(StylebotError, match="8 px or more, not 4 px"):
        skips_for(Generator(4, 0, 8, 4, 3, 2, channel_base=32, channel_max=8))


def test_enlarge_adds_what_faithful_is_measured_against(files: dict[str, Path]) -> None:
    rgbs, g = torch.from_numpy(Dataset(files["dataset"]).read_all()), tiny_generator().eval()
    pure = Enlarger(Encoder("light", 32, w_dim=8).eval(), g)
    plain, found = enlarge(rgbs, 4, pure), enlarge(rgbs, 4, replace(pure, skips=drawn_skips(g)))
    assert plain.lanczos is None and plain.pure is None
    assert torch.equal(found.pure, plain.result) and not torch.equal(found.result, plain.result)
    assert torch.equal(found.bicubic, plain.bicubic)
    gap = (found.lanczos.float() - found.bicubic.float()).abs()
    assert 0 < float(gap.mean()) < 4 and found.lanczos.shape == rgbs.shape  # of 255


def test_superres_faithful_is_measured_against_all(files: dict[str, Path], tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylebot.domains.Identity", MeanColour)
    monkeypatch.setattr("stylebot.domains.Inception", Colours)
    for name in ("identity", "inception"):
        (tmp_path / name).write_bytes(b"")
    saved(files["out"], tiny_generator(), drawn_skips(tiny_generator()))
    faces = {name: faces_zip(tmp_path / f"{name}.zip", 12) for name in ("heldout", "dataset")}
    inputs = Inputs(files["out"], files["generator"], **faces, base=files["generator"],
                    perceptual=files["perceptual"], identity=tmp_path / "identity",
                    inception=tmp_path / "inception")  # fmt: skip
    wanted = superres(inputs, tmp_path / "pure", superres_params())
    found = superres(inputs, tmp_path / "faithful", superres_params(mode="faithful"))
    assert found.keys() == wanted.keys() and len(found) <= 16
    pure, table = (pd.read_csv(tmp_path / mode / "table.csv") for mode in ("pure", "faithful"))
    assert set(table["method"]) == {"bicubic", "lanczos", "pure", "result"}
    assert set(pure["method"]) == {"bicubic", "result"}
    same = table[table["method"] == "pure"].assign(method="result").reset_index(drop=True)
    pd.testing.assert_frame_equal(same, pure[pure["method"] == "result"].reset_index(drop=True))
    assert found["superres_psnr_x4"] == pytest.approx(metrics_of(table)["superres_psnr_x4"], rel=1e-4)
    assert found["superres_psnr_x4"] != wanted["superres_psnr_x4"]
    assert found["superres_psnr_bicubic_x4"] == wanted["superres_psnr_bicubic_x4"]
    with Image.open(tmp_path / "faithful" / "rows_x4.png") as rows:
        assert rows.size == (4 * 32, 3 * 32)  # what the report cuts apart
