"""Ways out: rosinality's .pt, pSp's .pt, official names with their constructor arguments, and ONNX."""

import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from stylebot.checkpoints import load_networks
from stylebot.encoder import load_encoder, n_styles
from stylebot.errors import StylebotError
from stylebot.files import sha256_file, write_bytes
from stylebot.generator import Generator
from stylebot.official import CONFIG, arguments_of
from stylebot.rosinality import from_official
from stylebot.weights import ROLES, Networks, at_initialisation

KINDS = ("rosinality", "psp", "official", "onnx")
OPSET = 18  # what torch's exporter writes and every current runtime reads


def write_rosinality(networks: Networks, path: Path) -> None:
    """A .pt that rosinality's code and the pSp family load: g_ema, latent_avg, and g and d if there are any.

    A D without low-pass (the sample's) is left out, which stderr says: their code has none.
    Raises: StylebotError if their code has no such network.
    """
    if networks.G_ema is None:
        raise StylebotError("there is no G_ema to export")
    out: dict[str, object] = {}
    for theirs, role in (("g", "G"), ("d", "D"), ("g_ema", "G_ema")):
        network = getattr(networks, role)
        if role == "D" and network is not None and len(network.config["filter_taps"]) == 1:
            print("export: D is left out, rosinality's code has none without low-pass", file=sys.stderr)
        elif network is not None:
            out[theirs] = from_official(role, network.config, network.state_dict())
    out["latent_avg"] = networks.G_ema.mapping.w_avg.detach().cpu().clone()
    buffer = io.BytesIO()
    torch.save(out, buffer)
    write_bytes(path, buffer.getvalue())


def read_encoder(path: Path, generator: Path) -> tuple[dict[str, Tensor], dict]:
    """The state of an encoder written by `encode`, in pSp's key names, with latent_avg; and its parameters.

    Raises: StylebotError if it is no pSp encoder or was trained against another generator.
    """
    encoder, meta = load_encoder(path)
    variant = encoder.config["variant"]
    if variant != "psp":
        raise StylebotError(f"{path} is a {variant} encoder, which pSp has not; set encode.variant to psp")
    if generator.is_file() and meta.get("generator_sha256") not in (None, sha256_file(generator)):
        raise StylebotError(f"{path} was trained against another generator than {generator}")
    params = dict(meta.get("params", {}))
    if "faithful" in params:
        print("export: the skip connections of mode faithful are left out, pSp has none", file=sys.stderr)
    return encoder.net.state_dict() | {"latent_avg": encoder.latent_avg}, params


def psp_options(G: Generator, encoder: Mapping[str, Tensor], params: Mapping[str, object]) -> dict:
    """`opts` of a pSp checkpoint: what its code needs to rebuild encoder and decoder, and `params` beside."""
    factors = params.get("factors")
    kept = {name: value for name, value in params.items() if isinstance(value, str | int | float | bool)}
    return kept | {
        "output_size": G.img_resolution, "encoder_type": _encoder_type(encoder), "input_nc": 3,
        "label_nc": 0, "start_from_latent_avg": True,
        "learn_in_w": encoder["latent_avg"].reshape(-1, G.w_dim).shape[0] == 1,
        "dataset_type": "celebs_super_resolution", "device": "cpu",
        "resize_factors": ",".join(map(str, factors)) if isinstance(factors, list) else "1,2,4,8,16,32",
    }  # fmt: skip


def _encoder_type(encoder: Mapping[str, Tensor]) -> str:
    """pSp's class name for an encoder with these keys."""
    if any(name.startswith("styles.") for name in encoder):
        return "GradualStyleEncoder"
    wide = any(name.startswith("output_layer_2.") for name in encoder)
    return "BackboneEncoderUsingLastLayerInto" + ("WPlus" if wide else "W")


def unlike_psp(G: Generator) -> list[str]:
    """Where the generator differs from the one that pSp's code builds."""
    c = G.config
    wanted = {"z_dim": 512, "w_dim": 512, "mapping_layers": 8, "channel_max": 512}
    out = [f"{name} {c[name]} instead of {value}" for name, value in wanted.items() if c[name] != value]
    if G.img_resolution > 64 and c["channel_base"] != 32768:
        out.append(f"channel_multiplier {c['channel_base'] / 16384:g} instead of 2")
    return out


def write_psp(networks: Networks, path: Path, opts: Mapping[str, object] | None = None) -> None:
    """A pSp checkpoint: state_dict (encoder.*, decoder.*), latent_avg, opts (the file's own, if it had any).

    latent_avg [n_styles, w_dim] (one row or one vector where the encoder has that).
    Raises: StylebotError without G_ema or encoder, and if the two do not belong together.
    """
    G, encoder = networks.G_ema, dict(networks.encoder or {})
    if G is None or not encoder:
        raise StylebotError("a pSp checkpoint needs G_ema and an encoder (--encoder)")
    average, styles = encoder.pop("latent_avg", None), n_styles(G.img_resolution)
    if average is None or average.shape not in ((styles, G.w_dim), (1, G.w_dim), (G.w_dim,)):
        raise StylebotError(f"the encoder's latent_avg does not fit a generator of {G.img_resolution} px")
    if not torch.equal(average, G.mapping.w_avg.expand_as(average)):
        raise StylebotError("the encoder's latent_avg is not the generator's average: they do not match")
    heads = {m[1] for name in encoder if (m := re.match(r"styles\.(\d+)\.", name))}
    if heads and len(heads) != styles:
        raise StylebotError(f"the encoder has {len(heads)} styles, the generator {styles}")
    decoder = from_official("G_ema", G.config, G.state_dict())
    state = {f"encoder.{k}": v for k, v in encoder.items()} | {f"decoder.{k}": v for k, v in decoder.items()}
    saved = networks.meta.get("opts") if opts is None else opts
    saved = dict(saved or psp_options(G, encoder | {"latent_avg": average}, {}))
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    buffer = io.BytesIO()
    torch.save({"state_dict": tensors, "latent_avg": average.detach().cpu().clone(), "opts": saved}, buffer)
    write_bytes(path, buffer.getvalue())


def official_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict as the official code has it: ours and the constant filters, contiguous."""
    filters = {k: v for k, v in network.named_buffers() if k.rpartition(".")[2] == "resample_filter"}
    return {k: v.detach().cpu().contiguous().clone() for k, v in (network.state_dict() | filters).items()}


def write_official(networks: Networks, folder: Path) -> None:
    """A folder with G.safetensors, D.safetensors, G_ema.safetensors in official key names, and config.json.

    config.json gives, per network, the constructor's arguments of stylegan2-ada-pytorch; no code, no pickle.
    `Generator(**config["G_ema"]).load_state_dict(load_file("G_ema.safetensors"))` rebuilds a network there.
    """
    present = {role: net for role in ROLES if (net := getattr(networks, role)) is not None}
    for role, network in present.items():
        write_bytes(folder / f"{role}.safetensors", save(official_state(network)))
    config = {role: arguments_of(role, network.config) for role, network in present.items()}
    text = json.dumps({"networks": config, "meta": networks.meta}, indent=2, sort_keys=True)
    write_bytes(folder / CONFIG, (text + "\n").encode())


class _FromZ(nn.Module):
    """z [N, z_dim], psi [] to img: mapping, truncation towards w_avg, synthesis with the constant noise."""

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.G = G

    def forward(self, z: Tensor, psi: Tensor) -> Tensor:
        average = self.G.mapping.w_avg
        return self.G.synthesis(average + (self.G.mapping(z) - average) * psi, noise_mode="const")


class _FromW(nn.Module):
    """ws [N, num_ws, w_dim] to img."""

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.G = G

    def forward(self, ws: Tensor) -> Tensor:
        return self.G.synthesis(ws, noise_mode="const")


def write_onnx(G: Generator, folder: Path) -> None:
    """generator.onnx (z [N, z_dim], psi [] to img) and synthesis.onnx (ws [N, num_ws, w_dim] to img), any N.

    img [N, C, R, R] float32 about [-1, 1]; noise is the constant one. Needs the packages onnx and onnxscript.
    Raises: StylebotError without them, and for networks with labels.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise StylebotError("ONNX export needs two more packages: pip install onnx onnxscript") from None
    if G.c_dim:
        raise StylebotError("ONNX export is for networks without labels")
    G = G.eval().requires_grad_(False).cpu()
    batch = torch.export.Dim("batch")
    z, psi, ws = torch.randn(2, G.z_dim), torch.tensor(0.7), torch.randn(2, G.num_ws, G.w_dim)
    jobs = {"generator": (_FromZ(G), (z, psi), ["z", "psi"], ({0: batch}, {})),
            "synthesis": (_FromW(G), (ws,), ["ws"], ({0: batch},))}
    for name, (module, example, inputs, shapes) in jobs.items():
        program = torch.onnx.export(
            module.eval(), example, input_names=inputs, output_names=["img"], dynamo=True,
            dynamic_shapes=shapes, opset_version=OPSET, verbose=False)
        write_bytes(folder / f"{name}.onnx", program.model_proto.SerializeToString())


def export(
    generator: Path, kind: str, out: Path, allow_missing: bool = False, encoder: Path | None = None
) -> None:
    """Write the networks of any checkpoint of the family as `kind`, a file or a folder `out`.

    encoder: for kind psp, what stage `encode` wrote; None takes the one in `generator`, if it holds one.
    What stays at initialisation (allow_missing) is listed on stderr.
    Raises: StylebotError if the kind is unknown or cannot hold these networks.
    """
    if kind not in KINDS:
        raise StylebotError(f"--kind {kind} is none of {', '.join(KINDS)}")
    networks = load_networks(generator, need=("G_ema",), allow_missing=allow_missing)
    for line in at_initialisation(networks):
        print(f"export: {line}", file=sys.stderr)
    if kind == "psp":
        opts = None
        if encoder is not None:
            networks.encoder, params = read_encoder(encoder, generator)
            opts = psp_options(networks.G_ema, networks.encoder, params)
        write_psp(networks, out, opts)
        if notes := unlike_psp(networks.G_ema):
            said = "; ".join(notes)
            print(f"export: pSp's code builds another decoder; change there: {said}", file=sys.stderr)
    elif kind == "rosinality":
        write_rosinality(networks, out)
    elif kind == "official":
        write_official(networks, out)
    else:
        write_onnx(networks.G_ema, out)
