"""Training in bfloat16 on CPUs that have it: what it rounds, what it leaves alone, and who gets it."""

import pytest
import torch
from test_compiled import SIDE_PX, gradients
from test_train import Run, inputs, run  # noqa: F401 (fixtures)
from training import faces, networks, start

from stylebot import train as stage
from stylebot.randomness import Draw
from stylebot.trainer import start_state


def test_it_rounds_pictures_and_logits_and_nothing_else() -> None:
    plain, numbers = start(SIDE_PX)
    half = start_state(*networks(SIDE_PX), None, numbers, half=True)
    real, found = faces(8, SIDE_PX) / 127.5 - 1, []
    for state in (plain, half):
        passes, draw = state.passes["Gmain"], Draw(3, 0, "Gmain", 8, torch.arange(8))
        img, logits = passes.fakes(draw, 0.9), passes.logits(real)
        assert img.dtype == logits.dtype == torch.float32
        lengths, (penalty, _) = passes.path_lengths(draw, 0.9), passes.r1_penalty(lambda x: x, real)
        found.append(tuple(x.detach() for x in (img, logits, lengths, penalty)))
    (img, logits, *regular), (other_img, other_logits, *other_regular) = found
    assert 1e-4 < (img - other_img).norm() / img.norm() < 0.02
    assert 1e-4 < (logits - other_logits).norm() / logits.norm() < 0.05
    assert all(torch.equal(a, b) for a, b in zip(regular, other_regular, strict=True))
    rows = [gradients(state, numbers, 1)[0] for state in (plain, half)]
    assert 1e-4 < (rows[0] - rows[1]).norm() / rows[0].norm() < 0.1


def test_bfloat16_where_asked_or_where_a_processor_has_it(
    run: Run,  # noqa: F811 (a fixture)
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, real = [], stage.start_state
    monkeypatch.setattr(stage, "start_state", lambda *given: asked.append(given[-1]) or real(*given))
    for name, flags in (("old", {"avx512_bf16": False}), ("new", {"avx512_bf16": True})):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        for amp in ("auto", "always", "never"):
            run(f"{name}-{amp}", amp=amp, kimg=0.008)
    assert asked == [False, True, False, True, True, False]
