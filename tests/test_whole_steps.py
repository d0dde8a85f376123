"""The oracle folder's operations, losses with style mixing, random tape, six training steps, and encoders.

See whole_oracle.py for what is compared, and how near it has to be.
"""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle import psp_weights
from reference_run import KEPT, Reference
from test_augment import tape_draws
from torch import Tensor
from whole_oracle import CASES, FOLDER, PRECISIONS, Case, needed, of

from stylebot import losses, ops
from stylebot.augment import AugmentPipe, ada_update
from stylebot.encoder import PspEncoder
from stylebot.official import config_from
from stylebot.psp import LastLayerEncoder, read_encoder

pytestmark = needed


def filter_of(taps: list | None, dtype: torch.dtype) -> Tensor:
    """Their filter: the sum is 1, eight taps and more stay a row (which is used twice)."""
    f = torch.tensor([1.0] if taps is None else taps, dtype=dtype)
    f = torch.outer(f, f) if f.ndim == 1 and len(f) < 8 else f
    return f / f.sum()


def pair(value: int | list) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def upfirdn2d(case: Case, options: dict, ins: dict[str, Tensor]) -> Tensor:
    """Their four functions in terms of our one, which pads by four numbers and never flips the filter."""
    name, kw = options["fn"], options["kw"]
    f = filter_of(options["filter"], case.dtype)
    (across, along), (right, below) = pair(kw.get("up", 1)), pair(kw.get("down", 1))
    given = kw.get("padding", 0)
    sides = [given] * 4 if isinstance(given, int) else given
    h, w = (len(f), len(f)) if f.ndim == 1 else f.shape
    gain = kw.get("gain", 1)
    if name == "filter2d":
        extra = (w // 2, (w - 1) // 2, h // 2, (h - 1) // 2)
    elif name == "upsample2d":
        across, along = pair(kw.get("up", 2))
        extra = ((w + across - 1) // 2, (w - across) // 2, (h + along - 1) // 2, (h - along) // 2)
        gain *= across * along
    elif name == "downsample2d":
        right, below = pair(kw.get("down", 2))
        extra = ((w - right + 1) // 2, (w - right) // 2, (h - below + 1) // 2, (h - below) // 2)
    else:
        extra = (0, 0, 0, 0)
    f = f.flip(list(range(f.ndim))) if kw.get("flip_filter") else f
    padding = tuple(a + b for a, b in zip(sides, extra, strict=True))
    return ops.upfirdn2d(ins["x"], f, (across, along), (right, below), padding, gain)


def conv2d_resample(case: Case, options: dict, ins: dict[str, Tensor]) -> Tensor:
    """Ours where the networks have such a layer, group after group; else by upfirdn2d."""
    x, w, up, down, k = ins["x"], ins["w"], options["up"], options["down"], options["k"]
    f, usual = filter_of(options["filter"], case.dtype), options["filter"] == [1, 3, 3, 1]
    w = w if options["flip_weight"] else w.flip([2, 3])
    parts = zip(x.chunk(options["groups"], 1), w.chunk(options["groups"]), strict=True)
    if usual and up * down == 2 and options["padding"] == k // 2:
        ours = (lambda x, w: ops.conv_up2(x, w.flip([2, 3]), f)) if up == 2 else (
            lambda x, w: ops.conv_down2(x, w, f))
        return torch.cat([ours(*part) for part in parts], 1)
    given = options["padding"]
    left, right, top, bottom = [given] * 4 if isinstance(given, int) else given
    side = f.shape[-1]
    if up > 1:
        left, top = left + (side + up - 1) // 2, top + (side + up - 1) // 2
        right, bottom = right + (side - up) // 2, bottom + (side - up) // 2
    if down > 1:
        left, top = left + (side - down + 1) // 2, top + (side - down + 1) // 2
        right, bottom = right + (side - down) // 2, bottom + (side - down) // 2
    f = f.flip([0, 1]) if options.get("flip_filter") else f
    stuffed = f if up > 1 else torch.ones(1, 1, dtype=case.dtype)
    x = ops.upfirdn2d(x, stuffed, up, 1, (left, right, top, bottom), up**2)
    x = F.conv2d(x, w, groups=options["groups"])
    return ops.upfirdn2d(x, f, 1, down) if down > 1 else x


def bias_act(case: Case, options: dict, ins: dict[str, Tensor]) -> Tensor:
    own = float(ops.bias_act(torch.ones(1, 1, dtype=torch.float64), None, options["act"])[0, 0])
    plain = {"tanh": np.tanh(1), "sigmoid": 1 / (1 + np.exp(-1)), "elu": 1, "selu": 1.0507009873554805,
             "softplus": np.log1p(np.e), "swish": 1 / (1 + np.exp(-1))}  # fmt: skip
    own /= plain.get(options["act"], 1)
    given = {"slope": options["alpha"]} if "alpha" in options else {}
    b = ins["b"] if options["bias"] else None
    return ops.bias_act(ins["x"], b, options["act"], options.get("gain", own) / own,
                        options.get("clamp"), **given)  # fmt: skip


def modulated_conv2d(case: Case, options: dict, ins: dict[str, Tensor]) -> Tensor:
    return ops.modulated_conv2d(ins["x"], ins["weight"], ins["styles"], filter_of([1, 3, 3, 1], case.dtype),
                                options["up"], options["demodulate"], ins.get("noise"))  # fmt: skip


FUNCTIONS = {f.__name__: f for f in (upfirdn2d, conv2d_resample, bias_act, modulated_conv2d)}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("entry", of("item05"))
def test_operations(entry: dict, dtype: torch.dtype) -> None:
    case = Case(entry, dtype)
    for number, options in enumerate(entry["options"]):
        start = f"in/{number}/"
        ins = {k.removeprefix(start): t.requires_grad_() for k, t in case.starting(start).items()}
        y = FUNCTIONS[entry["id"]](case, options, ins)
        case.close(f"{number}/y", y)
        wanted = [k for k in ins if f"out/{number}/grad_{k}" in case.arrays and ins[k].numel()]
        found = torch.autograd.grad((y * ins["dy"]).sum(), [ins[k] for k in wanted], create_graph=True)
        for k, gradient in zip(wanted, found, strict=True):
            case.close(f"{number}/grad_{k}", gradient)
        if "ddx" in ins:
            again = (found[wanted.index("x")] * ins["ddx"]).sum()
            for k in ("dy", "x"):
                (second,) = torch.autograd.grad(again, ins[k], retain_graph=True, allow_unused=True)
                case.close(f"{number}/grad2_{k}", torch.zeros_like(ins[k]) if second is None else second)
    outs = [k for k in case.arrays if k.startswith("out/" if dtype == torch.float32 else "out64/")]
    assert case.compared == len([k for k in outs if not k.endswith("filter_prepared")])


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("entry", [p for p in of("item03") if "mix" in p.id])
def test_losses_with_style_mixing(entry: dict, dtype: torch.dtype) -> None:
    case = Case(entry, dtype)
    G, D = (case.network(role, entry["options"][role], f"{role}/").train() for role in "GD")
    options, pl_mean = entry["loss_kwargs"], torch.zeros([], dtype=dtype)
    for phase, (name, gain) in enumerate(entry["phases"]):
        net, start = (G if name[0] == "G" else D), f"in/{phase}/"
        z, c, real, real_c = (case.given(start + k) for k in ("gen_z", "gen_c", "real_img", "real_c"))
        tape = iter(sorted(k for k in case.arrays if k.startswith(f"{start}rng")))

        def draw(shape: object = None, tape=tape) -> Tensor:
            return case.given(next(tape))

        def ws(count: int | None = None, draw=draw, z=z, c=c) -> Tensor:
            cutoff, chance, other = int(draw()), float(draw()), draw()
            mixed = cutoff if chance < options["style_mixing_prob"] else None
            return losses.mixed_ws(G.mapping, z[:count], c[:count], other, mixed)

        if name == "Greg":
            lengths = losses.path_lengths(G, ws(len(z) // options["pl_batch_shrink"]), draw, noise_randn=draw)
            penalty, pl_mean = losses.path_length_penalty(lengths, pl_mean, options["pl_decay"])
            loss = penalty * options["pl_weight"]
        elif name == "Dreg":
            loss = losses.r1_penalty(D, lambda img: img, real, real_c)[0] * (options["r1_gamma"] / 2)
        elif name == "Gmain":
            fake = D(G.synthesis(ws(), randn=draw), c)
            case.close(f"{phase}/report/Loss/scores/fake", fake[:, 0])
            loss = losses.generator_loss(fake)
        else:
            with torch.no_grad():
                img = G.synthesis(ws(), randn=draw)
            loss = sum(losses.discriminator_loss(D(real, real_c), D(img, c)))
        assert next(tape, None) is None
        net.zero_grad()
        (loss.mean() * gain).backward()
        case.close(f"{phase}/pl_mean", pl_mean)
        case.close_gradients(phase, net)
    case.close("w_avg_after", G.mapping.w_avg)
    assert case.compared > 300


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("entry", of("item04"))
def test_six_training_steps(entry: dict, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    case, loop = Case(entry, dtype), entry["training_loop_kwargs"]
    shared = {"c_dim": entry["c_dim"], "img_resolution": entry["resolution"], "img_channels": 3}
    nets = {role: {k: v for k, v in net.items() if k != "class_name"} for role, net in entry["nets"].items()}
    options = {role: {k: v for k, v in config_from(role, shared | net).items() if v is not None}
               for role, net in nets.items()}  # fmt: skip
    options |= {k: v for k, v in {**loop, **entry["loss_kwargs"], "batch": loop["batch_size"],
                                  "lr": loop["G_opt_kwargs"]["lr"]}.items() if k in (*KEPT, "lr")}
    arrays = {k.removeprefix("init/"): v for k, v in case.starting("init/").items() if "resample" not in k}
    reference = Reference(options, arrays | case.starting("in/"), dtype)
    for step, state in reference.steps(entry["steps"], monkeypatch):
        for role in ("G", "D", "G_ema"):
            for k, tensor in getattr(state, role).state_dict().items():
                case.close(f"norm/{step}/{role}/{k}", tensor.norm())
        case.close(f"pl_mean/{step}", state.pl_mean)
        case.close(f"ema_beta/{step}", torch.tensor(reference.betas[step], dtype=torch.float64))
    for role in ("G", "D", "G_ema"):
        for k, tensor in getattr(state, role).state_dict().items():
            case.close(f"final/{role}/{k}", tensor)
    for k, norm in reference.gradients.items():
        case.close(f"gradnorm/{k}", norm)
    assert case.compared > 1000 and not reference.pl_noise


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("entry", [p for p in of("item06") if "tape" in p.id])
def test_augmentation_with_given_random_numbers(entry: dict, dtype: torch.dtype) -> None:
    case = Case(entry, dtype)
    tapes = {k.removeprefix("in/"): v.numpy() for k, v in case.arrays.items() if k.startswith("in/tape")}
    for number, p in enumerate(entry["p"]):
        augment = AugmentPipe("bgc", "reference")
        augment.p.fill_(p)
        case.close(f"p{p}/y", augment(case.given("in/images"), draws=tape_draws(tapes, number)))
    assert case.compared == len(entry["p"])


@pytest.mark.parametrize("entry", [c for c in CASES if c["id"] == "ada_p"], ids=lambda c: c["id"])
def test_every_run_of_the_rule_for_p(entry: dict) -> None:
    runs = json.loads((FOLDER / entry["file"]).read_text())
    runs = runs["cases"] if isinstance(runs, dict) else runs
    for run in runs:
        p = float(np.float32(run["p0"]))
        means, after = run["collector_mean_at_adjustment"], run["p_after_each_iteration"]
        for mean, wanted in zip(means, after, strict=True):
            if mean is not None:
                p = ada_update(p, mean, run["ada_target"], run["batch_size"], run["ada_interval"],
                               run["ada_kimg"], p_max=float("inf"))  # fmt: skip
            assert p == wanted, run["name"]
    assert runs


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("entry", of("item10_psp/enc"))
def test_psp_encoders(entry: dict, dtype: torch.dtype) -> None:
    case, wide = Case(entry, dtype), "wplus" in entry["id"]
    resolution = entry["options"]["output_size"]
    with torch.device("meta"):
        shapes = LastLayerEncoder(6, wide=True) if wide else PspEncoder(resolution)
    net = read_encoder(psp_weights(entry["id"], shapes), resolution).to(dtype)
    with torch.no_grad():
        case.close("codes", net(case.arrays["in/img_u8"].to(dtype) / 127.5 - 1))
    assert case.compared == 1
