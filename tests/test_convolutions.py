"""The second derivative of convolutions: finite differences, torch's own numbers, and how it is computed."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stylebot import convolutions

CASES = {  # name: (function of x, w and bias; shape of w; bias)
    "strided": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), (6, 4, 3, 3), 6),
    "groups": (lambda x, w, b: F.conv2d(x, w, b, padding=2, groups=2, dilation=2), (6, 2, 3, 3), 6),
    "transposed": (lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1, groups=2), (4, 3, 3, 3), 6),
}
Case = tuple[Callable[..., Tensor], tuple[int, ...], int]


@pytest.fixture
def installed() -> Iterator[None]:
    convolutions.install.cache_clear()
    library = convolutions.install()
    yield
    library._destroy()
    convolutions.install.cache_clear()


class Calls(TorchDispatchMode):
    """Counts the operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> object:
        self.names.append(func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else func.__name__)
        return func(*args, **kwargs or {})


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_finite_differences(case: Case) -> None:
    function, shape, outputs = case
    torch.manual_seed(0)
    given = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 4, 5, 5), shape, outputs)]
    assert torch.autograd.gradgradcheck(function, given)


def r1(x: Tensor, w: Tensor, f: Tensor) -> Tensor:
    """Gradient by w of the squared gradient by x, through a convolution and a blur of each channel."""
    x = x.clone().requires_grad_(True)
    y = F.conv2d(F.conv2d(x, w, padding=1).sigmoid(), f.expand(len(w), 1, *f.shape), groups=len(w))
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    return torch.autograd.grad(slope.square().sum(), w)[0]


def test_the_same_as_torch_with_few_operations() -> None:
    torch.manual_seed(0)
    x, w, f = (torch.randn(s, dtype=torch.float64) for s in ((2, 3, 9, 9), (64, 3, 3, 3), (4, 4)))
    w.requires_grad_(True)
    with Calls() as torchs:
        wanted = r1(x, w, f)
    library = convolutions.install()
    try:
        with Calls() as ours:
            found = r1(x, w, f)
    finally:
        library._destroy()
        convolutions.install.cache_clear()
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    assert len(ours.names) < 60 < 200 < len(torchs.names)
    assert not any("slice" in name for name in ours.names)
