"""The second derivative of convolutions, which R1 and path lengths need, by the fast kernels of the first.

torch's own loops over the channels of a depthwise convolution, works out the gradient of constant filters,
and takes weight gradients by a convolution whose kernel is a whole picture. First derivatives stay torch's.
"""

import warnings
from functools import lru_cache

import torch
from torch import Tensor


def double_backward(
    by_input: Tensor | None, by_weight: Tensor | None, by_bias: Tensor | None, grad: Tensor, weight: Tensor,
    x: Tensor, stride: list[int], padding: list[int], dilation: list[int], transposed: bool,
    output_padding: list[int], groups: int, wanted: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Derivatives by (grad, x, weight) of aten::convolution_backward(grad, x, weight), those that are wanted.

    by_input, by_weight, by_bias: gradients of its three results. All are linear in each factor: the
    derivative by one is a convolution, or its backward, with the others in their places.
    """
    rest = (stride, padding, dilation, transposed, output_padding, groups)
    by_grad, by_x, by_w = [], None, None
    if wanted[0]:
        by_grad += [] if by_input is None else [torch.convolution(by_input, weight, None, *rest)]
        by_grad += [] if by_weight is None else [torch.convolution(x, by_weight, None, *rest)]
        by_grad += [] if by_bias is None else [by_bias.view(1, -1, *[1] * (grad.ndim - 2)).expand_as(grad)]
    backward = torch.ops.aten.convolution_backward
    if wanted[1] and by_weight is not None:
        by_x = backward(grad, x, by_weight, None, *rest, [True, False, False])[0]
    if wanted[2] and by_input is not None:
        by_w = backward(grad, by_input, weight, None, *rest, [False, True, False])[1]
    return sum(by_grad[1:], by_grad[0]) if by_grad else None, by_x, by_w


@lru_cache(maxsize=1)
def install() -> torch.library.Library:
    """Let this process use `double_backward` for every convolution, eager and compiled."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is replaced
        library.impl("_convolution_double_backward", double_backward, "CompositeImplicitAutograd")
    return library
