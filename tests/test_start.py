"""What a training starts from: other resolutions, weights that lack something."""

from pathlib import Path

import pytest
from training import networks

from stylebot.checkpoints import save_networks
from stylebot.errors import StylebotError
from stylebot.train import load_start
from stylebot.weights import Networks


def test_missing_start_weights_are_named_and_start_anew_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_networks(tmp_path / "g.safetensors", Networks(None, None, networks()[0], {}))
    with pytest.raises(StylebotError, match=r"no G and no D .*train\.allow_missing"):
        load_start(tmp_path / "g.safetensors", 16, allow_missing=False)
    started = load_start(tmp_path / "g.safetensors", 16, allow_missing=True)
    said = capsys.readouterr().err
    assert started.D is not None and "starts anew: D (all of it)" in said and "G (copy of G_ema)" in said


def test_smaller_faces_start_from_the_lower_blocks(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    G, D = networks()
    save_networks(tmp_path / "start.safetensors", Networks(G=G, D=D, G_ema=networks()[0], meta={}))
    started = load_start(tmp_path / "start.safetensors", 8, allow_missing=False)
    assert {net.img_resolution for net in (started.G, started.D, started.G_ema)} == {8}
    assert "D.b8.fromrgb.weight" in capsys.readouterr().err
    with pytest.raises(StylebotError, match=r"16 px and cannot start 32 px.*pack\.resolution may be 16"):
        load_start(tmp_path / "start.safetensors", 32, allow_missing=False)
