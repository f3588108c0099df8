"""CondInst: each location predicts the filters of a tiny network that draws the mask of its object, and nothing else.

Tian et al., thesis 002, chapter 5. The whole method in three steps: `forward` makes the features of all masks once an image;
`logits` evaluates the controller at candidates and runs each one's network over features and coordinates; `loss` is Dice.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perpixel.errors import InputError
from perpixel.models.candidates import BestPositives, RandomPositives, detection_scores, positives
from perpixel.models.heads import InstanceHead, InstanceHeadConfig, Losses, Pyramid
from perpixel.models.mask_truth import drawn, masks_of, mean_count, semantic_labels
from perpixel.nn.layers import head_conv
from perpixel.nn.mask_branch import MaskBranch, SemanticBranch
from perpixel.ops.assign import IGNORED
from perpixel.ops.dynamic import apply_filters, filter_count, maps_of_images, over_places, split_filters
from perpixel.ops.locations import grid_points
from perpixel.ops.losses import dice_loss, focal_loss
from perpixel.ops.masks import aligned_bilinear
from perpixel.ops.reduce import mean_over_ranks
from perpixel.ops.sampling import conv_at, in_portions, patches_at
from perpixel.structures import Batch, Candidates, DenseOutputs, ImageMasks, Matches, Targets

CHUNK_BYTES = 8 * 2**20
"""Memory for what the mask networks hold at any time, beside their results; more leaves the caches (benchmarks/masks.py)."""


@dataclass(frozen=True)
class CondInst(InstanceHeadConfig):
    """Settings of CondInst; the defaults are those of the released models.

    Attributes:
        depth: layers of the mask network (table 5.1).
        width: its channels (table 5.2).
        mask_channels: C_mask, channels of the mask branch's output (table 5.3); 0 leaves the coordinates alone (table 5.4).
        coordinates: what else the mask network reads (table 5.4): coordinates `relative` to the candidate's point, in
            `coordinate_scale` strides of its level; `absolute` ones, -1..1 over the image; `none`.
        coordinate_scale: 8 strides are AdelaiDet's sizes of interest 64, 128 .. 1024.
        upsampling: of the logits, by aligned bilinear interpolation (table 5.5).
        mask_levels: levels the mask branch reads: 1 (the thesis) or 3 (the released models).
        mask_convs, mask_width: of the mask branch, after the one convolution a level.
        semantic: learn a semantic map beside, in training only (table 5.7, "w/ sem.").
        policy: the positives that train the head.
        weight: of the mask loss, lambda of eq. 5.1.
    """

    depth: int = 3
    width: int = 8
    mask_channels: int = 8
    coordinates: Literal["relative", "absolute", "none"] = "relative"
    coordinate_scale: float = 8.0
    upsampling: Literal[1, 2, 4] = 2
    mask_levels: int = 3
    mask_convs: int = 4
    mask_width: int = 128
    semantic: bool = False
    policy: RandomPositives | BestPositives = field(default_factory=lambda: RandomPositives(limit=500))
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.mask_channels == 0 and self.coordinates == "none":
            raise InputError("model.instance.mask_channels=0 with coordinates=none leaves the mask network no input")
        if self.depth < 1:
            raise InputError(f"model.instance.depth={self.depth} is no network: it needs at least one layer")

    def build(self, channels: int, tower_channels: int, strides: tuple[int, ...], classes: int) -> "CondInstHead":
        """The head for pyramid maps of `channels` and tower maps of `tower_channels` channels at `strides`."""
        return CondInstHead(self, channels, tower_channels, strides, classes)


class Maps(NamedTuple):
    """Image-level work: F_mask, the towers that filters are read from, the finest level for the semantic branch."""

    features: Float[Tensor, "b c h w"]
    towers: tuple[Float[Tensor, "b t _ _"], ...]
    finest: Float[Tensor, "b p h w"]


class CondInstHead(InstanceHead):
    """The mask branch, and the controller that predicts filters."""

    def __init__(self, config: CondInst, channels: int, tower_channels: int, strides: tuple[int, ...], classes: int):
        super().__init__()
        if not 1 <= config.mask_levels <= len(strides):
            raise InputError(
                f"model.instance.mask_levels={config.mask_levels} is not between 1 and {len(strides)}, the pyramid's levels"
            )
        self.config = config
        self.mask_stride = strides[0]
        self.stride = strides[0] // config.upsampling
        inputs = config.mask_channels + (0 if config.coordinates == "none" else 2)
        self.channels = (inputs, *[config.width] * (config.depth - 1), 1)
        self.controller = head_conv(tower_channels, filter_count(self.channels))
        read = strides[: config.mask_levels]
        self.mask_branch = (
            MaskBranch(channels, read, config.mask_width, config.mask_convs, config.mask_channels)
            if config.mask_channels
            else None
        )
        self.semantic_branch = SemanticBranch(channels, config.mask_width, classes) if config.semantic else None

    def forward(self, pyramid: Pyramid, outputs: DenseOutputs) -> Maps:
        """The features of all masks, once an image."""
        finest = pyramid[0]
        features = finest[:, :0] if self.mask_branch is None else self.mask_branch(pyramid)
        return Maps(features, outputs.towers, finest)

    def choose(self, outputs: DenseOutputs, matches: Matches, batch: Batch) -> Candidates:
        """Positives of the detector that masks are learned from, by the policy."""
        found = positives(outputs, matches, batch.truth())
        found = found.rows(self.teaches(found, batch))
        return self.config.policy.choose(replace(found, scores=detection_scores(outputs, found).detach()))

    def teaches(self, candidates: Candidates, batch: Batch) -> Bool[Tensor, " n"]:
        """Which candidates masks can be learned from: those whose object's mask is known."""
        return drawn(candidates, batch.truth())

    def logits(self, dense: Maps, candidates: Candidates) -> Float[Tensor, "n h w"]:
        """MaskHead(F~, theta) of each candidate (5.2.2), enlarged; a few candidates at a time, so memory stays bounded.

        Coordinates are `scale` times the place plus `offset`, which the first layer takes into its filters: so all candidates
        of an image read one map, places in pixels and features, and no candidate's F~ is ever made.
        """
        filters = conv_at(patches_at(dense.towers, candidates), self.controller.weight, self.controller.bias)
        first, *rest = split_filters(filters, self.channels)
        scale, offset, places = self.coordinates(candidates, dense.features)
        layers = [over_places(first, scale, offset), *rest]
        inputs = torch.cat(
            [places.expand(dense.features.shape[0], -1, -1, -1), dense.features.to(filters.dtype)], dim=1
        )
        # What the layers of one candidate hold, and its input where images differ.
        each = filters.element_size() * inputs[0, 0].numel() * sum(self.channels)

        def some(rows: Int[Tensor, " m"]) -> Float[Tensor, "m h w"]:
            own = maps_of_images(inputs, candidates.image[rows])
            small = apply_filters(own, [(weight[rows], bias[rows]) for weight, bias in layers])
            return aligned_bilinear(small, self.config.upsampling)[:, 0]

        return in_portions(candidates, max(1, CHUNK_BYTES // each), some)

    def coordinates(
        self, candidates: Candidates, features: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"], Float[Tensor, "1 d h w"]]:
        """O of 5.2.1 as scale, offset and places: x and y of a place for a candidate are scale * place + offset."""
        config, points = self.config, candidates.points
        height, width = features.shape[2:]
        places = grid_points(((height, width),), (self.mask_stride,), device=points.device)[0].T
        places = places.unflatten(1, (height, width))[None]
        match config.coordinates:
            case "relative":
                scale = -1 / (config.coordinate_scale * candidates.strides[:, None]).expand_as(points)
                return scale, -scale * points, places
            case "absolute":
                extent = torch.tensor([width, height], device=points.device) * self.mask_stride
                return (2 / extent).expand_as(points), torch.full_like(points, -1), places
            case "none":
                return points[:, :0], points[:, :0], places[:, :0]

    def loss(self, dense: Maps, candidates: Candidates, batch: Batch) -> Losses:
        """Eq. 5.1 without the detector's part."""
        losses = self.mask_losses(self.logits(dense, candidates), candidates, batch)
        if self.semantic_branch is not None:
            losses["semantic"] = semantic_loss(self.semantic_branch(dense.finest), batch.truth(), self.mask_stride)
        return losses

    def mask_losses(self, logits: Float[Tensor, "n h w"], candidates: Candidates, batch: Batch) -> Losses:
        """Eq. 5.2: mean Dice loss of the candidates."""
        truth = masks_of(candidates, batch.truth(), self.stride).to(logits.dtype)
        return {"mask": self.config.weight * dice_loss(logits.sigmoid(), truth).sum() / mean_count(candidates)}

    def predict(self, dense: Maps, candidates: Candidates) -> ImageMasks:
        """Mask probabilities in the frame of the network's input."""
        return ImageMasks(self.logits(dense, candidates).sigmoid_(), self.stride)


def semantic_loss(logits: Float[Tensor, "b k h w"], targets: tuple[Targets, ...], stride: int) -> Float[Tensor, ""]:
    """Focal loss of every place's class, over the number of places with one (5.2.3; settings of AdelaiDet)."""
    labels = torch.stack([semantic_labels(target, stride) for target in targets])
    count = mean_over_ranks((labels >= 0).sum().to(logits.dtype)).clamp(min=1)
    weight = (labels != IGNORED).to(logits.dtype).flatten()
    return focal_loss(logits.permute(0, 2, 3, 1).flatten(0, 2), labels.flatten(), weight=weight) / count
