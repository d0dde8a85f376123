"""One step on two processes, in bfloat16, compiled: what it gives is what one plain process gives."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_encode import PARAMS, faces_zip, narrow_perceptual, narrow_trunk, tiny_generator  # noqa: F401

from stylebot import dist
from stylebot.checkpoints import Networks, save_networks
from stylebot.dataset import Dataset
from stylebot.encode import EncodeParams, Faces, Judges, encode, frozen, make_faces, step_of
from stylebot.encoder import Encoder, load_encoder
from stylebot.errors import StylebotError
from stylebot.files import read_json
from stylebot.lockstep import SharedBatchNorm, compiled, synchronised
from stylebot.perceptual import Perceptual

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys
from pathlib import Path
import torch, stylebot.encoder
from stylebot import dist
from stylebot.encode import EncodeParams, encode
from stylebot.files import read_json, write_json
if not dist.launch(__file__):
    torch.set_num_threads(1)
    stylebot.encoder._LIGHT_STAGES = ((16, 1),) * 4
    dist.init()
    here = Path(__file__).parent
    params = EncodeParams.model_validate(read_json(here / "params.json"))
    given = [here / name for name in ("g.safetensors", "faces.zip", "p.pth", "two.safetensors")]
    found = encode(*given, params)
    write_json(here / f"found{dist.rank()}.json", found)
    dist.finish()
"""
FAITHFUL = {"kimg": 0.008, "lr": 0.002, "consistency_weight": 1.0}


def params(**changes: object) -> EncodeParams:
    return EncodeParams.model_validate(PARAMS | {"batch": 8, "kimg": 0.032} | changes)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STYLEBOT_SCRATCH", str(tmp_path / "scratch"))
    save_networks(tmp_path / "g.safetensors", Networks(G=None, D=None, G_ema=tiny_generator()))
    faces_zip(tmp_path / "faces.zip", 12)
    narrow_perceptual(tmp_path / "p.pth")
    return tmp_path


def alone(folder: Path, wanted: EncodeParams) -> dict[str, float]:
    given = (folder / name for name in ("g.safetensors", "faces.zip", "p.pth", "one.safetensors"))
    return encode(*given, wanted)


@pytest.mark.slow
def test_two_processes_train_like_one(folder: Path) -> None:
    """The same global batches, normalisation and skip connections included; photos, as drawn for all."""
    wanted = params(degradation="photo", faithful=FAITHFUL)
    (folder / "params.json").write_text(wanted.model_dump_json())
    (folder / "encode_two.py").write_text(SCRIPT)
    environment = os.environ | {"PET_NPROC_PER_NODE": "2", "OMP_NUM_THREADS": "1",
                                "PYTHONPATH": str(ROOT / "src")}  # fmt: skip
    done = subprocess.run([sys.executable, folder / "encode_two.py"], env=environment, capture_output=True,
                          text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = alone(folder, wanted)
    both = [read_json(folder / f"found{rank}.json") for rank in (0, 1)]
    assert both[0] == both[1] == pytest.approx(found, rel=1e-3)
    one, two = (load_encoder(folder / f"{name}.safetensors")[0].state_dict() for name in ("one", "two"))
    torch.manual_seed(wanted.seed)
    first = Encoder("light", 32, w_dim=8).state_dict()
    for part in ("weight", "bias", "running_mean", "running_var"):
        names = [name for name in one if name.endswith(part)]
        moved, apart = (torch.cat([(one[n] - other[n]).reshape(-1) for n in names]).norm()
                        for other in (first, two))  # fmt: skip
        assert apart < 0.01 * moved, f"{part}: {apart} of {moved}"
    assert not list((folder / "scratch").rglob("*.pt"))


def test_a_batch_that_cannot_be_shared_evenly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylebot.dist.world", lambda: 3)
    with pytest.raises(StylebotError, match="8 has 4 real and 4 generated faces, which 3 processes"):
        alone(folder, params())


def test_shared_normalisation_is_that_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """One half, told the mean of both, gives what BatchNorm2d gives of the whole."""
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4) * 3 + 1
    plain = torch.nn.BatchNorm2d(3)
    with torch.no_grad():
        plain.weight.uniform_(0.5, 2), plain.bias.normal_()
    shared = synchronised(torch.nn.Sequential(torch.nn.BatchNorm2d(3)))
    shared[0].load_state_dict(plain.state_dict())
    assert torch.equal(shared(x), plain(x)) and isinstance(shared[0], SharedBatchNorm)
    shared[0].load_state_dict(plain.state_dict())
    halves, wanted = x.reshape(2, 3, 3, 4, 4), plain(x)
    means = iter([halves.mean((0, 1, 3, 4)), x.var((0, 2, 3), correction=0)])
    monkeypatch.setattr("stylebot.dist.world", lambda: 2)
    monkeypatch.setattr("stylebot.dist.all_reduce_mean", lambda parts: parts[0].copy_(next(means)))
    torch.testing.assert_close(shared(halves[0]), wanted[:3])
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(shared[0].state_dict()[name], value)
    shared.eval(), plain.eval()
    assert torch.equal(shared(x), plain(x))


def gradient_of(folder: Path, **changes: object) -> tuple[torch.Tensor, Encoder]:
    """Of one step's losses by the encoder's weights; compiled by a backend that needs no compiler."""
    wanted = params(**changes)
    generator, real = frozen(tiny_generator()), Dataset(folder / "faces.zip").read_all()
    faces = Faces(torch.from_numpy(real), *make_faces(generator, 8, 1.0, 3))
    torch.manual_seed(3)
    encoder = Encoder("light", 32, w_dim=8).train()
    judges = Judges(Perceptual(folder / "p.pth"), half=dist.wants_half(wanted.amp))
    found = step_of(encoder, faces, generator, judges, wanted)(0)
    assert all(value.dtype == torch.float32 for value in found.values())
    torch.stack(list(found.values())).sum().backward()
    return torch.cat([p.grad.reshape(-1) for p in encoder.parameters()]), encoder


def test_bfloat16_rounds_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = gradient_of(folder, amp="never")
    half, encoder = gradient_of(folder, amp="always")
    assert 1e-4 < float((half - plain).norm() / plain.norm()) < 0.05
    assert all(p.dtype == torch.float32 for p in encoder.parameters())
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False})
    assert torch.equal(gradient_of(folder, amp="auto")[0], plain), "a CPU without it is left alone"


def test_a_compiled_step_is_the_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    plain, eager = gradient_of(folder, compile="never")
    run = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **how: run(f, **how | {"backend": "eager"}))
    fast, encoder = gradient_of(folder, compile="always")
    assert "encode: compiling" in capsys.readouterr().err
    assert float((fast - plain).norm() / plain.norm()) < 1e-4
    for name, value in eager.named_buffers():  # what the trial moved was moved back
        torch.testing.assert_close(dict(encoder.named_buffers())[name], value)


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda parts: (_ for _ in ()).throw(RuntimeError("no\nsuch kernel")), "RuntimeError: no"),
    (lambda parts: {name: 3 * part for name, part in parts.items()}, "its gradient is 2 of its length off")])
def test_what_cannot_be_compiled_runs_eagerly_and_says_so(
    spoil, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    net = torch.nn.BatchNorm1d(4)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))

    def step(given: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": (net(given) * torch.arange(4)).square().sum()}

    monkeypatch.setattr(torch, "compile", lambda f, **how: lambda *given: spoil(f(*given)))
    assert compiled(step, net, lambda: (x,), "always", "encode") is step
    assert f"runs without torch.compile: {says}" in capsys.readouterr().err
    assert int(net.num_batches_tracked) == 0
