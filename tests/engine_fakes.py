"""Stand-ins for the engine's tests: a model that sees bright squares, and a data set of such photos."""

from typing import Any

import numpy as np
import torch
from torch import nn

from perpixel.data.dataset import Dataset, Record, Rle
from perpixel.models.heads import Losses, Model
from perpixel.ops.runs import encode
from perpixel.structures import Batch, BoxMasks, Detections, Keypoints

Box = tuple[int, int, int, int]


def photo(size: tuple[int, int], box: Box | None) -> np.ndarray:
    """A black photo of (height, width) with one white box (x1, y1, x2, y2)."""
    image = np.zeros((*size, 3), np.uint8)
    if box is not None:
        x1, y1, x2, y2 = box
        image[y1:y2, x1:x2] = 255
    return image


class BrightSquare(Model):
    """Finds the extent of what is brighter than 127 in each image, as class 0, its score 0.9.

    Args:
        masks, keypoints: whether it gives a full mask over the box and one keypoint at its centre.
        seen: sizes of the images of each batch it was given.
    """

    def __init__(self, masks: bool = False, keypoints: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.masks, self.keypoints = masks, keypoints
        self.seen: list[tuple[tuple[int, int], ...]] = []

    def loss(self, batch: Batch) -> Losses:
        return {"none": self.weight.sum()}

    def predict(self, batch: Batch) -> list[Detections]:
        assert not self.training
        self.seen.append(batch.sizes)
        return [self._one(image, size) for image, size in zip(batch.images, batch.sizes, strict=True)]

    def _one(self, image: torch.Tensor, size: tuple[int, int]) -> Detections:
        bright = image[0].float() > 127
        y, x = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
        boxes = torch.zeros(0, 4)
        if len(x):
            boxes = torch.tensor([[x[0], y[0], x[-1] + 1, y[-1] + 1]], dtype=torch.float32)
        count = len(boxes)
        center = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, torch.ones(count, 1)], 1)[:, None]
        return Detections(
            boxes,
            torch.full((count,), 0.9),
            torch.zeros(count, dtype=torch.long),
            size,
            BoxMasks(torch.ones(count, 9, 9)) if self.masks else None,
            Keypoints(center) if self.keypoints else None,
        )


class Squares(Dataset):
    """Photos of 60x80 with one white square each (the last without one), their ids 100, 101 ..., their category 7."""

    def __init__(self, count: int = 5, masks: bool = False):
        self.name, self.classes, self.category_ids, self.skipped = "squares", ("square",), (7,), []
        self.boxes: list[Box | None] = [(10 + 4 * i, 8, 30 + 4 * i, 40) for i in range(count - 1)]
        self.boxes.append(None)
        self.masks = masks

    def __len__(self) -> int:
        return len(self.boxes)

    def record(self, index: int) -> Record:
        box = self.boxes[index]
        count = 0 if box is None else 1
        code = None
        if self.masks and box is not None:
            run = encode(photo((60, 80), box)[None, :, :, 0] > 0)[0]
            code = Rle((60, 80), run["counts"].encode())
        return Record(
            id=100 + index,
            path=None,
            size=(60, 80),
            boxes=np.array([box] if box else [], np.float32).reshape(-1, 4),
            labels=np.zeros(count, np.int64),
            shapes=(code,) * count,
            keypoints=None,
            crowd=np.zeros(count, bool),
            annotation_ids=np.arange(count, dtype=np.int64),
        )

    def image(self, index: int) -> np.ndarray:
        return photo((60, 80), self.boxes[index])

    @property
    def sizes(self) -> np.ndarray:
        return np.array([[60, 80]] * len(self), np.int64)

    @property
    def object_counts(self) -> np.ndarray:
        return np.array([box is not None for box in self.boxes], np.int64)

    @property
    def box_only_counts(self) -> np.ndarray:
        return np.zeros(len(self), np.int64) if self.masks else self.object_counts

    def coco_truth(self) -> dict[str, Any]:
        annotations = []
        for index, box in enumerate(self.boxes):
            if box is None:
                continue
            x1, y1, x2, y2 = box
            annotation = {"id": index, "image_id": 100 + index, "category_id": 7, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            if self.masks:
                annotation["segmentation"] = encode(self.image(index)[None, :, :, 0] > 0)[0]
            annotations.append(annotation | {"area": (x2 - x1) * (y2 - y1), "iscrowd": 0})
        return {
            "images": [{"id": 100 + i, "width": 80, "height": 60} for i in range(len(self))],
            "categories": [{"id": 7, "name": "square"}],
            "annotations": annotations,
        }


class Silent(BrightSquare):
    """Finds nothing."""

    def _one(self, image: torch.Tensor, size: tuple[int, int]) -> Detections:
        return super()._one(torch.zeros_like(image), size)
