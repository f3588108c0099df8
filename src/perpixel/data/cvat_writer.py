"""Writes CVAT for images 1.1: boxes, polygons, masks, crowds, and attributes for what else is known."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from jaxtyping import Bool
from numpy import concatenate, diff, flatnonzero, ndarray

from perpixel.data.cvat import CROWD, DEFAULTS
from perpixel.data.dataset import Rle
from perpixel.data.document import AnnotatedObject, Document, extra_of
from perpixel.data.extras import to_text
from perpixel.data.grouped import Part as Drawn
from perpixel.data.grouped import parts_of
from perpixel.data.groups import Groups, group_numbers
from perpixel.data.masks import patch_code
from perpixel.data.writer import Part, Writer
from perpixel.data.xml_text import xml_text

_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_OWN = ("occluded", "z_order", "source", "group_id")
"""CVAT's own attributes of a shape that this library does not read."""
_OF_IMAGES = frozenset(("id", "name", "width", "height"))


class CvatWriter(Writer):
    """``annotations.xml`` beside ``images/``, or ``PART.xml`` and ``images/PART/``.

    An object of several polygons, or with a box that is not its mask's extent, becomes several shapes with one ``group_id``.
    Crowds have the attribute ``is_crowd``. Other fields of an object become attributes, in JSON where they are no text; those of
    an image become attributes of its element.
    """

    form = "cvat"
    by_stem = False

    def place(self, file: str, part: Part) -> Path:
        """Where an image goes."""
        return Path("images", part or "", file)

    def write(self, document: Document, part: Part, files: dict[int | str, str]) -> None:
        """Writes the xml of a part."""
        root = ElementTree.Element("annotations")
        ElementTree.SubElement(root, "version").text = "1.1"
        task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
        ElementTree.SubElement(task, "name").text = part or "perpixel"
        ElementTree.SubElement(task, "size").text = str(len(document.images))
        ElementTree.SubElement(task, "mode").text = "annotation"
        labels = ElementTree.SubElement(task, "labels")
        for name in document.classes:
            ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = xml_text(name)
        for number, (image, objects) in enumerate(document.objects(self.losses)):
            sides = {side: str(image[side]) for side in ("width", "height")}
            element = ElementTree.SubElement(
                root, "image", {"id": str(number), "name": xml_text(files[image["id"]]), **sides}
            )
            self._image_fields(element, extra_of(image, "images"))
            for entry, group in zip(objects, group_numbers(objects), strict=True):
                element.extend(self._shapes(entry, group))
        ElementTree.indent(root)
        path = self.out / (f"{part}.xml" if part else "annotations.xml")
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)

    def _image_fields(self, element: ElementTree.Element, extra: dict[str, Any]) -> None:
        for name, value in extra.items():
            if name == "tags" and isinstance(value, list) and all(isinstance(tag, str) for tag in value):
                for tag in value:
                    ElementTree.SubElement(element, "tag", {"label": xml_text(tag), "source": "manual"})
            elif _NAME.fullmatch(name) and name not in _OF_IMAGES:
                element.set(name, to_text(value))
            else:
                self.losses.leave_fields("an image, whose name CVAT cannot use", [name])

    def _shapes(self, entry: AnnotatedObject, group: Groups) -> list[ElementTree.Element]:
        if entry.keypoints is not None:
            self.losses.changed["objects without their keypoints"] += 1
        parts = parts_of(entry.name, entry.box, entry.shape, entry.crowd, entry.extra, group.number)
        extra = entry.extra
        if "group_id" in extra and (len(parts) > 1 or not group.keeps):
            self.losses.leave_fields("an object, which would join others in CVAT", ["group_id"])
            extra = {name: value for name, value in extra.items() if name != "group_id"}
        return [self._shape(replace(part, extra=extra)) for part in parts]

    def _shape(self, part: Drawn) -> ElementTree.Element:
        extra = dict(part.extra)
        said = DEFAULTS | {name: to_text(_numeric(extra.pop(name))) for name in _OWN if _plain(extra.get(name))}
        group = {} if part.group is None else {"group_id": str(part.group)}
        kind, geometry = _geometry(part)
        element = ElementTree.Element(kind, {"label": part.label, **geometry, **said, **group})
        for name, value in (extra | ({CROWD: True} if part.crowd else {})).items():
            ElementTree.SubElement(element, "attribute", {"name": xml_text(name)}).text = to_text(value)
        return element


def _geometry(part: Drawn) -> tuple[str, dict[str, str]]:
    if isinstance(part.shape, Rle):
        patch = patch_code(part.shape)
        height, width = patch.pixels.shape
        window = {"left": patch.left, "top": patch.top, "width": width, "height": height}
        runs = ", ".join(map(str, _runs(patch.pixels)))
        return "mask", {"rle": runs, **{name: str(value) for name, value in window.items()}}
    if part.shape is not None:
        return "polygon", {"points": ";".join(f"{x!r},{y!r}" for x, y in part.shape[0].tolist())}
    return "box", {name: repr(float(end)) for name, end in zip(("xtl", "ytl", "xbr", "ybr"), part.box, strict=True)}


def _runs(inside: Bool[ndarray, "h w"]) -> list[int]:
    """Lengths of the runs row by row, outside first."""
    flat = concatenate([[False], inside.ravel(), [not inside.ravel()[-1]]])
    ends = flatnonzero(flat[1:] != flat[:-1])
    return diff(concatenate([[0], ends])).tolist()


def _numeric(value: Any) -> Any:
    """True as 1: CVAT takes no other yes."""
    return int(value) if isinstance(value, bool) else value


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)
