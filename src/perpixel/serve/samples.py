"""Pictures to try a model on without having one: the generated shapes."""

from functools import cache
from io import BytesIO

from PIL import Image as Pillow

from perpixel.data.shapes import ShapesDataset

COUNT = 6


@cache
def sample(number: int) -> bytes:
    """Picture `number` of `COUNT` as PNG, always the same."""
    out = BytesIO()
    Pillow.fromarray(ShapesDataset(COUNT, seed=11).image(number)).save(out, "PNG")
    return out.getvalue()
