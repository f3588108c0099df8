"""Writes Pascal VOC: boxes, pictures of masks, and pairs of name and value for what else is known."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image as Pillow

from perpixel.data.dataset import Rle
from perpixel.data.document import AnnotatedObject, Document, extra_of
from perpixel.data.extras import to_text
from perpixel.data.masks import draw_shape, encode
from perpixel.data.voc import mask_codes
from perpixel.data.writer import Part, Writer
from perpixel.data.xml_text import xml_text

_OWN = ("pose", "truncated", "occluded")
"""VOC's own elements of an object that this library does not read."""
_MOST = 254
"""Masks that a picture can number: 0 is background, 255 the border."""


class VocWriter(Writer):
    """``Annotations/``, ``JPEGImages/``, ``SegmentationObject/``, and ``ImageSets/Main/PART.txt`` for each part.

    A box [x1, x2] becomes the pixels x1 + 1 to x2, which need not be whole. Crowds become difficult objects. Masks become
    pixels; where two overlap, the smaller one keeps them.
    """

    form = "voc"
    flat = True

    def place(self, file: str, part: Part) -> Path:
        """Where an image goes."""
        return Path("JPEGImages", file)

    def write(self, document: Document, part: Part, files: dict[int | str, str]) -> None:
        """Writes an xml an image, and a picture where there are masks."""
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        stems = []
        for image, objects in document.objects(self.losses):
            name = files[image["id"]]
            stem = Path(name).stem
            stems.append(stem)
            kept = [entry for entry in objects if self._fits(entry)]
            masks = self._draw(stem, kept, (image["height"], image["width"]))
            root = _image_element(image, name, masks)
            for entry in kept:
                root.append(self._object(entry))
            ElementTree.indent(root)
            ElementTree.ElementTree(root).write(self.out / "Annotations" / f"{stem}.xml", encoding="utf-8")
        if part is not None:
            (self.out / "ImageSets/Main" / f"{part}.txt").write_text(
                "".join(f"{stem}\n" for stem in stems), encoding="utf-8"
            )

    def _fits(self, entry: AnnotatedObject) -> bool:
        """Whether its box can be told from a single pixel, as VOC counts them."""
        x1, y1, x2, y2 = entry.box
        fits = x2 - x1 > 1 and y2 - y1 > 1
        if not fits:
            self.losses.objects["a box of at most one pixel's width or height is a slip of the pen in VOC"] += 1
        return fits

    def _object(self, entry: AnnotatedObject) -> ElementTree.Element:
        element = ElementTree.Element("object")
        _child(element, "name", xml_text(entry.name))
        extra = dict(entry.extra)
        for name in _OWN:
            if name in extra and not isinstance(extra[name], dict | list):
                _child(element, name, to_text(extra.pop(name)))
        _child(element, "difficult", str(int(entry.crowd)))
        box = ElementTree.SubElement(element, "bndbox")
        x1, y1, x2, y2 = entry.box
        for name, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            _child(box, name, f"{value:.0f}" if value == round(value) else repr(float(value)))
        _add_attributes(element, extra)
        if entry.keypoints is not None:
            self.losses.changed["objects without their keypoints"] += 1
        return element

    def _draw(self, stem: str, objects: list[AnnotatedObject], size: tuple[int, int]) -> bool:
        """Writes the picture of the masks, if there are any, and counts those that do not come back from it."""
        drawn = [entry for entry in objects if entry.shape is not None]
        if not drawn:
            return False
        masks = [draw_shape(entry.shape, size) for entry in drawn if entry.shape is not None]
        order = sorted(range(len(drawn)), key=lambda row: -int(masks[row].sum()))[:_MOST]
        numbers = np.zeros(size, dtype=np.uint8)
        for row in order:
            numbers[masks[row]] = row % _MOST + 1
        picture = Pillow.fromarray(numbers)
        picture.putpalette([(value * step) % 256 for value in range(256) for step in (67, 101, 149)])
        path = self.out / "SegmentationObject" / f"{stem}.png"
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
        boxes = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in (entry.box for entry in objects)]
        codes = mask_codes(path, size, boxes)
        wanted = iter(masks)
        for entry, code in zip(objects, codes, strict=True):
            if entry.shape is None:
                continue
            mask = next(wanted)
            if not code:
                self.losses.changed["objects of which the box alone is left: their mask is hidden or far smaller"] += 1
            elif encode(mask).counts != code:
                self.losses.changed["masks that lost pixels to a smaller one on top of them"] += 1
            elif not isinstance(entry.shape, Rle):
                self.losses.changed["polygons drawn as pixels"] += 1
        return True


def _image_element(image: dict[str, Any], name: str, masks: bool) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    _child(root, "folder", "JPEGImages")
    _child(root, "filename", xml_text(name))
    size = ElementTree.SubElement(root, "size")
    for side, value in (("width", image["width"]), ("height", image["height"]), ("depth", 3)):
        _child(size, side, str(value))
    _child(root, "segmented", str(int(masks)))
    _add_attributes(root, extra_of(image, "images"))
    return root


def _add_attributes(element: ElementTree.Element, extra: dict[str, Any]) -> None:
    """Pairs of name and value, as CVAT and its like write them into VOC files."""
    if extra:
        attributes = ElementTree.SubElement(element, "attributes")
        for name, value in extra.items():
            attribute = ElementTree.SubElement(attributes, "attribute")
            _child(attribute, "name", xml_text(name))
            _child(attribute, "value", to_text(value))


def _child(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text
