"""Decoding: every format and every trap ends as an upright RGB picture or as one reason."""

import io
import os
import pickle
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from stylebot.photos import PhotoError, check_file, read_photo

pillow_heif.register_heif_opener()
LIMIT = 1_000_000
RNG = np.random.default_rng(5)


def smooth(width: int = 96, height: int = 80) -> np.ndarray:
    """A colourful smooth picture whose corners all differ (survives lossy formats)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 200 // width + 30, y * 200 // height + 20, 220 - (x + y) * 150 // (width + height)],
                    axis=-1).astype(np.uint8)


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def noise_jpeg(side: int = 200) -> bytes:
    return saved(Image.fromarray(RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)), "JPEG")


def reason(source: Path | bytes, limit: int = LIMIT) -> str:
    with pytest.raises(PhotoError) as caught:
        read_photo(source, limit)
    assert caught.value.detail and "\n" not in caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize(("kind", "options", "tolerance"), [
    ("PNG", {}, 0), ("BMP", {}, 0), ("TIFF", {}, 0), ("TIFF", {"compression": "tiff_lzw"}, 0), ("PPM", {}, 0),
    ("TGA", {}, 0), ("PCX", {}, 0), ("SGI", {}, 0), ("QOI", {}, 0), ("DDS", {}, 0),
    ("JPEG", {"quality": 95}, 12), ("JPEG", {"quality": 95, "progressive": True}, 12),
    ("JPEG2000", {}, 12), ("WEBP", {"lossless": True}, 0), ("WEBP", {"quality": 90}, 14), ("GIF", {}, 60),
    ("AVIF", {"quality": 95}, 12),
    ("HEIF", {"quality": 95}, 14)])
def test_formats(kind: str, options: dict, tolerance: int) -> None:
    rgb = smooth(128, 128)
    photo = read_photo(saved(Image.fromarray(rgb), kind, **options), LIMIT)
    assert (photo.width, photo.height, photo.orientation, photo.grey) == (128, 128, 1, False)
    assert np.abs(photo.rgb.astype(int) - rgb).max() <= tolerance
    assert photo.rgb.dtype == np.uint8 and photo.rgb.shape == (128, 128, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_orientation_is_applied_once(kind: str, orientation: int) -> None:
    """A picture stored turned, with the EXIF value that turns it back, comes out as it was."""
    back = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    upright = Image.fromarray(smooth())
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(back) if back is not None else upright
    quality = {} if kind in ("PNG", "TIFF") else {"quality": 95}
    photo = read_photo(saved(stored, kind, exif=exif.tobytes(), **quality), LIMIT)
    assert (photo.width, photo.height) == upright.size
    assert photo.orientation == orientation
    assert np.abs(photo.rgb.astype(int) - smooth()).max() <= 16


def test_damaged_exif_does_not_cost_the_photo() -> None:
    content = saved(Image.fromarray(smooth()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 30)
    photo = read_photo(content, LIMIT)
    assert photo.orientation == 1 and photo.width == 96


def srgb_profile() -> bytes:
    """The profile of sRGB as lcms writes it."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """sRGB's profile with the red and green colorants exchanged: translating swaps the channels' roles."""
    profile = bytearray(srgb_profile())
    count = struct.unpack(">I", profile[128:132])[0]
    tags = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = profile[green : green + 4], profile[red : red + 4]
    return bytes(profile).replace(b"s\0R\0G\0B", b"t\0e\0s\0t").replace(b"sRGB", b"test")


def test_icc_profile_is_applied() -> None:
    red = Image.new("RGB", (64, 64), (250, 10, 10))
    photo = read_photo(saved(red, "PNG", icc_profile=swapped_profile()), LIMIT)
    assert "icc" in photo.flags
    assert photo.rgb[0, 0, 1] > 200 > 100 > photo.rgb[0, 0, 0]
    assert photo.picture.getpixel((0, 0)) == (250, 10, 10)
    assert "icc_profile" not in photo.picture.info


def test_srgb_profile_costs_nothing() -> None:
    photo = read_photo(saved(Image.fromarray(smooth()), "PNG", icc_profile=srgb_profile()), LIMIT)
    assert photo.flags == () and np.array_equal(photo.rgb, smooth())


def test_damaged_profile_is_flagged() -> None:
    photo = read_photo(saved(Image.fromarray(smooth()), "PNG", icc_profile=b"no profile" * 20), LIMIT)
    assert photo.flags == ("bad_icc",) and np.array_equal(photo.rgb, smooth())


def test_cmyk() -> None:
    photo = read_photo(saved(Image.fromarray(smooth()).convert("CMYK"), "JPEG", quality=95), LIMIT)
    assert photo.flags == ("cmyk",)
    assert np.abs(photo.rgb.astype(int) - smooth()).max() < 20


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_grey_is_not_white(kind: str) -> None:
    values = np.linspace(0, 65535, 80 * 96).reshape(80, 96).astype(np.uint16)
    photo = read_photo(saved(Image.fromarray(values), kind), LIMIT)
    assert photo.flags == ("deep", "grey") and photo.grey
    assert np.abs(photo.rgb[..., 0] - values / 257).max() <= 0.51


@pytest.mark.parametrize(("values", "full"), [
    (np.linspace(0, 1, 6400, dtype=np.float32), 1.0), (np.linspace(0, 4095, 6400, dtype=np.int32), 4095),
    (np.linspace(0, 9e6, 6400, dtype=np.float32), 9e6)])
def test_other_depths(values: np.ndarray, full: float) -> None:
    photo = read_photo(saved(Image.fromarray(values.reshape(80, 80)), "TIFF"), LIMIT)
    assert np.abs(photo.rgb[..., 1].ravel() - values * (255 / full)).max() <= 0.51


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_modes(mode: str) -> None:
    picture = Image.fromarray(smooth()).convert("L").convert(mode)
    photo = read_photo(saved(picture, "PNG"), LIMIT)
    assert photo.grey and "alpha" not in photo.flags
    assert np.array_equal(photo.rgb[..., 0], np.asarray(picture.convert("L")))


def test_grey_photo_stored_in_colour() -> None:
    grey = Image.fromarray(smooth()).convert("L").convert("RGB")
    assert read_photo(saved(grey, "JPEG"), LIMIT).grey
    assert not read_photo(saved(Image.fromarray(smooth()), "JPEG"), LIMIT).grey


@pytest.mark.parametrize(("mode", "kind"),
                         [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF")])
def test_transparency_is_laid_on_white(mode: str, kind: str) -> None:
    picture = Image.new("RGBA", (64, 64), (10, 10, 10, 255))
    picture.paste((200, 0, 0, 0), (0, 0, 32, 64))
    photo = read_photo(saved(picture.convert(mode), kind), LIMIT)
    assert "alpha" in photo.flags
    assert photo.rgb[10, 5].min() >= 250 and photo.rgb[10, 60].max() <= 20


def test_palette_with_transparency() -> None:
    picture = Image.new("P", (64, 64), 1)
    picture.putpalette([0, 0, 0, 0, 0, 255, 255, 0, 0])
    picture.paste(2, (0, 0, 32, 64))
    photo = read_photo(saved(picture, "PNG", transparency=2), LIMIT)
    assert tuple(photo.rgb[0, 0]) == (255, 255, 255) and tuple(photo.rgb[0, 63]) == (0, 0, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    photo = read_photo(saved(frames[0], kind, save_all=True, append_images=frames[1:]), LIMIT)
    assert "animated" in photo.flags
    assert photo.rgb[0, 0, 0] > 240 and photo.rgb[0, 0, 1] < 15


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is huge and holds next to nothing."""
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [1500, 30_000, 2_000_000_000])
def test_bombs_are_refused_before_decoding(side: int) -> None:
    assert reason(png_header(side, side)) == "too_large"


def test_bombs_inside_icons_are_refused() -> None:
    """An icon whose directory says 16 x 16 px and whose picture is huge."""
    inner = png_header(1500, 1500)
    directory = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22)
    assert reason(directory + inner) == "too_large"


def test_limit_is_in_pixels() -> None:
    content = saved(Image.new("RGB", (1000, 1000)), "PNG")
    assert read_photo(content, 1_000_000).width == 1000
    assert reason(content, 999_999) == "too_large"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "JPEG2000", "AVIF", "HEIF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_files_end_in_a_reason(kind: str, share: float) -> None:
    rgb = RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    content = saved(Image.fromarray(rgb), kind)
    cut = content[: int(len(content) * share)]
    if kind == "GIF" or kind == "JPEG2000":  # their decoders may give what is there
        try:
            assert read_photo(cut, LIMIT).width == 200
        except PhotoError as error:
            assert error.reason in ("truncated", "unreadable")
    else:
        assert reason(cut) in ("truncated", "unreadable")


def test_cut_jpeg_is_named_truncated() -> None:
    assert reason(noise_jpeg()[:-2000]) == "truncated"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "JPEG2000", "AVIF", "HEIF", "ICO",
                                  "PCX", "TGA"])
def test_random_damage_never_crashes(kind: str) -> None:
    content = saved(Image.fromarray(smooth()), kind)
    rng = np.random.default_rng(7)
    for _ in range(12):
        damaged = np.frombuffer(content, dtype=np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 8)] = rng.integers(0, 256, 8)
        try:
            read_photo(damaged.tobytes(), LIMIT)
        except PhotoError as error:
            assert error.reason in ("unreadable", "truncated", "too_large")


@pytest.mark.parametrize("content", [
    b"hello", b"\0" * 5000, b"%PDF-1.7\n" + b"x" * 100, b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"PK\x03\x04" + b"a" * 80,
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\0\0\0\x18ftypheic" + b"\0" * 40,
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n(ls) run\n"])
def test_what_is_no_picture(content: bytes) -> None:
    assert reason(content) in ("unreadable", "truncated")


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(Image.fromarray(smooth()), "PNG"))
    assert np.array_equal(read_photo(path, LIMIT).rgb, smooth())


def test_special_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
    wanted = {"pipe": "not_a_file", "s": "not_a_file", "folder": "not_a_file", "dangling": "missing",
              "loop": "unreadable", "empty.jpg": "empty", "gone": "missing"}
    assert {name: reason(tmp_path / name) for name in wanted} == wanted
    with pytest.raises(PhotoError):
        check_file(tmp_path / ("x" * 300))
    assert reason(b"") == "empty"


def test_metadata_is_gone() -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    stored = saved(Image.fromarray(smooth()), "JPEG", exif=exif, comment=b"secret")
    picture = read_photo(stored, LIMIT).picture
    assert not picture.info and not dict(picture.getexif())


def test_pillows_own_limit_is_left_as_it_was() -> None:
    before = Image.MAX_IMAGE_PIXELS
    read_photo(saved(Image.fromarray(smooth()), "PNG"), LIMIT)
    assert before == Image.MAX_IMAGE_PIXELS
    reason(b"no picture")
    assert before == Image.MAX_IMAGE_PIXELS


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(PhotoError("truncated", "cut")))
    assert (error.reason, error.detail, str(error)) == ("truncated", "cut", "truncated: cut")
