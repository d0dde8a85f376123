"""ADA: equal to the reference implementation, and equal to what its operations mean."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from stylebot.augment import COLOR, PRESETS, AugmentPipe, ada_update
from stylebot.draws import NORMAL, UNIFORM, Draws
from stylebot.wavelets import SYM2, SYM6, octave_bands

DATA = Path(__file__).parent / "data"
SINGLE = [name for name in PRESETS["bgcfnc"] if name != "noise"]


@pytest.fixture(scope="module")
def percentile() -> dict[str, np.ndarray]:
    with np.load(DATA / "augment_percentile.npz") as data:
        return dict(data)


def pipe(preset, p: float = 1.0, padding: str = "reference") -> AugmentPipe:
    out = AugmentPipe(preset, padding)
    out.p.fill_(p)
    return out


def no_draws(count: int) -> Draws:
    """Values in the middle of everything, no gate open."""
    return Draws(np.full((count, len(UNIFORM)), 1.0), np.zeros((count, len(NORMAL))), None)


@pytest.mark.parametrize("name", [*SINGLE, "bg", "color", "blit", "geom"])
def test_each_operation_equals_the_reference(percentile: dict, name: str) -> None:
    preset = PRESETS[name] if name in PRESETS and name != "cutout" else {name: 1}
    got = pipe(preset)(torch.tensor(percentile["images"]), debug_percentile=0.9)
    np.testing.assert_allclose(got.numpy(), percentile[f"{name}/0.9"], atol=1e-5)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_bgc_and_its_gradient_equal_the_reference_in_float64(percentile: dict, p: float) -> None:
    img = torch.tensor(percentile["images"]).double().requires_grad_()
    got = pipe("bgc")(img, debug_percentile=p)
    (grad,) = torch.autograd.grad((got * torch.tensor(percentile["dy"])).sum(), img)
    np.testing.assert_allclose(got.detach().numpy(), percentile[f"bgc/{p}"], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(grad.numpy(), percentile[f"bgc/{p}/grad"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_grey_equals_the_reference_in_float64(percentile: dict, p: float) -> None:
    got = pipe("bgc")(torch.tensor(percentile["grey/images"]).double(), debug_percentile=p)
    np.testing.assert_allclose(got.numpy(), percentile[f"grey/bgc/{p}"], rtol=1e-9, atol=1e-10)


def tape_draws(data: Mapping[str, np.ndarray], p: float) -> Draws:
    """The reference's random numbers for one p ("tape{p}/…"), in our table of them."""
    uniform, normal = np.zeros((6, len(UNIFORM))), np.zeros((6, len(NORMAL)))
    for key in data:
        if not key.startswith(f"tape{p}/"):
            continue
        name, kind = key.split("_", 1)[1].rsplit("_", 1)
        operation, role = name.split(".")
        values = data[key].reshape(6, -1)
        table, out = (UNIFORM, uniform) if kind == "rand" else (NORMAL, normal)
        if role == "gate":
            uniform[:, UNIFORM[f"{operation}?"]] = values[:, 0]
        elif operation in ("xint", "xfrac"):
            out[:, table[f"{operation}_x"]], out[:, table[f"{operation}_y"]] = values.T
        else:
            out[:, table[operation]] = values[:, 0]
    return Draws(uniform, normal, None)


@pytest.mark.parametrize(("p", "tolerance"), [(0.8, 1e-9), (1.6, 5e-5)])
def test_random_tape_equals_the_reference(p: float, tolerance: float) -> None:
    with np.load(DATA / "augment_tape.npz") as data:
        img = torch.tensor(data["images"])
        got = pipe("bgc", p)(img.double() if p == 0.8 else img, draws=tape_draws(data, p))
        np.testing.assert_allclose(got.numpy(), data[f"p{p}"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", json.loads((DATA / "ada_p.json").read_text()), ids=lambda c: c["name"])
def test_p_rule_equals_the_reference_bit_for_bit(case: dict) -> None:
    p = float(np.float32(case["p0"]))
    steps = zip(case["collector_mean_at_adjustment"], case["p_after_each_iteration"], strict=False)
    for sign_mean, after in steps:
        if sign_mean is not None:
            p = ada_update(p, sign_mean, case["ada_target"], case["batch_size"], case["ada_interval"],
                           case["ada_kimg"], p_max=float("inf"))
        assert p == after


def test_p_is_bounded() -> None:
    assert ada_update(0.8, 1.0, 0.6, 64, 4, 1) == pytest.approx(0.8)
    assert ada_update(0.0, -1.0, 0.6, 64, 4, 1) == 0.0


def test_wavelets_are_orthogonal_and_bands_sum_to_an_impulse() -> None:
    for taps, moments in ((SYM6, 6), (SYM2, 2)):
        assert taps.sum() == pytest.approx(np.sqrt(2))
        for shift in range(0, len(taps), 2):
            lagged = np.dot(taps[shift:], taps[: len(taps) - shift])
            assert lagged == pytest.approx(float(shift == 0), abs=1e-10)
        k = np.arange(len(taps))
        assert all(abs((taps * (-1.0) ** k * k**m).sum()) < 1e-6 for m in range(min(moments, 4)))
    total = octave_bands().sum(axis=0)
    impulse = np.zeros(43)
    impulse[21] = 1
    np.testing.assert_allclose(total, impulse, atol=1e-12)


def test_p_zero_returns_the_picture_itself() -> None:
    img = torch.randn(2, 3, 16, 16)
    assert AugmentPipe("bgcfnc")(img) is img


def test_same_generator_same_pictures_and_rows_are_per_sample() -> None:
    img, augment = torch.rand(6, 3, 16, 16, dtype=torch.float64), pipe("bgcfnc", 0.7, "tight")
    one, two = (augment(img, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, augment(img, torch.Generator().manual_seed(4)))
    draws = augment.draw(tuple(img.shape), torch.Generator().manual_seed(3))
    halves = [augment(img[rows], draws=draws.rows(rows)) for rows in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(torch.cat(halves), one, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("preset", "p"), [("bgc", 0.8), ("face", 0.8), ("bgc", 0.1)])
def test_fixed_padding_gives_the_same_as_tight(preset: str, p: float) -> None:  # p 0.1: some stay unmoved
    img = torch.rand(8, 3, 24, 24, dtype=torch.float64)
    draws = AugmentPipe(preset).draw(tuple(img.shape), torch.Generator().manual_seed(0))
    tight, fixed = (pipe(preset, p, padding)(img, draws=draws) for padding in ("tight", "fixed"))
    torch.testing.assert_close(tight, fixed, atol=1e-9, rtol=0)


def one_gate(count: int, name: str, **values: float) -> Draws:
    draws = no_draws(count)
    draws.uniform[:, UNIFORM[f"{name}?"]] = 0.0
    for column, value in values.items():
        table, array = (UNIFORM, draws.uniform) if column in UNIFORM else (NORMAL, draws.normal)
        array[:, table[column]] = value
    return draws


def smooth_picture() -> torch.Tensor:
    """[1, 3, 32, 32]: one blob off the centre, far from the rim, so soft that resampling keeps it."""
    x = torch.arange(32, dtype=torch.float64)
    blob = torch.exp(-((x[:, None] - 12) ** 2 + (x[None, :] - 18) ** 2) / 18)
    return blob.expand(1, 3, 32, 32)


def test_flip_quarter_turn_shift_and_zoom_are_what_they_say() -> None:
    img, augment = smooth_picture(), pipe("bgc", 0.5, "tight")
    near = {"atol": 0.03, "rtol": 0}  # sym6 is nearly, not wholly, symmetric
    torch.testing.assert_close(augment(img, draws=one_gate(1, "xflip", xflip=0.9)), img.flip(3), **near)
    turned = augment(img, draws=one_gate(1, "rotate90", rotate90=0.3))
    torch.testing.assert_close(turned, img.rot90(1, (2, 3)), **near)
    moved = augment(img, draws=one_gate(1, "xint", xint_x=1.0, xint_y=0.5))  # 0.125 · 32 = 4 px to the right
    torch.testing.assert_close(moved[..., 12:], img.roll(4, 3)[..., 12:], atol=1e-9, rtol=0)
    drawn = one_gate(1, "xfrac", xfrac_x=0.0, xfrac_y=0.625)  # 0.625 · 0.125 · 32 = 2.5 px down
    halfway = (img.roll(2, 2) + img.roll(3, 2)) / 2
    torch.testing.assert_close(augment(img, draws=drawn), halfway, atol=0.02, rtol=0)
    small = augment(img, draws=one_gate(1, "scale", scale=-5.0))  # half the size
    halved = torch.nn.functional.avg_pool2d(img, 2)
    torch.testing.assert_close(small[..., 8:24, 8:24], halved, atol=0.05, rtol=0)


def test_colours_are_what_they_say() -> None:
    img, augment = torch.rand(2, 3, 8, 8), pipe("color", 0.5)
    bright = augment(img, draws=one_gate(2, "brightness", brightness=1.5))
    torch.testing.assert_close(bright, img + 0.3)
    strong = augment(img, draws=one_gate(2, "contrast", contrast=2.0))
    torch.testing.assert_close(strong, img * 2)
    grey = augment(img, draws=one_gate(2, "saturation", saturation=-60.0))
    torch.testing.assert_close(grey, img.mean(dim=1, keepdim=True).expand_as(img))
    third = augment(img, draws=one_gate(2, "hue", hue=0.5 + 1 / 3))  # a third of a turn permutes R, G, B
    assert min((third - img.roll(k, 1)).abs().max() for k in (1, 2)) < 1e-6
    luma = augment(img, draws=one_gate(2, "lumaflip", lumaflip=0.9))
    torch.testing.assert_close(luma.mean(dim=1), -img.mean(dim=1))


def test_cutout_and_noise() -> None:
    img = torch.ones(1, 3, 16, 16)
    cut = pipe("cutout", 0.5)(img, draws=one_gate(1, "cutout", cutout_x=0.5, cutout_y=0.5))
    assert cut[:, :, 4:12, 4:12].abs().sum() == 0 and cut.sum() == 3 * (256 - 64)
    draws = one_gate(1, "noise", noise=-2.0)._replace(pixels=torch.randn(1, 3, 16, 16))
    torch.testing.assert_close(pipe("noise", 0.5)(img, draws=draws), img + 0.2 * draws.pixels)


def test_probability_of_each_operation_is_its_multiplier_times_p() -> None:
    shape = (4000, 3, 4, 4)
    augment = pipe({"brightness": 0.5}, 0.6)
    got = augment(torch.zeros(shape), torch.Generator().manual_seed(0))
    assert (got.flatten(1).abs().sum(dim=1) > 0).float().mean() == pytest.approx(0.3, abs=0.03)


def test_second_derivative_through_the_pipe() -> None:
    augment = pipe("bgcf", 0.9, "tight")
    img = torch.rand(3, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(3, 12, 12, dtype=torch.float64, requires_grad=True)
    draws = augment.draw(tuple(img.shape), torch.Generator().manual_seed(5))

    def penalty(w: torch.Tensor) -> torch.Tensor:
        score = (augment(img, draws=draws).square() * w).sum()
        (grad,) = torch.autograd.grad(score, img, create_graph=True)
        return grad.square().sum()

    assert torch.autograd.gradcheck(penalty, (weight,), eps=1e-4, atol=1e-4, rtol=1e-5, fast_mode=True)


def test_face_preset_has_no_quarter_turn_and_no_luma_flip() -> None:
    settings = AugmentPipe("face").settings
    assert settings["rotate90"] == settings["lumaflip"] == 0 and settings["hue_max"] < 0.1


def test_p_stays_on_the_cpu_and_is_saved() -> None:
    augment = pipe("bgc", 0.25).to("meta")
    assert augment.p.device.type == "cpu" and float(augment.state_dict()["p"]) == 0.25


@pytest.mark.parametrize("bad", ["colour", {"xflop": 1}])
def test_unknown_settings_are_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"xflop|colour"):
        AugmentPipe(bad)


def test_every_preset_runs_on_small_and_oblong_pictures() -> None:
    for preset in PRESETS:
        for shape in ((2, 3, 4, 4), (2, 1, 8, 16)):
            out = pipe(preset, 1.0, "tight")(torch.rand(shape), torch.Generator().manual_seed(1))
            assert out.shape == shape and out.isfinite().all()
    assert set(COLOR) < set(PRESETS["bgc"])
