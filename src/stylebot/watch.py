"""KID of the averaged generator to held-out faces while it trains: which snapshot is best, when to stop."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from stylebot import dist, frechet
from stylebot.checkpoints import load_networks, save_networks
from stylebot.dataset import Dataset
from stylebot.errors import StylebotError
from stylebot.inception import Inception, features_of
from stylebot.render import stream
from stylebot.weights import Networks

_BATCH = 32
FEWEST_FACES = 10  # held-out faces: below that KID says nothing


@dataclass
class Watch:
    """Held-out faces as Inception features [M, 2048], and every look so far, as (kimg, KID)."""

    inception: Inception
    real: np.ndarray
    fakes: int  # generated faces per look
    snapshot: Path | None  # where the networks of the best look go
    looks: list[tuple[float, float]] = field(default_factory=list)

    def look(self, networks: Networks, kimg: float) -> float:
        """KID of `fakes` faces of G_ema (seeds 0, 1, …, no truncation, constant noise) to the held-out ones.

        The unbiased estimate over all of them: it can be below zero. Source: arXiv 1801.01401, section 4.
        """
        fakes = features_of(self.inception, stream(networks.G_ema, range(self.fakes), _BATCH))["clean"]
        value = frechet.kid(fakes, self.real)
        self.looks.append((kimg, value))
        if self.snapshot is not None and self.best() == self.looks[-1]:
            save_networks(self.snapshot, networks)
        return value

    def go_on(self, looks: list[tuple[float, float]]) -> str | None:
        """Take over an interrupted run's looks, unless the networks of the best are no longer whole.

        Returns what is wrong with those; None when nothing is.
        """
        if looks and self.snapshot is not None:
            try:
                load_networks(self.snapshot, need=("G", "D", "G_ema"))
            except StylebotError as error:
                return f"the best networks so far are lost: {error}"
        self.looks += looks
        return None

    def best(self) -> tuple[float, float]:
        """(kimg, KID) of the lowest KID so far, the earliest of equals."""
        return min(self.looks, key=lambda pair: (pair[1], pair[0]))

    def has_risen(self, patience: int) -> bool:
        """Whether each of the last `patience` looks was worse than the best before them; 0: never."""
        values = [value for _, value in self.looks]
        return 0 < patience < len(values) and min(values[-patience:]) > min(values[:-patience])


def start_watch(heldout: Path, inception: Path, fakes: int, snapshot: Path | None) -> Watch:
    """A watch over the faces of the dataset `heldout`.

    Raises StylebotError for fewer than FEWEST_FACES faces.
    """
    data = Dataset(heldout)
    if len(data) < FEWEST_FACES:
        raise StylebotError(f"{heldout}: {len(data)} faces are too few for KID, {FEWEST_FACES} is the least; "
                            "raise pack.heldout_share or set train.eval_snaps to 0")  # fmt: skip
    network = Inception(inception, dist.device())
    return Watch(network, network.features(torch.from_numpy(data.read_all())), fakes, snapshot)
