"""RetinaNet: anchors of fixed shapes at every location, classified with the focal loss and refined by deltas.

Lin et al. 2017, with the improvements that thesis 002 (table 3.3) grants it for a fair comparison with FCOS: GroupNorm,
GIoU, per-level scalars, P6 from P5, NMS at 0.6.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.models.candidates import class_loss, positives
from perpixel.models.heads import BoxHead, BoxHeadConfig, Losses, Pyramid
from perpixel.nn.head_cells import HeadGenotype, SearchedTower
from perpixel.nn.layers import HeadNorm, Scale, Tower, head_conv
from perpixel.nn.normalizer import Normalization, PositiveCount
from perpixel.ops.assign import ignore_crowds, match_by_iou
from perpixel.ops.boxes import decode_deltas, encode_deltas, overlap
from perpixel.ops.locations import anchor_shapes, grid_points, join_levels
from perpixel.ops.losses import smooth_l1
from perpixel.structures import DenseOutputs, Locations, Matches, Targets

OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))


@dataclass(frozen=True)
class RetinaNet(BoxHeadConfig):
    """Settings of RetinaNet; the defaults are detectron2's with the plain normaliser.

    Attributes:
        convs: depth of the two towers.
        norm: of the towers.
        genotype: operations of either tower in place of its convolutions (NAS-FCOS).
        level_scales: one learnable factor a level on the deltas.
        scales: anchor sizes in strides, three octave steps from 4 strides by default; (4,) with ratios (1,) gives "#A=1".
        sizes: anchor sizes in pixels for each level in place of `scales`, where a peer rounds them.
        ratios: heights over widths.
        ratio_first, rounded: order and rounding of the anchors of a cell (see `anchor_shapes`).
        offset: where in its cell the anchors' centre stands (detectron2, torchvision, mmdetection: 0).
        spread: space a level's cells by image // cells (torchvision).
        thresholds: IoU below which an anchor is background and from which it is positive.
        low_quality: least IoU at which every object's best anchors are positive below the threshold (table 3.1); None: never.
        box_loss: L1 on deltas, or GIoU on boxes (table 3.3, "w/ imprv.").
        smooth_l1_beta: where the L1 loss turns quadratic.
        normalization, normalization_start: what losses are divided by (see PositiveCount); `image`: each image by its own
            positives, then the mean over images (torchvision).
        prior: class probability at the start of training.
        alpha, gamma: of the focal loss.
    """

    convs: int = 4
    norm: HeadNorm = "none"
    genotype: HeadGenotype | None = None
    level_scales: bool = False
    scales: tuple[float, ...] = tuple(4 * octave for octave in OCTAVES)
    sizes: tuple[tuple[float, ...], ...] | None = None
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    ratio_first: bool = False
    rounded: bool = False
    offset: float = 0.0
    spread: bool = False
    thresholds: tuple[float, float] = (0.4, 0.5)
    low_quality: float | None = 0.0
    box_loss: Literal["l1", "giou"] = "l1"
    smooth_l1_beta: float = 0.0
    normalization: Normalization | Literal["image"] = "positives"
    normalization_start: float = 100.0
    prior: float = 0.01
    alpha: float = 0.25
    gamma: float = 2.0

    def build(self, channels: int, strides: tuple[int, ...], classes: int) -> "RetinaNetHead":
        """The head for pyramid maps of `channels` channels at `strides`."""
        if self.sizes is not None and len(self.sizes) != len(strides):
            raise InputError(f"model.head.sizes needs one row for each of the {len(strides)} pyramid levels")
        return RetinaNetHead(self, channels, strides, classes)


class RetinaNetHead(BoxHead):
    """The towers and predictors of RetinaNet, shared by all levels."""

    def __init__(self, config: RetinaNet, channels: int, strides: tuple[int, ...], classes: int):
        super().__init__()
        self.config = config
        self.strides = strides
        sizes = config.sizes or [[scale * stride for scale in config.scales] for stride in strides]
        self.shapes = [anchor_shapes(row, config.ratios, config.ratio_first, config.rounded) for row in sizes]
        self.per_cell = len(self.shapes[0])
        self.class_tower, self.box_tower = (
            Tower(channels, config.convs, config.norm)
            if config.genotype is None
            else SearchedTower(config.genotype, channels, len(strides))
            for _ in range(2)
        )
        prior = -torch.tensor(1 / config.prior - 1).log().item()
        self.class_logits = head_conv(channels, self.per_cell * classes, bias=prior)
        self.deltas = head_conv(channels, self.per_cell * 4)
        self.scales = nn.ModuleList(Scale() if config.level_scales else nn.Identity() for _ in strides)
        self.positive_count = PositiveCount(
            "positives" if config.normalization == "image" else config.normalization, config.normalization_start
        )

    def forward(self, pyramid: Pyramid) -> DenseOutputs:
        """Class logits and boxes of every anchor."""
        class_towers = [self.class_tower(x, level) for level, x in enumerate(pyramid)]
        towers = [self.box_tower(x, level) for level, x in enumerate(pyramid)]
        logits = join_levels([self.class_logits(x) for x in class_towers], self.per_cell)
        deltas = [scale(self.deltas(x)) for scale, x in zip(self.scales, towers, strict=True)]
        regression = join_levels(deltas, self.per_cell)
        locations = self.locate(tuple((x.shape[2], x.shape[3]) for x in pyramid), pyramid[0].device)
        assert locations.anchors is not None
        boxes = decode_deltas(locations.anchors, regression)
        return DenseOutputs(logits, boxes, None, regression, tuple(towers), tuple(class_towers), locations)

    def locate(self, shapes: tuple[tuple[int, int], ...], device: torch.device | str | None = None) -> Locations:
        """One location an anchor."""
        cells, strides, levels = grid_points(shapes, self.strides, self.config.offset, self.config.spread, device)
        anchors = (cells.repeat(1, 2)[:, None] + torch.stack(self.shapes).to(cells.device)[levels]).flatten(0, 1)
        rows = torch.arange(cells.shape[0], device=cells.device).repeat_interleave(self.per_cell)
        return Locations(cells[rows], strides[rows], levels[rows], anchors, shapes, self.per_cell)

    def assign(self, locations: Locations, targets: Sequence[Targets]) -> Matches:
        """The object each anchor overlaps most, if enough."""
        rows = []
        for target in targets:
            assert locations.anchors is not None
            matched = match_by_iou(locations.anchors, target.boxes, self.config.thresholds, self.config.low_quality)
            rows.append(ignore_crowds(matched, locations.points, target.ignored))
        return Matches(torch.stack(rows))

    def loss(self, outputs: DenseOutputs, matches: Matches, targets: Sequence[Targets]) -> Losses:
        """Focal loss over all anchors, L1 or GIoU over the positive ones."""
        found = positives(outputs, matches, targets)
        assert found.anchors is not None
        if self.config.box_loss == "giou":
            predicted = outputs.boxes[found.image, found.location] / found.strides[:, None]
            box_loss = 1 - overlap(predicted, found.boxes / found.strides[:, None])[1]
        else:
            difference = outputs.regression[found.image, found.location] - encode_deltas(found.anchors, found.boxes)
            box_loss = smooth_l1(difference, self.config.smooth_l1_beta).sum(dim=1)
        each = self._image_weights(found.image, len(targets))
        return {
            "class": class_loss(outputs, matches, found, each, self.config.alpha, self.config.gamma),
            "box": (box_loss * each[found.image]).sum(),
        }

    def _image_weights(self, image: Tensor, images: int) -> Tensor:
        """One over the normaliser, for each image of the batch."""
        count = torch.bincount(image, minlength=images).float()
        if self.config.normalization == "image":
            return 1 / (count.clamp(min=1) * images)
        return (1 / self.positive_count(count.sum())).expand(images)
