"""A learned perceptual distance, frozen and differentiable: LPIPS on the shift-tolerant AlexNet."""

from pathlib import Path

import torch
import torch.nn.functional as F

from stylebot.arrays import Array, materialise
from stylebot.errors import StylebotError
from stylebot.torchfile import read_torch

_CONVS = ("net.slice1.0", "net.slice2.5", "net.slice3.9", "net.slice4.11", "net.slice5.13")
_PADS = (2, 2, 1, 1, 1)
_MIN_PX = 21  # below it reflection padding meets maps smaller than the pad
_MOST_PX = 256  # the network was made for pictures of about this side, and pSp's losses are taken at it


def pooled(img: torch.Tensor) -> torch.Tensor:
    """`img` [N,C,H,W] averaged down to the side of the losses, if it is larger."""
    return F.adaptive_avg_pool2d(img, _MOST_PX) if img.shape[2] > _MOST_PX else img


class Perceptual(torch.nn.Module):
    """Distance between pictures as people see it, from five AlexNet layers with learned channel weights.

    Layers, each unit-normalised over channels before the squared difference is weighted and averaged:
    conv 11x11 - blur/2 - relu; max3 - blur/2 - conv 5x5 - relu; max3 - blur/2 - conv 3x3 - relu; conv - relu;
    conv - relu. Blurs are [1 2 1] x [1 2 1] / 16 with reflection padding 2, max pools have stride 1.

    Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features", eq. 1, with the trunk of
    Ghildyal and Liu 2022, "Shift-tolerant Perceptual Similarity Metric".
    """

    def __init__(self, path: Path) -> None:
        """Read the weights at `path`: a plain state dict, as the `fetch` stage brings it.

        Raises: StylebotError when the file is not that network.
        """
        super().__init__()
        weights = _read(path)
        self.register_buffer("shift", weights["scaling_layer.shift"])
        self.register_buffer("scale", weights["scaling_layer.scale"])
        for i, name in enumerate(_CONVS):
            self.register_buffer(f"weight{i}", weights[f"{name}.weight"])
            self.register_buffer(f"bias{i}", weights[f"{name}.bias"])
            self.register_buffer(f"head{i}", weights[f"lin{i}.model.1.weight"])
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("blur", (row[:, None] * row)[None, None])

    def _halve(self, x: torch.Tensor) -> torch.Tensor:
        kernel = self.blur.to(x.dtype).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])

    def features(self, img: torch.Tensor) -> list[torch.Tensor]:
        """The five layers of `img` [N,3,H,W] float, [-1,1], each of unit length over its channels.

        Raises: StylebotError for pictures under 21 px or without three channels.
        """
        if img.shape[1] != 3 or min(img.shape[2:]) < _MIN_PX:
            raise StylebotError(f"the perceptual distance needs RGB pictures of {_MIN_PX} px or more, "
                                f"not {list(img.shape)}")
        x, layers = (img - self.shift) / self.scale, []
        for i, pad in enumerate(_PADS):
            if i in (1, 2):
                x = self._halve(F.max_pool2d(x, 3, stride=1))
            x = F.conv2d(x, getattr(self, f"weight{i}"), getattr(self, f"bias{i}"), padding=pad)
            x = F.relu(self._halve(x) if i == 0 else x)
            layers.append(x / (x.square().sum(1, keepdim=True) + 1e-20).sqrt())
        return layers

    def compare(self, a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
        """Distance [N], 0 or more, between two results of `features`: a fixed target is computed once."""
        terms = [F.conv2d((p - q).square(), getattr(self, f"head{i}")).mean((1, 2, 3))
                 for i, (p, q) in enumerate(zip(a, b, strict=True))]
        return torch.stack(terms).sum(0)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Distance [N], 0 or more, between `a` and `b` [N,3,H,W] float, [-1,1]; 0 for equal pictures.

        Gradients flow to both; the network has no trainable parameter.
        """
        return self.compare(self.features(a), self.features(b))


def _read(path: Path) -> dict[str, torch.Tensor]:
    wanted = f"the perceptual network {path}"
    content = path.read_bytes()
    names = [f"{n}.{part}" for n in _CONVS for part in ("weight", "bias")]
    names += ["scaling_layer.shift", "scaling_layer.scale", *(f"lin{i}.model.1.weight" for i in range(5))]
    try:
        found = read_torch(content)
        described = {n: found.get(n) for n in names} if isinstance(found, dict) else {}
        if described and all(isinstance(array, Array) for array in described.values()):
            return materialise("its weights", described, len(content))
    except StylebotError as error:
        raise StylebotError(f"{wanted} cannot be read ({error}); `dvc repro fetch` brings it again") from None
    raise StylebotError(f"{wanted} is another network than the shift-tolerant AlexNet of ST-LPIPS")
