"""Every array of the oracle folder that networks and readers compute, when STYLEBOT_ORACLE names that folder.

The committed tests hold a small case of each group; this one and test_whole_steps.py compare the rest.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from whole_oracle import CASES, FOLDER, PRECISIONS, Case, needed, of

from stylebot import losses
from stylebot.augment import AugmentPipe
from stylebot.checkpoints import load_networks
from stylebot.discriminator import Discriminator
from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.psp import LastLayerEncoder
from stylebot.rosinality import to_official
from stylebot.weights import ROLES, Weights, build

pytestmark = needed


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("entry", of("item01"))
def test_generators(entry: dict, dtype: torch.dtype) -> None:
    case = Case(entry, dtype)
    G, z, c = case.network("G", entry["options"]), case.given("in/z"), case.given("in/c")
    cut, num_ws = entry["truncation_cutoff"], None
    with torch.no_grad():
        ws, num_ws = G.mapping(z, c), G.num_ws
        case.close("ws", ws)
        case.close("ws_psi0.7", G.mapping(z, c, truncation_psi=0.7))
        case.close("ws_psi0.7_cutoff", G.mapping(z, c, truncation_psi=0.7, truncation_cutoff=cut))
        case.close("img_const", G(z, c, noise_mode="const"))
        case.close("img_const_unfused", G(z, c, noise_mode="const"))
        case.close("img_none", G(z, c, noise_mode="none"))
        case.close("img_const_psi0.7", G(z, c, truncation_psi=0.7, noise_mode="const"))
        case.close("img_const_psi0.7_cutoff",
                   G(z, c, truncation_psi=0.7, truncation_cutoff=cut, noise_mode="const"))  # fmt: skip
        G.train().mapping(z, c)
        case.close("w_avg_after_one_train_forward", G.mapping.w_avg)
    assert case.compared >= (9 if dtype == torch.float32 else 4) and num_ws == ws.shape[1]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("entry", of("item02"))
def test_discriminators(entry: dict, dtype: torch.dtype) -> None:
    case = Case(entry, dtype)
    D, img = case.network("D", entry["options"]), case.given("in/img").requires_grad_()
    logits = D(img, case.given("in/c"))
    case.close("logits", logits)
    case.close("grad_img", torch.autograd.grad(logits.sum(), img, retain_graph=True)[0])
    loss = losses.generator_loss(logits).mean()
    case.close("loss", loss)
    loss.backward()
    for name, parameter in D.named_parameters():
        case.close(f"gradnorm/{name}", parameter.grad.norm())
        case.close(f"grad/{name}", parameter.grad)
        case.close(f"gradhead/{name}", parameter.grad.flatten()[:64])
    wanted = sum(name.startswith("out/" if dtype == torch.float32 else "out64/") for name in case.arrays)
    assert case.compared == wanted


def accumulated(case: Case, name: str, phase: int, G: Generator, D: Discriminator, pl_mean: Tensor) -> Tensor:
    """Backward through every loss of the phase `name` ("both": main and regularisation); the new pl_mean."""
    entry, gain = case.entry, case.entry["phases"][phase][1]
    options, start = entry["loss_kwargs"], f"in/{phase}/"
    z, c, real, real_c = (case.given(start + name) for name in ("gen_z", "gen_c", "real_img", "real_c"))
    tape = iter(sorted(name for name in case.arrays if name.startswith(f"{start}rng")))
    how, draw = entry["noise_mode"], lambda shape: case.given(next(tape))
    if name in ("Gmain", "Gboth"):
        fake = D(G.synthesis(losses.mixed_ws(G.mapping, z, c), how, draw), c)
        case.close(f"{phase}/report/Loss/scores/fake", fake[:, 0])
        (losses.generator_loss(fake).mean() * gain).backward()
    if name in ("Greg", "Gboth"):
        count = len(z) // options["pl_batch_shrink"]
        ws = losses.mixed_ws(G.mapping, z[:count], c[:count])
        lengths = losses.path_lengths(G, ws, draw, how, draw)
        penalty, pl_mean = losses.path_length_penalty(lengths, pl_mean, options["pl_decay"])
        ((penalty * options["pl_weight"]).mean() * gain).backward()
    if name in ("Dmain", "Dboth"):
        with torch.no_grad():
            img = G.synthesis(losses.mixed_ws(G.mapping, z, c), how, draw)
        parts = losses.discriminator_loss(D(real, real_c), D(img, c))
        (sum(part.mean() for part in parts) * gain).backward()
    if name in ("Dreg", "Dboth"):
        penalty, _ = losses.r1_penalty(D, lambda img: img, real, real_c)
        ((penalty * (options["r1_gamma"] / 2)).mean() * gain).backward()
    assert next(tape, None) is None
    return pl_mean


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("entry", [p for p in of("item03") if "mix" not in p.id])
def test_losses(entry: dict, dtype: torch.dtype) -> None:
    case = Case(entry, dtype)
    G, D = (case.network(role, entry["options"][role], f"{role}/").train() for role in "GD")
    pl_mean = torch.zeros([], dtype=dtype)
    for phase, (name, _) in enumerate(entry["phases"]):
        net = G if name[0] == "G" else D
        for other in (G, D):
            other.zero_grad()
        pl_mean = accumulated(case, name, phase, G, D, pl_mean)
        case.close(f"{phase}/pl_mean", pl_mean)
        case.close_gradients(phase, net)
    assert case.compared > 50


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("entry", of("item09"))
def test_rosinality(entry: dict, dtype: torch.dtype) -> None:
    case = Case(entry, dtype)
    weights = Weights({}, {})
    for role, prefix in (("G_ema", "g/"), ("D", "d/")):
        state = {name.removeprefix(prefix): tensor for name, tensor in case.arrays.items()
                 if name.startswith(prefix)}  # fmt: skip
        weights.configs[role], weights.states[role] = to_official(role, state)
    weights.states["G_ema"]["mapping.w_avg"] = case.arrays["latent_avg"]
    networks = build(weights)
    G, D, z = networks.G_ema.to(dtype), networks.D.to(dtype), case.given("in/z")
    with torch.no_grad():
        ws = G.mapping(z)
        case.close("w", ws[:, 0])
        case.close("latent", ws)
        shown = {"buffers": ws, "trunc0.5_buffers": G.mapping(z, truncation_psi=0.5)}
        mixed = losses.mixed_ws(G.mapping, z, None, case.given("in/z2"), entry["inject_index"])
        case.close("latent_mix", mixed)
        shown |= {"mix_buffers": mixed, "wplus_buffers": case.given("in/latent_wplus")}
        for name, latent in shown.items():
            name = "noise_buffers" if name == "buffers" else name
            img = G.synthesis(latent, noise_mode="const")
            # in float64 their blur kernels are still float32 numbers
            if dtype == torch.float32:
                case.close(f"img_{name}", img)
        logits = D(case.given("in/d_img"))
        case.close("d_logits", logits)
        for name, latent in (("const", ws), ("psi0.5_const", shown["trunc0.5_buffers"]),
                             ("wplus_const", case.given("in/latent_wplus"))):
            case.close(f"nv_img_{name}", G.synthesis(latent, noise_mode="const"))
        case.close("nv_d_logits", logits)
    assert case.compared >= 4


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("entry", [p for p in of("item06") if "tape" not in p.id])
def test_augmentations(entry: dict, dtype: torch.dtype) -> None:
    case = Case(entry, dtype)
    for pipe in entry["pipes"]:
        augment = AugmentPipe(pipe["pipe"], "reference")
        augment.p.fill_(1)
        for percentile in entry["percentiles"]:
            img, name = case.given("in/images").requires_grad_(), f"{pipe['name']}/p{percentile}"
            y = augment(img, debug_percentile=percentile)
            (gradient,) = torch.autograd.grad((y * case.given("in/dy")).sum(), img)
            case.close(f"{name}/y", y)
            case.close(f"{name}/grad_images", gradient)
    assert case.compared >= 6 or not case.starting("out64/")


def test_psp_state_keys() -> None:
    from stylebot.encoder import PspEncoder

    nets = json.loads((FOLDER / "item10_psp" / "psp_state_keys.json").read_text())["nets"]
    for net in nets:
        with torch.device("meta"):
            wide = LastLayerEncoder(14, wide=True)
            ours = PspEncoder(net["output_size"]) if net["encoder_type"].startswith("Gradual") else wide
        found = {f"encoder.{name}": list(tensor.shape) for name, tensor in ours.state_dict().items()}
        wanted = net["state_dict_shapes"]
        assert found == {name: shape for name, shape in wanted.items() if name.startswith("encoder.")}
    assert len(nets) == 2


@pytest.mark.parametrize("entry", [c for c in CASES if c.get("kind") == "legit"], ids=lambda c: c["id"])
def test_official_pickles(entry: dict) -> None:
    networks = load_networks(FOLDER / entry["file"], need=ROLES)
    with np.load(FOLDER / entry["expected"]) as stored:
        wanted = {name: torch.from_numpy(stored[name]) for name in stored.files}
    sums = json.loads((FOLDER / entry["file"].replace(".pkl", "_checksums.json")).read_text())
    for role in ROLES:
        for name, tensor in getattr(networks, role).state_dict().items():
            flat, key = tensor.double().flatten(), f"{role}/{name}"
            assert [*flat[:3]] == sums[key]["first"] and list(tensor.shape) == sums[key]["shape"]
            for found, stated in ((flat.sum(), "sum"), (flat.abs().sum(), "abssum")):
                assert float(found) == pytest.approx(sums[key][stated], rel=1e-12, abs=1e-10), key
            assert key not in wanted or torch.equal(tensor, wanted[key]), key
    pictures = {}
    with torch.no_grad():
        for role in ("G", "G_ema"):
            G = getattr(networks, role)
            pictures[f"{role}_img_const"] = G(wanted["in/z"], wanted["in/c"], noise_mode="const")
        pictures["D_logits"] = networks.D(wanted["in/d_img"], wanted["in/d_c"])
    for name, found in pictures.items():
        limit = 2e-6 * float(wanted[f"out/{name}"].abs().max())
        assert float((found - wanted[f"out/{name}"]).abs().max()) <= max(limit, 2e-7), name


@pytest.mark.parametrize(
    "entry", [c for c in CASES if "/hostile/" in str(c.get("file"))], ids=lambda c: c["id"]
)
def test_hostile_pickles(entry: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loads = "bitflip" in entry["file"]  # data damaged inside numbers cannot be noticed
    try:
        load_networks(FOLDER / entry["file"])
        assert loads, "it loaded"
    except StylebotError as error:
        assert str(error).startswith(str(FOLDER / entry["file"])) and "\n" not in str(error)
    assert not list(tmp_path.iterdir())
