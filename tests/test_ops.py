"""The four operations against the reference, against loops and grouped convolutions, to second order."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle import close, read
from torch import Tensor

from stylebot import ops

OPTIONS, ARRAYS = read("ops")
CASES = [(name, number) for name, cases in OPTIONS.items() for number in cases]


def case(name: str, number: str) -> tuple[dict, dict[str, Tensor], dict[str, Tensor]]:
    """Options, inputs (which collect gradients) and wanted outputs."""
    start = f"{name}/{number}/"
    mine = {k[len(start):]: a for k, a in ARRAYS.items() if k.startswith(start)}
    ins = {k[3:]: a.clone().requires_grad_() for k, a in mine.items() if k.startswith("in/")}
    return OPTIONS[name][number], ins, {k[4:]: a for k, a in mine.items() if k.startswith("out/")}


def run(name: str, options: dict, ins: dict[str, Tensor], f: Tensor | None) -> Tensor:
    if name == "upfirdn2d":
        if options["fn"] != "upfirdn2d":
            return getattr(ops, options["fn"])(ins["x"], f)
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in options["kw"].items()}
        return ops.upfirdn2d(ins["x"], f, **given)
    if name == "conv2d_resample":
        w = ins["w"].flip([2, 3]) if options["flip_weight"] == (options["up"] == 2) else ins["w"]
        return (ops.conv_up2 if options["up"] == 2 else ops.conv_down2)(ins["x"], w, ops.blur_filter())
    if name == "bias_act":
        act = options["act"]
        gain = options.get("gain", ops.ACTIVATION_GAIN[act]) / ops.ACTIVATION_GAIN[act]
        return ops.bias_act(ins["x"], ins["b"], act, gain, options.get("clamp"))
    return ops.modulated_conv2d(ins["x"], ins["weight"], ins["styles"], ops.blur_filter(), options["up"],
                                options["demodulate"], ins.get("noise"))  # fmt: skip


@pytest.mark.parametrize(("name", "number"), CASES)
def test_reference(name: str, number: str) -> None:
    options, ins, outs = case(name, number)
    y = run(name, options, ins, outs.get("filter_prepared"))
    close(y, outs["y"], what="y")
    wanted = {k[5:]: a for k, a in outs.items() if k.startswith("grad_")}
    assert wanted
    found = torch.autograd.grad((y * ins["dy"]).sum(), [ins[k] for k in wanted], create_graph=True)
    for (k, a), gradient in zip(wanted.items(), found, strict=True):
        close(gradient, a, what=f"gradient of {k}")
    if "grad2_dy" in outs:
        again = (found[list(wanted).index("x")] * ins["ddx"]).sum()
        (second,) = torch.autograd.grad(again, ins["dy"])
        close(second, outs["grad2_dy"], what="second order")
        assert outs["grad2_x"].count_nonzero() == 0


def stuffed(x: np.ndarray, f: np.ndarray, up: int, down: int, padding: tuple[int, ...]) -> np.ndarray:
    """upfirdn2d of one channel x [H, W] by definition: stuff, pad or crop, sum products, every down-th."""
    zeros = np.zeros((x.shape[0] * up, x.shape[1] * up))
    zeros[::up, ::up] = x
    left, right, top, bottom = padding
    zeros = np.pad(zeros, ((max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))))
    height, width = zeros.shape
    zeros = zeros[max(-top, 0) : height - max(-bottom, 0), max(-left, 0) : width - max(-right, 0)]
    (rows, columns), f = zeros.shape, f[::-1, ::-1]
    h, w = f.shape
    places = [(i, j) for i in range(rows - h + 1) for j in range(columns - w + 1)]
    full = np.array([(zeros[i : i + h, j : j + w] * f).sum() for i, j in places])
    return full.reshape(rows - h + 1, -1)[::down, ::down]


@pytest.mark.parametrize("k", [1, 3])
def test_shrinking_without_low_pass_keeps_every_second_pixel_of_the_convolution(
    k: int, rng: torch.Generator
) -> None:
    x, w = torch.randn(2, 3, 8, 8, generator=rng), torch.randn(5, 3, k, k, generator=rng)
    wanted = F.conv2d(x, w, padding=k // 2)[:, :, ::2, ::2]
    torch.testing.assert_close(ops.conv_down2(x, w, ops.blur_filter((1.0,))), wanted)
    assert torch.equal(ops.downsample2d(x, ops.blur_filter((1.0,))), x[:, :, ::2, ::2])


@pytest.mark.parametrize(("up", "down", "padding", "gain"), [
    (1, 1, (0, 0, 0, 0), 1.0), (2, 1, (2, 1, 2, 1), 4.0), (1, 2, (1, 1, 1, 1), 1.0),
    (3, 2, (3, -1, -2, 4), 1.7), (2, 3, (0, 5, 1, 0), -0.5), (1, 1, (-1, -1, -2, 0), 2.0)])  # fmt: skip
@pytest.mark.parametrize("separable", [True, False])
def test_upfirdn2d_by_its_definition(
    up: int, down: int, padding: tuple, gain: float, separable: bool, rng: torch.Generator
) -> None:
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64, generator=rng)
    f = torch.randn(4, dtype=torch.float64, generator=rng)
    if not separable:
        f = torch.randn(3, 4, dtype=torch.float64, generator=rng)
    square = np.outer(f, f) if separable else f.numpy()
    found = ops.upfirdn2d(x, f, up, down, padding, gain)
    for n in range(2):
        for c in range(3):
            wanted = stuffed(x[n, c].numpy(), square, up, down, padding) * gain
            np.testing.assert_allclose(found[n, c].numpy(), wanted, atol=1e-12)


def test_resampling_keeps_brightness() -> None:
    f, grey = ops.blur_filter(), torch.full((1, 2, 8, 8), 0.7)
    assert float(f.sum()) == pytest.approx(1)
    for y in (ops.upsample2d(grey, f)[..., 2:-2, 2:-2], ops.downsample2d(grey, f)[..., 1:-1, 1:-1]):
        torch.testing.assert_close(y, torch.full_like(y, 0.7))


def by_sample(x: Tensor, w: Tensor, s: Tensor, up: int, demodulate: bool) -> Tensor:
    """The paper's way: every sample has its own weights, one grouped convolution."""
    n, i = s.shape
    own = w[None] * s[:, None, :, None, None]
    if demodulate:
        own = own / (own.square().sum(dim=[2, 3, 4], keepdim=True) + 1e-8).sqrt()
    edge = w.shape[2] // 2
    if up == 2:  # stuff, convolve as mathematics does (flipped) to the full extent
        x = F.pad(x[..., None, :, None], (0, 1, 0, 0, 0, 1)).reshape(n, i, 2 * x.shape[2], 2 * x.shape[3])
        x, own, edge = x[..., :-1, :-1], own.flip([3, 4]), 2
    y = F.conv2d(x.reshape(1, n * i, *x.shape[2:]), own.flatten(0, 1), padding=edge, groups=n)
    y = y.reshape(n, w.shape[0], *y.shape[2:])
    return y if up == 1 else ops.upfirdn2d(y, ops.blur_filter(), padding=(1, 1, 1, 1), gain=4)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("kernel", "up"), [(3, 1), (3, 2), (1, 1)])
def test_modulated_convolution_by_sample(
    kernel: int, up: int, demodulate: bool, rng: torch.Generator
) -> None:
    x, w, s = (torch.randn(shape, dtype=torch.float64, generator=rng, requires_grad=True)
               for shape in ((3, 4, 6, 6), (5, 4, kernel, kernel), (3, 4)))  # fmt: skip
    noise, bias = torch.randn(3, 1, 6 * up, 6 * up, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    found = ops.modulated_conv2d(x, w, s, ops.blur_filter(), up, demodulate, noise, bias, gain=1.3)
    wanted = (by_sample(x, w, s, up, demodulate) + noise + bias[:, None, None]) * 1.3
    close(found, wanted.detach())
    dy = torch.randn(found.shape, dtype=torch.float64, generator=rng)
    for a, b in zip(*(torch.autograd.grad((y * dy).sum(), (x, w, s)) for y in (found, wanted)), strict=True):
        close(a, b)


def test_second_derivatives_are_those_of_the_first(rng: torch.Generator) -> None:
    x, w, s = (torch.randn(shape, dtype=torch.float64, generator=rng, requires_grad=True)
               for shape in ((2, 2, 3, 3), (2, 2, 3, 3), (2, 2)))  # fmt: skip
    f = ops.blur_filter()
    assert torch.autograd.gradgradcheck(lambda *a: ops.modulated_conv2d(*a, f, 2), (x, w, s), fast_mode=True)


def test_demodulated_outputs_have_unit_variance(rng: torch.Generator) -> None:
    x, w = torch.randn(8, 32, 16, 16, generator=rng), torch.randn(16, 32, 3, 3, generator=rng)
    s = torch.rand(8, 32, generator=rng) * 40
    inner = ops.modulated_conv2d(x, w, s)[..., 1:-1, 1:-1]
    assert float(inner.std()) == pytest.approx(1, abs=0.05)


def test_half_precision_does_not_overflow(rng: torch.Generator) -> None:
    x, w = torch.randn(2, 8, 6, 6, generator=rng), torch.randn(4, 8, 3, 3, generator=rng) * 1e3
    s = torch.rand(2, 8, generator=rng) * 1e4 + 1
    found = ops.modulated_conv2d(x.half(), w, s)
    assert found.dtype == torch.float16 and found.isfinite().all()
    torch.testing.assert_close(found.float(), ops.modulated_conv2d(x, w, s), atol=0.02, rtol=0.02)


def test_normalised_rows_have_mean_square_one(rng: torch.Generator) -> None:
    lengths = torch.tensor([[1e-2], [1], [7], [1e3], [1e6]])
    rows = ops.normalize_2nd_moment(torch.randn(5, 64, generator=rng) * lengths)
    torch.testing.assert_close(rows.square().mean(dim=1), torch.ones(5), rtol=2e-4, atol=0)


@pytest.mark.parametrize("side", [2, 24], ids=["shared weights", "own weights"])
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("noisy", ["each", "shared", None])
@pytest.mark.parametrize("n", [1, 3])
def test_pictures_without_gradients_are_the_same(
    side: int, up: int, demodulate: bool, noisy: str | None, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    shapes = ((n, 8, side, side), (4, 8, 3, 3), (n, 8), (4,))
    x, w, s, bias = (torch.randn(shape).double() for shape in shapes)
    x, w = (each.to(memory_format=torch.channels_last) for each in (x, w))
    big = side * up
    noise = torch.randn((n, 1, big, big) if noisy == "each" else (big, big)).double() if noisy else None
    given = (x, w, s, ops.blur_filter(), up, demodulate, noise, bias, 1.3)
    kept = [each.clone() for each in given if isinstance(each, Tensor)]
    before = ops.modulated_conv2d(*given)
    wanted = ops.activate(before, "lrelu", 0.9, owned=True)
    assert wanted.data_ptr() != before.data_ptr()
    monkeypatch.setattr(ops, "_CACHE", 0 if noisy == "each" else 1 << 20)
    with torch.no_grad():
        found = ops.modulated_conv2d(*given)
        loud = ops.activate(found, "lrelu", 0.9, owned=True)
    assert loud.data_ptr() == found.data_ptr() and loud.is_contiguous(memory_format=torch.channels_last)
    now = [each for each in given if isinstance(each, Tensor)]
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True)), "what was given is untouched"
    torch.testing.assert_close(loud, wanted, rtol=1e-12, atol=1e-12)


def test_only_owned_pictures_are_overwritten() -> None:
    x = torch.randn(2, 3, 4, 4)
    before = x.clone()
    ops.activate(x, "lrelu", 0.5, owned=True)
    with torch.no_grad():
        ops.activate(x, "lrelu")
        ops.activate(x, "linear", 0.5)
        ops.bias_act(x, None, "lrelu", gain=1 / ops.ACTIVATION_GAIN["lrelu"])
        assert torch.equal(x, before)
        ops.activate(x, "lrelu", 0.5, owned=True)
    torch.testing.assert_close(x, ops.activate(before, "lrelu", 0.5), rtol=0, atol=0)
