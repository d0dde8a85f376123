"""ArcFace's network for the identity loss: its names and frame, and the loss in `encode`; narrow weights."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_encode import inputs, narrow_trunk, params  # noqa: F401

from stylebot.encode import encode
from stylebot.encoder import Trunk, load_encoder
from stylebot.errors import StylebotError
from stylebot.recogniser import Recogniser

STAGES = ((16, 1), (16, 1), (16, 1), (16, 1))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as the published one, with few channels."""
    monkeypatch.setattr("stylebot.recogniser.PSP_STAGES", STAGES)
    monkeypatch.setattr("stylebot.recogniser._LAST", (16, 7))
    torch.manual_seed(4)
    trunk = Trunk(STAGES, 3, stem_stride=1)
    tail = {"0": torch.nn.BatchNorm2d(16), "3": torch.nn.Linear(784, 16), "4": torch.nn.BatchNorm1d(16)}
    state = trunk.state_dict() | {f"output_layer.{k}.{n}": v for k, layer in tail.items()
                                  for n, v in layer.state_dict().items()}  # fmt: skip
    torch.save({name: v for name, v in state.items() if not name.endswith("_tracked")}, tmp_path / "ir.pth")
    return tmp_path / "ir.pth"


def test_the_published_network_has_these_names() -> None:
    with torch.device("meta"):
        names = Trunk(((64, 3), (128, 4), (256, 14), (512, 3)), 3, stem_stride=1).state_dict()
    for name in ("input_layer.0.weight", "input_layer.2.weight", "body.0.res_layer.1.weight",
                 "body.3.shortcut_layer.0.weight", "body.23.res_layer.5.fc2.weight"):  # fmt: skip
        assert name in names


def test_embeddings_are_of_the_face_alone(weights: Path, rng: torch.Generator) -> None:
    net, img = Recogniser(weights), torch.rand(2, 3, 256, 256, generator=rng) * 2 - 1
    found = net(img)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    around = img.clone()
    around[:, :, :35], around[:, :, 223:], around[:, :, :, :32], around[:, :, :, 220:] = 1, 1, -1, -1
    assert torch.equal(net(around), found)
    around[:, :, 35:50] = 0
    assert not torch.equal(net(around), found)
    torch.testing.assert_close(net.distance(img, found), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(net.distance(img, -found), torch.full((2,), 2.0))
    smooth = F.interpolate(torch.rand(2, 3, 8, 8, generator=rng), (256, 256), mode="bilinear")
    assert net.distance(F.avg_pool2d(smooth, 4), net(smooth)).max() < 1e-3, "64 px are seen as 256"


def test_the_loss_takes_part_and_nothing_is_left_out(
    weights: Path, inputs: dict[str, Path], capsys: pytest.CaptureFixture  # noqa: F811
) -> None:
    found = encode(**inputs, params=params(id_weight=0.1, id_weights=str(weights), kimg=0.008))
    assert 0 < found["encode_id"] < 2 and "left out" not in capsys.readouterr().out
    meta = load_encoder(inputs["out"])[1]
    assert meta["left_out"] == {} and len(meta["parents"][str(weights)]) == 64
    img = torch.zeros(1, 3, 32, 32, requires_grad=True)
    net = Recogniser(weights)
    net.distance(img, torch.eye(16)[:1]).sum().backward()
    assert img.grad.abs().sum() > 0 and not any(p.requires_grad for p in net.parameters())


def test_other_files_are_one_line(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    torch.save(state | {"output_layer.3.weight": torch.zeros(16, 8)}, tmp_path / "shape.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "bad.pth").write_bytes(b"PK\x03\x04 not whole")
    for name, says in (("shape.pth", "another network"), ("other.pth", "another network"),
                       ("bad.pth", "cannot be read"), ("none.pth", "No such file")):  # fmt: skip
        with pytest.raises(StylebotError, match=says) as caught:
            Recogniser(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)
