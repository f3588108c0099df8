"""FCOS: every location inside an object predicts its class and the distances to the four sides of its box.

Tian et al., thesis 002, chapter 3. The whole method in three steps: `forward` predicts, `assign` says which object each
location is trained on (sampling region, level range, smallest object), `loss` is focal + GIoU + centre-ness.

For crowds a cell may predict several boxes (3.3.5, "multiple instance prediction"): it then has as many locations, as a cell of
RetinaNet has one for each anchor, and the k-th is trained on the k-th of the objects that the cell prefers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.models.candidates import class_loss, positives
from perpixel.models.heads import BoxHead, BoxHeadConfig, Losses, Pyramid
from perpixel.nn.head_cells import HeadGenotype, SearchedTower
from perpixel.nn.layers import Deformable, Scale, Tower, TowerNorm, head_conv
from perpixel.nn.normalizer import Normalization, PositiveCount
from perpixel.ops.assign import LevelRanges, Preference, ignore_crowds, inside_sampling_region, preferred_objects
from perpixel.ops.boxes import boxes_from_distances, distances_to_sides, overlap
from perpixel.ops.locations import grid_points, join_levels
from perpixel.ops.losses import centerness
from perpixel.ops.reduce import mean_over_ranks
from perpixel.structures import DenseOutputs, Locations, Matches, Targets


@dataclass(frozen=True)
class FCOS(BoxHeadConfig):
    """Settings of FCOS; the defaults are the thesis's, as AdelaiDet runs them.

    Attributes:
        class_convs, box_convs: depth of the two towers.
        shared_convs: convolutions both towers share before they part ("shtw." of table 3.9).
        norm: of the towers (table 3.5); `batch` norms are each level's own (AdelaiDet's "bn_head").
        deformable: the last convolution of either tower is deformable (3.3.3); `v1` without weights of its samples (MEInst).
        genotype: operations of either tower in place of its convolutions (NAS-FCOS).
        level_scales: one learnable factor a level on the distances.
        initial_distance: every side's distance at the start of training, in strides (with `relu`). At the references' 0 half of
            all boxes have no size, and the IoU of such a box has almost no gradient: a long training leaves that start behind, a
            short one loses by it.
        quality: what the extra branch predicts: centre-ness, the IoU of the predicted box, nothing, or centre-ness computed
            from the predicted distances without a branch (table 3.4, dagger).
        quality_loss: of the branch (table 3.4).
        quality_tower: the features the branch reads (AdelaiDet: box; the first FCOS and NAS-FCOS: class).
        box_loss: table 3.5; `iou` is -log IoU. `none` leaves the box branch out: masks alone tell objects apart (5.3.5, MaskNMS).
        box_weight: each positive's box loss weighs its centre-ness target, or all weigh the same.
        iou_smoothing: added to intersection and union (AdelaiDet 1; detectron2 and torchvision 0).
        iou_unit: of these: the level's stride (AdelaiDet), or pixels (the first FCOS, NAS-FCOS).
        radius: half side of the sampling square in strides (table 3.6); None samples the whole box (table 3.2).
        center: of the sampling square: the box's, or the mask's centre of mass where masks are loaded (CondInst).
        levels: which objects each level takes (table 3.7).
        prefer: which of several objects a location is trained on: the smallest, or that of the nearest centre (3.3.5).
        per_cell: boxes that a cell predicts (K of 3.3.5): its locations are trained on the first, second ... of the objects it
            prefers, those left over on background. An instance head reads the same features for all of a cell.
        offset: where in its cell a location's point stands (torchvision: 0).
        spread: space a level's cells by image // cells (torchvision).
        normalization, normalization_start: what losses are divided by (see PositiveCount); a box loss weighted by
            centre-ness is divided by the sum of its weights.
        count_images: the class loss is divided by the positives and the images together (the first FCOS, NAS-FCOS).
        prior: class probability at the start of training.
        alpha, gamma: of the focal loss.
    """

    class_convs: int = 4
    box_convs: int = 4
    shared_convs: int = 0
    norm: TowerNorm = "group"
    deformable: Deformable = False
    genotype: HeadGenotype | None = None
    level_scales: bool = True
    initial_distance: float = 0.0
    activation: Literal["relu", "exp"] = "relu"
    quality: Literal["centerness", "iou", "none", "from_box"] = "centerness"
    quality_loss: Literal["bce", "l1"] = "bce"
    quality_tower: Literal["box", "class"] = "box"
    box_loss: Literal["giou", "iou", "none"] = "giou"
    box_weight: Literal["centerness", "none"] = "centerness"
    iou_smoothing: float = 1.0
    iou_unit: Literal["stride", "pixel"] = "stride"
    radius: float | None = 1.5
    center: Literal["box", "mask"] = "box"
    levels: LevelRanges = field(default_factory=LevelRanges)
    prefer: Preference = "smallest"
    per_cell: int = 1
    offset: float = 0.5
    spread: bool = False
    normalization: Normalization = "positives"
    normalization_start: float = 300.0
    count_images: bool = False
    prior: float = 0.01
    alpha: float = 0.25
    gamma: float = 2.0

    def build(self, channels: int, strides: tuple[int, ...], classes: int) -> "FCOSHead":
        """The head for pyramid maps of `channels` channels at `strides`."""
        if len(self.levels.limits) != len(strides) - 1:
            raise InputError(
                f"model.head.levels.limits needs {len(strides) - 1} numbers for {len(strides)} pyramid levels"
            )
        if self.per_cell < 1:
            raise InputError(f"model.head.per_cell={self.per_cell} is no number of boxes: a cell predicts 1 or more")
        if self.box_loss == "none" and self.quality in ("iou", "from_box"):
            raise InputError(
                f"model.head.quality={self.quality} is made from the box that model.head.box_loss=none leaves out"
            )
        return FCOSHead(self, channels, strides, classes)


class FCOSHead(BoxHead):
    """The towers and predictors of FCOS, shared by all levels."""

    def __init__(self, config: FCOS, channels: int, strides: tuple[int, ...], classes: int):
        super().__init__()
        self.config = config
        self.strides = strides
        self.per_cell = config.per_cell
        levels = len(strides)
        self.shared_tower = Tower(channels, config.shared_convs, config.norm, levels=levels)
        self.class_tower, self.box_tower = (
            Tower(channels, convs, config.norm, config.deformable, levels)
            if config.genotype is None
            else SearchedTower(config.genotype, channels, levels)
            for convs in (config.class_convs, config.box_convs)
        )
        prior = -torch.tensor(1 / config.prior - 1).log().item()
        self.class_logits = head_conv(channels, self.per_cell * classes, bias=prior)
        self.predicts_boxes = config.box_loss != "none"
        wide = self.per_cell * 4
        self.distances = head_conv(channels, wide, bias=config.initial_distance) if self.predicts_boxes else None
        self.quality = head_conv(channels, self.per_cell) if config.quality in ("centerness", "iou") else None
        scaled = config.level_scales and self.predicts_boxes
        self.scales = nn.ModuleList(Scale() if scaled else nn.Identity() for _ in strides)
        self.positive_count = PositiveCount(config.normalization, config.normalization_start)

    def forward(self, pyramid: Pyramid) -> DenseOutputs:
        """Class logits, boxes and quality at every location of the pyramid."""
        shared = [self.shared_tower(x, level) for level, x in enumerate(pyramid)]
        class_towers = [self.class_tower(x, level) for level, x in enumerate(shared)]
        towers = [self.box_tower(x, level) for level, x in enumerate(shared)]
        logits = join_levels([self.class_logits(x) for x in class_towers], self.per_cell)
        locations = self.locate(tuple((x.shape[2], x.shape[3]) for x in pyramid), pyramid[0].device)
        distances = self._distances(towers, locations)
        boxes = boxes_from_distances(locations.points, distances * locations.strides[:, None])
        quality = None
        if self.quality is not None:
            read = towers if self.config.quality_tower == "box" else class_towers
            quality = join_levels([self.quality(x) for x in read], self.per_cell).squeeze(2)
        elif self.config.quality == "from_box":
            quality = torch.logit(centerness(distances.detach()), eps=1e-6)
        return DenseOutputs(logits, boxes, quality, distances, tuple(towers), tuple(class_towers), locations)

    def _distances(self, towers: Sequence[Tensor], locations: Locations) -> Float[Tensor, "b l 4"]:
        """In strides, never negative (eq. 3.1): comparable over levels. 0 without a box branch."""
        if self.distances is None:
            return towers[0].new_zeros((towers[0].shape[0], locations.points.shape[0], 4))
        scaled = [scale(self.distances(x)) for scale, x in zip(self.scales, towers, strict=True)]
        raw = join_levels(scaled, self.per_cell)
        return raw.relu() if self.config.activation == "relu" else raw.exp() / locations.strides[:, None]

    def locate(self, shapes: tuple[tuple[int, int], ...], device: torch.device | str | None = None) -> Locations:
        """One location for each box of a cell."""
        points, strides, levels = grid_points(shapes, self.strides, self.config.offset, self.config.spread, device)
        if self.per_cell > 1:
            points, strides, levels = (x.repeat_interleave(self.per_cell, 0) for x in (points, strides, levels))
        return Locations(points, strides, levels, None, shapes, self.per_cell)

    def assign(self, locations: Locations, targets: Sequence[Targets]) -> Matches:
        """The preferred objects whose sampling region holds the cell and whose size suits its level (3.2.1, 3.2.2, 3.3.5)."""
        points = locations.points[:: self.per_cell]
        rows = []
        for target in targets:
            allowed, centers = self.allowed(locations, target), self._centers(target)
            matched = preferred_objects(
                allowed, points, target.boxes, centers, self.config.prefer, self.per_cell
            ).flatten()
            rows.append(ignore_crowds(matched, locations.points, target.ignored))
        return Matches(torch.stack(rows))

    def allowed(self, locations: Locations, target: Targets) -> Tensor:
        """(cells, n): every object that each cell could be trained on; more than one makes it ambiguous (table 3.2)."""
        points, strides, levels = (x[:: self.per_cell] for x in (locations.points, locations.strides, locations.levels))
        inside = inside_sampling_region(points, strides, target.boxes, self._centers(target), self.config.radius)
        return inside & self.config.levels.responsible(points, strides, levels, target.boxes)

    def _centers(self, target: Targets) -> Tensor:
        """(n, 2): of the sampling regions."""
        if self.config.center == "mask" and target.centers is not None:
            return target.centers
        return (target.boxes[:, :2] + target.boxes[:, 2:]) / 2

    def loss(self, outputs: DenseOutputs, matches: Matches, targets: Sequence[Targets]) -> Losses:
        """Eq. 3.2 with the centre-ness loss added."""
        found = positives(outputs, matches, targets)
        count = self.positive_count(torch.tensor(float(len(found)), device=found.image.device))
        predicted = outputs.regression[found.image, found.location]
        wanted = distances_to_sides(found.points, found.boxes) / found.strides[:, None]
        near = centerness(wanted)
        unit = found.strides[:, None] if self.config.iou_unit == "pixel" else 1
        iou, giou = overlap(_around_origin(predicted * unit), _around_origin(wanted * unit), self.config.iou_smoothing)
        divisor = count + len(targets) if self.config.count_images else count
        each = (1 / divisor).expand(len(targets))
        losses = {"class": class_loss(outputs, matches, found, each, self.config.alpha, self.config.gamma)}
        if self.predicts_boxes:
            box_loss = 1 - giou if self.config.box_loss == "giou" else -iou.clamp(min=1e-6).log()
            if self.config.box_weight == "centerness":
                losses["box"] = (box_loss * near).sum() / mean_over_ranks(near.sum()).clamp(min=1e-6)
            else:
                losses["box"] = box_loss.sum() / count
        if self.quality is not None:
            assert outputs.quality is not None
            truth = near if self.config.quality == "centerness" else iou.detach()
            losses[self.config.quality] = (
                self._quality_loss(outputs.quality[found.image, found.location], truth) / count
            )
        return losses

    def _quality_loss(self, logits: Float[Tensor, " n"], truth: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        if self.config.quality_loss == "l1":
            return (logits.sigmoid() - truth).abs().sum()
        return F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")


def _around_origin(distances: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """Boxes of these distances around (0, 0): overlaps do not depend on where a location stands."""
    return torch.cat([-distances[:, :2], distances[:, 2:]], dim=1)
