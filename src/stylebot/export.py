"""Ways out: rosinality's .pt, official names with their constructor arguments, and ONNX."""

import io
import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from stylebot.checkpoints import load_networks
from stylebot.errors import StylebotError
from stylebot.files import write_bytes
from stylebot.generator import Generator
from stylebot.official import CONFIG, arguments_of
from stylebot.rosinality import from_official
from stylebot.weights import ROLES, Networks

KINDS = ("rosinality", "official", "onnx")
OPSET = 18  # what torch's exporter writes and every current runtime reads


def write_rosinality(networks: Networks, path: Path) -> None:
    """A .pt that rosinality's code and the pSp family load: g_ema, latent_avg, and g and d if there are any.

    Raises: StylebotError if their code has no such network.
    """
    if networks.G_ema is None:
        raise StylebotError("there is no G_ema to export")
    out: dict[str, object] = {}
    for theirs, role in (("g", "G"), ("d", "D"), ("g_ema", "G_ema")):
        network = getattr(networks, role)
        if network is not None:
            out[theirs] = from_official(role, network.config, network.state_dict())
    out["latent_avg"] = networks.G_ema.mapping.w_avg.detach().cpu().clone()
    buffer = io.BytesIO()
    torch.save(out, buffer)
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


def export(generator: Path, kind: str, out: Path, allow_missing: bool = False) -> None:
    """Write the networks of any checkpoint of the family as `kind`, a file or a folder `out`.

    Raises: StylebotError if the kind is unknown or cannot hold these networks.
    """
    if kind not in KINDS:
        raise StylebotError(f"--kind {kind} is none of {', '.join(KINDS)}")
    networks = load_networks(generator, need=("G_ema",), allow_missing=allow_missing)
    if kind == "rosinality":
        write_rosinality(networks, out)
    elif kind == "official":
        write_official(networks, out)
    else:
        write_onnx(networks.G_ema, out)
