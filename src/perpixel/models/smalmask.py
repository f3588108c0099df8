"""SmalMask: one layer on the detector's tower predicts the whole mask of a box, from features sampled in that box.

Chen, thesis 004, chapter 3. The method is RoIPred: split the box into k x k parts, take the features at their centres, and one
linear layer gives 28 x 28 logits. `samples` says where each predictor of table 3.1 reads, `logits` is the layer, `loss`
compares with the object's mask in its own box. All at candidates only: the thesis computes 784 channels at every location.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.models.candidates import RandomPositives, positives
from perpixel.models.heads import InstanceHead, InstanceHeadConfig, Losses, Pyramid
from perpixel.models.mask_losses import mask_cross_entropy
from perpixel.models.mask_truth import drawn, masks_in_boxes, mean_count
from perpixel.nn.layers import HeadNorm, Tower
from perpixel.ops.box_sampling import bin_centers, kernel_places, sample_maps
from perpixel.ops.sampling import conv_at, portions
from perpixel.structures import Batch, BoxMasks, Candidates, DenseOutputs, Matches

Towers = tuple[Float[Tensor, "b c _ _"], ...]
AT_ONCE = 256
"""Candidates whose masks are predicted together, so that memory does not grow with their number."""


@dataclass(frozen=True)
class SmalMask(InstanceHeadConfig):
    """Settings of SmalMask; the defaults are the base of the thesis's ablations (3.5).

    Attributes:
        predictor: what is read for a mask (table 3.1): `conv`, the cells around the point; `def_conv`, cells at learned offsets,
            modulated; `roi_pred`, the parts of the box; `roi_conv`, the same, but a layer with ReLU stands before the mask's.
        kernel: k, samples a side (table 3.2).
        convs: of the mask tower ("separate"); 0 reads the box tower ("shared").
        norm: of the mask tower; the thesis says nothing, this is FCOS's.
        levels: which level's map is read (table 3.4, eq. 3.5): each location's `own` (P3-P7); `top_below`, the highest reads one
            level below (P3-P6, P6); `below`, all but the first do (P3, P3-P6).
        truth: which boxes guide the samples in training (table 3.3), the predicted or the object's own: `without` the objects';
            `random`, theirs with a chance that falls from 1 to 0 over `truth_steps`; `fix`, theirs in the first fifth of
            `truth_steps`; `with` them always. Chance is drawn for each candidate: the thesis does not say for what.
        truth_steps: the steps of the run (90,000; a fifth is the thesis's 18,000).
        size: of masks, cells a side.
        policy: the positives that train the head. The thesis takes all; the limit holds memory on crowded photos.
        weight: of the mask loss, which the thesis does not give.
    """

    predictor: Literal["conv", "def_conv", "roi_conv", "roi_pred"] = "roi_pred"
    kernel: Literal[3, 5, 7] = 5
    convs: int = 4
    norm: HeadNorm = "group"
    levels: Literal["own", "top_below", "below"] = "own"
    truth: Literal["without", "random", "fix", "with"] = "with"
    truth_steps: int = 90_000
    size: int = 28
    policy: RandomPositives = field(default_factory=lambda: RandomPositives(limit=2000))
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("convs", 0), ("truth_steps", 1), ("size", 1)):
            if getattr(self, name) < least:
                raise InputError(f"model.instance.{name}={getattr(self, name)} is not at least {least}")

    def build(self, channels: int, tower_channels: int, strides: tuple[int, ...], classes: int) -> "SmalMaskHead":
        """The head for pyramid maps of `channels` or tower maps of `tower_channels` channels; one mask whatever the class."""
        return SmalMaskHead(self, channels if self.convs else tower_channels, strides)

    def read(self, levels: int) -> tuple[int, ...]:
        """The level whose map each of so many levels reads."""
        own = tuple(range(levels))
        return {"own": own, "top_below": (*own[:-1], max(own[-1] - 1, 0)), "below": (0, *own[:-1])}[self.levels]


class SmalMaskHead(InstanceHead):
    """The mask tower, if it has its own, and the predictor, shared by all levels."""

    def __init__(self, config: SmalMask, channels: int, strides: tuple[int, ...]):
        super().__init__()
        self.config = config
        self.read = config.read(len(strides))
        self.strides = strides[: max(self.read) + 1]
        kernel, before = config.kernel, config.predictor == "roi_conv"
        self.tower = Tower(channels, config.convs, config.norm) if config.convs else None
        self.offset = nn.Conv2d(channels, 3 * kernel**2, kernel) if config.predictor == "def_conv" else None
        self.align = nn.Conv2d(channels, channels, kernel) if before else None
        self.to_mask = nn.Conv2d(channels, config.size**2, 1 if before else kernel)
        for layer in (self.offset, self.align, self.to_mask):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
        if self.offset is not None:
            nn.init.zeros_(self.offset.weight)

    def forward(self, pyramid: Pyramid, outputs: DenseOutputs) -> Towers:
        """The maps that are sampled: the box tower's, or those of a tower of its own."""
        if self.tower is None:
            return outputs.towers[: len(self.strides)]
        return tuple(self.tower(x) for x in pyramid[: len(self.strides)])

    def choose(self, outputs: DenseOutputs, matches: Matches, batch: Batch) -> Candidates:
        """The detector's positives, of objects whose masks are known."""
        found = positives(outputs, matches, batch.truth())
        return self.config.policy.choose(found.rows(drawn(found, batch.truth())))

    def logits(
        self, dense: Towers, candidates: Candidates, boxes: Float[Tensor, "n 4"]
    ) -> Float[Tensor, "n size size"]:
        """M = RoIPred(X, B) of eq. 3.1, or one of those that table 3.1 compares it with, at candidates."""
        samples = self.samples(dense, candidates, boxes)
        if self.align is not None:
            samples = conv_at(samples, self.align.weight, self.align.bias).relu()[:, :, None, None]
        mask = conv_at(samples, self.to_mask.weight, self.to_mask.bias)
        return mask.unflatten(1, (self.config.size, self.config.size))

    def samples(self, dense: Towers, candidates: Candidates, boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n c k k"]:
        """The k x k features that a mask is made of (figure 3.3)."""
        kernel = self.config.kernel
        level = torch.tensor(self.read, device=boxes.device)[candidates.level]

        def at(places: Float[Tensor, "n k k 2"]) -> Float[Tensor, "n c k k"]:
            return sample_maps(dense, self.strides, candidates.image, level, places)

        if self.config.predictor in ("roi_conv", "roi_pred"):
            return at(bin_centers(boxes, kernel))
        stride = torch.tensor(self.strides, dtype=boxes.dtype, device=boxes.device)[level]
        places = kernel_places(candidates.points, stride, kernel)
        if self.offset is None:
            return at(places)
        # As torchvision orders them: y and x of every sample, then the logits of their weights.
        predicted = conv_at(at(places), self.offset.weight, self.offset.bias)
        shift, modulation = predicted.split([2 * kernel**2, kernel**2], dim=1)
        moved = places + shift.unflatten(1, (kernel, kernel, 2)).flip(-1) * stride[:, None, None, None]
        return at(moved) * modulation.sigmoid().unflatten(1, (1, kernel, kernel))

    def guiding_boxes(self, candidates: Candidates, progress: int) -> Float[Tensor, "n 4"]:
        """Teacher forcing (3.3.1): the object's box or the predicted one, drawn for each candidate."""
        config = self.config
        share = {
            "without": 0.0,
            "random": 1 - progress / config.truth_steps,
            "fix": float(5 * progress < config.truth_steps),
            "with": 1.0,
        }[config.truth]
        forced = torch.rand(len(candidates), device=candidates.boxes.device) < share
        return torch.where(forced[:, None], candidates.boxes, candidates.predicted)

    def loss(self, dense: Towers, candidates: Candidates, batch: Batch) -> Losses:
        """Cross entropy with the mask in the object's own box, whichever box guided the samples: mean over cells, then positives.

        The thesis names no loss; this is Mask R-CNN's, to which it compares.
        """
        logits = self.logits(dense, candidates, self.guiding_boxes(candidates, batch.progress))
        truth = masks_in_boxes(candidates, batch.truth(), self.config.size)
        return {"mask": self.config.weight * mask_cross_entropy(logits, truth).sum() / mean_count(candidates)}

    def predict(self, dense: Towers, candidates: Candidates) -> BoxMasks:
        """Mask probabilities over each predicted box."""
        parts = []
        for rows in portions(candidates, AT_ONCE):
            some = candidates.rows(rows)
            parts.append(self.logits(dense, some, some.boxes).sigmoid())
        return BoxMasks(torch.cat(parts))
