"""Learning rates over a run, as `train` and `encode` both take them."""

import pytest

from stylebot.fitting import Pace
from stylebot.schedules import lr_factor


def test_cosine_falls_from_one_to_a_hundredth() -> None:
    assert [lr_factor("cosine", done) for done in (0, 0.5, 1)] == pytest.approx([1, 0.505, 0.01])
    assert lr_factor("constant", 0.9) == 1


def test_the_encoders_pace_ends_with_its_last_whole_batch() -> None:
    pace = Pace(kimg=0.03, batch=8, lr=0.5, schedule="cosine")
    assert pace.total == 32
    assert [pace.lr_at(at) for at in (0, 16, 32)] == pytest.approx([0.5, 0.2525, 0.005])
