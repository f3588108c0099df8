"""SmalMask2: SmalMask the two-stage way, RoIAlign on the box tower and one fully connected layer.

Chen, thesis 004, section 3.4. The same function with the same parameters as shared SmalMask with RoIPred; what differs is which
rows train it. There every positive location is one, at its own level; here every object is one, at the level of its longer
side. To make up for the variety of levels that is lost, objects are pooled twice in training, with two canonical lengths
("multi-scale poolers").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.models.candidates import candidates_at
from perpixel.models.heads import InstanceHead, InstanceHeadConfig, Losses, Pyramid
from perpixel.models.mask_losses import mask_cross_entropy
from perpixel.models.mask_truth import drawn, masks_in_boxes, mean_count
from perpixel.models.smalmask import AT_ONCE, Towers
from perpixel.ops.assign import joined
from perpixel.ops.box_sampling import align_boxes, level_of_size
from perpixel.ops.sampling import conv_at, portions
from perpixel.structures import Batch, BoxMasks, Candidates, DenseOutputs, Matches, Targets


@dataclass(frozen=True)
class SmalMask2(InstanceHeadConfig):
    """Settings of SmalMask2; the defaults are the thesis's best (table 3.6).

    Attributes:
        kernel: bins a side of RoIAlign, with one sample each; 7 for ResNet-101 (table 3.7).
        lengths: canonical length L of each pooler, in pixels: boxes whose longer side is shorter go to the first level, up to
            twice it to the second, and so on. All train, the longest predicts (table 3.6).
        size: of masks, cells a side.
        weight: of the mask loss, which the thesis does not give.
    """

    kernel: Literal[3, 5, 7] = 5
    lengths: tuple[float, ...] = (64.0, 128.0)
    size: int = 28
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) <= 0:
            raise InputError(f"model.instance.lengths={list(self.lengths)} needs one length or more, each above 0")
        if self.size < 1:
            raise InputError(f"model.instance.size={self.size} is not at least 1")

    def build(self, channels: int, tower_channels: int, strides: tuple[int, ...], classes: int) -> "SmalMask2Head":
        """The head for tower maps of `tower_channels` channels at `strides`; one mask whatever the class."""
        return SmalMask2Head(self, tower_channels, strides)


class SmalMask2Head(InstanceHead):
    """One layer, shared by all levels and poolers."""

    def __init__(self, config: SmalMask2, channels: int, strides: tuple[int, ...]):
        super().__init__()
        self.config, self.strides = config, strides
        # Fully connected over k x k samples; shaped as SmalMask's, whose weights fit.
        self.to_mask = nn.Conv2d(channels, config.size**2, config.kernel)
        nn.init.normal_(self.to_mask.weight, std=0.01)
        nn.init.zeros_(self.to_mask.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, pyramid: Pyramid, outputs: DenseOutputs) -> Towers:
        """Nothing but the box tower's maps: there is no image-level work."""
        return outputs.towers

    def choose(self, outputs: DenseOutputs, matches: Matches, batch: Batch) -> Candidates:
        """Every object whose mask is known, once: "RoIs are given by ground-truth bounding boxes during training"."""
        found = objects(outputs, batch.truth())
        return found.rows(drawn(found, batch.truth()))

    def logits(self, dense: Towers, candidates: Candidates, length: float) -> Float[Tensor, "n size size"]:
        """RoIAlign at the level that the canonical length gives each box, then the layer (figure 3.4)."""
        level = level_of_size(candidates.boxes, length, len(self.strides))
        samples = align_boxes(dense, self.strides, candidates.image, level, candidates.boxes, self.config.kernel)
        mask = conv_at(samples, self.to_mask.weight, self.to_mask.bias)
        return mask.unflatten(1, (self.config.size, self.config.size))

    def loss(self, dense: Towers, candidates: Candidates, batch: Batch) -> Losses:
        """Cross entropy with the mask in the object's box: mean over cells, objects and poolers."""
        truth = masks_in_boxes(candidates, batch.truth(), self.config.size)
        lengths = self.config.lengths
        totals = [mask_cross_entropy(self.logits(dense, candidates, length), truth).sum() for length in lengths]
        return {"mask": self.config.weight * torch.stack(totals).mean() / mean_count(candidates)}

    def predict(self, dense: Towers, candidates: Candidates) -> BoxMasks:
        """Mask probabilities over each predicted box, by the main pooler."""
        main = max(self.config.lengths)
        parts = [self.logits(dense, candidates.rows(rows), main).sigmoid() for rows in portions(candidates, AT_ONCE)]
        return BoxMasks(torch.cat(parts))


def objects(outputs: DenseOutputs, targets: Sequence[Targets]) -> Candidates:
    """Every object of every image once, at the cell of the finest level that holds its box's centre."""
    boxes, _ = joined([target.boxes for target in targets])
    labels, _ = joined([target.labels for target in targets])
    rows = [torch.arange(len(target), device=boxes.device) for target in targets]
    image = torch.cat([torch.full_like(mine, number) for number, mine in enumerate(rows)])
    locations = outputs.locations
    height, width = locations.shapes[0]
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2 / locations.strides[0]).long().T
    cell = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return candidates_at(outputs, image, cell * locations.anchors_per_cell, boxes, labels, target=torch.cat(rows))
