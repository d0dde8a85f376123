"""Pictures of many latents in batches that fit into memory."""

import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.render import noise_of, to_rgb

_CPU_BYTES = 2 << 30  # for the pictures of one batch; a fixed number, so that every run gives the same bytes
_GPU_SHARE = 0.5  # of the free memory
_MOST = {"cpu": 16}
_MOST_ELSEWHERE = 128


def bytes_each(g: Generator) -> int:
    """Memory that one picture needs at the widest point of its synthesis: about four maps of one block."""
    blocks = [(r, getattr(g.synthesis, f"b{r}")) for r in g.synthesis.resolutions]
    return max(4 * 4 * block.conv1.weight.shape[0] * r**2 for r, block in blocks)


def batch_that_fits(g: Generator) -> int:
    """Pictures at a time: on the CPU the same number on every run, on a GPU by its free memory."""
    where = g.mapping.w_avg.device
    free = _CPU_BYTES if where.type == "cpu" else _GPU_SHARE * torch.accelerator.get_memory_info(where)[0]
    return max(1, min(_MOST.get(where.type, _MOST_ELSEWHERE), int(free // bytes_each(g))))


@torch.inference_mode()
def _levels(g: Generator, ws: Tensor, seeds: Sequence[int], noise_mode: str) -> np.ndarray:
    img = g.synthesis(ws, noise_mode=noise_mode, randn=noise_of(seeds, ws.device))
    return to_rgb(img).permute(0, 2, 3, 1).cpu().numpy()


def pictures(
    g: Generator, ws_of: Callable[[range], Tensor], seeds: Sequence[int], batch: int | None = None,
    noise_mode: str = "const",
) -> Iterator[np.ndarray]:  # fmt: skip
    """One picture [R, R, 3] uint8 after the other, as many as `seeds`, which are those of their noise.

    ws_of gives the ws [n, num_ws, w_dim] of a range of them. A batch that a GPU cannot hold is halved, aloud.
    Raises StylebotError when not even one picture fits.
    """
    batch = batch_that_fits(g) if batch is None else batch
    start = 0
    while start < len(seeds):
        part = range(start, min(start + batch, len(seeds)))
        try:
            rgbs = _levels(g, ws_of(part), [seeds[i] for i in part], noise_mode)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise StylebotError(f"{g.img_resolution} px do not fit into the device's memory") from None
            batch //= 2
            print(f"does not fit into memory; going on with {batch} pictures at a time", file=sys.stderr)
            continue
        yield from rgbs
        start = part.stop
