"""Compiled phases: the gradients of eager ones, and what is said of a phase that cannot be compiled.

Backend aot_eager: everything that torch.compile does but for writing kernels, which takes minutes.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from training import faces, recipe, start, weights

from stylebot import compiled, trainer
from stylebot.compiled import Compiled, Eager
from stylebot.trainer import TrainState, compile_phases, read_stats, train_step

SIDE_PX = 8  # two resolutions: every kind of block, in half the time that a third one takes to trace
ROUNDING = 1e-4  # float32, relative to the length of a phase's whole gradient


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradients(state: TrainState, numbers: trainer.Recipe, steps: int) -> list[Tensor]:
    """What each optimiser step of the next training steps was given, in one row each."""
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        apply = trainer._apply

        def spy(state, optimiser, params) -> None:
            rows.append(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1)
                                          for p in params]).clone())  # fmt: skip
            apply(state, optimiser, params)

        patch.setattr(trainer, "_apply", spy)
        for _ in range(steps):
            train_step(state, faces(resolution=SIDE_PX), numbers)
    return rows


def test_compiled_gradients_are_the_eager_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """All four phases, accumulated over rounds, augmented, frozen layers, a restart in between."""
    changes = {"batch_gpu": 4, "freeze_d": 3, "lecam_weight": 0.3}
    eager, numbers = start(SIDE_PX, **changes)
    wanted = gradients(eager, numbers, 3)
    state, _ = start(SIDE_PX, **changes)
    before = weights(state)
    compile_phases(state, numbers, "aot_eager")
    after = weights(state)
    assert all(torch.equal(tensor, after[k]) for k, tensor in before.items())
    assert capsys.readouterr().err.count("\n") == 1  # that it compiles, and no refusal
    assert {type(passes) for passes in state.passes.values()} == {Compiled}
    assert all(p.grad is None for net in (state.G, state.D) for p in net.parameters())
    found = gradients(state, numbers, 2)
    saved = state.state_dict()
    again, _ = start(SIDE_PX, **changes | {"seed": 3})
    again.load_state_dict(saved)
    again.passes, again.stats = state.passes, state.stats  # the same compiled functions, other networks
    for passes in again.passes.values():
        passes.G, passes.D = again.G, again.D
    found += gradients(again, numbers, 1)
    assert len(found) == len(wanted) == 9
    for i, (row, other) in enumerate(zip(found, wanted, strict=True)):
        assert (row - other).norm() <= ROUNDING * other.norm(), i
    moved = {k for k, tensor in weights(again).items() if not torch.equal(tensor, before[k])}
    assert not any(k.startswith(("D.b8.fromrgb", "D.b8.conv0", "D.b8.conv1")) for k in moved)
    assert read_stats(again) == pytest.approx(read_stats(eager), rel=1e-3, abs=1e-5)
    assert float(again.pl_mean) == pytest.approx(float(eager.pl_mean), rel=1e-4)


def test_a_phase_that_cannot_be_compiled_stays_eager_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths, slope = compiled._lengths, compiled._slope

    def broken(*given) -> Tensor:
        torch._dynamo.graph_break()
        return lengths(*given)

    def wrong(*given) -> tuple[Tensor, Tensor]:
        gradient, logits = slope(*given)
        return 1.1 * gradient, logits

    monkeypatch.setattr(compiled, "_lengths", broken)
    monkeypatch.setattr(compiled, "_slope", wrong)
    state, numbers = start(SIDE_PX)
    compile_phases(state, numbers, "aot_eager")
    kinds = {"Gmain": Compiled, "Greg": Eager, "Dmain": Compiled, "Dreg": Eager}
    assert {phase: type(passes) for phase, passes in state.passes.items()} == kinds
    _, greg, dreg = capsys.readouterr().err.splitlines()
    assert greg.startswith("train: phase Greg runs without torch.compile: Unsupported: ")
    assert dreg == ("train: phase Dreg runs without torch.compile: its gradient is 0.21 of its length "
                    "off the eager one")  # fmt: skip


def test_only_what_the_recipe_has_is_compiled() -> None:
    state, numbers = start(pl_weight=0.0, r1_gamma=0.0)
    asked = []

    def instead(G, D, trainable, counts, backend) -> dict:
        asked.append(counts)
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "compiled_phases", instead)
        compile_phases(state, numbers)
        compile_phases(state, recipe(batch_gpu=4))
    assert asked == [{"Gmain": 8, "Dmain": 8}, {"Gmain": 4, "Greg": 2, "Dmain": 4, "Dreg": 4}]
