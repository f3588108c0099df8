"""PointINS: the mask of an object from the features of a single point.

Qi et al., "PointINS: Point-based Instance Segmentation", section 3. The whole method in `logits`: each candidate's point gives a
template (3.2.1), its box gives the weights of a convolution (3.2.2), the template convolved with them is the feature of this
object's mask (3.2.3), and Mask R-CNN's mask head draws it. All of it at candidates only (3.3).
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.models.heads import InstanceHead, InstanceHeadConfig, Losses, Pyramid
from perpixel.models.indicator import Indicator
from perpixel.models.mask_truth import masks_in_boxes, mean_count
from perpixel.models.target_boxes import OverlappingPoints
from perpixel.nn.region_mask import RegionMask
from perpixel.ops.dynamic import dynamic_conv
from perpixel.ops.masks import edge_pixels
from perpixel.ops.sampling import conv_at, patches_at, portions
from perpixel.structures import Batch, BoxMasks, Candidates, DenseOutputs, Matches

Towers = tuple[Float[Tensor, "b c _ _"], ...]
Layers = Literal["fc_relu", "fc", "fc_relu_twice", "fc_relu_fc"]
AT_ONCE = 256
"""Candidates whose masks are predicted together, so that memory does not grow with their number."""


@dataclass(frozen=True)
class PointINS(InstanceHeadConfig):
    """Settings of PointINS; the defaults are the paper's, for a detector without anchors (see `Indicator.parts`).

    Attributes:
        size: K, cells a side of the template; masks have twice as many (table 2).
        channels: E, of the template (table 2).
        kernel: of the convolution that makes the template from the box tower (table 3; there `channels` is its square).
        width: B, channels of the mask's features and of the mask head.
        indicator: I^z, the numbers that say which box is meant (tables 4 and 5).
        layers: from I^z to the weights (table 6).
        hidden: width between two fully connected layers, which the paper does not give.
        fusion: of template and weights (table 7): a convolution, `1x1` or `3x3` (D = 1 or 9), or one of the others.
        convs: 3x3 convolutions of the mask head.
        points: which points train the head, and in which boxes (tables 8 to 10).
        edge_weight: of pixels on the mask's outline, both its sides, in the loss; all others weigh 1.
        weight: of the mask loss, lambda_mask of eq. 8.
    """

    size: int = 16
    channels: int = 9
    kernel: Literal[1, 3, 5, 7] = 3
    width: int = 256
    indicator: Indicator = field(default_factory=Indicator)
    layers: Layers = "fc_relu"
    hidden: int = 256
    fusion: Literal["1x1", "3x3", "addition", "concatenation"] = "1x1"
    convs: int = 4
    points: OverlappingPoints = field(default_factory=OverlappingPoints)
    edge_weight: float = 4.0
    weight: float = 2.0

    def __post_init__(self) -> None:
        for name in ("size", "channels", "width", "hidden"):
            if getattr(self, name) < 1:
                raise InputError(f"model.instance.{name}={getattr(self, name)} is not at least 1")

    def build(self, channels: int, tower_channels: int, strides: tuple[int, ...], classes: int) -> "PointINSHead":
        """The head for tower maps of `tower_channels` channels; one mask whatever the class."""
        return PointINSHead(self, tower_channels)


class PointINSHead(InstanceHead):
    """Templates, weights and the mask head, shared by all levels."""

    def __init__(self, config: PointINS, tower_channels: int):
        super().__init__()
        self.config = config
        size, channels, width = config.size, config.channels, config.width
        self.up_scaling = nn.Conv2d(tower_channels, size**2 * channels, config.kernel)
        nn.init.normal_(self.up_scaling.weight, std=0.01)
        nn.init.zeros_(self.up_scaling.bias)  # pyright: ignore[reportArgumentType]
        template = (channels, size, size)
        self.weight_shape, into_mask = {
            "1x1": ((width, channels, 1, 1), width),
            "3x3": ((width, channels, 3, 3), width),
            "addition": (template, channels),
            "concatenation": (template, 2 * channels),
        }[config.fusion]
        numbers, weights = config.indicator.length(tower_channels), torch.Size(self.weight_shape).numel()
        self.to_weights = fully_connected(config.layers, numbers, config.hidden, weights)
        self.mask = RegionMask(into_mask, width, config.convs)

    def forward(self, pyramid: Pyramid, outputs: DenseOutputs) -> Towers:
        """Nothing but the box tower's maps: there is no image-level work."""
        return outputs.towers

    def choose(self, outputs: DenseOutputs, matches: Matches, batch: Batch) -> Candidates:
        """Points by the method's own rule, with the boxes that their masks are drawn in."""
        return self.config.points.choose(outputs, matches, batch.truth())

    def logits(self, dense: Towers, candidates: Candidates) -> Float[Tensor, "n s s"]:
        """Equations 1 to 7: the mask of each candidate over its box."""
        patches = patches_at(dense, candidates, self.config.kernel)
        middle = self.config.kernel // 2
        indicator = self.config.indicator.of(candidates, patches[:, :, middle, middle].float())
        return self.mask(self.instance_features(self.templates(patches), self.instance_weights(indicator)))

    def templates(self, patches: Float[Tensor, "n c s s"]) -> Float[Tensor, "n e k k"]:
        """F^n (3.2.1): the first E of the K^2 E numbers belong to the upper left cell, the next to its right neighbour.

        It is the point's and not the box's: anchors of one cell have the same.
        """
        numbers = conv_at(patches, self.up_scaling.weight, self.up_scaling.bias)
        return numbers.unflatten(1, (self.config.size, self.config.size, self.config.channels)).permute(0, 3, 1, 2)

    def instance_weights(self, indicator: Float[Tensor, "n u"]) -> Float[Tensor, "n _ _ *k"]:
        """F^w of eq. 2, shaped as the fusion takes it."""
        return self.to_weights(indicator).unflatten(1, self.weight_shape)

    def instance_features(
        self, templates: Float[Tensor, "n e k k"], weights: Float[Tensor, "n _ _ *d"]
    ) -> Float[Tensor, "n _ k k"]:
        """F^m of eq. 6, or what table 7 compares it with."""
        match self.config.fusion:
            case "addition":
                return templates + weights
            case "concatenation":
                return torch.cat([templates, weights], dim=1)
        return dynamic_conv(templates, weights)

    def loss(self, dense: Towers, candidates: Candidates, batch: Batch) -> Losses:
        """Eq. 9 times lambda_mask: the mean over candidates, whatever their level, of each one's mean over pixels."""
        logits = self.logits(dense, candidates)
        truth = masks_in_boxes(candidates, batch.truth(), logits.shape[-1])
        weight = torch.where(edge_pixels(truth), self.config.edge_weight, 1.0)
        each = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), weight, reduction="none")
        return {"mask": self.config.weight * each.mean(dim=(1, 2)).sum() / mean_count(candidates)}

    def predict(self, dense: Towers, candidates: Candidates) -> BoxMasks:
        """Mask probabilities over each candidate's box."""
        parts = [self.logits(dense, candidates.rows(rows)).sigmoid() for rows in portions(candidates, AT_ONCE)]
        return BoxMasks(torch.cat(parts))


def fully_connected(layers: Layers, inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """From I^z to the weights: eq. 2, and the other rows of table 6."""
    match layers:
        case "fc_relu":
            return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())
        case "fc":
            return nn.Sequential(nn.Linear(inputs, outputs))
        case "fc_relu_twice":
            return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs), nn.ReLU())
        case "fc_relu_fc":
            return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
