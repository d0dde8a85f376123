"""The 2015-12-05 Inception network behind FID and KID, fed as clean-fid feeds it."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stylebot.errors import StylebotError
from stylebot.files import sha256_file

SIDE_PX = 299
WIDTH = 2048
RESIZES = ("clean", "legacy")
KNOWN = frozenset({"7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"})  # TorchScript is code
_BATCH = 32

Features = dict[str, np.ndarray]  # by resize: [N, 2048] float32


@cache
def resize_matrix(side_px: int, resize: str) -> np.ndarray:
    """One dimension of a resize to 299 px as a matrix [299, side_px] float32; rows sum to 1.

    clean: Pillow's antialiased bicubic in floating point, as clean-fid applies it. Pillow itself is asked:
    the resized identity matrix is the operator, because resizing is linear.
    legacy: bilinear between the two nearest pixels at j * side/299, edges repeated, no antialiasing: what
    TensorFlow 1 did, and with it the first FID code and NVIDIA's fid50k_full.
    Source: Parmar et al. 2022 (clean-fid), section 3; TensorFlow 1 resize_bilinear, align_corners=False.
    """
    if resize == "clean":
        identity = Image.fromarray(np.eye(side_px, dtype=np.float32))
        return np.asarray(identity.resize((SIDE_PX, side_px), Image.Resampling.BICUBIC)).T.copy()
    if resize == "legacy":
        at = np.arange(SIDE_PX) * (side_px / SIDE_PX)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, side_px - 1)
        matrix, rows = np.zeros((SIDE_PX, side_px)), np.arange(SIDE_PX)
        np.add.at(matrix, (rows, low), 1 - (at - low))
        np.add.at(matrix, (rows, high), at - low)
        return matrix.astype(np.float32)
    raise ValueError(f"resize must be one of {RESIZES}, not {resize!r}")


def resized(rgb: torch.Tensor, resize: str) -> torch.Tensor:
    """Pictures at Inception's side.

    rgb: [N, 3, H, W] uint8 or float, levels 0..255. Returns [N, 3, 299, 299] float32, 0..255, not rounded
    to whole levels; on the device of `rgb`.
    """
    rows, columns = (torch.from_numpy(resize_matrix(n, resize)).to(rgb.device) for n in rgb.shape[-2:])
    return (rows @ (rgb.float() @ columns.T)).clamp_(0, 255)


class Inception:
    """The network, its features and the sha256 of its file."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Read the TorchScript file `path`, whose program is run only if its sha256 is in KNOWN.

        Raises StylebotError when it is not.
        """
        self.path, self.device, self.sha256 = path, device, sha256_file(path)
        if self.sha256 not in KNOWN:
            raise StylebotError(f"{path} is not the Inception network: its sha256 is {self.sha256[:12]}…, "
                                "and no other TorchScript is run; `dvc repro fetch` brings it")
        self.net = torch.jit.freeze(torch.jit.load(path, map_location=device).eval())

    @torch.inference_mode()
    def features(self, rgb: torch.Tensor, resize: str = "clean") -> np.ndarray:
        """Pool features [N, 2048] float32 of pictures rgb [N, 3 or 1, H, W] uint8.

        Grey pictures count as three equal channels. The numbers do not depend on how pictures are batched
        beyond float32 rounding.
        """
        parts = [self._forward(part, resize) for part in rgb.split(_BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, WIDTH), np.float32)

    def _forward(self, rgb: torch.Tensor, resize: str) -> np.ndarray:
        rgb = rgb.to(self.device)
        if rgb.shape[1] == 1:
            rgb = rgb.expand(-1, 3, -1, -1)
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            # in place: new memory for 32 pictures of 299 px costs more than the arithmetic on it
            out = self.net(resized(rgb, resize).sub_(128).div_(128))
        return out.float().cpu().numpy()


def features_of(inception: Inception, pictures: Iterable[torch.Tensor],
                resizes: Sequence[str] = ("clean",)) -> Features:  # fmt: skip
    """Features of batches [n, C, H, W] uint8, each batch looked at once per resize."""
    parts: dict[str, list[np.ndarray]] = {resize: [] for resize in resizes}
    for rgb in pictures:
        for resize, collected in parts.items():
            collected.append(inception.features(rgb, resize))
    return {resize: np.concatenate(collected) for resize, collected in parts.items()}
