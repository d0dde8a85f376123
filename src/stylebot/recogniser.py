"""ArcFace's face recogniser on the IR-SE50 trunk, frozen and differentiable: pSp's identity loss."""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from stylebot.arrays import Array, materialise
from stylebot.encoder import PSP_STAGES, Trunk
from stylebot.errors import StylebotError
from stylebot.torchfile import read_torch

_SIDE, _INPUT, _LAST = 256, 112, (512, 7)  # px of the face and of the network's input; last features
_TOP, _BOTTOM, _LEFT, _RIGHT = 35, 223, 32, 220  # px of 256: where pSp cuts the face out


class Recogniser(Trunk):
    """512 numbers of length 1 per face, the cosine of which tells whether two are one person.

    Source: Deng et al. 2019 (ArcFace); the cut and the loss are those of Richardson et al. 2021 (pSp), eq. 3.
    """

    def __init__(self, path: Path) -> None:
        """Read the weights at `path`: the published plain state dict of IR-SE50 (`model_ir_se50.pth`).

        Raises: StylebotError when the file is missing, damaged or another network.
        """
        super().__init__(PSP_STAGES, 3, stem_stride=1)
        channels, side = _LAST
        self.output_layer = nn.Sequential(nn.BatchNorm2d(channels), nn.Dropout(), nn.Flatten(),
                                          nn.Linear(channels * side**2, channels), nn.BatchNorm1d(channels))
        self.load_state_dict(_read(path, self.state_dict()))
        self.eval().requires_grad_(False)

    def forward(self, img: Tensor) -> Tensor:
        """Faces [N,3,R,R] float, [-1,1], in FFHQ's frame to embeddings [N,512] of length 1."""
        if img.shape[2] != _SIDE:
            img = F.interpolate(img, (_SIDE, _SIDE), mode="bilinear", antialias=img.shape[2] > _SIDE)
        face = F.adaptive_avg_pool2d(img[:, :, _TOP:_BOTTOM, _LEFT:_RIGHT], _INPUT)
        return F.normalize(self.output_layer(self.taps(face)[-1]))

    def distance(self, img: Tensor, wanted: Tensor) -> Tensor:
        """1 - cosine, 0 to 2, [N], of faces [N,3,R,R] and embeddings [N,512]."""
        return 1 - (self(img) * wanted).sum(1)


def _read(path: Path, own: dict[str, Tensor]) -> dict[str, Tensor]:
    wanted = f"the identity network {path}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StylebotError(f"{wanted}: {error.strerror or error}") from None
    try:
        found = read_torch(content)
        named = {name: found.get(name) for name in own} if isinstance(found, dict) else {}
        counts = {name for name, array in named.items() if array is None and name.endswith("_tracked")}
        described = {name: array for name, array in named.items() if name not in counts}
        if described and all(isinstance(array, Array) for array in described.values()):
            tensors = materialise("its weights", described, len(content))
            if all(tensors[name].shape == own[name].shape for name in tensors):
                return tensors | {name: own[name] for name in counts}
    except StylebotError as error:
        raise StylebotError(f"{wanted} cannot be read ({error})") from None
    raise StylebotError(f"{wanted} is another network than ArcFace's IR-SE50")
