"""The tool `drift.py`: do enlarged faces stay in the region, with one generator and with another?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stylebot.dataset import Dataset
from stylebot.degrade import Degradation, to_img
from stylebot.dist import device
from stylebot.domains import Domains, People, study
from stylebot.encoder import load_encoder
from stylebot.enlarging import BATCH, Enlarger, enlarge, load_enlarger, psnr_db, ssim
from stylebot.errors import StylebotError
from stylebot.files import sha256_file, write_bytes
from stylebot.frechet import Estimate, between, resamples
from stylebot.generator import Generator
from stylebot.perceptual import Perceptual
from stylebot.probes import CLEAR
from stylebot.render import load_generator, render

PULLS, MIXES = (1.0, 0.8, 0.6, 0.4, 0.2), (0.0, 0.5, 1.0)
_DRAWS = 1000
_NO_RECIPE = {"faithful", "compile", "amp", "id_weights"}  # change no encoder, or its rounding, or show below


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
    """What both are measured by: held-out and training faces, base generator, and three networks."""

    heldout: Path
    dataset: Path
    base: Path
    identity: Path
    inception: Path
    perceptual: Path

    @classmethod
    def of(cls, stages: Path) -> "Files":
        """As the pipeline writes them. Raises StylebotError when one is missing."""
        found = cls(stages / "pack/heldout.zip", stages / "pack/dataset.zip",
                    stages / "fetch/generator.safetensors", stages / "fetch/identity.dat",
                    stages / "fetch/inception.pt", stages / "fetch/perceptual.pth")  # fmt: skip
        if missing := [str(path) for path in vars(found).values() if not path.exists()]:
            raise StylebotError(f"no such file: {', '.join(missing)}; `dvc repro` brings them")
        return found


@dataclass(frozen=True)
class Measured:
    """One generator at one factor and pull, per held-out face [N], and as a group."""

    drift: np.ndarray
    id_distance: np.ndarray
    kids: dict[str, Estimate]
    others: dict[str, np.ndarray] = field(default_factory=dict)  # more numbers per face, by name

    def rows(self, seed: int) -> Iterator[tuple[str, Estimate]]:
        """Each number with its 95 % interval over faces."""
        drawn = resamples(len(self.drift), _DRAWS, seed) / len(self.drift)
        for name, values in ({"drift": self.drift, "id_distance": self.id_distance} | self.others).items():
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
        return self._against(result, self._who, f"results x{factor}", twins=True)

    def _against(self, result: torch.Tensor, originals: np.ndarray, what: str, twins: bool) -> Measured:
        """Pictures [N,3,R,R] uint8 against the embeddings of their originals [N,128]."""
        who, ruler = self._embed(result, what, keep=False), self.domains.ruler
        return Measured(ruler.positions(originals) - ruler.positions(who),
                        np.linalg.norm(who - originals, axis=1),
                        self.domains.kids(self.domains.features(result), self._seed, twins))  # fmt: skip

    def ladder(self, steps: Sequence[torch.Tensor], see: Perceptual, same_person: float) -> list[Measured]:
        """Each of `steps` [N,3,R,R] uint8 against the first of them, pictures that are known exactly."""
        originals, found = self._embed(steps[0], "originals", keep=False), []
        for i, rgbs in enumerate(steps):
            one = self._against(rgbs, originals, f"step {i + 1} of {len(steps)}", twins=False)
            same = (one.id_distance < same_person).astype(float)
            found.append(replace(one, others=_alike(rgbs, steps[0], see) | {"same_person": same}))
        return found


@torch.no_grad()
def _alike(rgbs: torch.Tensor, wanted: torch.Tensor, see: Perceptual) -> dict[str, np.ndarray]:
    """PSNR (of equal pictures 99 dB), SSIM and LPIPS [N] of pictures [N,3,R,R] uint8."""
    measures = {"psnr_db": psnr_db, "ssim": ssim, "lpips": see}
    pairs = [(to_img(a.to(device())), to_img(b.to(device())))
             for a, b in zip(rgbs.split(BATCH), wanted.split(BATCH), strict=True)]  # fmt: skip
    return {name: np.minimum(np.concatenate([how(a, b).cpu().double().numpy() for a, b in pairs]), 99.0)
            for name, how in measures.items()}  # fmt: skip


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


def recipe_of(encoder: Path) -> dict[str, object]:
    """The parameters by which an encoder was trained, as far as they tell recipes apart."""
    meta = load_encoder(encoder)[1]
    told = {name: value for name, value in meta.get("params", {}).items() if name not in _NO_RECIPE}
    return told | {"losses left out": sorted(meta.get("left_out", {}))}


def trained_so(encoder: Path, generator: Path, wanted: Mapping[str, object]) -> bool:
    """Whether `encoder` is there, trained against `generator` by the parameters `wanted` (of encode)."""
    if not encoder.exists() or load_encoder(encoder)[1].get("generator_sha256") != sha256_file(generator):
        return False
    found = recipe_of(encoder)
    return all(found.get(name) == value for name, value in wanted.items() if name not in _NO_RECIPE)


def unlike(a: Path, b: Path) -> str:
    """Whether two encoders were trained alike: that they were, or what differs."""
    one, other = recipe_of(a), recipe_of(b)
    told = [f"{name} {one.get(name)} and {other.get(name)}" for name in sorted(one.keys() | other.keys())
            if one.get(name) != other.get(name)]  # fmt: skip
    return f"careful: other recipes: {', '.join(told)}" if told else "both encoders: trained by one recipe"


def mixed(ours: Generator, base: Generator, share: float) -> Generator:
    """The generator whose every number lies `share` of the way from ours to the base's.

    Raises: StylebotError for generators that are not one fine-tuned from the other.
    """
    other, out = base.state_dict(), deepcopy(ours)
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    if shapes != {name: value.shape for name, value in other.items()}:
        raise StylebotError("the two generators have other shapes: neither was fine-tuned from the other")
    out.load_state_dict({name: value.lerp(other[name], share) if value.is_floating_point() else value
                         for name, value in ours.state_dict().items()})  # fmt: skip
    return out


def in_order(values: Sequence[float]) -> bool:
    """Whether each value is larger than the one before it, or each is smaller."""
    steps = np.diff(values)
    return bool((steps > 0).all() or (steps < 0).all())


def check(
    generator: Path, files: Files, how: How, count: int, same_person: float
) -> tuple[pd.DataFrame, list[str]]:
    """What every measure makes of a known change of `count` faces of `generator`, seeds from 0 on, psi 1.

    "pulled": towards the generator's average face. "mixed": the same latents through weights mixed with the
    base generator's, which is a known drift. Both begin with the face itself.
    Returns a table (who, step, name, value, low, high) and, per change, which measures move in order.
    """
    if count < 10:
        raise StylebotError("--check takes a number of faces from 10 up")
    where, yard, see = device(), Yard(files, how), Perceptual(files.perceptual).to(device())
    ours, base, seeds = load_generator(generator, where), load_generator(files.base, where), range(count)

    def made(g: Generator, psi: float) -> torch.Tensor:
        return torch.cat([render(g, seeds[i : i + BATCH], psi).cpu() for i in range(0, count, BATCH)])

    changes: dict[str, tuple[Sequence[float], Callable[[float], torch.Tensor]]] = {
        "pulled": (PULLS, lambda pull: made(ours, pull)),
        "mixed": (MIXES, lambda share: made(mixed(ours, base, share), 1.0))}  # fmt: skip
    rows, said = [], []
    for who, (steps, make) in changes.items():
        rungs = yard.ladder([make(step) for step in steps], see, same_person)
        found = [dict(rung.rows(how.seed)) for rung in rungs]
        for step, numbers in zip(steps, found, strict=True):
            rows += [(who, step, name, e.value, e.low, e.high) for name, e in numbers.items()]
        ordered = {name: in_order([numbers[name].value for numbers in found]) for name in found[0]}
        said.append(f"{who}: in order: {', '.join(n for n, yes in ordered.items() if yes) or 'none'}; "
                    f"not in order: {', '.join(n for n, yes in ordered.items() if not yes) or 'none'}")
    return pd.DataFrame(rows, columns=["who", "step", "name", "value", "low", "high"]), said


def drift(
    a: tuple[Path, Path], b: tuple[Path, Path], files: Files, how: How
) -> tuple[pd.DataFrame, list[str]]:
    """Measure A and B (encoder, generator) on the same held-out faces, pulled to the average face or not.

    Returns a table (who, factor, pull, name, value, low, high) and a verdict per factor, at the first pull.
    Raises: StylebotError for files that do not fit each other, too few faces, domains that look alike.
    """
    if not how.pulls or any(not 0 <= pull <= 1 for pull in how.pulls):
        raise StylebotError("--pull takes numbers from 0, the average face, to 1, the result as it is")
    alike = unlike(a[0], b[0])
    networks = {who: load_enlarger(*pair, how.degradation, how.seed) for who, pair in
                (("A", a), ("B", b))}  # fmt: skip
    yard, rows, said = Yard(files, how), [], [alike]
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
