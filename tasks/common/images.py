"""The one reader of image files, for all tasks: what it returns is as a person sees it, or the file is refused by name.

A picture becomes RGB and upright: its EXIF orientation is applied, 16-bit grey is scaled to 8 bits, CMYK converted, and
what is transparent is laid over white, as a browser shows it. A label map keeps its values; it is turned as its picture
is. Nothing is read from what is no file (a named pipe would be waited for), and no image is decoded that has more
pixels than allowed: a small file can say that it has billions.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tarot import InputError
from tarot.common import check_is_file

IMAGE_TYPES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 178_956_970
"""Of an image, where nothing else is asked for: what Pillow refuses by default."""
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # not EPS and others, which start programs
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_TURNED = {  # EXIF orientations that exchange height and width
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The readers below count pixels themselves, and name the file and the option; Pillow's limit would come first.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class PixelLimit:
    """How many pixels an image may have. option: what raises the limit, None where nothing does."""

    pixels: int = MAX_PIXELS
    option: str | None = None

    def check(self, width: int, height: int, name: str) -> None:
        if width * height > self.pixels:
            advice = "" if self.option is None else f"; set {self.option}={width * height} if that is right, or cut it"
            raise InputError(
                f"{name} has {width} x {height} = {width * height:,} pixels, more than {self.pixels:,}{advice}"
            )


NO_OPTION = PixelLimit()


def is_image_name(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_TYPES


def read_image(source: Path | bytes, name: str | None = None, limit: PixelLimit = NO_OPTION) -> Image.Image:
    """An upright picture in RGB. name: what errors call it where it is no file.

    Raises InputError, with the name, for what cannot be read, has too many pixels, or is of a kind whose range of
    values is not known: 32-bit and floating-point grey.
    """
    return _in_colours(_decoded(source, name, limit))


def read_pair(image: Path, label: Path, limit: PixelLimit = NO_OPTION) -> tuple[Image.Image, Image.Image]:
    """A picture as `read_image` reads it, and its label map, of the same size, with the values of its file.

    Where the picture has an EXIF orientation and the label has none, as PNGs have none, their sizes tell whether the
    label was drawn on the picture upright or as it is stored.
    Raises InputError, with the files' names, as `read_image` does; where sizes differ, or do not tell; and for a label
    that is a JPEG, whose values are not those that were written.
    """
    seen, drawn = _decoded(image, None, limit), _decoded(label, None, limit)
    _refuse_jpeg(drawn.format, label)
    return _in_colours(seen), _turned_alike(seen, drawn)


def fault_of_pair(image: Path, label: Path, limit: PixelLimit = NO_OPTION) -> str | None:
    """Why `read_pair` would refuse them, as far as the headers of both files tell; None: for no reason. No pixel is
    read, so it takes a fraction of a millisecond."""
    try:
        with _opened(image, str(image), limit) as seen, _opened(label, str(label), limit) as drawn:
            _refuse_jpeg(drawn.format, label)
            if sorted(seen.size) != sorted(drawn.size):  # one may be turned, which is known when both are decoded
                raise _sizes_differ(str(image), seen.size, str(label), drawn.size)
    except InputError as error:
        return str(error)
    return None


# --- how it lies on disk ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Upright:
    """image: decoded and upright. orientation: EXIF's, of the file; None where it has none."""

    image: Image.Image
    name: str
    format: str | None
    orientation: int | None


def _decoded(source: Path | bytes, name: str | None, limit: PixelLimit) -> _Upright:
    name = name or (str(source) if isinstance(source, Path) else "an image")
    with _opened(source, name, limit) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        image.load()  # turns a TIFF upright by itself, and forgets that it was not
        return _Upright(ImageOps.exif_transpose(image), name, image.format, orientation)


@contextlib.contextmanager
def _opened(source: Path | bytes, name: str, limit: PixelLimit) -> Iterator[Image.Image]:
    """Its header is read. What goes wrong with it in the block is an InputError, too."""
    if isinstance(source, Path):
        check_is_file(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS) as image:
            limit.check(*image.size, name)
            yield image
    except InputError:
        raise
    except UnidentifiedImageError as error:
        kinds = ", ".join(_FORMATS)
        raise InputError(f"{name} holds no image that can be read (it is none of {kinds}); fetch it again") from error
    except PermissionError as error:
        raise InputError(f"{name} cannot be opened ({error.strerror})") from error
    except Exception as error:  # a decoder raises whatever a broken file makes it come upon
        what = str(error) or type(error).__name__
        raise InputError(f"{name} holds no image that can be read ({what}); fetch it again") from error


def _turned_alike(seen: _Upright, drawn: _Upright) -> Image.Image:
    """The label, turned as the picture is; both are upright where the label says how it is stored."""
    size, label = seen.image.size, drawn.image
    hidden = drawn.orientation is None and seen.orientation in range(2, 9)
    if hidden and (seen.orientation not in _TURNED or size[0] == size[1]) and label.size == size:
        raise InputError(
            f"{seen.name} has the EXIF orientation {seen.orientation}, and nothing tells whether its label "
            f"{drawn.name} was drawn on it upright; write the image upright and without orientation (mogrify "
            "-auto-orient)"
        )
    if hidden and label.size != size and label.size == (size[1], size[0]):
        label = label.transpose(_TURNED[seen.orientation or 0])
    if label.size != size:
        raise _sizes_differ(seen.name, size, drawn.name, label.size)
    return label


def _sizes_differ(image: str, size: tuple[int, int], label: str, other: tuple[int, int]) -> InputError:
    return InputError(
        f"{image} is {size[0]} x {size[1]} pixels and its label {label} {other[0]} x {other[1]}; a label has a class "
        "for every pixel"
    )


def _refuse_jpeg(kind: str | None, label: Path) -> None:
    if kind in ("JPEG", "MPO"):
        raise InputError(f"{label} is a JPEG, which changes the values of labels; write labels as PNG")


# --- colours ---------------------------------------------------------------------------------------------------------


def _in_colours(upright: _Upright) -> Image.Image:
    image, name = upright.image, upright.name
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and upright.format == "PNG"):  # I: of older Pillows
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "whole" if image.mode == "I" else "floating-point"
        raise InputError(f"{name} has 32-bit {kind} numbers for pixels, whose range is not known; write 8 or 16 bits")
    try:
        if image.has_transparency_data:
            clear = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        raise InputError(f"{name} has pixels of mode {image.mode}, which are no colours; write it in RGB") from error
