"""Segments of predictions in COCO's panoptic form: a picture a photo, and one json for all."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from perpixel.data.panoptic_format import categories_of, to_coco
from perpixel.engine.files import write_atomically
from perpixel.structures import Segments, Stuff


class PanopticFiles:
    """``panoptic/NAME.png`` and ``panoptic.json`` in a folder; the json is complete even if the work breaks off.

    Args:
        folder: exists already.
        class_names: of the objects' classes.
        category_ids: their numbers; by default label + 1.
        stuff: the other classes.

    Attributes:
        written: the json; None where no photo had segments.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], category_ids: Sequence[int] | None, stuff: Stuff):
        self.folder = folder
        numbers = tuple(category_ids) if category_ids is not None else tuple(range(1, len(class_names) + 1))
        self._category_ids = (*numbers, *stuff.category_ids)
        self._document: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": categories_of(class_names, numbers, stuff),
        }
        self.written: Path | None = None

    def __enter__(self) -> "PanopticFiles":
        return self

    def add(self, segments: Segments, image_id: int, name: str, frame: int | None = None) -> None:
        """Writes the picture of a photo or frame and notes what its segments are."""
        if self.written is None:
            (self.folder / "panoptic").mkdir(exist_ok=True)
            self.written = self.folder / "panoptic.json"
        colors, infos = to_coco(segments, self._category_ids)
        file = f"{Path(name).stem}{'' if frame is None else f'_{frame:06}'}.png"

        def write(path: Path) -> None:
            Pillow.fromarray(colors).save(path, "PNG")

        write_atomically(self.folder / "panoptic" / file, write)
        height, width = colors.shape[:2]
        self._document["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        self._document["annotations"].append({"image_id": image_id, "file_name": file, "segments_info": infos})

    def __exit__(self, *_: object) -> None:
        if self.written is None:
            return

        def write(path: Path) -> None:
            path.write_text(json.dumps(self._document), encoding="utf-8")

        write_atomically(self.written, write)
