"""Writes COCO json: it carries everything."""

import json
from pathlib import Path

from perpixel.data.document import Document
from perpixel.data.writer import Part, Writer


class CocoWriter(Writer):
    """``annotations.json`` beside ``images/``, or ``annotations/instances_PART.json`` and ``images/PART/``.

    Numbers of images and objects stay as they are, and so do all fields.
    """

    form = "coco"
    by_stem = False
    carries_classes = True

    def place(self, file: str, part: Part) -> Path:
        """Where an image goes."""
        return Path("images", file) if part is None else Path("images", part, file)

    def write(self, document: Document, part: Part, files: dict[int | str, str]) -> None:
        """Writes the json of a part."""
        path = self.out / ("annotations.json" if part is None else f"annotations/instances_{part}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        images = [entry | {"file_name": files[entry["id"]]} for entry in document.images]
        # A json may hold halves of letters, which UTF-8 cannot say: they are written as they were, \ud800.
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(document.content | {"images": images}, file, ensure_ascii=False)
