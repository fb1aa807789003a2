"""The one reader of images: what every kind of file is turned into, what is refused, and that nothing else happens."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tarot import InputError
from tasks.common.images import PixelLimit, read_image, read_pair

RED, WHITE = (255, 0, 0), (255, 255, 255)
# What a viewer does to stored pixels, by EXIF orientation, each said in words of arrays [H, W].
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def pixels(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(path: Path, array: np.ndarray, orientation: int | None = None, **options: object) -> Path:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
        options["exif"] = exif
    Image.fromarray(array).save(path, **options)
    return path


def refused(path: Path | bytes, **options: object) -> str:
    with pytest.raises(InputError) as error:
        read_image(path, **options)
    assert "\n" not in str(error.value)
    if isinstance(path, Path):
        assert str(path) in str(error.value)
    return str(error.value)


# --- orientation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tif", "webp"])
def test_an_image_is_upright(tmp_path, kind, orientation):
    options = {"lossless": True} if kind == "webp" else {}
    path = save(tmp_path / f"a.{kind}", pixels(), orientation, **options)
    assert np.array_equal(np.asarray(read_image(path)), UPRIGHT[orientation](pixels()))


@pytest.mark.parametrize("compression", ["tiff_deflate", "tiff_lzw"])
def test_a_compressed_tiff_is_turned_once(tmp_path, compression):
    path = save(tmp_path / "a.tif", pixels(), 6, compression=compression)
    assert np.array_equal(np.asarray(read_image(path)), UPRIGHT[6](pixels()))


@pytest.mark.parametrize("kind", ["jpg", "tif"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
def test_sizes_tell_what_a_label_was_drawn_on(tmp_path, kind, orientation, drawn_on):
    stored = np.arange(54, dtype=np.uint8).reshape(6, 9)
    image = save(tmp_path / f"a.{kind}", np.stack([stored] * 3, 2), orientation)
    label = save(tmp_path / "label.png", UPRIGHT[orientation](stored) if drawn_on == "upright" else stored)
    seen, drawn = read_pair(image, label)
    assert seen.size == drawn.size == (6, 9) and np.array_equal(np.asarray(drawn), UPRIGHT[orientation](stored))
    assert np.abs(np.asarray(seen)[..., 0].astype(int) - UPRIGHT[orientation](stored)).max() <= 4  # it is a JPEG


@pytest.mark.parametrize(("orientation", "size"), [(2, (6, 9)), (3, (6, 9)), (4, (6, 9)), (6, (6, 6))])
def test_a_label_of_which_nothing_tells_is_refused(tmp_path, orientation, size):
    image = save(tmp_path / "a.jpg", pixels(*size), orientation)
    label = save(tmp_path / "label.png", np.zeros(size, np.uint8))
    with pytest.raises(
        InputError, match=rf"a\.jpg has the EXIF orientation {orientation}, .* its label .*label\.png .*upright"
    ):
        read_pair(image, label)
    turned = save(tmp_path / "turned.png", np.zeros(size, np.uint8), orientation)
    assert read_pair(image, turned)[1].size == read_pair(image, turned)[0].size  # the label says how it is stored


def test_sizes_that_differ_either_way_are_named(tmp_path):
    image = save(tmp_path / "a.jpg", pixels(), 6)
    label = save(tmp_path / "label.png", np.zeros((5, 9), np.uint8))
    with pytest.raises(InputError, match=r"a\.jpg is 6 x 9 pixels and its label .*label\.png 9 x 5"):
        read_pair(image, label)
    plain = save(tmp_path / "plain.png", pixels())
    label = save(tmp_path / "label.png", np.zeros((9, 6), np.uint8))
    with pytest.raises(InputError, match=r"plain\.png is 9 x 6 pixels and its label .*label\.png 6 x 9"):
        read_pair(plain, label)


def test_a_jpeg_is_no_label(tmp_path):
    image, label = save(tmp_path / "a.png", pixels()), save(tmp_path / "label.jpg", np.zeros((6, 9), np.uint8))
    with pytest.raises(InputError, match=r"label\.jpg is a JPEG"):
        read_pair(image, label)


# --- kinds of pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_grey_of_16_bits_is_scaled(tmp_path, kind):
    values = np.array([[0, 128, 129, 257, 32768, 65278, 65535]], np.uint16)
    path = save(tmp_path / f"a.{kind}", values)
    expected = np.rint(values / 257).astype(np.uint8)
    assert np.array_equal(np.asarray(read_image(path)), np.stack([expected] * 3, 2))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_grey_of_32_bits_is_refused(tmp_path, dtype):
    assert "32-bit" in refused(save(tmp_path / "a.tif", np.zeros((4, 4), dtype)))


def test_what_is_transparent_lies_on_white(tmp_path):
    clear = np.zeros((1, 3, 4), np.uint8)
    clear[0] = [(0, 9, 0, 0), (255, 0, 0, 255), (0, 0, 0, 128)]
    seen = np.asarray(read_image(save(tmp_path / "a.png", clear)))
    assert seen[0].tolist() == [list(WHITE), list(RED), [127, 127, 127]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=1)
    assert np.asarray(read_image(tmp_path / "p.png"))[0].tolist() == [list(RED), list(WHITE)]
    grey = np.array([[[200, 255], [200, 0]]], np.uint8)
    Image.fromarray(grey, "LA").save(tmp_path / "la.png")
    assert np.asarray(read_image(tmp_path / "la.png"))[0].tolist() == [[200] * 3, list(WHITE)]


def test_cmyk_one_bit_and_palettes_are_their_colours(tmp_path):
    Image.new("CMYK", (2, 2), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert np.abs(np.asarray(read_image(tmp_path / "a.jpg")).astype(int) - RED).max() <= 3
    Image.new("CMYK", (2, 2), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    assert np.asarray(read_image(tmp_path / "a.tif"))[0, 0].tolist() == list(RED)
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "b.png")
    assert np.asarray(read_image(tmp_path / "b.png"))[0].tolist() == [list(WHITE), [0, 0, 0]]
    Image.fromarray(pixels()).quantize(64).save(tmp_path / "p.png")
    expected = np.asarray(Image.fromarray(pixels()).quantize(64).convert("RGB"))
    assert np.array_equal(np.asarray(read_image(tmp_path / "p.png")), expected)


# --- files that are not what they say --------------------------------------------------------------------------------


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """One bit a pixel, all of it black, with chunks before the pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (1 + (width + 7) // 8) * min(height, 100))
    body = b"".join(chunk(*one) for one in (*chunks, (b"IDAT", rows), (b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body


@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_a_small_file_of_many_pixels_names_file_and_option(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        path.write_bytes(png(60_000, 60_000))
    else:
        file = io.BytesIO()
        Image.new("1", (8, 8)).save(file, "bmp")
        content = bytearray(file.getvalue())
        content[18:26] = struct.pack("<ii", 60_000, 60_000)
        path.write_bytes(content)
    line = refused(path, limit=PixelLimit(option="task.data.max_pixels"))
    assert line == (
        f"{path} has 60000 x 60000 = 3,600,000,000 pixels, more than 178,956,970; set "
        "task.data.max_pixels=3600000000 if that is right, or cut it"
    )


def test_a_large_image_is_read_where_the_option_says_so(tmp_path, recwarn):
    """Beyond what Pillow warns of, and beyond twice that, at which it refuses."""
    side = 13_500
    Image.new("1", (side, side)).save(tmp_path / "tile.png")
    assert "more than 178,956,970" in refused(tmp_path / "tile.png")
    with Image.open(tmp_path / "tile.png") as stored:
        assert stored.size == (side, side)
    small = PixelLimit(pixels=50)
    assert "more than 50" in refused(save(tmp_path / "a.png", pixels()), limit=small)
    assert read_image(save(tmp_path / "a.png", pixels()), limit=PixelLimit(54)).size == (9, 6)
    seen = read_image(tmp_path / "tile.png", limit=PixelLimit(side * side))
    assert seen.size == (side, side) and not recwarn.list


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_text_that_unpacks_to_much_is_refused(tmp_path, kind):
    packed = zlib.compress(b"a" * 2 * PngImagePlugin.MAX_TEXT_CHUNK)
    content = b"key\0\0" + packed if kind == b"zTXt" else b"key\0\1\0\0\0" + packed
    path = tmp_path / "a.png"
    path.write_bytes(png(8, 8, (kind, content)))
    assert "holds no image that can be read" in refused(path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "zero"):
        assert "is no file but" in refused(tmp_path / f"{name}.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert "is not there" in refused(tmp_path / "link.png")
    assert "cannot be opened" in refused(tmp_path / "loop.png")


def test_files_of_other_kinds_are_refused(tmp_path):
    for name, content in (("empty", b""), ("text", b"no image"), ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n")):
        (tmp_path / f"{name}.png").write_bytes(content)
        assert "holds no image that can be read" in refused(tmp_path / f"{name}.png")
    assert refused(b"no image", name="rows.parquet, row 3").startswith("rows.parquet, row 3 holds no image")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "tiff"])
def test_broken_files_are_refused_or_read_as_they_were(tmp_path, kind):
    """Cut at any place, a file is refused or, where nothing but its end is missing, gives all of its pixels; with any
    byte changed it is refused or some image, and no other error comes out."""
    rng, file = np.random.default_rng(0), io.BytesIO()
    Image.fromarray(pixels(40, 50)).save(file, kind)
    content = file.getvalue()
    whole = np.asarray(read_image(content))
    cut = 0
    for length in rng.integers(0, len(content) - 16, 60).tolist():
        try:
            seen = np.asarray(read_image(content[:length], f"cut at {length}"))
        except InputError as error:
            assert str(error).startswith(f"cut at {length} holds no image") and "\n" not in str(error)
            cut += 1
        else:
            assert np.array_equal(seen, whole)
    assert cut > 40
    for place in rng.integers(0, len(content), 150).tolist():
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        try:
            read_image(bytes(changed), "changed", PixelLimit(10**6))
        except InputError as error:
            assert str(error).startswith("changed ")
