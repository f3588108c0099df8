"""What the files of a data set say beyond what this library reads: collected where a conversion asks for it, never else."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from perpixel.data.json_stream import Single

KNOWN = {
    "images": frozenset(("id", "file_name", "height", "width")),
    "annotations": frozenset(
        ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "keypoints", "num_keypoints")
    ),
    "categories": frozenset(("id", "name", "keypoints", "skeleton")),
}
"""Fields of COCO's lists that readers understand; whatever else an entry has is extra."""


@dataclass
class Extras:
    """A collector that a reader fills on its way.

    Attributes:
        whole: fields of the data set, such as COCO's licenses.
        classes: fields of each class by its name, such as supercategory, and its keypoints.
        images: fields of each image by its id.
        objects: fields of each object by its annotation id.
        image_fields, object_fields: how many images and objects have each field that the files use, those that are read too;
            an empty value counts as absent.
        lost: fields that could not even be collected, by name.
    """

    whole: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[int | str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[int, dict[str, Any]] = field(default_factory=dict)
    image_fields: Counter[str] = field(default_factory=Counter)
    object_fields: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def note_image(self, identity: int | str, extra: dict[str, Any], fields: list[str]) -> None:
        """What the entry of an image says: what is not read, and the names of all its fields."""
        self.image_fields.update(fields)
        if extra:
            self.images.setdefault(identity, extra)

    def note_object(self, number: int, extra: dict[str, Any], fields: list[str]) -> None:
        """The same of an object."""
        self.object_fields.update(fields)
        if extra:
            self.objects.setdefault(number, extra)

    def noting_coco(self, member: str, items: Iterator[Any]) -> Iterator[Any]:
        """The items of a member of a COCO file, noted as they pass."""
        if member not in KNOWN:
            self.whole[member] = items.value if isinstance(items, Single) else list(items)
            return
        for entry in items:
            yield entry
            if not isinstance(entry, dict):
                continue
            extra = {name: value for name, value in entry.items() if name not in KNOWN[member]}
            fields = [name for name, value in entry.items() if not _empty(value)]
            identity = entry.get("id")
            if member == "categories" and isinstance(entry.get("name"), str):
                named = {name: value for name, value in entry.items() if name not in ("id", "name")}
                self.classes.setdefault(entry["name"], named)
            elif member == "images" and isinstance(identity, int | str):
                self.note_image(identity, extra, fields)
            elif member == "annotations" and isinstance(identity, int):
                self.note_object(identity, extra, fields)


def to_text(value: Any) -> str:
    """A value as the text of an XML element: text as it is, where it cannot be taken for something else, the rest as JSON."""
    if isinstance(value, str) and value and value.isprintable() and value == value.strip() and not _is_json(value):
        return value
    return json.dumps(value)


def from_text(text: str | None) -> Any:
    """The value that a text stands for: a number, true, a list … where it is JSON, else the text itself."""
    stripped = (text or "").strip()
    try:
        return json.loads(stripped)
    except (ValueError, RecursionError):
        return stripped


def element_value(element: ElementTree.Element) -> Any:
    """An XML element as a value: its text, or its children by name; those of one name as a list."""
    if not len(element):
        return from_text(element.text)
    values: dict[str, list[Any]] = {}
    for child in element:
        values.setdefault(child.tag, []).append(element_value(child))
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def _empty(value: Any) -> bool:
    """Whether a field is there without saying anything."""
    return value is None or value in ("", [], {})


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
