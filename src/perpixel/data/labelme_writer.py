"""Writes LabelMe: a json beside each image; it carries boxes, polygons, masks, crowds and fields of any name."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from perpixel.data.dataset import Rle
from perpixel.data.document import AnnotatedObject, Document, extra_of
from perpixel.data.grouped import Part as Drawn
from perpixel.data.grouped import parts_of
from perpixel.data.groups import Groups, group_numbers
from perpixel.data.masks import patch_code
from perpixel.data.writer import Part, Writer

_OF_IMAGES = frozenset(("version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"))
_OF_SHAPES = frozenset(("label", "points", "shape_type", "mask", "difficult", "group_id"))


class LabelMeWriter(Writer):
    """``NAME.json`` beside ``NAME.jpg``; the parts of a data set are folders.

    An object of several polygons, or with a box that is not its mask's extent, becomes several shapes with one ``group_id``.
    Crowds have ``difficult``. Other fields stand in the shape and in the file under their own names, as LabelMe keeps them.
    """

    form = "labelme"

    def place(self, file: str, part: Part) -> Path:
        """Where an image goes."""
        return Path(part or "", file)

    def write(self, document: Document, part: Part, files: dict[int | str, str]) -> None:
        """Writes a file an image."""
        for image, objects in document.objects(self.losses):
            place = self.out / self.place(files[image["id"]], part)
            place.parent.mkdir(parents=True, exist_ok=True)
            extra = extra_of(image, "images")
            self.losses.leave_fields(
                "an image, whose name LabelMe uses itself", extra.keys() & (_OF_IMAGES - {"flags"})
            )
            content = {
                "version": "5.5.0",
                "flags": extra.get("flags") or {},
                "shapes": [
                    shape
                    for entry, group in zip(objects, group_numbers(objects), strict=True)
                    for shape in self._shapes(entry, group)
                ],
                "imagePath": place.name,
                "imageData": None,
                "imageHeight": image["height"],
                "imageWidth": image["width"],
            }
            content = {name: value for name, value in extra.items() if name not in _OF_IMAGES} | content
            text = json.dumps(content, ensure_ascii=False, indent=1)
            # Halves of letters, which UTF-8 cannot say, are written as json has them, \ud800.
            place.with_suffix(".json").write_text(text, encoding="utf-8", errors="backslashreplace")

    def _shapes(self, entry: AnnotatedObject, group: Groups) -> list[dict[str, Any]]:
        if entry.keypoints is not None:
            self.losses.changed["objects without their keypoints"] += 1
        parts = parts_of(entry.name, entry.box, entry.shape, entry.crowd, entry.extra, group.number)
        names = _OF_SHAPES - {"group_id"} if len(parts) == 1 and group.keeps else _OF_SHAPES
        self.losses.leave_fields("an object, whose name LabelMe uses itself", entry.extra.keys() & names)
        extra = {name: value for name, value in entry.extra.items() if name not in names}
        return [_shape(part) | extra for part in parts]


def _shape(part: Drawn) -> dict[str, Any]:
    x1, y1, x2, y2 = part.box
    shape: dict[str, Any] = {"label": part.label, "points": [[x1, y1], [x2, y2]], "shape_type": "rectangle"}
    if isinstance(part.shape, Rle):
        patch = patch_code(part.shape)
        buffer = io.BytesIO()
        Pillow.fromarray(patch.pixels.astype(np.uint8) * 255).save(buffer, "PNG")
        shape["points"] = [[x1, y1], [x2 - 1, y2 - 1]]  # both ends of a mask's rectangle are pixels of it
        shape["shape_type"], shape["mask"] = "mask", base64.b64encode(buffer.getvalue()).decode()
    elif part.shape is not None:
        shape["points"], shape["shape_type"] = part.shape[0].tolist(), "polygon"
    shape |= {"group_id": part.group, "description": "", "flags": {}}
    if part.crowd:
        shape["difficult"] = True
    return shape
