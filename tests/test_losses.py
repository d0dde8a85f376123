"""The losses against the reference, finite differences and explicit Jacobians."""

import pytest
import torch
from oracle import close, heads, read, with_weights
from torch import Tensor, nn

from stylebot import losses
from stylebot.discriminator import Discriminator
from stylebot.generator import Generator

OPTIONS, ARRAYS = read("losses")


class Recorded:
    """The reference's random numbers of one phase, handed out in the order in which it drew them."""

    def __init__(self, phase: int) -> None:
        start = f"in/{phase}/"
        self.given = {k[len(start):]: a for k, a in ARRAYS.items() if k.startswith(start)}
        self.waiting = sorted(k for k in self.given if k.startswith("rng"))

    def next(self, kind: str) -> Tensor:
        name = self.waiting.pop(0)
        assert name.endswith(kind)
        return self.given[name]

    def randn(self, shape: tuple[int, ...]) -> Tensor:
        drawn = self.next("_randn")
        assert drawn.shape == shape
        return drawn

    def ws(self, G: Generator, count: int | None = None) -> tuple[Tensor, Tensor]:
        """(ws, c) of the first `count` latents, mixed as the reference did."""
        z, c = self.given["gen_z"][:count], self.given["gen_c"][:count]
        cutoff, chance, z_mix = int(self.next("_randint")), float(self.next("_rand")), self.next("_randn")
        mixed = chance < OPTIONS["style_mixing_prob"]
        return losses.mixed_ws(G.mapping, z, c, z_mix, cutoff if mixed else None), c


def compute(name: str, G: Generator, D: Discriminator, drawn: Recorded, pl_mean: Tensor) -> dict[str, Tensor]:
    """What the reference reports of one phase; "loss" is what it differentiates, "pl_mean" the new mean."""
    real, real_c = drawn.given.get("real_img"), drawn.given.get("real_c")
    if name == "Greg":
        ws, _ = drawn.ws(G, len(drawn.given["gen_z"]) // OPTIONS["pl_batch_shrink"])
        lengths = losses.path_lengths(G, ws, drawn.randn, noise_randn=drawn.randn)
        penalty, mean = losses.path_length_penalty(lengths, pl_mean, OPTIONS["pl_decay"])
        loss = penalty * OPTIONS["pl_weight"]
        return {"pl_penalty": penalty, "G/reg": loss, "loss": loss, "pl_mean": mean}
    if name == "Dreg":
        penalty, logits = losses.r1_penalty(D, lambda img: img, real, real_c)
        loss = penalty * OPTIONS["r1_gamma"] / 2
        return {"scores/real": logits, "r1_penalty": penalty, "D/reg": loss, "loss": loss, "pl_mean": pl_mean}
    with torch.set_grad_enabled(name == "Gmain"):
        ws, c = drawn.ws(G)
        img = G.synthesis(ws, randn=drawn.randn)
    fake = D(img, c)
    if name == "Gmain":
        loss = losses.generator_loss(fake)
        return {"scores/fake": fake, "G/loss": loss, "loss": loss, "pl_mean": pl_mean}
    logits = D(real, real_c)
    loss = sum(losses.discriminator_loss(logits, fake))
    return {"scores/fake": fake, "scores/real": logits, "D/loss": loss, "loss": loss, "pl_mean": pl_mean}


def test_reference() -> None:
    """Six phases in a row: values, gradients to second order, the running mean of path lengths, w_avg."""
    G = with_weights(Generator(**OPTIONS["G"]), ARRAYS, "G/").train()
    D = with_weights(Discriminator(**OPTIONS["D"]), ARRAYS, "D/").train()
    pl_mean = torch.zeros([], dtype=torch.float64)
    for phase, (name, gain) in enumerate(OPTIONS["phases"]):
        net, drawn = (G if name[0] == "G" else D), Recorded(phase)
        found = compute(name, G, D, drawn, pl_mean)
        assert not drawn.waiting
        pl_mean = found["pl_mean"]
        net.zero_grad()
        (found["loss"].mean() * gain).backward()
        for key, value in found.items():
            if key != "loss":
                wanted = ARRAYS[f"out/{phase}/{key}"]
                close(value.reshape(wanted.shape), wanted, what=f"{phase} {key}")
        grads = {k: torch.zeros_like(p) if p.grad is None else p.grad for k, p in net.named_parameters()}
        names = OPTIONS["names"][phase]
        assert grads.keys() == set(names)
        for k, norm in zip(names, ARRAYS[f"out/{phase}/norms"], strict=True):
            close(grads[k].norm(), norm, what=f"{phase} {k}")
        for k, row, wanted in zip(names, heads(grads, names), ARRAYS[f"out/{phase}/heads"], strict=True):
            if not wanted.isnan().any():
                close(row, wanted, what=f"{phase} {k}")
    close(G.mapping.w_avg, ARRAYS["out/w_avg"])


def test_cross_entropies() -> None:
    logits = torch.tensor([[-100.0], [-1.0], [0.0], [1.0], [100.0]])
    chance = logits[:, 0].double().sigmoid()
    of_real, of_fake = losses.discriminator_loss(logits, logits)
    torch.testing.assert_close(losses.generator_loss(logits), of_real)
    torch.testing.assert_close(of_real[1:].double(), -chance[1:].log())
    torch.testing.assert_close(of_fake[:4].double(), -(1 - chance[:4]).log())
    assert float(of_real[0]) == 100 and float(of_fake[-1]) == 100


def test_lecam_pulls_each_kind_to_the_other_kinds_mean() -> None:
    real, fake = torch.tensor([[3.0], [1.0]]), torch.tensor([[-2.0], [0.5]])
    anchors = torch.tensor([1.5, -1.0])
    found = losses.lecam_penalty(real, fake, anchors)
    assert found.tolist() == [4**2 + 3.5**2, 2**2 + 1.0**2]


class Smooth(nn.Module):
    """A critic with derivatives of every order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(12, 5).double(), nn.Linear(5, 1).double()

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        return self.second(self.first(img.flatten(1)).tanh())


def test_r1_by_finite_differences() -> None:
    D, real, step = Smooth(), torch.randn(3, 3, 2, 2, dtype=torch.float64), 1e-5
    penalty, logits = losses.r1_penalty(D, lambda img: 2 * img, real)
    squares = torch.zeros(3, dtype=torch.float64)
    for i in range(12):
        move = torch.zeros(12, dtype=torch.float64)
        move[i] = step
        move = move.reshape(3, 2, 2)
        squares += ((D(2 * (real + move)) - D(2 * (real - move))) / (2 * step))[:, 0].detach().square()
    torch.testing.assert_close(penalty.detach(), squares, rtol=1e-7, atol=0)
    assert torch.equal(logits, D(2 * real)) and not real.requires_grad
    w = D.first.weight
    (gradient,) = torch.autograd.grad(penalty.sum(), w)
    with torch.no_grad():
        w[1, 2] += step
    more = losses.r1_penalty(D, lambda img: 2 * img, real)[0].sum()
    with torch.no_grad():
        w[1, 2] -= 2 * step
    less = losses.r1_penalty(D, lambda img: 2 * img, real)[0].sum()
    assert float(gradient[1, 2]) == pytest.approx(float((more - less).detach() / (2 * step)), rel=1e-6)


def tiny_generator() -> Generator:
    torch.manual_seed(3)
    G = Generator(z_dim=4, w_dim=4, img_resolution=8, mapping_layers=1, channel_base=32, channel_max=4)
    return G.double()


def test_path_lengths_by_the_jacobian(rng: torch.Generator) -> None:
    G = tiny_generator()
    ws = torch.randn(2, G.num_ws, 4, dtype=torch.float64, generator=rng).requires_grad_()
    y = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=rng)
    lengths = losses.path_lengths(G, ws, lambda shape: y, noise_mode="const")
    for n in range(2):
        own = ws[n : n + 1].detach()
        jacobian = torch.autograd.functional.jacobian(lambda w: G.synthesis(w, "const"), own)
        moved = torch.einsum("chw,chwld->ld", y[n], jacobian[0, :, :, :, 0]) / 8
        assert float(lengths[n]) == pytest.approx(float(moved.square().sum() / G.num_ws) ** 0.5, rel=1e-12)


def test_path_length_penalty_differentiates_its_own_mean() -> None:
    lengths = torch.tensor([1.0, 4.0, 2.0, 9.0], dtype=torch.float64, requires_grad=True)
    old = torch.tensor(3.0, dtype=torch.float64)
    penalty, mean = losses.path_length_penalty(lengths, old, 0.25)
    by_hand = 0.75 * old + 0.25 * lengths.mean()
    torch.testing.assert_close(mean, by_hand.detach())
    torch.testing.assert_close(penalty, (lengths - by_hand).square())
    wanted = torch.autograd.grad((lengths - by_hand).square().mean(), lengths)
    torch.testing.assert_close(torch.autograd.grad(penalty.mean(), lengths), wanted)
    assert not mean.requires_grad


def test_path_length_penalty_in_shares_is_the_whole() -> None:
    lengths = torch.tensor([1.0, 4.0, 2.0, 9.0], dtype=torch.float64, requires_grad=True)
    whole, mean = losses.path_length_penalty(lengths, torch.tensor(3.0).double(), 0.25)
    shares = [losses.path_length_penalty(part, torch.tensor(3.0).double(), 0.25, lengths.detach().mean())
              for part in (lengths[:2], lengths[2:])]  # fmt: skip
    torch.testing.assert_close(torch.cat([penalty for penalty, _ in shares]), whole)
    assert all(torch.equal(own, mean) for _, own in shares)
    halves = sum(penalty.mean() for penalty, _ in shares) / 2
    found, wanted = torch.autograd.grad(halves, lengths), torch.autograd.grad(whole.mean(), lengths)
    torch.testing.assert_close(found, wanted)


def test_style_mixing() -> None:
    G = tiny_generator().train()
    z, other = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    plain = losses.mixed_ws(G.mapping, z, None)
    w_avg = G.mapping.w_avg.clone()
    mixed = losses.mixed_ws(G.mapping, z, None, other, 1)
    assert torch.equal(mixed[:, :1], plain[:, :1])
    torch.testing.assert_close(mixed[:, 1:], G.eval().mapping(other)[:, 1:])
    wanted = w_avg * 0.995 + plain[:, 0].mean(dim=0) * 0.005
    torch.testing.assert_close(G.mapping.w_avg, wanted.detach())
