"""Coverage-guided fuzzing of the checkpoint readers: `make fuzz`, ten minutes.

Damaged copies of real and of hostile checkpoints are loaded; a copy that reaches a new line of the readers
joins the corpus. Anything but a clean load or a StylebotError of one line, any attempt to run a program, to
unpickle by name or to write, more than LIMIT_S of work and more than LIMIT_KIB of memory is a finding: it is
written to --out and ends the run with exit code 1.
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

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from hostile_files import bombs, hostile, lying, nested  # noqa: E402
from tensorflow_files import pickled, tf_discriminator, tf_generator  # noqa: E402

from stylebot import arrays, checkpoints, legacy, official, pickles, rosinality, torchfile, weights  # noqa: E402
from stylebot.checkpoints import load_networks, save_networks  # noqa: E402
from stylebot.errors import StylebotError  # noqa: E402
from stylebot.export import write_official  # noqa: E402

MODULES = (arrays, checkpoints, legacy, official, pickles, rosinality, torchfile, weights)
READERS = {m.__file__ for m in MODULES}
DATA = ROOT / "tests" / "data"
SEEDS = ("official_tiny.pkl", "official_tiny_sg3.pkl", "official_tiny_torch113.pkl", "rosinality_legacy.pt",
         "rosinality_training.pt")
LIMIT_S, LIMIT_KIB = 20, 400_000  # one file's work; growth over the whole run (the corpus holds files of MiB)
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.remove", "os.rename",
             "subprocess.Popen", "pickle.find_class", "socket.", "ctypes.dlopen", "shutil.")
INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(8), b"(",
               b".", b"R", b"b", b"u", b"s", b"a", b"e", b"0", b"1", b"2", b"h\x00", b"q\x00", b"\x94",
               b"\x85", b"\x93", b"cos\nsystem\n", b"cbuiltins\neval\n", b"\x81", b"Q", b"1e999", b"-1",
               b"null", b"[[[[", b"}", b"99999999999")


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


def first_corpus(folder: Path, marker: Path) -> list[bytes]:
    """Whole checkpoints of every kind and hostile files."""
    whole = [(DATA / name).read_bytes() for name in SEEDS] + [tensorflow_seed()]
    networks = load_networks(DATA / SEEDS[0])
    save_networks(folder / "own", networks)
    write_official(networks, folder / "official")
    whole += [(folder / "own").read_bytes(), (folder / "official" / "config.json").read_bytes()]
    bad = {**hostile(marker), **nested(marker), **bombs(), **lying()}
    return whole * 4 + [content for content in bad.values() if len(content) < 1 << 16]


def damaged(content: bytes, corpus: list[bytes], rng: random.Random) -> bytes:
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
            other = rng.choice(corpus)
            start = rng.randrange(len(other)) if other else 0
            out[at : at + 16] = other[start : start + rng.randrange(64)]
        else:
            del out[at + 1 :]
    return bytes(out)


def lines_reached(path: Path) -> tuple[set[tuple[str, int]], str | None]:
    """Lines of the readers that loading `path` runs, and the traceback of anything unexpected."""
    reached: set[tuple[str, int]] = set()

    def inside(frame, event, argument):
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return inside

    def outside(frame, event, argument):
        return inside if frame.f_code.co_filename in READERS else None

    sys.settrace(outside)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        load_networks(path)
    except StylebotError as error:
        return reached, f"two lines: {error!r}" if "\n" in str(error) else None
    except BaseException:  # that is what is looked for
        return reached, traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        sys.settrace(None)
    return reached, None


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
        corpus, forbidden, peak = first_corpus(Path(folder), marker), watch(), 0
        waiting, end = list(dict.fromkeys(corpus)), time.monotonic() + options.seconds
        while time.monotonic() < end:
            content = waiting.pop() if waiting else damaged(rng.choice(corpus), corpus, rng)
            in_folder = content[:1] == b"{"  # a folder's description
            place = Path(folder) / "official" / "config.json" if in_folder else path
            place.write_bytes(content)
            reached, wrong = lines_reached(place.parent if in_folder else path)
            runs += 1
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - (peak or 1 << 60)
            peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            wrong = wrong or ("\n".join(forbidden) or None) or (marker.exists() and "it ran") or None
            wrong = wrong or (f"memory grew by {grown} KiB" if grown > LIMIT_KIB else None)
            if wrong:
                options.out.mkdir(parents=True, exist_ok=True)
                (options.out / "crash").write_bytes(content)
                print(f"after {runs} files, seed {options.seed}: {options.out / 'crash'}\n{wrong}")
                return 1
            if not reached <= known:
                known |= reached
                corpus.append(content)
    print(f"{runs} files, {len(known)} lines of the readers reached, {len(corpus)} kept: nothing unexpected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
