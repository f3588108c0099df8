"""A page to look at masks that were drawn from boxes, the most doubtful first. One file, nothing fetched."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from perpixel.data.image import read_image
from perpixel.engine.bar import counting_bar
from perpixel.engine.files import write_text
from perpixel.engine.label_file import BoxFile, ImageEntry
from perpixel.engine.palette import color
from perpixel.engine.visualize import Style, draw
from perpixel.ops.runs import decode

SIDE = 300
"""Longest side of a picture on the page, in pixels."""

_STYLE = """
:root { --ground: #f6f7f9; --card: #fff; --ink: #17191d; --soft: #5d6470; --line: #e1e4e9; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #111318; --card: #1a1d24; --ink: #eceef2; --soft: #9aa2af; --line: #2c313b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1500px; padding: 20px; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 24px; margin: 0 0 6px; } p { margin: 2px 0; color: var(--soft); overflow-wrap: anywhere; }
main { display: grid; gap: 14px; margin-top: 18px; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px; }
figure div { display: grid; grid-template-columns: 1fr 1fr; gap: 6px; align-items: center; }
img { width: 100%; max-height: 300px; object-fit: contain; border-radius: 5px; display: block; }
figcaption { margin-top: 6px; font-size: 13.5px; overflow-wrap: anywhere; }
figcaption b { font-variant-numeric: tabular-nums; } figcaption span { color: var(--soft); }
"""


@dataclass(frozen=True)
class Doubtful:
    """One mask of the page.

    Attributes:
        image: where it is.
        row: position of its annotation in the file.
        box: xyxy, the given one inside the image.
        score: of the mask.
        how: it was drawn.
    """

    image: ImageEntry
    row: int
    box: tuple[float, float, float, float]
    score: float
    how: str


def write_sheet(
    path: Path, file: BoxFile, shown: Sequence[Doubtful], notes: Sequence[str], method: str, progress: bool = True
) -> Path:
    """Writes the page: of each mask the object as it is and with box and mask, in the given order.

    Args:
        path: of the HTML file.
        file: holds the masks.
        shown: the masks, most doubtful first.
        notes: lines under the heading.
        method: how masks were drawn, for the heading.
        progress: whether to show a bar.

    Raises:
        InputError: the file cannot be written.
    """
    places = {one.row: place for place, one in enumerate(shown)}
    figures = [""] * len(shown)
    by_image: dict[ImageEntry, list[Doubtful]] = {}
    for one in shown:
        by_image.setdefault(one.image, []).append(one)
    with counting_bar("sheet", len(by_image), show=progress) as bar:
        for image, of_image in by_image.items():  # a photo is read once, whatever the order on the page
            pixels = read_image(image.path, image.size)
            for one in of_image:
                figures[places[one.row]] = _figure(file, one, pixels)
            bar.advance()
    count = sum(file.mask(row) is not None for row in range(len(file.annotations)))
    lines = [*notes, f"shown: the {len(shown)} most doubtful of {count} masks; filled boxes that are too small are not"]
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>perpixel label</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Masks from boxes by {html.escape(method)}, most doubtful first</h1>\n"
        + "".join(f"<p>{html.escape(line)}</p>\n" for line in lines)
        + f"<main>\n{''.join(figures)}</main>\n</body>\n</html>\n"
    )
    write_text(path, text)
    return path


def _figure(file: BoxFile, one: Doubtful, pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    annotation = file.annotations[one.row]
    height, width = pixels.shape[:2]
    left, top, right, bottom = one.box
    margin = 8 + 0.15 * max(right - left, bottom - top)
    x1, y1 = max(0, round(left - margin)), max(0, round(top - margin))
    x2, y2 = min(width, round(right + margin)), min(height, round(bottom + margin))
    mask = decode([annotation["segmentation"]], (height, width))[0, y1:y2, x1:x2]
    box = np.array([[left - x1, top - y1, right - x1, bottom - y1]])
    window = np.ascontiguousarray(pixels[y1:y2, x1:x2])
    drawn = draw(window, box, [""], [color(0)], [mask], style=Style(opacity=0.3, labels=False))
    name = html.escape(f"{file.class_name(one.row)}")
    where = html.escape(f"{one.image.path.name}, annotation {annotation.get('id')}")
    pictures = "".join(f'<img src="{_embedded(picture)}" alt="{name}">' for picture in (Image.fromarray(window), drawn))
    return (
        f"<figure><div>{pictures}</div><figcaption><b>doubt {1 - one.score:.2f}</b> {name}, {html.escape(one.how)}<br>"
        f"<span>{where}</span></figcaption></figure>\n"
    )


def _embedded(picture: Image.Image) -> str:
    """The picture as a data address of a JPEG of at most `SIDE` pixels."""
    picture = picture.copy()
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
