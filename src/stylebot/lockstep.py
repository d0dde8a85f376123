"""One training step on several processes, in bfloat16, compiled: the same numbers but for rounding."""

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from stylebot import dist
from stylebot.dist import When

Step = Callable[..., dict[str, Tensor]]
_MOST_APART = 0.05  # of its length, of a compiled gradient from the eager one: bfloat16 rounds, too


class _MeanOverAll(torch.autograd.Function):
    """The mean of a tensor over all processes; its gradient is the mean of theirs."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        out = x.clone()
        dist.all_reduce_mean([out])
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        out = gradient.clone()
        dist.all_reduce_mean([out])
        return out


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by mean and variance of the whole batch, of which each process has an equal share.

    What torch.nn.SyncBatchNorm does, on CPUs as well. Alone, and in evaluation, it is BatchNorm2d.
    """

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        """`x` [N,C,H,W] to the same shape and kind."""
        if not self.training or dist.world() == 1:
            return super().forward(x)
        count = x.numel() // x.shape[1] * dist.world()
        mean = _MeanOverAll.apply(x.float().mean((0, 2, 3)))
        centred = x.float() - mean[:, None, None]
        variance = _MeanOverAll.apply(centred.square().mean((0, 2, 3)))
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def synchronised(net: nn.Module) -> nn.Module:
    """`net` itself, whose batch normalisation sees the whole batch from now on; names and numbers stay."""
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
    return net


def compiled(step: Step, net: nn.Module, example: Callable[[], tuple], when: When, name: str,
             backend: str = "inductor") -> Step:  # fmt: skip
    """`step`, which gives losses by name, compiled with its backward pass, if this platform can.

    example: gives arguments by which its gradient, of the parameters of `net`, is held against the eager one.
    when: `auto` on accelerators, `always` or `never`. Nothing of `net` changes; stderr says what is refused.
    """
    if when == "never" or (when == "auto" and dist.device().type == "cpu"):
        return step
    if dist.rank() == 0:
        print(f"{name}: compiling; the first time on a machine this takes minutes", file=sys.stderr)
    fast = torch.compile(step, dynamic=False, fullgraph=dist.world() == 1, backend=backend)
    before = {key: value.clone() for key, value in net.named_buffers()}
    try:
        found, reason = _gradient(fast, net, example()), ""
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # the base of all that torch.compile and its backends raise
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    _restore(net, before)
    if not dist.anywhere(bool(reason)):
        wanted = _gradient(step, net, example())
        _restore(net, before)
        apart = float((found - wanted).norm() / wanted.norm())
        if apart > _MOST_APART:
            reason = f"its gradient is {apart:.2g} of its length off the eager one"
    if not dist.anywhere(bool(reason)):
        return fast
    if dist.rank() == 0:
        print(f"{name}: runs without torch.compile: {reason or 'another process cannot compile it'}",
              file=sys.stderr)  # fmt: skip
    return step


def _gradient(step: Step, net: nn.Module, example: tuple) -> Tensor:
    parameters = [p for p in net.parameters() if p.requires_grad]
    total = torch.stack(list(step(*example).values())).sum()
    return torch.cat([g.reshape(-1).float() for g in torch.autograd.grad(total, parameters)])


def _restore(net: nn.Module, before: dict[str, Tensor]) -> None:
    for key, value in net.named_buffers():
        value.copy_(before[key])
