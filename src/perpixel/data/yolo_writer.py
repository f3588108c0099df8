"""Writes YOLO: a line an object, of a box, a box and keypoints, or one polygon."""

import json
from pathlib import Path

import numpy as np

from perpixel.data.dataset import Dataset, Polygons, Rle
from perpixel.data.document import AnnotatedObject, Document, extra_of
from perpixel.data.masks import draw_shape
from perpixel.data.one_outline import one_outline
from perpixel.data.writer import Part, Writer


class YoloWriter(Writer):
    """``images/``, ``labels/`` and ``data.yaml``; the parts of a data set are folders below the first two.

    An object with a mask becomes a polygon, its box then is the polygon's extent; parts and holes are joined to it by lines of no
    width. Where the data set has keypoints, every line is a box with keypoints. Coordinates are cut at the image's border.
    """

    form = "yolo"
    states_size = False

    def place(self, file: str, part: Part) -> Path:
        """Where an image goes."""
        return Path("images", part or "", file)

    def write(self, document: Document, part: Part, files: dict[int | str, str]) -> None:
        """Writes a file of lines an image; one without objects gets an empty file."""
        label = {name: number for number, name in enumerate(document.classes)}
        for image, objects in document.objects(self.losses):
            size = image["height"], image["width"]
            lines = [self._line(label[entry.name], entry, size, document.dataset) for entry in objects]
            path = self.out / "labels" / (part or "") / Path(files[image["id"]]).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines if line), encoding="utf-8")
            self.losses.leave_fields("an image", extra_of(image, "images"))
            for entry in objects:
                if not entry.crowd:
                    self.losses.leave_fields("an object", entry.extra)

    def finish(self, document: Document, parts: list[Part]) -> None:
        """Writes data.yaml; its texts stand in JSON's form, which YAML reads."""
        lines = [f"{part}: images/{part}" for part in parts if part]
        lines += ["names:", *(f"  {number}: {json.dumps(name)}" for number, name in enumerate(document.classes))]
        data = document.dataset
        if data.keypoint_names:
            mirrored = list(range(len(data.keypoint_names)))
            for first, second in data.flip_pairs:
                mirrored[first], mirrored[second] = second, first
            lines += [f"kpt_shape: [{len(mirrored)}, 3]", f"flip_idx: {mirrored}"]
            lines += [f"kpt_names: {{0: {json.dumps(list(data.keypoint_names))}}}"]
        (self.out / "data.yaml").write_text("\n".join([*lines, ""]), encoding="utf-8")

    def _line(self, label: int, entry: AnnotatedObject, size: tuple[int, int], data: Dataset) -> str | None:
        if entry.crowd:
            self.losses.objects["a crowd would be an object in YOLO"] += 1
            return None
        polygon = None
        if entry.shape is not None:
            if data.keypoint_names:
                self.losses.changed["masks left out, as YOLO has no place for them beside keypoints"] += 1
            else:
                polygon = self._polygon(entry.shape, size)
        if polygon is not None:
            return " ".join([str(label), *map(_share, self._inside(polygon, size).ravel())])
        (x1, y1), (x2, y2) = self._inside(np.array(entry.box).reshape(2, 2), size)
        values = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        if data.keypoint_names:
            points = np.zeros((len(data.keypoint_names), 3)) if entry.keypoints is None else entry.keypoints.copy()
            points[:, :2] /= (size[1], size[0])
            values += points.ravel().tolist()
        return " ".join([str(label), *map(_share, values)])

    def _inside(self, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Points as shares of the image, cut at its border."""
        shares = points / (size[1], size[0])
        cut = shares.clip(0, 1)
        if (np.abs(cut - shares) > 1e-9).any():
            self.losses.changed["objects cut at the image's border"] += 1
            return cut
        # A share that gives less than the point in its last digit can tip a pixel when the mask is drawn: the next one does not.
        return np.where(cut * (size[1], size[0]) < points, np.nextafter(cut, 1), cut)

    def _polygon(self, shape: Polygons | Rle, size: tuple[int, int]) -> np.ndarray | None:
        """The mask as one polygon; None for an empty one."""
        if not isinstance(shape, Rle) and len(shape) == 1:
            return shape[0]
        mask = draw_shape(shape, size)
        if not mask.any():
            self.losses.changed["empty masks left out"] += 1
            return None
        outline = one_outline(shape, mask)
        off = int((draw_shape((outline,), size) != mask).sum())
        if off:
            self.losses.changed["masks of which a few pixels differ as one polygon"] += 1
        return outline


def _share(value: float) -> str:
    return repr(float(value))
