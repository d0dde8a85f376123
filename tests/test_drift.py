"""drift.py: two decoders on the same faces, pulled latents, files that do not fit, the command line."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_encode import narrow_perceptual, tiny_generator
from test_superres import Colours, MeanColour

from stylebot.checkpoints import Networks, save_networks
from stylebot.dataset import Dataset, write_dataset
from stylebot.degrade import to_rgb
from stylebot.drift import (
    Files,
    How,
    Measured,
    check,
    drift,
    in_order,
    mixed,
    together,
    trained_so,
    unlike,
    verdict,
)
from stylebot.encoder import Encoder, save_encoder
from stylebot.errors import StylebotError
from stylebot.files import sha256_file
from stylebot.frechet import Estimate
from stylebot.generator import Generator
from stylebot.render import render

ROOT = Path(__file__).parents[1]
HOW = How("bicubic", (4,), 12, 0, (1.0,))


@pytest.fixture(autouse=True)
def narrow_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A light encoder of a few thousand parameters, for speed."""
    monkeypatch.setattr("stylebot.encoder._LIGHT_STAGES", ((16, 1), (16, 1), (16, 1), (16, 1)))


def save(path: Path, generator: Generator) -> Path:
    save_networks(path, Networks(G=None, D=None, G_ema=generator))
    return path


def regional(base: Generator) -> Generator:
    """The base generator with other colours: what fine-tuning to a region would make of it."""
    torch.manual_seed(5)
    tuned = Generator(4, 0, 8, 32, 3, 2, channel_base=128, channel_max=4)
    tuned.load_state_dict(base.state_dict())
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            if name.endswith("torgb.bias"):
                value += torch.tensor([0.25, -0.1, -0.25])
    return tuned


def untrained(path: Path, generator: Path, average: torch.Tensor) -> Path:
    """An encoder whose codes vary from face to face about the generator's average."""
    torch.manual_seed(1)
    encoder = Encoder("light", 32, w_dim=8)
    encoder.latent_avg.copy_(average.expand_as(encoder.latent_avg))
    with torch.no_grad():
        for head in encoder.net.heads:
            head.weight *= 30
    save_encoder(path, encoder, {"generator_sha256": sha256_file(generator)})
    return path


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the pipeline would leave: a region whose faces have warmer colours than the base's."""
    monkeypatch.setattr("stylebot.domains.Identity", MeanColour)
    monkeypatch.setattr("stylebot.domains.Inception", Colours)
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    base = tiny_generator().eval()
    tuned = regional(base).eval()
    faces = render(tuned, range(100, 140)).permute(0, 2, 3, 1).numpy()
    for name, rows in (("heldout", faces[:16]), ("dataset", faces[16:])):
        (tmp_path / "pack").mkdir(exist_ok=True)
        write_dataset(tmp_path / "pack" / f"{name}.zip", list(rows))
    for name in ("fetch", "train", "encode", "base"):
        (tmp_path / name).mkdir()
    a = save(tmp_path / "train" / "networks.safetensors", tuned)
    b = save(tmp_path / "fetch" / "generator.safetensors", base)
    untrained(tmp_path / "encode" / "encoder.safetensors", a, tuned.mapping.w_avg)
    untrained(tmp_path / "base" / "encoder.safetensors", b, base.mapping.w_avg)
    for name in ("identity.dat", "inception.pt"):
        (tmp_path / "fetch" / name).write_bytes(b"")
    narrow_perceptual(tmp_path / "fetch" / "perceptual.pth")
    return tmp_path


def pairs(stages: Path) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
    return ((stages / "encode/encoder.safetensors", stages / "train/networks.safetensors"),
            (stages / "base/encoder.safetensors", stages / "fetch/generator.safetensors"))  # fmt: skip


def test_the_base_decoder_drifts_and_ours_does_not(stages: Path) -> None:
    table, said = drift(*pairs(stages), Files.of(stages), HOW)
    found = table.set_index(["who", "name"])
    assert found.loc[("B", "drift"), "low"] > 0.5
    assert abs(found.loc[("A", "drift"), "value"]) < 0.5 * found.loc[("B", "drift"), "value"]
    assert found.loc[("A", "kid_region"), "high"] < found.loc[("B", "kid_region"), "low"]
    assert found.loc[("B", "kid_base"), "high"] < found.loc[("A", "kid_base"), "low"]
    ratio = found.loc[("A:B", "drift_ratio")]
    wanted = found.loc[("A", "drift"), "value"] / found.loc[("B", "drift"), "value"]
    assert ratio["low"] < ratio["value"] < ratio["high"] and ratio["value"] == pytest.approx(wanted)
    assert len(said) == 2 and said[0] == "both encoders: trained by one recipe"
    assert said[1].startswith(f"x4: A drifts {ratio['value']:.2f} times as far as B")


def test_pulled_the_whole_way_everybody_is_the_average_face(stages: Path) -> None:
    table, _ = drift(*pairs(stages), Files.of(stages), replace(HOW, pulls=(1.0, 0.0)))
    assert len(table) == 2 * 2 * 4 + 2
    g = tiny_generator().eval()
    average = to_rgb(g.synthesis(g.mapping.w_avg.expand(1, g.num_ws, -1), noise_mode="const"))[0]
    who = MeanColour(stages / "fetch" / "identity.dat")
    faces = [face.transpose(1, 2, 0) for face in Dataset(stages / "pack" / "heldout.zip").read_all()]
    wanted = np.linalg.norm(who.embed(faces) - who.embed([average.permute(1, 2, 0).numpy()]), axis=1).mean()
    found = table.set_index(["who", "pull", "name"])["value"]
    assert found["B", 0.0, "id_distance"] == pytest.approx(wanted, rel=1e-4)
    assert found["B", 1.0, "id_distance"] != pytest.approx(wanted, rel=1e-2)


def test_known_changes_move_the_measures_in_order(stages: Path) -> None:
    """Pulled to the average face they fall or rise at every step; mixed with the base drift goes to 1."""
    table, said = check(stages / "train/networks.safetensors", Files.of(stages), HOW, 40, 1.9)
    found = table.set_index(["who", "name", "step"])["value"].sort_index()
    for name in ("psnr_db", "ssim", "lpips", "id_distance"):
        assert in_order(found["pulled", name].to_list()), name
    assert found["pulled", "lpips", 1.0] == found["pulled", "id_distance", 1.0] == 0
    assert found["pulled", "psnr_db", 1.0] == 99 and found["pulled", "same_person", 1.0] == 1
    for name in ("drift", "kid_region", "lpips", "kid_base"):
        assert in_order(found["mixed", name].to_list()), name
    assert found["mixed", "drift", 0.0] == 0 and found["mixed", "drift", 1.0] == pytest.approx(1, abs=0.2)
    assert found["mixed", "kid_base", 1.0] < found["mixed", "kid_base", 0.0]
    assert "mixed: in order: drift" in said[1] and set(table.columns) >= {"low", "high"}
    assert "same_person" in said[0].partition("not in order")[2], "nobody is so far: all steps are equal"


def test_mixed_weights_lie_between() -> None:
    base, warm = tiny_generator(), regional(tiny_generator())
    half = mixed(warm, base, 0.5).state_dict()
    name = "synthesis.b32.torgb.bias"
    torch.testing.assert_close(half[name], (base.state_dict()[name] + warm.state_dict()[name]) / 2)
    with pytest.raises(StylebotError, match="neither was fine-tuned"):
        mixed(warm, tiny_generator(w_dim=16), 0.5)
    assert in_order([1, 2, 5]) and in_order([3, 1, 0]) and not in_order([1, 1, 2]) and not in_order([1, 3, 2])


def test_recipes_are_told_apart(stages: Path) -> None:
    (a, g), _ = pairs(stages)
    encoder, wanted = Encoder("light", 32, w_dim=8), {"kimg": 4, "lr": 0.1, "faithful": {"kimg": 0}}
    b = stages / "b.safetensors"
    meta = {"generator_sha256": sha256_file(g), "params": wanted, "left_out": {"id": "why"}}
    save_encoder(b, encoder, meta)
    assert trained_so(b, g, wanted | {"faithful": {"kimg": 3}})
    assert not trained_so(b, g, wanted | {"kimg": 5}) and not trained_so(stages / "none", g, wanted)
    assert not trained_so(b, stages / "fetch/generator.safetensors", wanted)
    assert unlike(b, b) == "both encoders: trained by one recipe"
    assert unlike(a, b) == ("careful: other recipes: kimg None and 4, losses left out [] and ['id'], "
                            "lr None and 0.1")  # fmt: skip


def test_together_is_paired() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(1, 0.5, 80)  # what drifts with one decoder drifts with the other
    a = Measured(0.5 * hard, 0.4 + 0.1 * hard, {})
    b = Measured(hard + 0.01 * rng.normal(size=80), 0.45 + 0.1 * hard + 0.001 * rng.normal(size=80), {})
    found = together(a, b, 0)
    ratio, gain = found["drift_ratio"], found["identity_gain"]
    assert ratio.low < 0.5 < ratio.high and ratio.high - ratio.low < 0.02
    assert gain.low < 0.05 < gain.high and gain.high - gain.low < 0.002
    assert "nearer to the originals" in verdict(8, found, Estimate(1, 0.9, 1.1))
    assert "does not drift beyond noise" in verdict(8, found, Estimate(0.1, -0.1, 0.3))


def test_what_does_not_fit_is_one_line(stages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pairs(stages)
    narrow = save(stages / "narrow.safetensors", tiny_generator(w_dim=16))
    large = save(stages / "large.safetensors", tiny_generator(64))
    files = Files.of(stages)
    with pytest.raises(StylebotError, match="w_dim 8, this one has 32 px and w_dim 16"):
        drift(a, (b[0], narrow), files, HOW)
    with pytest.raises(StylebotError, match="this one has 64 px"):
        drift(a, (b[0], large), files, HOW)
    for pulls in ((), (1.0, 1.5)):
        with pytest.raises(StylebotError, match="--pull takes numbers from 0"):
            drift(a, b, files, How("bicubic", (4,), 12, 0, pulls))
    monkeypatch.setattr("stylebot.probes.CLEAR", 1.01)
    with pytest.raises(StylebotError, match=r"told apart in .* of pairs only"):
        drift(a, b, files, HOW)
    files.inception.unlink()
    with pytest.raises(StylebotError, match=r"inception\.pt; `dvc repro` brings"):
        Files.of(stages)


def test_the_command_line_ends_in_one_line(stages: Path) -> None:
    a, b = pairs(stages)
    given = {"--encoder-a": a[0], "--generator-a": a[1], "--encoder-b": b[0], "--generator-b": b[1],
             "--stages": stages, "--pull": "1,half"}  # fmt: skip
    command = [sys.executable, "src/drift.py", *(str(word) for pair in given.items() for word in pair)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "--pull 1,half: numbers from 0 to 1 are wanted" in done.stderr


def test_faces_are_what_the_pictures_say(stages: Path) -> None:
    """The stand-ins see the region's colours: otherwise the tests above show nothing."""
    who = MeanColour(stages / "fetch" / "identity.dat")
    base = render(tiny_generator().eval(), range(12)).permute(0, 2, 3, 1).numpy()
    warm = render(regional(tiny_generator()).eval(), range(12)).permute(0, 2, 3, 1).numpy()
    assert who.embed(warm)[:, 0].mean() > who.embed(base)[:, 0].mean() + 0.03
    assert Image.fromarray(warm[0]).size == (32, 32)
