"""Coverage-guided fuzzing of the checkpoint readers: `python tests/fuzz/fuzz_checkpoints.py --seconds 600`.

Damaged copies of real checkpoints are loaded; a copy that reaches a new line of the readers joins the corpus.
Anything but a clean load or a StylebotError is written to --out and ends the run with exit code 1.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))

from stylebot import arrays, checkpoints, official, pickles, rosinality, torchfile, weights  # noqa: E402
from stylebot.checkpoints import load_networks, save_networks  # noqa: E402
from stylebot.errors import StylebotError  # noqa: E402

READERS = {m.__file__ for m in (arrays, checkpoints, official, pickles, rosinality, torchfile, weights)}
DATA = ROOT / "tests" / "data"
SEEDS = ("official_tiny.pkl", "official_tiny_sg3.pkl", "official_tiny_torch113.pkl", "rosinality_legacy.pt",
         "rosinality_training.pt")
INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(8), b"(",
               b".", b"R", b"b", b"u", b"s", b"a", b"e", b"0", b"1", b"2", b"h\x00", b"q\x00", b"\x94",
               b"\x85", b"\x93", b"cos\nsystem\n", b"cbuiltins\neval\n")


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
    try:
        load_networks(path)
    except StylebotError as error:
        return reached, f"two lines: {error!r}" if "\n" in str(error) else None
    except Exception:  # that is what is looked for
        return reached, traceback.format_exc()
    finally:
        sys.settrace(None)
    return reached, None


def main() -> int:
    """Fuzz for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(".scratch/fuzz"))
    options = parser.parse_args()
    rng, known, runs = random.Random(options.seed), set(), 0
    corpus = [(DATA / name).read_bytes() for name in SEEDS]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        save_networks(path, load_networks(DATA / SEEDS[0]))
        corpus.append(path.read_bytes())
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            content = damaged(rng.choice(corpus), corpus, rng)
            path.write_bytes(content)
            reached, wrong = lines_reached(path)
            runs += 1
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
