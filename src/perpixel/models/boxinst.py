"""BoxInst: CondInst that learns masks from boxes. Only the loss of the masks differs.

Tian et al., thesis 002, chapter 6. Projection: seen from above and from the side, a mask is as long as its box. Pairwise: of
two near pixels with like colours, both belong to the object or neither does.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from perpixel.errors import InputError
from perpixel.models.candidates import BestPositives, RandomPositives
from perpixel.models.condinst import CondInst, CondInstHead
from perpixel.models.heads import Losses
from perpixel.models.mask_truth import drawn, masks_of, mean_count
from perpixel.ops.affinity import color_similarity, ends, half_neighbourhood, log_same
from perpixel.ops.boxes import filled_boxes
from perpixel.ops.color import lab
from perpixel.ops.losses import dice_loss
from perpixel.ops.reduce import mean_over_ranks
from perpixel.structures import Batch, Candidates


@dataclass(frozen=True)
class BoxInst(CondInst):
    """Settings of BoxInst; the defaults are those of the released models.

    Attributes:
        mask_channels: 16 (6.3.1).
        policy: the best positives of each object, 64 an image.
        supervision: what the masks are learned from: `color`, projection and pairs of like colours (eq. 6.8); `projection` alone
            (table 6.4); `box`, Dice with the filled box (table 6.4); `mask`, projection and pairs of known labels, which needs
            masks (eq. 6.5, table 6.1).
        known_masks: what else objects teach whose masks are known (`data.masks`): nothing (`unused`), or their masks by `dice`
            in place of the losses above, which are then for the other objects (6.3.6).
        tau: least similarity of colours that count as alike (table 6.2: 0, 0.1, 0.2; the released models 0.3).
        theta: distance in LAB at which similarity is 1/e (eq. 6.7).
        size, dilation: of the patch of neighbours (table 6.3).
        warmup_steps: the pairwise term grows from 0 to its weight over so many steps.
        bottom_pixels: rows at the bottom of the original image whose colours are not trusted (COCO's images often end in a
            border); 0 trusts all.
    """

    mask_channels: int = 16
    policy: RandomPositives | BestPositives = field(default_factory=lambda: BestPositives(per_image=64))
    supervision: Literal["color", "projection", "box", "mask"] = "color"
    known_masks: Literal["unused", "dice"] = "unused"
    tau: float = 0.3
    theta: float = 2.0
    size: int = 3
    dilation: int = 2
    warmup_steps: int = 10_000
    bottom_pixels: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 3 or self.size % 2 == 0:
            raise InputError(f"model.instance.size={self.size} has no pixel in its middle: take 3 or 5")
        if self.warmup_steps < 1 or self.theta <= 0:
            raise InputError("model.instance.warmup_steps is at least 1 and model.instance.theta above 0")
        if self.supervision == "mask" and self.known_masks == "dice":
            raise InputError(
                "model.instance.known_masks=dice leaves the others their boxes: take another model.instance.supervision than mask"
            )

    def build(self, channels: int, tower_channels: int, strides: tuple[int, ...], classes: int) -> "BoxInstHead":
        """The head for pyramid maps of `channels` and tower maps of `tower_channels` channels at `strides`."""
        return BoxInstHead(self, channels, tower_channels, strides, classes)


class Scene(NamedTuple):
    """What the pairwise term reads of the images at the masks' stride, once an image, whatever is in it."""

    colors: Float[Tensor, "b 3 h w"]
    valid: Bool[Tensor, "b h w"]


class BoxInstHead(CondInstHead):
    """CondInst's head with losses that need no mask."""

    config: BoxInst

    def teaches(self, candidates: Candidates, batch: Batch) -> Bool[Tensor, " n"]:
        """All candidates, as each has a box, but where only masks tell labels."""
        if self.config.supervision == "mask":
            return super().teaches(candidates, batch)
        return torch.ones_like(candidates.image, dtype=torch.bool)

    def mask_losses(self, logits: Float[Tensor, "n h w"], candidates: Candidates, batch: Batch) -> Losses:
        """Eq. 6.6, or that for objects known by their box and CondInst's loss for those known by their mask (6.3.6)."""
        if self.config.known_masks == "unused":
            return self.box_losses(logits, candidates, batch)
        known = drawn(candidates, batch.truth())
        losses: Losses = {}
        for rows, losses_of in ((known, super().mask_losses), (~known, self.box_losses)):
            some = candidates.rows(rows)
            # Every candidate weighs the same, whatever it is learned from.
            share = mean_count(some) / mean_count(candidates)
            for name, loss in losses_of(logits[rows], some, batch).items():
                losses[name] = losses.get(name, 0) + share * loss
        return losses

    def box_losses(self, logits: Float[Tensor, "n h w"], candidates: Candidates, batch: Batch) -> Losses:
        """Eq. 6.6."""
        config = self.config
        boxes = filled_boxes(candidates.boxes, self.stride, logits.shape[1], logits.shape[2])
        probability, count = logits.sigmoid(), mean_count(candidates)
        if config.supervision == "box":
            return {"mask": config.weight * dice_loss(probability, boxes.to(logits.dtype)).sum() / count}
        losses = {"projection": config.weight * projection_loss(probability, boxes).sum() / count}
        if config.supervision != "projection":
            warmup = min((batch.progress + 1) / config.warmup_steps, 1.0)
            losses["pairwise"] = config.weight * warmup * self.pairwise(logits, boxes, candidates, batch)
        return losses

    def pairwise(
        self, logits: Float[Tensor, "n h w"], boxes: Bool[Tensor, "n h w"], candidates: Candidates, batch: Batch
    ) -> Float[Tensor, ""]:
        """Eq. 6.8, or eq. 6.5 where the labels are known: the mean over edges that touch the box, an edge inside twice."""
        config = self.config
        scene = self.scene(batch, logits.shape[1], logits.shape[2])
        known = config.supervision == "mask"
        masks = masks_of(candidates, batch.truth(), self.stride) if known else None
        total = edges = logits.new_zeros(())
        for offset in half_neighbourhood(config.size, config.dilation):
            trusted = torch.ones_like(ends(scene.valid, offset)[0])
            if not known:
                trusted = color_similarity(*ends(scene.colors, offset), config.theta) >= config.tau
            first_valid, second_valid = ends(scene.valid, offset)
            first_inside, second_inside = ends(boxes, offset)
            # From each end that lies in the box, if the other end can be seen.
            image = candidates.image
            weight = first_inside * (trusted & second_valid)[image].to(logits.dtype)
            weight = weight + second_inside * (trusted & first_valid)[image].to(logits.dtype)
            first, second = ends(logits, offset)
            if masks is not None:
                first_label, second_label = ends(masks, offset)
                second = torch.where(first_label == second_label, second, -second)
            total = total - (weight * log_same(first, second)).sum()
            edges = edges + weight.sum()
        return total / mean_over_ranks(edges).clamp(min=1)

    @torch.no_grad()
    def scene(self, batch: Batch, height: int, width: int) -> Scene:
        """Mean colours of cells, in LAB, and which cells show the image."""
        small = F.avg_pool2d(batch.images.float(), self.stride)[:, :, :height, :width]
        # Whole levels of 0..255, as the reference implementation has them.
        colors = lab(small.floor() / 255)
        middle = torch.arange(height, device=small.device) * self.stride + self.stride // 2
        across = torch.arange(width, device=small.device) * self.stride + self.stride // 2
        originals = batch.originals or batch.sizes
        valid = []
        for (image_height, image_width), (original_height, _) in zip(batch.sizes, originals, strict=True):
            hidden = int(self.config.bottom_pixels * image_height / original_height)
            valid.append((middle < image_height - hidden)[:, None] & (across < image_width))
        return Scene(colors, torch.stack(valid))


def projection_loss(probability: Float[Tensor, "n h w"], boxes: Bool[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Dice of the columns' maxima plus Dice of the rows': eq. 6.3."""
    truth = boxes.to(probability.dtype)
    return sum(
        (dice_loss(probability.amax(dim=axis), truth.amax(dim=axis)) for axis in (1, 2)), probability.new_zeros(())
    )
