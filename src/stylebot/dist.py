"""This process among its peers, and the device that is its own: the only file that knows about GPUs."""

import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Literal

import torch
import torch.distributed as td

When = Literal["auto", "always", "never"]


def device() -> torch.device:
    """This process's GPU if the machine has any, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


def wants_half(when: When) -> bool:
    """Whether to compute in bfloat16: `auto` where the GPU or the processor has it in hardware."""
    if when != "auto":
        return when == "always"
    where = device().type
    if where == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return torch.get_device_module(where).is_bf16_supported(including_emulation=False)


def halved(half: bool) -> AbstractContextManager:
    """Convolutions and matrix products in bfloat16 if `half`; parameters, sums and losses stay float32."""
    return torch.autocast(device().type, torch.bfloat16, enabled=half)


def rank() -> int:
    """Number of this process, 0 … world() - 1."""
    return td.get_rank() if td.is_initialized() else 0


def world() -> int:
    """Number of processes that train together."""
    return td.get_world_size() if td.is_initialized() else 1


def init() -> None:
    """Join the group that torchrun describes in the environment; alone if there is none."""
    where = device()
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if "RANK" in os.environ and not td.is_initialized():
        td.init_process_group("nccl" if where.type == "cuda" else "gloo")


def finish() -> None:
    """Leave the group."""
    if td.is_initialized():
        td.destroy_process_group()


def all_reduce_mean(tensors: Iterable[torch.Tensor]) -> None:
    """Replace each tensor by its mean over all processes, by one flat message; all of one dtype."""
    parts = list(tensors)
    if world() == 1 or not parts:
        return
    flat = torch.cat([t.reshape(-1) for t in parts])
    td.all_reduce(flat)
    flat /= world()
    for part, mean in zip(parts, flat.split([t.numel() for t in parts]), strict=True):
        part.copy_(mean.view_as(part))


def anywhere(flag: bool) -> bool:
    """Whether `flag` holds in any process: the same answer in all of them."""
    if world() == 1:
        return flag
    votes = torch.tensor(float(flag), device=device())
    td.all_reduce(votes)
    return bool(votes > 0)


def barrier() -> None:
    """Wait for the others."""
    if world() > 1:
        td.barrier()


def processes_wanted() -> int:
    """Processes per machine: $PET_NPROC_PER_NODE (torchrun's own name), else one per GPU, else one."""
    wanted = os.environ.get("PET_NPROC_PER_NODE", "")
    return int(wanted) if wanted.isdigit() else max(torch.cuda.device_count(), 1)


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(script: str) -> bool:
    """Start `script` under torchrun if several processes are wanted; False if this one is to do the work."""
    many = processes_wanted() > 1 or int(os.environ.get("PET_NNODES", "1").split(":")[-1]) > 1
    if under_torchrun() or not many:
        return False
    from torch.distributed.run import main as torchrun

    alone = [] if "PET_NNODES" in os.environ else ["--standalone"]
    torchrun([*alone, f"--nproc-per-node={processes_wanted()}", script, *sys.argv[1:]])
    return True
