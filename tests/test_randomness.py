"""Randomness depends on (seed, progress, place in the batch), not on how many processes there are."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from stylebot import dist
from stylebot.augment import AugmentPipe
from stylebot.discriminator import minibatch_stddev
from stylebot.randomness import Draw, drawer, real_batch, shares


@pytest.fixture
def as_process(monkeypatch: pytest.MonkeyPatch):
    """`as_process(rank, world)`: pretend to be one of several processes."""

    def pretend(rank: int, world: int) -> None:
        monkeypatch.setattr(dist, "rank", lambda: rank)
        monkeypatch.setattr(dist, "world", lambda: world)

    return pretend


def numbers(*key: object) -> list[float]:
    return torch.rand(4, generator=drawer(*key)).tolist()


def test_drawer_depends_on_all_it_is_given() -> None:
    assert numbers(0, 64, "z") == numbers(0, 64, "z")
    keys = [(0, 64, "z"), (1, 64, "z"), (0, 65, "z"), (0, 64, "noise"), (0, 6, "4z"), (6, 4, "z")]
    assert len({tuple(numbers(*key)) for key in keys}) == len(keys)


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    draw = Draw(0, 0, "Gmain", 4, torch.arange(4))
    draw.randn("z")((4, 8))
    draw.cutoff(1.0, 8)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(16, 16, 4), (16, 4, 4), (32, 8, 2), (8, 4, 1)])
def test_shares_cover_the_batch_and_keep_the_groups(shape: tuple[int, int, int], as_process) -> None:
    """Minibatch-stddev sees the same groups of pictures on 1, 2 and 4 processes, in one round or several."""
    batch, batch_gpu, group = shape
    x = torch.randn(batch, 3, 4, 4, dtype=torch.float64)
    wanted = minibatch_stddev(x, group, 1)
    for world in [w for w in (1, 2, 4) if batch % (w * batch_gpu) == 0]:
        seen = []
        for rank in range(world):
            as_process(rank, world)
            for which in shares(batch, batch_gpu, group):
                assert len(which) == batch_gpu
                torch.testing.assert_close(minibatch_stddev(x[which], group, 1), wanted[which])
                seen += which.tolist()
        assert sorted(seen) == list(range(batch))


def pictures(count: int) -> Tensor:
    """[count, 1, 2, 2] uint8: picture i is i at the left and 200 + i at the right."""
    left = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 1)
    return torch.cat([left, left + 200], dim=3)


def identity(batch: Tensor) -> list[tuple[int, bool]]:
    """(number, whether flipped) of each of the pictures above."""
    values = ((batch[:, 0, 0] + 1) * 127.5).round().int()
    return [(min(row), row[0] > row[1]) for row in values.tolist()]


@pytest.mark.parametrize("mirror", [False, True])
def test_each_epoch_is_a_permutation(mirror: bool) -> None:
    total = 14 if mirror else 7
    order = []
    for nimg in range(0, 4 * total, 4):
        order += identity(real_batch(pictures(7), nimg, torch.arange(4), 0, mirror))
    everything = [(i, flipped) for i in range(7) for flipped in ([False, True] if mirror else [False])]
    epochs = [order[first : first + total] for first in range(0, 4 * total, total)]
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_reals_depend_on_the_place_alone() -> None:
    whole = real_batch(pictures(50), 32, torch.arange(16), 5, True)
    some = torch.tensor([11, 0, 7])
    assert torch.equal(real_batch(pictures(50), 32, some, 5, True), whole[some])
    assert torch.equal(real_batch(pictures(50), 43, torch.arange(1), 5, True), whole[11:12])
    assert not torch.equal(real_batch(pictures(50), 32, torch.arange(16), 6, True), whole)
    assert whole.min() >= -1 and whole.max() <= 1 and whole.dtype == torch.float32


def test_samples_get_the_same_numbers_in_any_round() -> None:
    whole, part = Draw(0, 64, "Gmain", 8, torch.arange(8)), Draw(0, 64, "Gmain", 8, torch.tensor([5, 2]))
    assert len(part) == 2
    for purpose, shape in (("z", (6,)), ("noise", (1, 4, 4)), ("noise", (1, 8, 8))):
        assert torch.equal(part.randn(purpose)((2, *shape)), whole.randn(purpose)((8, *shape))[[5, 2]])
    again = whole.first(3)
    wanted = Draw(0, 64, "Gmain", 8, torch.arange(8)).randn("z")((8, 6))
    assert torch.equal(again.randn("z")((3, 6)), wanted[:3])


def test_layers_phases_and_purposes_get_their_own_numbers() -> None:
    draw = Draw(0, 64, "Gmain", 8, torch.arange(8))
    first, second = draw.randn("noise")((8, 1, 4, 4)), draw.randn("noise")((8, 1, 4, 4))
    others = [Draw(0, 64, "Dmain", 8, draw.which), Draw(0, 72, "Gmain", 8, draw.which)]
    drawn = [first, second, draw.randn("z")((8, 1, 4, 4)), *(o.randn("noise")((8, 1, 4, 4)) for o in others)]
    assert len({float(d.sum()) for d in drawn}) == 5


def test_mixing_is_one_even_choice_for_the_batch() -> None:
    draws = [Draw(0, nimg, "Gmain", 8, torch.arange(2)) for nimg in range(3000)]
    chosen = Counter(draw.cutoff(0.9, 6) for draw in draws)
    assert chosen.keys() == {None, 1, 2, 3, 4, 5}
    assert all(abs(chosen[i] / 3000 - 0.18) < 0.03 for i in range(1, 6))
    assert all(draw.cutoff(0.0, 6) is None for draw in draws[:50])
    others = [Draw(0, nimg, "Gmain", 8, torch.arange(3, 8)) for nimg in range(50)]
    again = [Draw(0, nimg, "Gmain", 8, torch.arange(2)) for nimg in range(50)]
    assert [draw.cutoff(0.9, 6) for draw in others] == [draw.cutoff(0.9, 6) for draw in again]


def test_samples_are_augmented_the_same_in_any_round(rng: torch.Generator) -> None:
    pipe, img = AugmentPipe("bgc"), torch.rand(8, 3, 16, 16, generator=rng)
    pipe.p.fill_(0.7)
    whole = Draw(0, 64, "Dmain", 8, torch.arange(8)).augmented(pipe, img, "augment")
    part = Draw(0, 64, "Dmain", 8, torch.tensor([6, 1])).augmented(pipe, img[[6, 1]], "augment")
    torch.testing.assert_close(part, whole[[6, 1]])
    pipe.p.zero_()
    assert Draw(0, 64, "Dmain", 8, torch.arange(8)).augmented(pipe, img, "augment") is img
