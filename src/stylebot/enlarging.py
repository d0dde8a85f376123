"""Small faces enlarged by bicubic and through an encoder and its generator, and how near they come."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from stylebot.checkpoints import load_networks
from stylebot.degrade import Degradation, reduced, resize, to_img, to_rgb
from stylebot.dist import device
from stylebot.encoder import Encoder, load_encoder
from stylebot.errors import StylebotError
from stylebot.files import sha256_file
from stylebot.generator import Generator
from stylebot.photos import PhotoError, read_photo
from stylebot.randomness import drawer
from stylebot.skips import Skips, load_skips, synthesise

BATCH = 16
Mode = Literal["pure", "faithful"]
_MOST_PIXELS = 120_000_000


@dataclass(frozen=True)
class Enlarger:
    """An encoder and the generator that it was trained against, both frozen, on the device.

    pull: 1 leaves the found styles; a smaller one pulls them towards the generator's average face, which
    shows what the measures make of a known drift. skips: of the mode "faithful", None in the mode "pure".
    """

    encoder: Encoder
    decoder: Generator
    degradation: Degradation = "bicubic"
    seed: int = 0
    pull: float = 1.0
    skips: Skips | None = None

    @torch.no_grad()
    def rebuild(self, given: torch.Tensor) -> torch.Tensor:
        """Faces [N,3,R,R] float that the generator makes of `given` [N,3,R,R] float, [-1,1], blurred."""
        codes, average = self.encoder(given), self.decoder.mapping.w_avg
        ws = average + self.pull * (codes - average)
        if self.skips is None:
            return self.decoder.synthesis(ws, noise_mode="const")
        return synthesise(self.decoder, ws, self.skips(given))


@dataclass(frozen=True)
class Enlarged:
    """One factor's pictures, uint8 [N,3,·,·]: what was given, what bicubic and the networks make of it.

    Of the mode "faithful" also what Lanczos and the networks without skips make of it.
    """

    factor: int
    small: torch.Tensor
    bicubic: torch.Tensor
    result: torch.Tensor
    lanczos: torch.Tensor | None = None
    pure: torch.Tensor | None = None


def load_enlarger(encoder: Path, generator: Path, degradation: Degradation, seed: int,
                  mode: Mode = "pure") -> Enlarger:  # fmt: skip
    """Read both; says so when the encoder was trained against another generator or on other pictures.

    Raises: StylebotError for an encoder of a generator of another resolution or width of w, and for the mode
    "faithful" with an encoder that was trained without skip connections.
    """
    net, meta = load_encoder(encoder)
    decoder = load_networks(generator, need=("G_ema",)).G_ema.eval().requires_grad_(False)
    res, w_dim = decoder.img_resolution, decoder.w_dim
    made_for = net.config["resolution"], net.config["w_dim"]
    if made_for != (res, w_dim):
        raise StylebotError(f"the encoder is for a generator of {made_for[0]} px and w_dim {made_for[1]}, "
                            f"this one has {res} px and w_dim {w_dim}: run `encode` against it")
    if meta.get("generator_sha256") != sha256_file(generator):
        print("superres: the encoder was trained against another generator than the one given")
    learnt = meta.get("params", {}).get("degradation", "bicubic")
    if learnt != degradation:
        print(f"superres: the encoder was trained on {learnt}, the small faces here are {degradation}")
    skips = load_skips(encoder, decoder).to(device()) if mode == "faithful" else None
    return Enlarger(net.to(device()), decoder.to(device()), degradation, seed, skips=skips)


def lanczos(small: torch.Tensor, px: int) -> torch.Tensor:
    """`small` [N,3,s,s] uint8 enlarged to [N,3,px,px] by Lanczos' window of three lobes (Pillow)."""
    pictures = [Image.fromarray(rgb).resize((px, px), Image.Resampling.LANCZOS)
                for rgb in small.permute(0, 2, 3, 1).contiguous().numpy()]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


@torch.no_grad()
def enlarge(rgbs: torch.Tensor, factor: int, networks: Enlarger) -> Enlarged:
    """`rgbs` [N,3,R,R] uint8 made small by `factor` and brought back to R px by bicubic and by the networks.

    A face's noise and compression are a function of the seed, its place and the factor alone.
    """
    parts: list[tuple[torch.Tensor, ...]] = []
    for first in range(0, len(rgbs), BATCH):
        img = to_img(rgbs[first : first + BATCH].to(device()))
        photo = networks.degradation == "photo"
        small = reduced(img, factor, drawer(networks.seed, first, f"photo x{factor}") if photo else None)
        given = resize(small, img.shape[2], "bilinear")
        pictures = [small, resize(small, img.shape[2]), networks.rebuild(given)]
        pictures = [to_rgb(picture).cpu() for picture in pictures]
        if networks.skips is not None:
            pure = replace(networks, skips=None).rebuild(given)
            pictures += [lanczos(pictures[0], img.shape[2]), to_rgb(pure).cpu()]
        parts.append(tuple(pictures))
    return Enlarged(factor, *(torch.cat(part) for part in zip(*parts, strict=True)))


def rebuild(given: Sequence[np.ndarray], networks: Enlarger) -> Enlarged:
    """Pictures [s,s,3] uint8 of any sides, taken as they are: bicubic and the networks' face of each.

    `small` are the pictures at the generator's side, as the encoder sees them.
    """
    side, parts = networks.decoder.img_resolution, []
    for rgb in given:
        img = to_img(torch.from_numpy(rgb).permute(2, 0, 1)[None].to(device()))
        seen = resize(img, side, "bilinear")
        pictures = seen, resize(img, side), networks.rebuild(seen)
        parts.append(tuple(to_rgb(picture).cpu() for picture in pictures))
    return Enlarged(1, *(torch.cat(part) for part in zip(*parts, strict=True)))


def read_faces(folder: Path) -> dict[str, np.ndarray]:
    """The face crops in `folder` by name, each [s,s,3] uint8.

    Raises: StylebotError for a folder that is missing or empty, and for the first file that is no picture
    or not square.
    """
    if not folder.is_dir():
        raise StylebotError(f"superres.inputs: {folder} is neither heldout nor generated nor a folder")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise StylebotError(f"superres.inputs: {folder} holds no pictures")
    found = {}
    for path in files:
        try:
            rgb = read_photo(path, _MOST_PIXELS).rgb
        except PhotoError as error:
            raise StylebotError(f"superres.inputs: {path} is no readable picture ({error})") from None
        if rgb.shape[0] != rgb.shape[1]:
            raise StylebotError(f"superres.inputs: {path} has {rgb.shape[1]} x {rgb.shape[0]} px; square "
                                "face crops are wanted, as `align` makes them")  # fmt: skip
        found[path.name] = np.ascontiguousarray(rgb)
    return found


def psnr_db(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio [N] in dB of `a` and `b` [N,C,H,W] float, [-1,1]; inf for equal ones."""
    return 10 * torch.log10(4 / (a - b).square().mean((1, 2, 3)))


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Structural similarity [N], at most 1, of `a` and `b` [N,C,H,W] float, [-1,1], mean over channels.

    Gaussian window of 11 px and sigma 1.5, K = 0.01 and 0.03, no padding. Source: Wang et al. 2004, eq. 13.
    """
    x = torch.arange(11, dtype=a.dtype, device=a.device) - 5
    row = torch.exp(-x.square() / (2 * 1.5**2))
    window = torch.outer(row, row) / row.sum() ** 2
    n, c = a.shape[:2]
    stack = torch.cat([a, b, a * a, b * b, a * b]).reshape(5 * n * c, 1, *a.shape[2:])
    mu_a, mu_b, aa, bb, ab = F.conv2d(stack, window[None, None]).reshape(5, n, c, -1)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # the range of values is 2
    covariance, variances = ab - mu_a * mu_b, aa - mu_a**2 + bb - mu_b**2
    index = (2 * mu_a * mu_b + c1) * (2 * covariance + c2) / ((mu_a**2 + mu_b**2 + c1) * (variances + c2))
    return index.mean((1, 2))
