"""What is counted without computing agrees with torch's allocator while the same phases compute at 64 px."""

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from training import RECIPE

from stylebot.augment import AugmentPipe
from stylebot.costs import PHASES, Meter, StepCost, encoder_cost, step_cost
from stylebot.discriminator import Discriminator, freeze_d
from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.plan import REFERENCES
from stylebot.randomness import Draw
from stylebot.trainer import Recipe, start_state

SHAPE = {"img_resolution": 64, "channel_base": 1024, "channel_max": 64}
SMALL = Recipe(**RECIPE | {"batch": 4, "batch_gpu": 4, "augment": "none"})


@pytest.fixture(scope="module")
def counted() -> StepCost:
    return step_cost(SHAPE, SHAPE, SMALL)


def allocated(name: str) -> int:
    """Most bytes that torch's allocator had handed out within phase `name`, beyond those before it."""
    torch.manual_seed(0)
    state = start_state(Generator(**SHAPE), Discriminator(**SHAPE), None, SMALL)
    of_G = name.startswith("G")
    for p in state.trainable_D if of_G else state.G.parameters():
        p.requires_grad_(False)
    compute, draw = dict(PHASES)[name], Draw(3, 0, name, 4, torch.arange(4))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        real = None if of_G else torch.zeros(4, 3, 64, 64)
        compute(state, draw, SMALL, real).mean().backward()
    events = (e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]")
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize("name", [name for name, _ in PHASES])
def test_memory_is_what_the_allocator_hands_out(name: str, counted: StepCost) -> None:
    """Within the fifth that plan.py adds: convolutions have workspaces that no tensor shows."""
    assert counted.phases[name].peak_bytes == pytest.approx(allocated(name), rel=0.2)


def test_saved_activations_are_counted_at_the_end_of_the_forward_pass() -> None:
    """By torch's hooks on what autograd keeps, each storage once and weights left out."""
    torch.manual_seed(0)
    D, kept = Discriminator(**SHAPE), {}
    own = {p.untyped_storage().data_ptr() for p in (*D.parameters(), *D.buffers())}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    img = torch.randn(4, 3, 64, 64)
    with (
        Meter(lambda t: t.untyped_storage().nbytes()) as meter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
    ):
        logits = D(img)
    assert logits.shape == (4, 1)
    assert meter.now == pytest.approx(sum(kept.values()), rel=0.1)


def test_frozen_layers_and_small_batches_save(counted: StepCost) -> None:
    frozen = step_cost(SHAPE, SHAPE, replace(SMALL, freeze_d=10))
    assert frozen.trainable_D == sum(p.numel() for p in freeze_d(Discriminator(**SHAPE), 10))
    assert frozen.fixed_bytes < counted.fixed_bytes
    assert frozen.phases["Dmain"].peak_bytes < counted.phases["Dmain"].peak_bytes
    half = step_cost(SHAPE, SHAPE, replace(SMALL, batch_gpu=2, pl_weight=0.0))
    assert half.peak_bytes < 0.75 * counted.peak_bytes and "Greg" not in half.phases
    with pytest.raises(StylebotError, match="freeze_d = 99"):
        step_cost(SHAPE, SHAPE, replace(SMALL, freeze_d=99))


def test_half_precision_halves_the_largest_maps(counted: StepCost) -> None:
    half = step_cost(SHAPE | {"num_fp16_res": 4}, SHAPE | {"num_fp16_res": 4}, SMALL)
    assert 0.45 < half.phases["Dmain"].peak_bytes / counted.phases["Dmain"].peak_bytes < 0.7


def test_operations_of_one_layer_are_right() -> None:
    """A convolution of 8 to 16 channels, 3x3, on 10 x 10 px, and as much again for each gradient."""
    x = torch.empty(1, 8, 10, 10, device="meta", requires_grad=True)
    w = torch.empty(16, 8, 3, 3, device="meta", requires_grad=True)
    with Meter(lambda t: 0) as meter:
        torch.nn.functional.conv2d(x, w, padding=1).sum().backward()
    assert meter.flops == 3 * 2 * 16 * 8 * 9 * 100


def test_the_reference_speeds_are_of_the_operations_that_we_count() -> None:
    """256 px as NVIDIA trained it: the number beside their speed is what is counted today."""
    config = SHAPE | {"img_resolution": 256, "channel_base": 16384, "channel_max": 512, "num_fp16_res": 4}
    numbers = {"batch": 8, "batch_gpu": 8, "augment": "bgc", "G_reg_interval": 4, "D_reg_interval": 16}
    cost = step_cost(config, config, Recipe(**RECIPE | numbers))
    (stated,) = {r.tflop_per_kimg for r in REFERENCES if r.resolution == 256}
    assert stated == pytest.approx(cost.flops_per_kimg / 1e12, rel=0.02)
    assert cost.parameters_G == 24_767_458 and cost.parameters_D == 24_001_089


def test_the_encoder_wants_more_for_more_real_faces() -> None:
    few, many = (encoder_cost(SHAPE, "light", 4, share) for share in (0.0, 1.0))
    assert few.flops_per_kimg < many.flops_per_kimg and few.peak_bytes < many.peak_bytes
    assert few.fixed_bytes == 4 * (3 * few.parameters + few.parameters_G)


def test_augmentation_is_counted() -> None:
    assert AugmentPipe("bgc").p == 0
    plain, warped = (step_cost(SHAPE, SHAPE, replace(SMALL, augment=a, p_max=0.8)) for a in ("none", "bgc"))
    assert warped.phases["Dmain"].peak_bytes > plain.phases["Dmain"].peak_bytes
