"""Inception features of many pictures, remembered by what they are features of."""

import io
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from rich.progress import track

from stylebot.dataset import Dataset
from stylebot.files import Memo
from stylebot.inception import Features, Inception, features_of

_VERSION = 1  # of what is remembered; raise it when the same inputs give other features
_BATCH = 32


def remembered(
    inception: Inception,
    pictures: Iterable[torch.Tensor],
    resizes: tuple[str, ...],
    key: str,
    **identity: object,
) -> Features:
    """`features_of`, unless they are remembered under `key` for this network and `identity`."""
    who = {"inception": inception.sha256, "version": _VERSION, **identity}
    memos = {resize: Memo("features", who | {"resize": resize}) for resize in resizes}
    known = {resize: memo.get(key) for resize, memo in memos.items()}
    if None not in known.values():
        return {resize: np.load(io.BytesIO(content)) for resize, content in known.items()}
    found = features_of(inception, pictures, resizes)
    for resize, values in found.items():
        buffer = io.BytesIO()
        np.save(buffer, values)
        memos[resize].put(key, buffer.getvalue())
    return found


def shrunk(rgb: torch.Tensor, side_px: int) -> torch.Tensor:
    """Pictures [N, C, R, R] uint8 of a larger generator at the data's side, by averaging squares."""
    if rgb.shape[-1] == side_px:
        return rgb
    return torch.nn.functional.adaptive_avg_pool2d(rgb.float(), side_px).round().to(torch.uint8)


def read_batches(data: Dataset) -> Iterator[torch.Tensor]:
    """Batches of a dataset's pictures [n, C, R, R] uint8, read when they are asked for."""
    for start in track(range(0, len(data), _BATCH), "real faces"):
        rows = range(start, min(start + _BATCH, len(data)))
        yield torch.from_numpy(np.stack([data.read(i) for i in rows]))
