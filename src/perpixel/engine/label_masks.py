"""Two ways from a box to a mask: a trained model, and GrabCut, the classical baseline (thesis 002, table 6.6)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from perpixel.data.loader import prepare_image
from perpixel.data.settings import TestSize
from perpixel.engine.checkpoint import Checkpoint, build_model
from perpixel.engine.sources import opencv
from perpixel.errors import InputError
from perpixel.models.detector import Detector
from perpixel.models.given import ANY_CLASS, predict_given
from perpixel.ops.mask_windows import encoded
from perpixel.ops.runs import decode
from perpixel.structures import Batch, BoxMasks, ImageMasks, Targets, pad_images

SMALLEST = 4.0
"""A box with a side shorter than this, in pixels that the method sees, shows nothing to draw: it is filled."""

LARGEST_CUT = 512
"""Longest side of the pixels that GrabCut computes on."""


@dataclass(frozen=True)
class Proposal:
    """What a method says of one box.

    Attributes:
        mask: of the whole image, or None where the box is too small for the method.
        certainty: how sure the method is of it, 0..1; 1 for a method that cannot tell.
    """

    mask: Bool[np.ndarray, "h w"] | None
    certainty: float = 1.0


class Masker(ABC):
    """Draws a mask for each box of an image.

    Attributes:
        name: of the method.
        unknown: classes it was asked for and does not know.
    """

    name: str
    unknown: set[str]

    @abstractmethod
    def propose(
        self, image: UInt8[np.ndarray, "h w 3"], boxes: Float32[np.ndarray, "n 4"], names: Sequence[str | None]
    ) -> Iterator[Proposal]:
        """A proposal for each box, in their order.

        Args:
            image: RGB.
            boxes: xyxy inside the image.
            names: the class of each box.
        """


class ModelMasker(Masker):
    """Masks of a detector with a mask head: BoxInst, CondInst and their kin.

    Args:
        checkpoint: the trained model.
        device: where to compute.
        divisor: the padded input's sides are multiples of it.

    Raises:
        InputError: the checkpoint's model draws no masks.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device | str = "cpu", divisor: int = 32):
        model = build_model(checkpoint)
        if not isinstance(model, Detector) or model.instance_head is None:
            raise InputError(f"{checkpoint.path} predicts boxes only: `perpixel label` needs a model with masks")
        self.name = type(model.instance_head).__name__.removesuffix("Head").lower()
        self.path = checkpoint.path
        self.model = model.to(device)
        self.labels = {name: label for label, name in enumerate(checkpoint.class_names)}
        self.test: TestSize = checkpoint.recipe.data.test
        self.device, self.divisor = device, divisor
        self.unknown = set()

    def propose(
        self, image: UInt8[np.ndarray, "h w 3"], boxes: Float32[np.ndarray, "n 4"], names: Sequence[str | None]
    ) -> Iterator[Proposal]:
        """See `Masker`; a class the model does not know is taken for the one that it sees.

        Sure are decided probabilities at a location that detects the object well: class score, quality and IoU of its box
        count by their geometric mean.
        """
        self.unknown |= {str(name) for name in names if name not in self.labels}
        labels = [self.labels.get(name, ANY_CLASS) if name is not None else ANY_CLASS for name in names]
        pixels, size = prepare_image(image, self.test)
        original = (image.shape[0], image.shape[1])
        scale = torch.tensor([size[1] / original[1], size[0] / original[0]]).repeat(2)
        given = torch.from_numpy(boxes) * scale
        batch = Batch(
            images=pad_images([pixels], self.divisor),
            sizes=(size,),
            originals=(original,),
            targets=(Targets(given, torch.tensor(labels, dtype=torch.long)),),
        )
        (found,) = predict_given(self.model, batch.to(self.device))
        masks = found.masks
        if masks is None:
            raise InputError(f"{self.path} predicts no masks: `perpixel label` needs a model with masks")
        runs = encoded(masks, torch.from_numpy(boxes).to(masks.values.device), size, original)
        large = ((given[:, 2:] - given[:, :2]) >= SMALLEST).all(dim=1).tolist()
        sure = certainties(masks, found.boxes) * found.scores ** (1 / 3)
        for run, enough, certainty in zip(runs, large, sure.tolist(), strict=True):
            yield Proposal(decode([run], original)[0], certainty) if enough else Proposal(None)


def certainties(masks: BoxMasks | ImageMasks, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """IoU of the probabilities inside each box with the mask they make: 1 where all are 0 or 1.

    The mask's own probabilities over its area plus what the rest of the box still holds of probability.
    """
    values = masks.values.float()
    inside = torch.ones_like(values)
    if isinstance(masks, ImageMasks):
        height, width = values.shape[1:]
        rows = (torch.arange(height, device=boxes.device) + 0.5) * masks.stride
        columns = (torch.arange(width, device=boxes.device) + 0.5) * masks.stride
        tall = (rows >= boxes[:, 1:2]) & (rows < boxes[:, 3:4])
        wide = (columns >= boxes[:, 0:1]) & (columns < boxes[:, 2:3])
        inside = (tall[:, :, None] & wide[:, None, :]).to(values.dtype)
    drawn = (values > 0.5) * inside
    shared = (values * drawn).sum(dim=(1, 2))
    return shared / (drawn + values * (inside - drawn)).sum(dim=(1, 2)).clamp(min=1e-6)


class GrabCut(Masker):
    """OpenCV's GrabCut, started with the box: what lies outside it is background, what lies inside is perhaps the object.

    It sees the box with half its size around it, reduced to `LARGEST_CUT` pixels where that is more.

    Args:
        iterations: of colour models and cut.

    Raises:
        InputError: OpenCV is not installed.
    """

    name = "grabcut"

    def __init__(self, iterations: int = 5):
        self.cv2 = opencv("--method grabcut needs")
        self.iterations = iterations
        self.unknown = set()

    def propose(
        self, image: UInt8[np.ndarray, "h w 3"], boxes: Float32[np.ndarray, "n 4"], names: Sequence[str | None]
    ) -> Iterator[Proposal]:
        """See `Masker`; classes mean nothing to it."""
        return (self._cut(image, box) for box in boxes)

    def _cut(self, image: UInt8[np.ndarray, "h w 3"], box: Float32[np.ndarray, " 4"]) -> Proposal:
        height, width = image.shape[:2]
        margin = np.tile((box[2:] - box[:2]) / 2, 2) * (-1, -1, 1, 1)
        x1, y1, x2, y2 = np.clip(np.round(box + margin), 0, (width, height, width, height)).astype(int).tolist()
        window = image[y1:y2, x1:x2]
        scale = min(1.0, LARGEST_CUT / max(1, *window.shape[:2]))
        if ((box[2:] - box[:2]) * scale < SMALLEST).any():
            return Proposal(None)
        size = max(1, round(window.shape[1] * scale)), max(1, round(window.shape[0] * scale))
        small = self.cv2.resize(window, size, interpolation=self.cv2.INTER_AREA)
        factor = np.tile((size[0] / window.shape[1], size[1] / window.shape[0]), 2)
        left, top, right, bottom = np.round((box - (x1, y1, x1, y1)) * factor).astype(int).tolist()
        state = np.full(small.shape[:2], self.cv2.GC_BGD, dtype=np.uint8)
        state[top:bottom, left:right] = self.cv2.GC_PR_FGD
        if (state == self.cv2.GC_BGD).sum() < 5:  # fewer than the colours of its background model
            return Proposal(None)
        self.cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        self.cv2.grabCut(
            np.ascontiguousarray(small[:, :, ::-1]), state, None, *models, self.iterations, self.cv2.GC_INIT_WITH_MASK
        )
        inside = ((state == self.cv2.GC_FGD) | (state == self.cv2.GC_PR_FGD)).astype(np.uint8)
        mask = np.zeros((height, width), dtype=bool)
        size = (window.shape[1], window.shape[0])
        mask[y1:y2, x1:x2] = self.cv2.resize(inside, size, interpolation=self.cv2.INTER_NEAREST) > 0
        return Proposal(mask)
