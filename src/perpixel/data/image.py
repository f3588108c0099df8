"""Photos from disk or from a sender: any PIL format in, upright 8-bit RGB out."""

import struct
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from perpixel.data.dataset import Image
from perpixel.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jfif")
UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError, Pillow.DecompressionBombError)
# What PIL's readers stumble over in damaged files.
UNREADABLE += (
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)
UNREADABLE += (struct.error, zlib.error)
"""What a file that is no picture, or a damaged one, is met with."""
_ORIENTATION = 0x0112
_DRAWN_BY_OTHERS = ("EPS", "WMF")
_SENT = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")


class NamedBytes(BytesIO):
    """The content of a photo that somebody sent, under the name that messages give it.

    Only formats of photos are tried on it: PIL's reader of PostScript, for one, starts another program.
    """

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name

    def __repr__(self) -> str:  # what messages say, PIL's too
        return self.name


File = Path | str | NamedBytes


def read_image(path: File, size: tuple[int, int] | None = None) -> Image:
    """The photo in `path` as (h, w, 3) uint8 RGB, upright.

    Grey, palette, CMYK and 16-bit images are converted (16 bits by their upper 8; floats in 0..1 or 0..255); transparent
    pixels are laid on white; of an animation the first frame counts. The camera's EXIF orientation is applied, unless
    `size`, the (height, width) that the annotations state, fits the pixels as stored and not the upright image: then the
    annotations were made on the stored pixels.

    Raises:
        InputError: no such file, not an image, cut short or damaged, or of another size than `size`.
    """
    try:
        with opened(path) as photo:
            photo.load()
            return to_rgb(_upright(photo, size, path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image file") from error
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as an image ({error}); replace it or leave it out") from error


def pixel_count(path: File) -> int:
    """How many pixels the photo has, before any of them is unpacked: `image_size` unpacks a PNG to look for its orientation.

    Raises:
        InputError: no such file, or not an image.
    """
    try:
        with opened(path) as photo:
            return photo.width * photo.height
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image file") from error
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as an image ({error}); replace it or leave it out") from error


def image_size(path: Path | str) -> tuple[int, int]:
    """(height, width) of the upright photo, from the header alone.

    Raises:
        InputError: no such file, or not an image.
    """
    try:
        with opened(path) as photo:
            width, height = photo.size
            return (width, height) if _turned(photo) else (height, width)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image file") from error
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as an image ({error}); replace it or leave it out") from error


def to_rgb(photo: Pillow.Image) -> Image:
    """A PIL image as (h, w, 3) uint8 RGB, with the conversions of `read_image` but its orientation."""
    if photo.mode.startswith("I") or photo.mode == "F":
        grey = _eight_bits(np.asarray(photo))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if photo.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in photo.info:
        photo = photo.convert("RGBA")
        photo = Pillow.alpha_composite(Pillow.new("RGBA", photo.size, "white"), photo)
    return np.array(photo.convert("RGB"))


def opened(path: File) -> Pillow.Image:
    """A picture of which only the header is read; raises one of `UNREADABLE`."""
    return Pillow.open(path, formats=_SENT if isinstance(path, NamedBytes) else _on_disk())


@cache
def _on_disk() -> tuple[str, ...]:
    """All that PIL reads but what another program or the system draws, whatever the file's name ends in."""
    Pillow.init()
    return tuple(form for form in Pillow.ID if form not in _DRAWN_BY_OTHERS)


def _upright(photo: Pillow.Image, size: tuple[int, int] | None, path: File) -> Pillow.Image:
    stored = (photo.height, photo.width)
    upright = stored[::-1] if _turned(photo) else stored
    if size is None or size == upright:
        return ImageOps.exif_transpose(photo)
    if size == stored:
        return photo
    raise InputError(
        f"{path}: the image is {upright[1]}x{upright[0]} but its annotation says width {size[1]}, height {size[0]};"
        " correct the annotation or restore the image"
    )


def _turned(photo: Pillow.Image) -> bool:
    """Whether the upright image has width and height exchanged."""
    return photo.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """16-bit, 32-bit or float grey values as 8 bits.

    Integers beyond 255 are taken for 16 bits (their upper byte is kept), so an image keeps its relative brightness;
    floats up to 1 are taken for shares of white.
    """
    values = np.nan_to_num(grey.astype(np.float64))
    top = values.max(initial=0)
    if np.issubdtype(grey.dtype, np.floating):
        values = values * 255 if top <= 1 else values
    elif grey.dtype == np.uint16 or top > 255:
        values = np.floor(values / 256)
    return np.clip(values, 0, 255).astype(np.uint8)
