"""Test-time augmentation: a photo seen at several sizes and in the mirror, boxes or keypoints of all views merged.

Thesis 002, section 3.3.3 and table 3.8: short sides 400 to 1200 in steps of 100, each with its mirror image.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Num
from torch import Tensor
from torch.nn import functional
from torchvision.ops import batched_nms

from perpixel.config import ConfigError
from perpixel.errors import InputError
from perpixel.models.heads import Losses, Model
from perpixel.structures import Batch, Detections, Keypoints, pad_images


@dataclass(frozen=True)
class Views:
    """Which views of a photo are merged, and how.

    Attributes:
        short_sides: sizes of the short side in pixels.
        max_side: the long side never exceeds this many pixels.
        flip: whether each size is seen in the mirror too.
        threshold: boxes of one class that overlap more (IoU) are one object.
        keep: objects kept an image, best scores first.
    """

    short_sides: tuple[int, ...] = tuple(range(400, 1201, 100))
    max_side: int = 2000
    flip: bool = True
    threshold: float = 0.6
    keep: int = 100

    def __post_init__(self) -> None:
        if not self.short_sides or min(self.short_sides) < 1:
            raise ConfigError(f"short_sides={list(self.short_sides)} is not a list of positive numbers of pixels")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold={self.threshold} is not between 0 and 1")


class Augmented(Model):
    """A model whose `predict` merges several views of each image; it stands wherever the model does.

    The views are made from the batch's images. Batches of the largest size wanted lose least: give the loader or the
    `Predictor` a `TestSize` of about the largest short side.

    Args:
        model: predicts boxes or keypoints; masks of different views cannot be merged.
        views: sizes and mirror.
        divisor: sides of the padded views are multiples of it.
        flip_pairs: keypoints that change places in the mirror.
    """

    def __init__(
        self,
        model: Model,
        views: Views | None = None,
        divisor: int = 32,
        flip_pairs: tuple[tuple[int, int], ...] = (),
    ):
        super().__init__()
        self.model = model
        self.views = views or Views()
        self.divisor = divisor
        self.flip_pairs = flip_pairs

    def loss(self, batch: Batch) -> Losses:
        """The model's own losses."""
        return self.model.loss(batch)

    @torch.inference_mode()
    def predict(self, batch: Batch) -> list[Detections]:
        """What all views of each image found, merged by class-wise NMS of boxes, in pixels of the batch's images.

        Raises:
            InputError: the model predicts masks.
        """
        return [
            self._merged(image[:, : size[0], : size[1]], size)
            for image, size in zip(batch.images, batch.sizes, strict=True)
        ]

    def _merged(self, image: Num[Tensor, "3 h w"], size: tuple[int, int]) -> Detections:
        found = [view for short_side in self.views.short_sides for view in self._seen(image, short_side)]
        boxes = torch.cat([view.boxes for view in found])
        scores = torch.cat([view.scores for view in found])
        labels = torch.cat([view.labels for view in found])
        kept = batched_nms(boxes.float(), scores.float(), labels, self.views.threshold)[: self.views.keep]
        keypoints = [view.keypoints.values for view in found if view.keypoints is not None]
        more = Keypoints(torch.cat(keypoints)[kept]) if keypoints else None
        return Detections(boxes[kept], scores[kept], labels[kept], size, keypoints=more)

    def _seen(self, image: Num[Tensor, "3 h w"], short_side: int) -> list[Detections]:
        """Detections of one size and its mirror image, in pixels of `image`."""
        height, width = image.shape[1:]
        scale = min(short_side / min(height, width), self.views.max_side / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        resized = functional.interpolate(image[None].float(), size=size, mode="bilinear", antialias=True)[0]
        images = [resized, resized.flip(2)] if self.views.flip else [resized]
        batch = Batch(pad_images(images, self.divisor), (size,) * len(images), ((height, width),) * len(images))
        views = self.model.predict(batch)
        if any(view.masks is not None for view in views):
            raise InputError("test-time augmentation merges boxes or keypoints, and this model predicts masks")
        mirrors = (False, True)[: len(images)]
        return [self._as_seen(view, size, (height, width), way) for view, way in zip(views, mirrors, strict=True)]

    def _as_seen(self, view: Detections, size: tuple[int, int], target: tuple[int, int], mirrored: bool) -> Detections:
        """A view of `size` in pixels of the image of `target` size; a mirror exchanges left and right."""
        boxes = _mapped(view.boxes.float(), size, target, mirrored)
        if view.keypoints is None:
            return replace(view, boxes=boxes, size=target)
        values = view.keypoints.values.float()
        # A point is a box without extent.
        x, y = _mapped(values[..., [0, 1, 0, 1]].flatten(0, 1), size, target, mirrored)[:, :2].T
        values = torch.stack([x, y, values[..., 2].flatten()], dim=1).unflatten(0, values.shape[:2])
        if mirrored:
            order = list(range(values.shape[1]))
            for left, right in self.flip_pairs:
                order[left], order[right] = right, left
            values = values[:, order]
        return replace(view, boxes=boxes, keypoints=Keypoints(values), size=target)


def _mapped(boxes: Tensor, size: tuple[int, int], target: tuple[int, int], mirrored: bool) -> Tensor:
    """Boxes of a view of `size` in pixels of the image of `target` size."""
    if mirrored:
        boxes = torch.stack([size[1] - boxes[:, 2], boxes[:, 1], size[1] - boxes[:, 0], boxes[:, 3]], 1)
    return boxes * boxes.new_tensor([target[1] / size[1], target[0] / size[0]]).repeat(2)
