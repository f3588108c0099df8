"""A detector as one graph from pixels to boxes, scores, classes, masks, keypoints and stuff: the form that is exported.

`Detector.predict` chooses detections image by image, with shapes that depend on what is in the image. Here the same choice is
made for the whole batch at once, without a loop over images, so that one file serves any batch size: the best locations of each
level, NMS with every class of every image on ground of its own, the best `keep` of each image.
"""

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torchvision.ops import nms

from perpixel.models.candidates import Selection, candidates_at
from perpixel.models.detector import Detector
from perpixel.models.duplicates import KeypointNMS
from perpixel.models.panoptic import PanopticModel
from perpixel.ops.boxes import clip_boxes
from perpixel.ops.keypoints import enclosing_boxes
from perpixel.ops.masks import probabilities_in_input
from perpixel.structures import Candidates, DenseOutputs, Keypoints

Size = tuple[int, int, int]
"""Images, and their height and width inside the padding."""
DIVISOR = 32
"""The network sees images whose sides are multiples of this; what is missing is padded inside the graph."""


class StaticDetector(nn.Module):
    """The inference of a detector, or of a panoptic model around one, as one graph.

    Args:
        model: its weights are shared, not copied.
    """

    def __init__(self, model: Detector | PanopticModel):
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "b 3 h w"], score: Float[Tensor, "1"]) -> dict[str, Tensor]:
        """What is in the images: n rows, image by image, best first.

        Args:
            images: RGB, 0..255; all of one size, any size.
            score: least score of a row, beside the selection's own threshold.

        Returns:
            boxes (n, 4) xyxy in pixels of `images`, inside them; scores (n,); classes (n,); image (n,): the row of the batch that
            a detection belongs to; and what an instance head adds: masks (n, h, w), probabilities at every pixel of
            `images`, or keypoints (n, k, 3). Of a panoptic model also stuff (b, h, w): the class of every pixel of `images`,
            0 an object of any class, s + 1 stuff of class s.
        """
        panoptic = self.model if isinstance(self.model, PanopticModel) else None
        detector = detector_of(self.model)
        height, width = images.shape[2:]
        canvas = F.pad(detector.pixels.standardize(images), (0, _up(width) - width, 0, _up(height) - height))
        outputs, dense, *of_stuff = self.model(canvas)
        entering = enter(detector.selection, outputs, height, width, score)
        size, classes = (images.shape[0], height, width), outputs.logits.shape[2]
        if isinstance(detector.duplicates, KeypointNMS):
            entering, keypoints = with_keypoints(detector, detector.duplicates, dense, entering, size)
            best = surviving(detector.selection, entering, size, classes)
            found, more = entering.rows(best), keypoints.rows(best)
        else:
            found = entering.rows(surviving(detector.selection, entering, size, classes))
            more = detector.describe(dense, found)
        assert found.scores is not None
        boxes = clip_boxes(found.boxes, (height, width))
        result = {"boxes": boxes, "scores": found.scores, "classes": found.labels, "image": found.image}
        if isinstance(more, Keypoints):
            result["keypoints"] = more.values
        elif more is not None:
            result["masks"] = probabilities_in_input(more, found.boxes, (height, width))
        if panoptic is not None:
            result["stuff"] = classes_of_pixels(of_stuff[0], panoptic.branch.stride, height, width)
        return result


def detector_of(model: Detector | PanopticModel) -> Detector:
    """The model itself, or the detector that a panoptic model is made around."""
    return model.detector if isinstance(model, PanopticModel) else model


def classes_of_pixels(
    logits: Float[Tensor, "b k h4 w4"], stride: int, height: int, width: int
) -> UInt8[Tensor, "b h w"]:
    """The class of largest logit at every pixel of the input inside the padding, the logits enlarged as in `class_map`."""
    large = F.interpolate(logits.float(), scale_factor=stride, mode="bilinear", align_corners=False)
    return large[:, :, :height, :width].argmax(dim=1).to(torch.uint8)


def _up(pixels: int) -> int:
    """The next multiple of the divisor."""
    return (pixels + DIVISOR - 1) // DIVISOR * DIVISOR


def enter(
    selection: Selection, outputs: DenseOutputs, height: int, width: int, score: Float[Tensor, "1"]
) -> Candidates:
    """What `Selection.entering` finds in images of one size, all images at once.

    Args:
        selection, outputs: as there.
        height, width: of the images inside the padding.
        score: least score of a row.
    """
    classes = outputs.logits.shape[2]
    image, pair, scores = best_pairs(selection, outputs)
    rows = torch.nonzero((scores > 0) & (scores >= score)).squeeze(1)
    image, pair, scores = image[rows], pair[rows], scores[rows]
    location, labels = pair // classes, pair % classes
    boxes = outputs.boxes[image, location]
    if selection.clip_first:
        boxes = clip_boxes(boxes, (height, width))
    return candidates_at(outputs, image, location, boxes, labels, scores=scores)


def surviving(selection: Selection, entering: Candidates, size: Size, classes: int) -> Int[Tensor, " m"]:
    """What `Selection.surviving` leaves, all images at once.

    It is the same choice but for rounding: boxes of different images and classes are moved apart for NMS, which costs their
    coordinates some of their last bits, and boxes that reach farther than an image's side beyond it are cut there.

    Args:
        selection, entering: as there.
        size: how many images there are, and their height and width inside the padding.
        classes: of the model.
    """
    assert entering.scores is not None
    images, height, width = size
    boxes, image, scores = entering.boxes, entering.image, entering.scores
    # Two more boxes, without a size and of no image: traced, NMS is taken to leave two boxes or more.
    places = torch.cat([apart(boxes, image, entering.labels, classes, height, width), boxes.new_zeros((2, 4))])
    best = nms(places, torch.cat([scores, scores.new_zeros(2)]), selection.iou)
    owner = torch.cat([image, image.new_full((2,), images)])
    return best[first_of_images(owner[best], images, selection.keep)]


def with_keypoints(
    detector: Detector, duplicates: KeypointNMS, dense: Any, entering: Candidates, size: Size
) -> tuple[Candidates, Keypoints]:
    """What `KeypointNMS.find` compares: the best of each image, their keypoints, and as boxes the rectangles around these."""
    assert entering.scores is not None
    order = entering.scores.argsort(descending=True)
    entering = entering.rows(order[first_of_images(entering.image[order], size[0], duplicates.enter)])
    keypoints = detector.describe(dense, entering)
    assert isinstance(keypoints, Keypoints)
    return replace(entering, boxes=enclosing_boxes(keypoints.values[..., :2])), keypoints


def best_pairs(
    selection: Selection, outputs: DenseOutputs
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], Float[Tensor, " p"]]:
    """The best pairs of location and class of every level and image, a fixed number: those below the threshold score -1.

    Returns:
        Image, pair (location times classes plus class) and score of each.
    """
    probability = outputs.logits.sigmoid()
    scores = measured = probability
    if outputs.quality is not None:
        product = probability * outputs.quality.sigmoid()[:, :, None]
        scores = product.sqrt()
        measured = {"class": probability, "product": product, "score": scores}[selection.threshold_on]
    images, _, classes = scores.shape
    levels = torch.where(measured > selection.threshold, scores, -1).split(outputs.locations.counts, dim=1)
    best, pairs, first = [], [], 0
    for level, count in zip(levels, outputs.locations.counts, strict=True):
        # A level may have fewer pairs than enter: with these there are always enough, and they stay below the threshold.
        enough = F.pad(level.flatten(1), (0, selection.per_level), value=-1.0)
        values, at = enough.topk(selection.per_level, dim=1)
        best.append(values)
        pairs.append((at + first).clamp(max=(first // classes + count) * classes - 1))
        first = first + count * classes
    image = torch.arange(images, device=scores.device)[:, None].expand(-1, selection.per_level * len(best))
    return image.flatten(), torch.cat(pairs, dim=1).flatten(), torch.cat(best, dim=1).flatten()


def apart(
    boxes: Float[Tensor, "n 4"],
    image: Int[Tensor, " n"],
    labels: Int[Tensor, " n"],
    classes: int,
    height: int,
    width: int,
) -> Float[Tensor, "n 4"]:
    """Boxes moved so that only those of the same image and class can overlap: one NMS does for all.

    Classes stand in a square, images below each other: so coordinates stay small, and exact to a hundredth of a pixel.
    """
    columns = math.ceil(math.sqrt(classes))
    place = torch.stack([labels % columns, image * columns + labels // columns], dim=1)
    size = torch.tensor([width, height], dtype=boxes.dtype, device=boxes.device)
    near = boxes.unflatten(1, (2, 2)).maximum(-size).minimum(2 * size)
    return (near + (place * (3 * size + 1))[:, None]).flatten(1)


def first_of_images(image: Int[Tensor, " n"], images: int, keep: int) -> Int[Tensor, " m"]:
    """Rows of the first `keep` of each of so many images, image by image, in the given order."""
    mine = image[:, None] == torch.arange(images, device=image.device)
    rank = (mine.long().cumsum(0) * mine).sum(dim=1) - 1
    rows = torch.nonzero((rank >= 0) & (rank < keep)).squeeze(1)
    return rows[torch.argsort(image[rows] * keep + rank[rows])]
