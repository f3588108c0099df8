"""The font of labels: the built-in one where it has all letters, else one of the system's."""

from collections.abc import Iterable
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from perpixel.errors import InputError

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Found by name where the system keeps its fonts: Linux, macOS, Windows; the widest alphabets first.
SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
)


def label_font(letter: int, texts: Iterable[str], name: str | None = None) -> Font:
    """A font in which all of `texts` can be read.

    Pillow's built-in font knows little more than English; texts in other letters take the font of the system that has most
    of them.

    Args:
        letter: height in pixels.
        texts: what will be written.
        name: a TrueType file or the name of a system font, which is then taken whatever it has.

    Raises:
        InputError: there is no such font.
    """
    if name is not None:
        font = _system_font(name, letter)
        if font is None:
            raise InputError(f"{name} is no TrueType font that can be found: give the path of a .ttf file")
        return font
    letters = frozenset("".join(texts))
    chosen = _widest(letters)
    return _built_in(letter) if chosen is None else _system_font(chosen, letter) or _built_in(letter)


def on_one_line(text: str) -> str:
    """The text with spaces for its ends of lines and paragraphs, which no font can lay out in a label."""
    return " ".join(text.splitlines())


@lru_cache(maxsize=64)
def _widest(letters: frozenset[str]) -> str | None:
    """The system font that has more of the letters than the built-in one, or None."""
    best, least = None, _missing(_built_in(16), letters)
    for name in SYSTEM_FONTS:
        if not least:
            break
        font = _system_font(name, 16)
        if font is not None and (count := _missing(font, letters)) < least:
            best, least = name, count
    return best


def _missing(font: Font, letters: Iterable[str]) -> int:
    """How many of the letters the font draws as its sign for a letter it does not have."""
    absent = _drawn(font, "\uffff")
    return sum(not letter.isascii() and _drawn(font, letter) == absent for letter in letters)


def _drawn(font: Font, letter: str) -> bytes:
    picture = Image.new("L", (40, 40))
    ImageDraw.Draw(picture).text((8, 8), letter, font=font, fill=255)
    return picture.tobytes()


@lru_cache(maxsize=16)
def _built_in(letter: int) -> Font:
    return ImageFont.load_default(letter)


@lru_cache(maxsize=64)
def _system_font(name: str, letter: int) -> Font | None:
    try:
        return ImageFont.truetype(name, letter)
    except OSError:
        return None
