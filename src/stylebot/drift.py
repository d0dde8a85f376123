"""The tool `drift.py`: do enlarged faces stay in the region, with one generator and with another?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stylebot.dataset import Dataset
from stylebot.degrade import Degradation
from stylebot.domains import Domains, People, study
from stylebot.enlarging import Enlarger, enlarge, load_enlarger
from stylebot.errors import StylebotError
from stylebot.files import write_bytes
from stylebot.frechet import Estimate, between, resamples
from stylebot.probes import CLEAR

_DRAWS = 1000


@dataclass(frozen=True)
class How:
    """How faces are made small and measured: of the section `superres` of params.yaml, and pulls."""

    degradation: Degradation
    factors: Sequence[int]
    base_faces: int
    seed: int
    pulls: Sequence[float]


@dataclass(frozen=True)
class Files:
    """What both are measured by: held-out and training faces, base generator, and two networks."""

    heldout: Path
    dataset: Path
    base: Path
    identity: Path
    inception: Path

    @classmethod
    def of(cls, stages: Path) -> "Files":
        """As the pipeline writes them. Raises StylebotError when one is missing."""
        found = cls(stages / "pack/heldout.zip", stages / "pack/dataset.zip",
                    stages / "fetch/generator.safetensors", stages / "fetch/identity.dat",
                    stages / "fetch/inception.pt")  # fmt: skip
        if missing := [str(path) for path in vars(found).values() if not path.exists()]:
            raise StylebotError(f"no such file: {', '.join(missing)}; `dvc repro` brings them")
        return found


@dataclass(frozen=True)
class Measured:
    """One generator at one factor and pull, per held-out face [N], and as a group."""

    drift: np.ndarray
    id_distance: np.ndarray
    kids: dict[str, Estimate]

    def rows(self, seed: int) -> Iterator[tuple[str, Estimate]]:
        """Each number with its 95 % interval over faces."""
        drawn = resamples(len(self.drift), _DRAWS, seed) / len(self.drift)
        for name in ("drift", "id_distance"):
            values = getattr(self, name)
            yield name, between(float(values.mean()), drawn @ values, 0.95)
        yield from ((f"kid_{name}", kid) for name, kid in self.kids.items())


class Yard:
    """The held-out faces, their embeddings, and the two domains: the same for every generator."""

    def __init__(self, files: Files, how: How) -> None:
        """Look at all faces. Raises StylebotError when the two domains cannot be told apart."""
        heldout, self._people, self._seed = Dataset(files.heldout), People(files.identity), how.seed
        self.domains: Domains = study(Dataset(files.dataset), heldout, files.base, files.inception,
                                      self._people, how.base_faces)  # fmt: skip
        if not self.domains.clear:
            raise StylebotError("the region's faces and the base generator's are told apart in "
                                f"{self.domains.ruler.clear:.0%} of pairs only, {CLEAR:.0%} is the least: "
                                "there is no drift to measure")  # fmt: skip
        self._rgbs = torch.from_numpy(heldout.read_all())
        self._who = self._embed(self._rgbs, "held-out faces", keep=True)

    def _embed(self, rgbs: torch.Tensor, what: str, keep: bool) -> np.ndarray:
        return self._people.embed([np.ascontiguousarray(rgb) for rgb in rgbs.permute(0, 2, 3, 1).numpy()],
                                  what, keep)  # fmt: skip

    def measure(self, networks: Enlarger, factor: int) -> Measured:
        """The held-out faces made small by `factor` and rebuilt by `networks`."""
        side = networks.decoder.img_resolution
        if side != self._rgbs.shape[2]:
            raise StylebotError(f"the held-out faces have {self._rgbs.shape[2]} px, the generator {side} px")
        result = enlarge(self._rgbs, factor, networks).result
        who = self._embed(result, f"results x{factor}", keep=False)
        ruler = self.domains.ruler
        return Measured(ruler.positions(self._who) - ruler.positions(who),
                        np.linalg.norm(who - self._who, axis=1),
                        self.domains.kids(self.domains.features(result), self._seed, twins=True))  # fmt: skip


def together(a: Measured, b: Measured, seed: int) -> dict[str, Estimate]:
    """A against B on the same faces: the ratio of drifts, and how much farther B's people are, 95 %."""
    drawn = resamples(len(a.drift), _DRAWS, seed) / len(a.drift)
    ratio = float(a.drift.mean() / b.drift.mean())
    gain = b.id_distance - a.id_distance
    return {"drift_ratio": between(ratio, (drawn @ a.drift) / (drawn @ b.drift), 0.95),
            "identity_gain": between(float(gain.mean()), drawn @ gain, 0.95)}  # fmt: skip


def verdict(factor: int, found: dict[str, Estimate], b: Estimate) -> str:
    """What the comparison says, on one line; `b`: B's own drift."""
    gain = found["identity_gain"]
    nearer = "nearer to" if gain.low > 0 else "farther from" if gain.high < 0 else "as near to"
    people = f"people are {nearer} the originals (by {gain.value:.3f}, {gain.low:.3f} to {gain.high:.3f})"
    if b.low <= 0:
        return f"x{factor}: B does not drift beyond noise, so there is no ratio; A's {people}"
    ratio = found["drift_ratio"]
    return (f"x{factor}: A drifts {ratio.value:.2f} times as far as B ({ratio.low:.2f} to {ratio.high:.2f}); "
            f"A's {people}")  # fmt: skip


def drift(
    a: tuple[Path, Path], b: tuple[Path, Path], files: Files, how: How
) -> tuple[pd.DataFrame, list[str]]:
    """Measure A and B (encoder, generator) on the same held-out faces, pulled to the average face or not.

    Returns a table (who, factor, pull, name, value, low, high) and a verdict per factor, at the first pull.
    Raises: StylebotError for files that do not fit each other, too few faces, domains that look alike.
    """
    if not how.pulls or any(not 0 <= pull <= 1 for pull in how.pulls):
        raise StylebotError("--pull takes numbers from 0, the average face, to 1, the result as it is")
    networks = {who: load_enlarger(*pair, how.degradation, how.seed) for who, pair in
                (("A", a), ("B", b))}  # fmt: skip
    yard, rows, said = Yard(files, how), [], []
    for factor in how.factors:
        first: dict[str, Measured] = {}
        for who, one in networks.items():
            for pull in how.pulls:
                measured = yard.measure(replace(one, pull=pull), factor)
                first.setdefault(who, measured)
                rows += [(who, factor, pull, name, e.value, e.low, e.high)
                         for name, e in measured.rows(how.seed)]  # fmt: skip
        found = together(first["A"], first["B"], how.seed)
        rows += [("A:B", factor, how.pulls[0], name, e.value, e.low, e.high) for name, e in found.items()]
        said.append(verdict(factor, found, dict(first["B"].rows(how.seed))["drift"]))
    return pd.DataFrame(rows, columns=["who", "factor", "pull", "name", "value", "low", "high"]), said


def write_table(path: Path, table: pd.DataFrame) -> None:
    """The table as CSV."""
    write_bytes(path, table.to_csv(index=False, float_format="%.5g", lineterminator="\n").encode())
