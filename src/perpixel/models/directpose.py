"""DirectPose: the keypoints of each person straight from a location, without boxes and without grouping.

Tian, thesis 002, chapter 4. `coordinates` is the method: the locator says roughly where keypoints are (eq. 4.1), features are
sampled there, and each keypoint's predictor corrects the place by them (eq. 4.2). All of it at candidates only: the thesis
slides it over every location.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.models.candidates import RandomPositives, positives
from perpixel.models.heads import InstanceHead, InstanceHeadConfig, Losses, Pyramid
from perpixel.models.keypoint_truth import heat_map_truth, keypoints_of, with_pseudo_boxes
from perpixel.models.mask_truth import mean_count
from perpixel.models.skeleton import Groups, groups_of, sigmas_of
from perpixel.nn.heat_maps import HeatMaps
from perpixel.nn.layers import HeadNorm, Tower, head_conv
from perpixel.ops.assign import joined
from perpixel.ops.box_sampling import sample_maps
from perpixel.ops.boxes import box_area
from perpixel.ops.keypoints import keypoint_similarity
from perpixel.ops.losses import focal_loss, smooth_l1
from perpixel.ops.map_samples import conv_samples
from perpixel.ops.reduce import mean_over_ranks
from perpixel.ops.sampling import conv_at, patches_at, portions
from perpixel.structures import COCO_KEYPOINTS, Batch, Candidates, DenseOutputs, Keypoints, Matches, Targets

Towers = tuple[Float[Tensor, "b c _ _"], ...]
Dense = tuple[Towers, Float[Tensor, "b c h w"] | None]
"""The maps that are sampled, and the level that heat maps are made of."""
AT_ONCE = 128
"""Candidates whose keypoints are predicted together, so that memory does not grow with their number."""


@dataclass(frozen=True)
class KPAlign:
    """Settings of the alignment; the defaults are the thesis's best (table 4.2).

    Attributes:
        aligner: features are sampled where the locator says; false: at the location itself, for all keypoints ("w/ KPAlign" with
            a dagger in table 4.1), and there is no locator.
        groups: which keypoints share a sampled feature: `body` the nine of footnote 3, `none` each has its own, or lists of
            names.
        width: channels of the maps that each group has to itself ("Sep. features"; a 3x3 convolution with ReLU, of which the
            thesis tells no more); None: all groups read the tower.
        level: which level's map is sampled: one below that of the location, if there is one ("Better sampling"), or its own.
    """

    aligner: bool = True
    groups: Groups = "body"
    width: int | None = 64
    level: Literal["own", "below"] = "below"


@dataclass(frozen=True)
class HeatMapTask:
    """Settings of the auxiliary task, in training only (4.2.3, table 4.3).

    Attributes:
        stride: 8 reads P3, 16 P4.
        width: channels of its two convolutions.
        weight: of its focal loss, which the thesis does not give.
    """

    stride: int = 8
    width: int = 128
    weight: float = 1.0


@dataclass(frozen=True)
class DirectPose(InstanceHeadConfig):
    """Settings of DirectPose.

    Attributes:
        keypoints: their names, in the data's order. COCO's, unless the data have others.
        align: KPAlign, or None for the naive framework: one convolution to 2K numbers (figure 4.1).
        heat_map: the auxiliary task, or None.
        convs: 3x3 convolutions of a tower of its own; 0 reads the box tower, which is the keypoint branch where the box head
            predicts no boxes (figure 4.2). With boxes (table 4.4) the thesis keeps both branches.
        norm: of that tower.
        boxes: of which boxes locations are trained on: the rectangles around known `keypoints`, or the `annotated` ones.
        loss: of coordinates in units of the location's stride, over known keypoints; the thesis does not tell. `oks` is 1
            less the mean similarity of COCO's evaluation, with `sigmas` and the box's area.
        sigmas: spread of each keypoint for `oks`; None: COCO's, by their names.
        policy: the positives that train the head. The thesis takes all; the limit holds memory on crowded photos.
        weight: of the loss of coordinates.
    """

    keypoints: tuple[str, ...] = COCO_KEYPOINTS
    align: KPAlign | None = field(default_factory=KPAlign)
    heat_map: HeatMapTask | None = field(default_factory=HeatMapTask)
    convs: int = 0
    norm: HeadNorm = "group"
    boxes: Literal["keypoints", "annotated"] = "keypoints"
    loss: Literal["l1", "smooth_l1", "oks"] = "l1"
    sigmas: tuple[float, ...] | None = None
    policy: RandomPositives = field(default_factory=lambda: RandomPositives(limit=1000))
    weight: float = 1.0

    def __post_init__(self) -> None:
        if len(set(self.keypoints)) < max(len(self.keypoints), 1):
            raise InputError("model.instance.keypoints names each keypoint once, and at least one")
        if self.align is not None:
            groups_of(self.keypoints, self.align.groups)
            if self.align.width is not None and self.align.width < 1:
                raise InputError(f"model.instance.align.width={self.align.width} is not at least 1")
        if self.convs < 0:
            raise InputError(f"model.instance.convs={self.convs} is not at least 0")
        if self.loss == "oks" and len(self.spread() or ()) != len(self.keypoints):
            raise InputError(f"model.instance.sigmas: loss=oks needs {len(self.keypoints)} of them, one a keypoint")

    def spread(self) -> tuple[float, ...] | None:
        """The sigma of each keypoint, if it is known."""
        return self.sigmas or sigmas_of(self.keypoints)

    def keypoint_names(self) -> tuple[str, ...]:
        """As the settings name them."""
        return self.keypoints

    def build(self, channels: int, tower_channels: int, strides: tuple[int, ...], classes: int) -> "DirectPoseHead":
        """The head for pyramid maps of `channels` or tower maps of `tower_channels` channels, whatever the class."""
        if self.heat_map is not None and self.heat_map.stride not in strides:
            raise InputError(
                f"model.instance.heat_map.stride={self.heat_map.stride} is none of the strides {list(strides)}"
            )
        return DirectPoseHead(self, channels, channels if self.convs else tower_channels, strides)


class DirectPoseHead(InstanceHead):
    """Locator, the groups' maps, predictors and heat maps, shared by all levels."""

    def __init__(self, config: DirectPose, channels: int, read: int, strides: tuple[int, ...]):
        super().__init__()
        self.config, self.strides = config, strides
        count, align = len(config.keypoints), config.align
        groups = groups_of(config.keypoints, "none" if align is None else align.groups)
        self.group_of = [next(g for g, members in enumerate(groups) if k in members) for k in range(count)]
        self.places_count = len(groups)
        self.tower = Tower(channels, config.convs, config.norm) if config.convs else None
        self.locator = head_conv(read, 2 * len(groups)) if align is None or align.aligner else None
        self.predictor_weight = self.predictor_bias = None
        self.group_maps = None
        if align is not None and align.width is not None:
            self.group_maps = head_conv(read, len(groups) * align.width)
        if align is not None:
            self.predictor_weight = nn.Parameter(0.01 * torch.randn(count, 2, align.width or read))
            self.predictor_bias = nn.Parameter(torch.zeros(count, 2))
        task = config.heat_map
        self.heat_maps = None if task is None else HeatMaps(channels, task.width, count)

    def retarget(self, targets: tuple[Targets, ...]) -> tuple[Targets, ...]:
        """Pseudo-boxes for the box head, where only keypoints are to be learned from."""
        if self.config.boxes == "annotated":
            return targets
        return with_pseudo_boxes(targets, len(self.config.keypoints))

    def forward(self, pyramid: Pyramid, outputs: DenseOutputs) -> Dense:
        """The maps that are sampled: the box tower's, or those of a tower of its own. Heat maps are the loss's affair."""
        task, levels = self.config.heat_map, pyramid[: len(self.strides)]
        level = None if task is None else levels[self.strides.index(task.stride)]
        if self.tower is None:
            return outputs.towers[: len(self.strides)], level
        return tuple(self.tower(x) for x in levels), level

    def choose(self, outputs: DenseOutputs, matches: Matches, batch: Batch) -> Candidates:
        """The detector's positives, of people with a known keypoint: all others train the box head alone."""
        found = positives(outputs, matches, batch.truth())
        return self.config.policy.choose(found.rows((self.wanted(found, batch)[..., 2] > 0).any(dim=1)))

    def coordinates(self, dense: Dense, candidates: Candidates) -> Float[Tensor, "n k 2"]:
        """Eq. 4.2: x_t = phi_t(v_t) + o_t, in pixels of the network's input; the naive framework has o_t alone."""
        places = self.places(dense, candidates)
        of_keypoints = places[:, self.group_of]
        if self.predictor_weight is None or self.predictor_bias is None:
            return of_keypoints
        features = self.features(dense, candidates, places)[:, self.group_of]
        shift = torch.einsum("nkc,kdc->nkd", features, self.predictor_weight) + self.predictor_bias
        return of_keypoints + shift * candidates.strides[:, None, None]

    def places(self, dense: Dense, candidates: Candidates) -> Float[Tensor, "n g 2"]:
        """o of eq. 4.1, where features are sampled, in pixels: the locator's numbers are strides from the location's point."""
        points = candidates.points[:, None]
        if self.locator is None:
            return points.expand(-1, self.places_count, -1)
        offsets = conv_at(patches_at(dense[0], candidates), self.locator.weight, self.locator.bias)
        return points + offsets.unflatten(1, (self.places_count, 2)) * candidates.strides[:, None, None]

    def features(self, dense: Dense, candidates: Candidates, places: Float[Tensor, "n g 2"]) -> Float[Tensor, "n g d"]:
        """v of eq. 4.1: what the maps hold at the places."""
        towers, align = dense[0], self.config.align
        assert align is not None
        below = candidates.level - 1 if align.level == "below" else candidates.level
        level = below.clamp(min=0)
        if self.group_maps is None:
            found = sample_maps(towers, self.strides, candidates.image, level, places[:, :, None])
            return found[..., 0].transpose(1, 2)
        assert self.group_maps.bias is not None
        weight, bias = (
            part.unflatten(0, (self.places_count, -1)) for part in (self.group_maps.weight, self.group_maps.bias)
        )
        return conv_samples(towers, self.strides, candidates.image, level, places, weight, bias)

    def loss(self, dense: Dense, candidates: Candidates, batch: Batch) -> Losses:
        """Mean over candidates of each one's mean over known keypoints, and the heat maps' focal loss."""
        wanted = self.wanted(candidates, batch)
        known = wanted[..., 2] > 0
        each = self.distance(self.coordinates(dense, candidates) - wanted[..., :2], candidates)
        of_people = (each * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)
        losses = {"keypoints": self.config.weight * of_people.sum() / mean_count(candidates)}
        if self.heat_maps is not None:
            losses["heat_map"] = self.heat_map_loss(dense, batch)
        return losses

    def distance(self, difference: Float[Tensor, "n k 2"], candidates: Candidates) -> Float[Tensor, "n k"]:
        """How far each keypoint is from its true place, by the chosen measure."""
        if self.config.loss == "oks":
            sigmas = difference.new_tensor(self.config.spread())
            return 1 - keypoint_similarity(difference, box_area(candidates.boxes), sigmas)
        beta = 1.0 if self.config.loss == "smooth_l1" else 0.0
        return smooth_l1(difference / candidates.strides[:, None, None], beta).sum(dim=-1)

    def wanted(self, candidates: Candidates, batch: Batch) -> Float[Tensor, "n k 3"]:
        """The true keypoints of each candidate's person."""
        assert candidates.target is not None
        count = len(self.config.keypoints)
        keypoints, first = joined([keypoints_of(target, count) for target in batch.truth()])
        return keypoints[first[candidates.image] + candidates.target]

    def heat_map_loss(self, dense: Dense, batch: Batch) -> Float[Tensor, ""]:
        """Focal loss of every cell and keypoint, over the number of positive ones."""
        task, level = self.config.heat_map, dense[1]
        assert task is not None and level is not None and self.heat_maps is not None
        logits = self.heat_maps(level).permute(0, 2, 3, 1)
        height, width, count = logits.shape[1:]
        truth = [heat_map_truth(target, count, task.stride, height, width) for target in batch.truth()]
        positive = torch.stack([cells for cells, _ in truth])
        weight = ~torch.stack([unknown for _, unknown in truth])[..., None].expand_as(positive)
        total = focal_loss(
            logits.reshape(-1, 1), positive.flatten().long() - 1, weight=weight.flatten().to(logits.dtype)
        )
        return task.weight * total / mean_over_ranks(positive.sum().to(logits.dtype)).clamp(min=1)

    def predict(self, dense: Dense, candidates: Candidates) -> Keypoints:
        """The keypoints of each candidate; each has the person's score, as the method has none of its own for them."""
        parts = [self.coordinates(dense, candidates.rows(rows)) for rows in portions(candidates, AT_ONCE)]
        points = torch.cat(parts)
        assert candidates.scores is not None
        scores = candidates.scores[:, None, None].expand(-1, points.shape[1], 1)
        return Keypoints(torch.cat([points, scores.to(points.dtype)], dim=2))
