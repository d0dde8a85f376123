"""Two domains of faces, the region's and the base generator's, and how far pictures are from each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stylebot import frechet, probes
from stylebot.dataset import Dataset
from stylebot.dist import device
from stylebot.errors import StylebotError
from stylebot.faces import Identity
from stylebot.features import read_batches, remembered, shrunk
from stylebot.files import sha256_file
from stylebot.frechet import Estimate
from stylebot.inception import Inception
from stylebot.lookalikes import as_rgb, embed
from stylebot.probes import Ruler
from stylebot.render import load_generator, stream, weights_sha256

FEWEST = 10  # faces of each kind
_TAUGHT = 128  # training faces that teach the ruler
_BATCH, _DRAWS = 32, 1000


class People:
    """dlib's embeddings, remembered for faces of the datasets, which `audit` needs too."""

    def __init__(self, path: Path) -> None:
        """Read the recogniser. Raises StylebotError for a bad file."""
        self._model, self._sha256 = Identity(path), sha256_file(path)

    def embed(self, rgbs: Sequence[np.ndarray], what: str, keep: bool) -> np.ndarray:
        """Embeddings [N, 128] float64 of faces [R, R, 3] uint8; with `keep` remembered."""
        return embed(self._model, self._sha256, rgbs, f"who: {what}", keep).astype(np.float64)


@dataclass(frozen=True)
class Domains:
    """The region's held-out faces and the base generator's: Inception features, and a ruler between them."""

    inception: Inception
    region: np.ndarray  # [N, 2048]
    base: np.ndarray  # [M, 2048]
    ruler: Ruler

    def features(self, rgbs: torch.Tensor) -> np.ndarray:
        """Inception features [N, 2048] of pictures [N, 3, R, R] uint8."""
        return self.inception.features(rgbs)

    def kids(self, features: np.ndarray, seed: int, twins: bool) -> dict[str, Estimate]:
        """KID to "region" and to "base" of pictures by their features [N, 2048], with 95 % intervals.

        twins: picture i was made from the region's face i. Resamples then draw the two together.
        """
        drawn = frechet.resamples(len(features), _DRAWS, seed)
        found = {}
        for name, others in (("region", self.region), ("base", self.base)):
            paired = twins and name == "region"
            theirs = drawn if paired else frechet.resamples(len(others), _DRAWS, seed + 1)
            x, y = frechet.compact(features, others)
            width, ones = features.shape[1], (np.ones((1, len(x))), np.ones((1, len(y))))
            value = float(frechet.kid_draws(x, y, *ones, width, twins=paired)[0])
            draws = frechet.kid_draws(x, y, drawn, theirs, width, twins=paired)
            found[name] = frechet.around(value, draws, 0.95)
        return found

    @property
    def clear(self) -> bool:
        """Whether the ruler tells the domains apart, so that drift has a meaning."""
        return self.ruler.clear >= probes.CLEAR


def study(training: Dataset, heldout: Dataset, base: Path, inception: Path, people: People,
          count: int) -> Domains:  # fmt: skip
    """Look at up to 128 training faces, the held-out faces and `count` faces of the base generator.

    The base generator's faces are those of seeds 0 to count - 1 at psi 1, its whole domain. Real faces are
    remembered, as `fid` and `audit` look at them too.
    Raises: StylebotError for fewer than 10 training or held-out faces.
    """
    for data in (training, heldout):
        if len(data) < FEWEST:
            raise StylebotError(f"{data.path} holds {len(data)} pictures, {FEWEST} is the least to measure "
                                "drift by; bring more photos")  # fmt: skip
    where = device()
    network, g = Inception(inception, where), load_generator(base, where)
    rgbs = torch.cat([shrunk(part, heldout.resolution) for part in stream(g, range(count), _BATCH)])
    features = {
        "region": remembered(network, read_batches(heldout), ("clean",), heldout.fingerprint),
        "base": remembered(network, rgbs.split(_BATCH), ("clean",), weights_sha256(g), count=count,
                           side=heldout.resolution, use="domain"),
    }  # fmt: skip
    some = np.linspace(0, len(training) - 1, min(_TAUGHT, len(training))).round().astype(int)
    taught = as_rgb(training)
    embeddings = (
        people.embed([taught[i] for i in some], "training faces", keep=True),
        people.embed(as_rgb(heldout), "held-out faces", keep=True),
        people.embed(list(rgbs.permute(0, 2, 3, 1).cpu().numpy()), "base faces", keep=True),
    )
    return Domains(network, features["region"]["clean"], features["base"]["clean"],
                   probes.ruler(*embeddings))  # fmt: skip
