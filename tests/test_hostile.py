"""Files that would cost far more than their size, or contradict themselves: one line, in time, in memory."""

import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hostile_weights import instructions, laughs, official, own, rosinality, tensorflow, torch_files
from safetensors.torch import save_file

from stylebot.arrays import shown
from stylebot.checkpoints import load_networks
from stylebot.errors import StylebotError
from stylebot.generator import Generator
from stylebot.weights import Networks, Weights, build

REFUSED = {"huge number": "of 39999 bits", "deep argument": "type tuple", "laughing argument": "type list",
           "shared parameters": "more than 8192", "wide strides": "claim more than the file holds",
           "nothing times 2^78": "an empty tensor of shape", "latents of 2^17": "latents of 131072 numbers",
           "not a number": "not finite: mapping.fc0.weight", "kernel of 5 x 5": "another filter",
           "opts": "opts = 5", "twice": "two members",
           "filter of no taps": "filter_taps", "groups of none": "groups", "eight bits": "not floating-point",
           "complex": "ComplexFloatStorage", "out-of-band buffer": "NEXT_BUFFER",
           "name in two lines": "has not: a?b?[31m"}  # fmt: skip


@pytest.mark.parametrize("make", [official, tensorflow, torch_files, rosinality, own, instructions])
def test_each_ends_in_one_line_soon_and_in_little_memory(
    make: Callable[[], dict[str, bytes]], tmp_path: Path
) -> None:
    files = make()
    load_networks(Path(__file__).parent / "data" / "official_tiny.pkl")  # what any first load imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in files.items():
        path = tmp_path / "weights"
        path.write_bytes(content)
        start = time.process_time()
        with pytest.raises(StylebotError) as caught:
            load_networks(path)
        text = str(caught.value)
        assert text.startswith(str(path)) and text.isprintable() and len(text) < 600, name
        assert REFUSED.get(name, "") in text, f"{name}: {text}"
        assert time.process_time() - start < 10, name
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 150_000, f"{grown} KiB"
    assert len(files) > 3


def test_values_are_written_out_only_if_they_are_plain() -> None:
    endless: list = []
    endless.append(endless)
    assert [shown(v) for v in (endless, {}, 1 << 70, (1,))] == [
        f"a value of type {t}" for t in ("list", "dict", "int", "tuple")]
    plain = [shown(v) for v in ("a\n" * 99, 5, -1.5, None, True)]
    assert plain == [repr("a\n" * 30), "5", "-1.5", "None", "True"]
    assert len(laughs()) < 400


def test_little_may_start_anew(tmp_path: Path) -> None:
    """A file of a few numbers cannot ask for a network of a billion, even where missing ones are allowed."""
    config = Generator(img_resolution=8, channel_base=32, channel_max=4).config
    wide = config | {"z_dim": 1 << 15, "w_dim": 1 << 15}
    with pytest.raises(StylebotError, match="more than 8 times what the file holds would start anew"):
        build(Weights({"G": wide}, {"G": {"synthesis.b4.const": torch.zeros(4, 4, 4)}}), allow_missing=True)


def test_networks_of_one_file_belong_together() -> None:
    nets = {px: Generator(8, 0, 8, px, 3, mapping_layers=1, channel_base=64, channel_max=8) for px in (8, 16)}
    wide = Generator(8, 0, 8, 8, 3, mapping_layers=2, channel_base=64, channel_max=8)
    for other, words in ((nets[16], "img_resolution is 8 and 16"), (wide, "G and G_ema have other shapes")):
        two = {"G": nets[8], "G_ema": other}
        weights = Weights({k: n.config for k, n in two.items()}, {k: n.state_dict() for k, n in two.items()})
        with pytest.raises(StylebotError, match=words):
            build(weights)
    same = {"G": nets[8], "G_ema": nets[8]}
    weights = Weights({k: n.config for k, n in same.items()}, {k: n.state_dict() for k, n in same.items()})
    assert isinstance(build(weights), Networks)


def test_safetensors_of_others_are_no_networks(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "a")
    with pytest.raises(StylebotError, match="without this project's description"):
        load_networks(tmp_path / "a")
