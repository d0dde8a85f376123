"""Stage `encode`: what a step trains, exact restarts, degraded inputs, errors; all with tiny networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_perceptual import drawn

from stylebot import encode as stage
from stylebot.checkpoints import Networks, save_networks
from stylebot.dataset import write_dataset
from stylebot.degrade import degrade, resize, shrink, to_img, to_rgb
from stylebot.encode import EncodeParams, Faces, Judges, batch_at, encode, losses, make_faces
from stylebot.encoder import Encoder, load_encoder
from stylebot.errors import StylebotError, TrainingDiverged
from stylebot.generator import Generator
from stylebot.params import load_params
from stylebot.perceptual import Perceptual

PARAMS = {
    "variant": "light", "start": "nothing", "kimg": 0.024, "batch": 4, "lr": 0.002, "lr_schedule": "cosine",
    "l2_weight": 1.0, "lpips_weight": 0.8, "id_weight": 0.0, "id_weights": "nothing", "w_norm_weight": 0.005,
    "w_weight": 1.0, "factors": [1, 4], "degradation": "bicubic", "mirror": True, "synthetic_share": 0.5,
    "synthetic_faces": 8, "synthetic_psi": 1.0, "amp": "never", "compile": "auto",
    "faithful": {"kimg": 0, "lr": 0.002, "consistency_weight": 1.0}, "seed": 3,
}  # fmt: skip
NARROW = {"net.slice1.0": (3, 11), "net.slice2.5": (4, 5), "net.slice3.9": (4, 3), "net.slice4.11": (4, 3),
          "net.slice5.13": (4, 3)}  # fmt: skip


def params(**changes: object) -> EncodeParams:
    return EncodeParams.model_validate(PARAMS | changes)


def narrow_perceptual(path: Path) -> Path:
    """A perceptual network of four channels under the real names."""
    state = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.ones(1, 3, 1, 1)}
    for i, (name, (inputs, k)) in enumerate(NARROW.items()):
        state[f"{name}.weight"] = drawn(name, 4, inputs, k, k) / k
        state[f"{name}.bias"] = drawn(f"{name}.bias", 4)
        state[f"lin{i}.model.1.weight"] = drawn(f"lin{i}", 1, 4, 1, 1).abs()
    torch.save(state, path)
    return path


def tiny_generator(resolution: int = 32, w_dim: int = 8, channels: int = 3) -> Generator:
    torch.manual_seed(5)
    generator = Generator(4, 0, w_dim, resolution, channels, 2, channel_base=128, channel_max=4)
    generator.mapping.w_avg.normal_(std=0.1)
    return generator


def faces_zip(path: Path, count: int = 6, resolution: int = 32) -> Path:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    write_dataset(path, [np.asarray(Image.fromarray(s).resize((resolution, resolution))) for s in small])
    return path


@pytest.fixture(autouse=True)
def narrow_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A light encoder of a few thousand parameters, for speed."""
    monkeypatch.setattr("stylebot.encoder._LIGHT_STAGES", ((16, 1), (16, 1), (16, 1), (16, 1)))


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Tiny files under the names of the stage's arguments, and a scratch folder of the test's own."""
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    generator = tiny_generator()
    save_networks(tmp_path / "g.safetensors", Networks(G=None, D=None, G_ema=generator))
    return {"generator": tmp_path / "g.safetensors", "dataset": faces_zip(tmp_path / "faces.zip"),
            "perceptual": narrow_perceptual(tmp_path / "p.pth"), "out": tmp_path / "out" / "e.safetensors"}


def test_shrinking_is_pillows(rng: torch.Generator) -> None:
    rgb = torch.randint(60, 190, (1, 3, 32, 32), generator=rng).to(torch.uint8)
    wanted = Image.fromarray(rgb[0].permute(1, 2, 0).numpy()).resize((8, 8), Image.Resampling.BICUBIC)
    small = shrink(to_img(rgb), 4)
    assert torch.equal(small, to_img(to_rgb(small)))  # what an 8-bit file would hold
    found = to_rgb(small)[0].permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - np.asarray(wanted).astype(int)).max() <= 1


def test_degrade_gives_each_picture_its_own_factor(rng: torch.Generator) -> None:
    img = to_img(torch.randint(0, 256, (4, 3, 16, 16), generator=rng).to(torch.uint8))
    found = degrade(img, [4, 1, 2, 4])
    assert torch.equal(found[1], img[1])
    assert torch.equal(found[2:3], degrade(img[2:3], [2]))
    assert torch.equal(found[[0, 3]], resize(shrink(img[[0, 3]], 4), 16, "bilinear"))
    assert float(found.abs().max()) <= 1


def test_uint8_survives_the_way_there_and_back() -> None:
    rgb = torch.arange(256).to(torch.uint8)
    assert torch.equal(to_rgb(to_img(rgb)), rgb)


def some_faces(generator: Generator) -> Faces:
    real = torch.arange(5 * 3 * 32 * 32).remainder(251).to(torch.uint8).reshape(5, 3, 32, 32)
    return Faces(real, *make_faces(generator, 40, 1.0, 3))


def test_batches_depend_on_progress_and_seed_alone() -> None:
    faces = some_faces(tiny_generator().eval())
    one, again = batch_at(faces, params(), 8), batch_at(faces, params(), 8)
    assert torch.equal(one.small, again.small)
    assert one.n_real == 2
    assert not torch.equal(one.small, batch_at(faces, params(), 12).small)
    assert not torch.equal(one.small, batch_at(faces, params(seed=4), 8).small)


@pytest.mark.parametrize(("share", "n_real"), [(0.0, 4), (1.0, 0), (0.25, 3)])
def test_share_of_generated_faces(share: float, n_real: int) -> None:
    batch = batch_at(some_faces(tiny_generator().eval()), params(synthetic_share=share), 0)
    assert (batch.n_real, len(batch.w), len(batch.small)) == (n_real, 4 - n_real, 4)


def test_generated_faces_are_what_their_styles_give() -> None:
    generator = tiny_generator().eval()
    rgbs, w = make_faces(generator, 40, 0.7, 1)
    img = generator.synthesis(w[:, None].expand(-1, generator.num_ws, -1), noise_mode="const")
    gap = (to_rgb(img).int() - rgbs.int()).abs()
    assert gap.max() <= 1 and (gap > 0).float().mean() < 1e-3  # drawn without gradients: other rounding
    assert torch.equal(make_faces(generator, 33, 0.7, 1)[1][:32], w[:32])


def test_losses_are_zero_for_the_right_codes(inputs: dict[str, Path]) -> None:
    generator = stage.frozen(tiny_generator())
    judges = Judges(Perceptual(inputs["perceptual"]))
    w = make_faces(generator, 4, 1.0, 0)[1]
    codes = w[:, None].repeat(1, generator.num_ws, 1)
    img = generator.synthesis(codes, noise_mode="const")
    batch = stage.Batch(img, img, w[2:], 2)
    found = losses(batch, codes, generator, judges, params())
    assert found["w"] == found["l2"] == found["lpips"] == 0
    norms = (codes[:2] - generator.mapping.w_avg).square().sum((1, 2)).sqrt()
    assert float(found["w_norm"]) == pytest.approx(float(norms.mean()))
    twice = stage.Batch(img, img, w[2:], 2, 0.1)
    assert float(losses(twice, codes + 0.5, generator, judges, params())["w"]) == pytest.approx(2.5)


def test_the_best_constant_guess_has_the_loss_one(inputs: dict[str, Path]) -> None:
    generator = stage.frozen(tiny_generator())
    faces = some_faces(generator)
    batch = stage.Batch(to_img(faces.fake), to_img(faces.fake), faces.fake_w, 0, faces.w_variance)
    mean = faces.fake_w.mean(0).expand(40, generator.num_ws, -1)
    found = losses(batch, mean, generator, Judges(Perceptual(inputs["perceptual"])), params())
    assert float(found["w"]) == pytest.approx(1)


def test_only_the_encoder_gets_gradients(inputs: dict[str, Path]) -> None:
    generator = stage.frozen(tiny_generator())
    encoder = Encoder("light", 32, w_dim=8)
    batch = batch_at(some_faces(generator), params(), 0)
    found = losses(batch, encoder(batch.small), generator, Judges(Perceptual(inputs["perceptual"])), params())
    torch.stack(list(found.values())).sum().backward()
    assert not any(p.grad is not None or p.requires_grad for p in generator.parameters())
    assert all(p.grad is not None for p in encoder.parameters())


def test_writes_an_encoder_that_learned(inputs: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    short = encode(**inputs, params=params(kimg=0.02, synthetic_share=1.0, factors=[1]))
    longer = encode(**inputs, params=params(kimg=0.2, synthetic_share=1.0, factors=[1]))
    assert set(longer) == {"encode_w"}
    assert longer["encode_w"] < 0.6 * short["encode_w"]
    net, meta = load_encoder(inputs["out"])
    assert meta["kimg"] == 0.2
    assert meta["left_out"] == {}
    assert "identity loss" not in capsys.readouterr().out
    average = tiny_generator().mapping.w_avg
    assert torch.equal(net.latent_avg, average.expand(8, -1))


def test_says_which_loss_it_leaves_out(inputs: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    encode(**inputs, params=params(id_weight=0.1, kimg=0.004))
    assert "identity loss is left out" in capsys.readouterr().out
    assert "ArcFace" in load_encoder(inputs["out"])[1]["left_out"]["id"]


def interrupted_at(cur_nimg: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the process die, as it were, before the step that follows `cur_nimg` faces."""
    real = stage.batch_at

    def dying(faces: Faces, p: EncodeParams, at: int) -> stage.Batch:
        if at == cur_nimg:
            raise KeyboardInterrupt
        return real(faces, p, at)

    monkeypatch.setattr(stage, "batch_at", dying)


def test_a_killed_run_goes_on_to_the_same_weights(
    inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("stylebot.fitting._SAVE_EVERY", 2)
    wanted = encode(**inputs, params=params())
    whole = load_encoder(inputs["out"])[0].state_dict()
    inputs["out"].unlink()
    with monkeypatch.context() as patch:
        interrupted_at(20, patch)
        with pytest.raises(KeyboardInterrupt):
            encode(**inputs, params=params())
    assert not inputs["out"].exists()
    assert encode(**inputs, params=params()) == wanted
    assert "going on from 0.02 kimg" in capsys.readouterr().out
    resumed = load_encoder(inputs["out"])[0].state_dict()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)
    assert not list((inputs["out"].parents[1] / "scratch").rglob("*.pt"))


def test_another_runs_remains_are_not_continued(
    inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("stylebot.fitting._SAVE_EVERY", 2)
    with monkeypatch.context() as patch:
        interrupted_at(16, patch)
        with pytest.raises(KeyboardInterrupt):
            encode(**inputs, params=params())
    encode(**inputs, params=params(lr=0.001))
    assert "starting anew" in capsys.readouterr().out


def test_divergence_is_an_error(inputs: dict[str, Path]) -> None:
    broken = tiny_generator()
    broken.mapping.w_avg.fill_(1e30)  # beyond what float32 can square
    save_networks(inputs["generator"], Networks(G=None, D=None, G_ema=broken))
    with pytest.raises(TrainingDiverged, match=r"lower encode\.lr"):
        encode(**inputs, params=params())
    assert not inputs["out"].exists()


@pytest.mark.parametrize(("resolution", "channels", "changes", "says"), [
    (64, 3, {}, "faces of 32 px, the generator makes 64 px"), (32, 1, {}, "colour"),
    (32, 3, {"factors": [32]}, "less than 2 px")])
def test_inputs_that_do_not_fit(inputs: dict[str, Path], resolution: int, channels: int, changes: dict,
                                says: str) -> None:
    odd = tiny_generator(resolution, channels=channels)
    save_networks(inputs["generator"], Networks(G=None, D=None, G_ema=odd))
    with pytest.raises(StylebotError, match=says):
        encode(**inputs, params=params(**changes))


def test_bad_parameters_are_named(tmp_path: Path) -> None:
    lines = [f"  {k}: {str(v).lower()}" for k, v in (PARAMS | {"factors": [3], "batch": 1, "lr": 0}).items()]
    (tmp_path / "params.yaml").write_text("\n".join(["encode:", *lines]))
    with pytest.raises(StylebotError) as caught:
        load_params("encode", EncodeParams, path=tmp_path / "params.yaml")
    assert all(f"encode.{name}" in str(caught.value) for name in ("factors", "batch", "lr"))
