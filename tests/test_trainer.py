"""Training steps: the reference's trajectory, Freeze-D, accumulation, ADA, what is not finite, restarts."""

import copy
import math

import pytest
import torch
from oracle import close, heads, read
from reference_run import Reference
from training import faces, recipe, start, weights

from stylebot import losses, trainer
from stylebot.discriminator import Discriminator
from stylebot.errors import StylebotError
from stylebot.trainer import check_batch, read_stats, set_lr, train_step


@pytest.mark.parametrize("name", ["trajectory", "trajectory_accumulated"])
def test_six_steps_of_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lazy regularisation with its Adam, accumulation, EMA: every weight and gradient, step by step."""
    options, arrays = read(name)
    reference = Reference(options, arrays)
    for step, state in reference.steps(options["steps"], monkeypatch):
        norms = {k: tensor.norm() for k, tensor in weights(state).items()}
        for k, wanted in zip(options["names"], arrays["out/norms"][step], strict=True):
            close(norms[k.replace("/", ".", 1)], wanted, what=f"{step} {k}")
        close(state.pl_mean, arrays["out/pl_means"][step])
    close(torch.tensor(reference.betas, dtype=torch.float64), arrays["out/betas"])
    assert not reference.pl_noise
    gradients = {k: reference.gradients[k] for k in options["gradients"]}
    for (k, found), wanted in zip(gradients.items(), arrays["out/gradient_norms"], strict=True):
        close(found, wanted, what=k)
    close(heads(dict(state.G_ema.state_dict()), options["final"]), arrays["out/heads"])


def test_optimisers_are_corrected_for_lazy_regularisation() -> None:
    state, _ = start(G_reg_interval=4, D_reg_interval=16, lr_g=0.0025, lr_d=0.0025)
    for optimiser, c in ((state.opt_G, 4 / 5), (state.opt_D, 16 / 17)):
        group = optimiser.param_groups[0]
        assert group["lr"] == pytest.approx(0.0025 * c) and group["eps"] == 1e-8
        assert group["betas"] == (0.0, pytest.approx(0.99**c))


@pytest.mark.parametrize("depth", [0, 3, 7])
def test_frozen_layers_stay_and_the_rest_moves(depth: int) -> None:
    state, numbers = start(freeze_d=depth)
    before, frozen = weights(state), {f"D.{k}" for k, p in state.D.named_parameters() if not p.requires_grad}
    assert len(frozen) == {0: 0, 3: 6, 7: 12}[depth]
    for _ in range(4):
        train_step(state, faces(), numbers)
    after = weights(state)
    still = {k for k in before if torch.equal(before[k], after[k])}
    assert still - frozen == {k for k in before if k.endswith("noise_const")}
    assert frozen <= still
    assert len(state.opt_D.state) == len(list(state.D.parameters())) - len(frozen)


def test_accumulation_is_the_same_as_one_large_round() -> None:
    """The running means of path lengths and of w aside: they move once per round."""
    done = []
    for batch_gpu in (8, 4):
        state, numbers = start(batch_gpu=batch_gpu, pl_weight=0.0, lecam_weight=0.3)
        for _ in range(3):
            train_step(state, faces(), numbers)
        moved = {k: tensor for k, tensor in weights(state).items() if not k.endswith("w_avg")}
        moved["anchors"] = state.anchors
        done.append((moved, read_stats(state)))
    for k, wanted in done[0][0].items():
        torch.testing.assert_close(done[1][0][k], wanted, atol=1e-5, rtol=1e-5, msg=k)
    assert done[1][1] == pytest.approx(done[0][1], rel=1e-4, abs=1e-6)


def test_the_same_start_gives_the_same_run_and_another_seed_another() -> None:
    found = []
    for seed in (3, 3, 4):
        state, numbers = start(seed=seed)
        for _ in range(2):
            train_step(state, faces(), numbers)
        found.append(weights(state))
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    assert any(not torch.equal(found[0][k], found[2][k]) for k in found[0])


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    state, numbers = start(lecam_weight=0.3)
    for _ in range(3):
        train_step(state, faces(), numbers)
    saved = copy.deepcopy(state.state_dict())
    for _ in range(3):
        train_step(state, faces(), numbers)
    other, _ = start(seed=99)
    train_step(other, faces(), numbers)
    other.load_state_dict(saved)
    assert other.cur_nimg == 24
    for _ in range(3):
        train_step(other, faces(), numbers)
    wanted, found = state.state_dict(), other.state_dict()
    for role in ("G", "D", "G_ema"):
        assert all(torch.equal(found[role][k], wanted[role][k]) for k in wanted[role]), role
    for key in ("cur_nimg", "p", "pl_mean", "anchors", "signs", "skipped_steps"):
        assert torch.equal(torch.as_tensor(found[key]), torch.as_tensor(wanted[key])), key
    assert wanted["p"] != 0.4 and wanted["pl_mean"] != 0 and (wanted["anchors"] != 0).all()


@pytest.mark.parametrize(("frozen", "part"), [("lr_mapping", ".mapping.fc"), ("lr_noise", "noise_strength")])
def test_what_has_no_learning_rate_stays(frozen: str, part: str) -> None:
    state, numbers = start(**{frozen: 0.0})
    before = weights(state)
    for _ in range(2):
        train_step(state, faces(), numbers)
    after = weights(state)
    generators = [k for k in before if k.startswith("G") and not k.endswith(("noise_const", "w_avg"))]
    assert {k for k in generators if torch.equal(before[k], after[k])} == {k for k in generators if part in k}
    assert len(state.opt_G.state) == sum(part not in f".{k}" for k, _ in state.G.named_parameters())


def test_own_learning_rates() -> None:
    state, _ = start(lr_mapping=0.1, lr_noise=0.01, lr_g=0.002, G_reg_interval=4)
    assert [group["lr"] for group in state.opt_G.param_groups] == pytest.approx([1.6e-4, 1.6e-5, 1.6e-3])
    set_lr(state, 0.5)
    assert [group["lr"] for group in state.opt_G.param_groups] == pytest.approx([8e-5, 8e-6, 8e-4])


def test_regularisers_run_when_they_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    def phases(**changes) -> list[str]:
        return ["".join(trainer.due(recipe(**changes), step)) for step in range(4)]

    main = "GmainDmain"
    every = ["GmainGregDmainDreg", main, "GmainGregDmain", "GmainDmainDreg"]
    assert phases() == every
    assert phases(pl_weight=0.0) == [main + "Dreg", main, main, main + "Dreg"]
    assert phases(r1_gamma=0.0) == ["GmainGregDmain", main, "GmainGregDmain", main]


def test_ada_follows_the_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    state, numbers = start(p_max=0.45)
    for sign, wanted in ((1.0, 0.432), (1.0, 0.45), (-1.0, 0.418)):  # 8 * 2 / 500 a time
        state.D.b4.out.bias.data.fill_(1e4 * sign)
        for _ in range(2):
            train_step(state, faces(), numbers)
        assert float(state.augment.p) == pytest.approx(wanted, abs=1e-6)
        assert state.signs.tolist() == [0, 0]


def test_no_augmentation() -> None:
    state, numbers = start(augment="none")
    train_step(state, faces(), numbers)
    assert state.augment is None and state.state_dict()["p"] == 0


def test_stats_are_means_since_they_were_read() -> None:
    state, numbers = start()
    train_step(state, faces(), numbers)
    names = {"loss_g", "loss_d", "pl_penalty", "r1_penalty", "real_sign", "fake_sign"}
    first = read_stats(state)
    assert first.keys() == names and all(map(math.isfinite, first.values()))
    assert -1 <= first["real_sign"] <= 1 and read_stats(state) == {}
    train_step(state, faces(), numbers)
    assert read_stats(state).keys() == names - {"pl_penalty", "r1_penalty"}


def test_a_gradient_that_is_not_finite_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    state, numbers = start()
    before = weights(state)
    with monkeypatch.context() as broken:
        broken.setattr(losses, "generator_loss", lambda logits: logits[:, 0] * math.inf)
        broken.setattr(losses, "discriminator_loss", lambda real, fake: (real[:, 0] * math.nan, fake[:, 0]))
        broken.setattr(losses, "path_lengths", lambda G, ws, *a, **k: ws.sum(dim=[1, 2]) * math.nan)
        broken.setattr(losses, "r1_penalty", lambda D, *a: (D(torch.zeros(8, 3, 16, 16)).sum() * math.nan,
                                                            torch.full((8, 1), math.nan)))  # fmt: skip
        train_step(state, faces(), numbers)
    assert state.skipped_steps == 4 and state.cur_nimg == 8
    after = weights(state)
    assert all(torch.equal(before[k], after[k]) for k in before if not k.endswith("w_avg"))
    for _ in range(2):
        train_step(state, faces(), numbers)
    assert state.skipped_steps == 4 and all(tensor.isfinite().all() for tensor in weights(state).values())
    assert math.isfinite(float(state.augment.p)) and math.isfinite(float(state.pl_mean)) and state.pl_mean > 0


@pytest.mark.parametrize(("batch", "batch_gpu", "said"), [
    (12, 8, "train.batch 12 is not a multiple of 1 processes x train.batch_gpu 8"),
    (12, 6, "train.batch_gpu 6 does not divide into minibatch-stddev groups of 4")])  # fmt: skip
def test_uneven_batches(batch: int, batch_gpu: int, said: str) -> None:
    with pytest.raises(StylebotError, match=said):
        start(batch=batch, batch_gpu=batch_gpu)


@pytest.mark.parametrize(("batch", "batch_gpu"), [(8, 8), (8, 4), (6, 3), (2, 1)])
def test_even_batches(batch: int, batch_gpu: int) -> None:
    check_batch(recipe(batch=batch, batch_gpu=batch_gpu), Discriminator(img_resolution=8, channel_base=32))


def test_too_many_frozen_layers() -> None:
    with pytest.raises(StylebotError, match="freeze_d = 8: this discriminator has 0 to 7 layers"):
        start(freeze_d=8)
