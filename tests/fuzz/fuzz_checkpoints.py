"""Coverage-guided fuzzing of the readers of weights, encoders and latents: `make fuzz`, ten minutes.

Damaged copies of real and of hostile files are loaded; a copy that takes a step of the readers' code (from
one line to another) that none took before joins the corpus. Anything but a clean load or a StylebotError of
one line, any attempt to run a program, to unpickle by name or to write, more than LIMIT_S of work and more
than LIMIT_KIB of memory is a finding: it is written to --out and ends the run with exit code 1.
"""

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import hostile_weights  # noqa: E402
from hostile_files import bombs, hostile, lying, nested  # noqa: E402
from tensorflow_files import pickled, tf_discriminator, tf_generator  # noqa: E402

from stylebot import (  # noqa: E402
    arrays,
    checkpoints,
    encoder,
    latents,
    legacy,
    official,
    pickles,
    rosinality,
    torchfile,
    weights,
)
from stylebot.checkpoints import load_networks, save_networks  # noqa: E402
from stylebot.encoder import Encoder, LightEncoder, load_encoder, save_encoder  # noqa: E402
from stylebot.errors import StylebotError  # noqa: E402
from stylebot.export import write_official  # noqa: E402
from stylebot.generator import Generator  # noqa: E402
from stylebot.latents import read_ws, save_ws  # noqa: E402

MODULES = (arrays, checkpoints, encoder, latents, legacy, official, pickles, rosinality, torchfile, weights)
READERS = {m.__file__ for m in MODULES}
DATA = ROOT / "tests" / "data"
HOSTILE = (hostile_weights.official, hostile_weights.tensorflow, hostile_weights.torch_files,
           hostile_weights.rosinality, hostile_weights.own, hostile_weights.instructions)  # fmt: skip
SEEDS = ("official_tiny.pkl", "official_tiny_sg3.pkl", "official_tiny_torch113.pkl", "rosinality_legacy.pt",
         "rosinality_training.pt")
LIMIT_S, LIMIT_KIB = 20, 400_000  # one file's work; growth over the whole run (the corpus holds files of MiB)
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.remove", "os.rename",
             "subprocess.Popen", "pickle.find_class", "socket.", "ctypes.dlopen", "shutil.")
INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(8), b"(",
               b".", b"R", b"b", b"u", b"s", b"a", b"e", b"0", b"1", b"2", b"h\x00", b"q\x00", b"\x94",
               b"\x85", b"\x93", b"cos\nsystem\n", b"cbuiltins\neval\n", b"\x81", b"Q", b"1e999", b"-1",
               b"null", b"[[[[", b"}", b"99999999999")
NETWORK = Generator(z_dim=4, w_dim=4, img_resolution=8, mapping_layers=1, channel_base=32, channel_max=4)


class Timeout(Exception):
    """One file took too long."""


def tensorflow_seed() -> bytes:
    """A snapshot as the TensorFlow code writes it, of the networks in the first seed."""
    networks = load_networks(DATA / "rosinality_training.pt")
    G, D = networks.G_ema, networks.D
    sizes = {"num_channels": 3, "resolution": G.img_resolution, "fmap_max": G.config["channel_max"]}
    sizes["fmap_base"] = G.config["channel_base"] // 2
    arguments = sizes | {"latent_size": G.z_dim, "dlatent_size": G.w_dim}
    of_g = tf_generator(G, arguments)
    return pickled((of_g, tf_discriminator(D, sizes | {"mbstd_group_size": 4}), of_g))


Seed = tuple[str, bytes]  # which reader ("networks", "folder", "encoder", "latents"), and the file


def first_corpus(folder: Path, marker: Path) -> list[Seed]:
    """Whole files of every kind and hostile ones."""
    whole = [(DATA / name).read_bytes() for name in SEEDS] + [tensorflow_seed()]
    networks = load_networks(DATA / SEEDS[0])
    save_networks(folder / "own", networks)
    write_official(networks, folder / "official")
    whole.append((folder / "own").read_bytes())
    encoder._LIGHT_STAGES, LightEncoder._FPN = ((16, 1),) * 4, 16  # narrow, so that copies cost nothing
    save_encoder(folder / "encoder", Encoder("light", 16, w_dim=2), {"kimg": 1})
    save_ws(folder / "latents", torch.randn(2, NETWORK.num_ws, NETWORK.w_dim))
    seeds = [("networks", content) for content in whole]
    seeds += [("folder", (folder / "official" / "config.json").read_bytes())]
    seeds += [(kind, (folder / kind).read_bytes()) for kind in ("encoder", "latents")]
    kinds = [hostile(marker), nested(marker), bombs(), lying(), *(make() for make in HOSTILE)]
    bad = [content for kind in kinds for content in kind.values() if len(content) < 1 << 16]
    seeds = seeds * 4 + [("networks", content) for content in bad]
    return seeds + [("encoder", content) for content in lying().values() if len(content) < 1 << 16]


def damaged(content: bytes, corpus: list[Seed], rng: random.Random) -> bytes:
    """A copy of `content` with one to eight wounds, most of them near its start."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        if not out:
            break
        at = rng.randrange(min(len(out), rng.choice((64, 1024, 1 << 14, len(out)))))
        kind = rng.randrange(7)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind == 2:
            del out[at : at + rng.choice((1, 2, 8, 64))]
        elif kind == 3:
            out[at:at] = rng.choice(INTERESTING)
        elif kind == 4:
            token = rng.choice(INTERESTING)
            out[at : at + len(token)] = token
        elif kind == 5:
            other = rng.choice(corpus)[1]
            start = rng.randrange(len(other)) if other else 0
            out[at : at + 16] = other[start : start + rng.randrange(64)]
        else:
            del out[at + 1 :]
    return bytes(out)


def steps_taken(kind: str, path: Path) -> tuple[set[tuple[str, int, int]], str | None]:
    """Steps (file, line, next line) of the readers that loading `path` takes, and the text of a finding."""
    taken: set[tuple[str, int, int]] = set()

    def outside(frame, event, argument):
        name, before = frame.f_code.co_filename, 0
        if name not in READERS:
            return None

        def inside(frame, event, argument):
            nonlocal before
            taken.add((name, before, frame.f_lineno))
            before = frame.f_lineno
            return inside

        return inside

    read = {"encoder": load_encoder, "latents": lambda file: read_ws(file, NETWORK)}.get(kind, load_networks)
    sys.settrace(outside)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        read(path)
    except StylebotError as error:
        return taken, f"two lines: {error!r}" if "\n" in str(error) else None
    except BaseException:  # that is what is looked for
        return taken, traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        sys.settrace(None)
    return taken, None


def watch() -> list[str]:
    """What happens that no reader has a reason for, filled as it happens; and a limit on one file's work."""
    seen: list[str] = []

    def hook(event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if sys.gettrace() is not None and (writes or event.startswith(FORBIDDEN)):
            seen.append(f"{event} {arguments!r}"[:300])

    def late(number: int, frame: object) -> None:
        raise Timeout(f"more than {LIMIT_S} s")

    sys.addaudithook(hook)
    signal.signal(signal.SIGVTALRM, late)
    return seen


def main() -> int:
    """Fuzz for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(".scratch/fuzz"))
    options = parser.parse_args()
    rng, known, runs = random.Random(options.seed), set(), 0
    with tempfile.TemporaryDirectory() as folder:
        path, marker = Path(folder) / "file", Path(folder) / "marker"
        start, forbidden, peak = first_corpus(Path(folder), marker), watch(), 0
        corpus, waiting = list(start), list(dict.fromkeys(start))
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            if waiting:
                kind, content = waiting.pop()
            else:
                kind, content = rng.choice(corpus)
                content = damaged(content, corpus, rng)
            place = Path(folder) / "official" / "config.json" if kind == "folder" else path
            place.write_bytes(content)
            taken, wrong = steps_taken(kind, place.parent if kind == "folder" else path)
            runs += 1
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - (peak or 1 << 60)
            peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            wrong = wrong or ("\n".join(forbidden) or None) or (marker.exists() and "it ran") or None
            wrong = wrong or (f"memory grew by {grown} KiB" if grown > LIMIT_KIB else None)
            if wrong:
                options.out.mkdir(parents=True, exist_ok=True)
                (options.out / "crash").write_bytes(content)
                print(f"after {runs} files, seed {options.seed}: {options.out / 'crash'} ({kind})\n{wrong}")
                return 1
            if not taken <= known:
                known |= taken
                corpus.append((kind, content))
    new = len(corpus) - len(start)
    print(f"{runs} files, {len(known)} steps of the readers taken, {new} files kept: nothing unexpected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
