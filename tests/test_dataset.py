"""The dataset zip: what stylegan2-ada-pytorch reads, and every way in which it can be wrong."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylebot.dataset import Dataset, png_bytes, write_dataset
from stylebot.errors import StylebotError


@pytest.fixture
def rgbs() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8))


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_what_is_written_is_read(tmp_path: Path, rgbs: list[np.ndarray]) -> None:
    names = write_dataset(tmp_path / "a.zip", rgbs)
    assert names == [f"00000/img0000000{i}.png" for i in range(3)]
    dataset = Dataset(tmp_path / "a.zip")
    assert (dataset.names, len(dataset), dataset.resolution, dataset.channels) == (names, 3, 8, 3)
    assert np.array_equal(dataset.read(1), rgbs[1].transpose(2, 0, 1))
    everything = dataset.read_all()
    assert everything.dtype == np.uint8 and np.array_equal(everything, np.stack(rgbs).transpose(0, 3, 1, 2))


def test_the_format_is_the_published_one(tmp_path: Path, rgbs: list[np.ndarray]) -> None:
    write_dataset(tmp_path / "a.zip", rgbs)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("dataset.json")) == {"labels": None}
        with Image.open(io.BytesIO(archive.read("00000/img00000002.png"))) as image:
            assert (image.format, image.mode, image.size, image.info) == ("PNG", "RGB", (8, 8), {})


def test_the_same_pictures_are_the_same_bytes(tmp_path: Path, rgbs: list[np.ndarray]) -> None:
    for name in ("a.zip", "b.zip"):
        write_dataset(tmp_path / name, iter(rgbs))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_the_folder_changes_after_a_thousand(tmp_path: Path) -> None:
    names = write_dataset(tmp_path / "a.zip", (np.zeros((1, 1, 3), np.uint8) for _ in range(1001)))
    assert names[999:] == ["00000/img00000999.png", "00001/img00001000.png"]


def test_fingerprint_is_of_the_pictures(tmp_path: Path, rgbs: list[np.ndarray]) -> None:
    write_dataset(tmp_path / "a.zip", rgbs)
    write_dataset(tmp_path / "b.zip", rgbs)
    rgbs[2][0, 0, 0] ^= 1
    write_dataset(tmp_path / "c.zip", rgbs)
    write_dataset(tmp_path / "d.zip", rgbs[:2])
    prints = [Dataset(tmp_path / f"{name}.zip").fingerprint for name in "abcd"]
    assert prints[0] == prints[1] and len(set(prints)) == 3 and len(prints[0]) == 64


def test_others_datasets(tmp_path: Path, rgbs: list[np.ndarray]) -> None:
    """Compressed members, other orders, other files between, grey, palette and transparent pictures."""

    def saved(mode: str, kind: str) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(rgbs[0]).convert(mode).save(buffer, kind)
        return buffer.getvalue()

    members = {"z.png": saved("RGBA", "PNG"), "README.txt": b"hello", "a.PNG": saved("P", "PNG"),
               "dataset.json": b"{}", "b/c.bmp": png_bytes(rgbs[0], level=9)}  # fmt: skip
    dataset = Dataset(zipped(tmp_path / "a.zip", members))
    assert dataset.names == ["a.PNG", "b/c.bmp", "z.png"] and dataset.read_all().shape == (3, 3, 8, 8)
    grey = Dataset(zipped(tmp_path / "b.zip", {"a.png": saved("L", "PNG")}))
    assert grey.channels == 1 and grey.read_all().shape == (1, 1, 8, 8)


@pytest.mark.parametrize(("shape", "said"), [((8, 16, 3), "not 16x8"), ((12, 12, 3), "not 12x12")])
def test_odd_shapes(shape: tuple[int, ...], said: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": png_bytes(np.zeros(shape, np.uint8))})
    with pytest.raises(StylebotError, match=f"square and a power of two, {said}"):
        Dataset(path)


def test_mixed_shapes(tmp_path: Path, rgbs: list[np.ndarray]) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": png_bytes(rgbs[0]), "b.png": png_bytes(rgbs[0][:4, :4])})
    with pytest.raises(StylebotError, match=r"b\.png has another shape than a\.png"):
        Dataset(path).read_all()


def test_unreadable_zips(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    zipped(tmp_path / "empty.zip", {"dataset.json": b"{}"})
    no_zip = "not a readable dataset zip"
    for name, said in (("absent.zip", no_zip), ("text.zip", no_zip), ("empty.zip", "holds no pictures")):
        with pytest.raises(StylebotError, match=said):
            Dataset(tmp_path / name)


def test_a_damaged_picture_is_named(tmp_path: Path, rgbs: list[np.ndarray]) -> None:
    whole = png_bytes(rgbs[0])
    for broken in (b"no picture", whole[:60], whole[:45] + b"\xff\xff\xff" + whole[48:]):
        path = zipped(tmp_path / "a.zip", {"a.png": whole, "b.png": broken})
        with pytest.raises(StylebotError, match=r"b\.png is damaged"):
            Dataset(path).read_all()


def test_a_cut_off_or_foreign_zip_is_named(tmp_path: Path, rgbs: list[np.ndarray]) -> None:
    whole = write_dataset(tmp_path / "a.zip", rgbs) and (tmp_path / "a.zip").read_bytes()
    for size in (len(whole) // 2, len(whole) - 1, 0):
        (tmp_path / "cut.zip").write_bytes(whole[:size])
        with pytest.raises(StylebotError, match=r"cut\.zip is not a readable dataset zip: File is not a zip"):
            Dataset(tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "deflated.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(999) + png_bytes(rgbs[0]))
    content = bytearray((tmp_path / "deflated.zip").read_bytes())
    content[35:39] = b"\xff" * 4  # the first deflate block: of a kind that does not exist
    (tmp_path / "deflated.zip").write_bytes(content)
    with pytest.raises(StylebotError, match=r"a\.png is damaged: Error -3"):
        Dataset(tmp_path / "deflated.zip")


def test_damage_of_the_zip_itself_is_named(tmp_path: Path, rgbs: list[np.ndarray]) -> None:
    write_dataset(tmp_path / "a.zip", rgbs)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    place = content.index(b"IDAT", content.index(b"img00000001.png")) + 10
    content[place] ^= 255
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(StylebotError, match=r"img00000001\.png is damaged"):
        Dataset(tmp_path / "a.zip").read_all()
