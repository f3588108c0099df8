"""MEInst: the mask of an object as a code of 60 numbers, predicted beside its box.

Zhang et al. 2020, "Mask Encoding for Single Shot Instance Segmentation". The whole method: a tower of its own (`forward`), the
numbers of each candidate's mask (`numbers`), a loss that is nearness of codes (`loss`), and one matrix product that turns the
numbers of what NMS leaves into masks (`predict`). The code itself is `perpixel.nn.mask_codes`.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from perpixel.errors import InputError
from perpixel.models.candidates import positives
from perpixel.models.heads import InstanceHead, InstanceHeadConfig, Losses, Pyramid
from perpixel.models.mask_losses import mask_cross_entropy
from perpixel.models.mask_truth import drawn, masks_of_objects
from perpixel.nn.large_kernel import LargeKernel
from perpixel.nn.layers import HeadNorm, Tower, head_conv
from perpixel.nn.mask_codes import PCA, CodeConfig
from perpixel.ops.boxes import distances_to_sides
from perpixel.ops.losses import centerness, smooth_l1
from perpixel.ops.reduce import mean_over_ranks
from perpixel.ops.sampling import conv_at, patches_at
from perpixel.structures import Batch, BoxMasks, Candidates, DenseOutputs, Matches

Towers = tuple[Float[Tensor, "b c _ _"], ...]
Nearness = Literal["l2", "l1", "smooth_l1", "cosine"]


@dataclass(frozen=True)
class MEInst(InstanceHeadConfig):
    """Settings of MEInst; the defaults are those of the released model without deformable convolutions.

    Attributes:
        code: the dictionary of masks: its kind and N (section 3.2, table 2). When training starts it is read from `code.file` or
            fitted to the training data; from there on the checkpoint holds it.
        encoding: `explicit` learns codes; `implicit` learns the masks that the predicted codes decode to; `none` predicts
            every pixel of the mask (table 3).
        nearness: of a predicted code to its object's, d_mask of eq. 3 (table 4).
        last: the end of the mask branch (table 5): `plain`, a predictor with a `large_kernel`, or a `deformable` last convolution
            of the tower. The paper's "DC" has deformable ones in the other towers too: model.head.deformable=v1.
        kernel: k of the large kernel.
        convs, norm: of the mask tower.
        weight: lambda_mask of eq. 4.
    """

    code: CodeConfig = field(default_factory=PCA)
    encoding: Literal["explicit", "implicit", "none"] = "explicit"
    nearness: Nearness = "l2"
    last: Literal["plain", "large_kernel", "deformable"] = "plain"
    kernel: int = 9
    convs: int = 4
    norm: HeadNorm = "group"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise InputError(f"model.instance.kernel={self.kernel} is not an odd number of places")
        if self.last == "deformable" and self.convs == 0:
            raise InputError("model.instance.last=deformable needs a tower: set model.instance.convs to 1 or more")

    def build(self, channels: int, tower_channels: int, strides: tuple[int, ...], classes: int) -> "MEInstHead":
        """The head for pyramid maps of `channels` channels."""
        return MEInstHead(self, channels, classes)


class MEInstHead(InstanceHead):
    """The mask tower, the predictor of codes, and the code."""

    def __init__(self, config: MEInst, channels: int, classes: int):
        super().__init__()
        self.config = config
        self.size = config.code.size
        self.code = None if config.encoding == "none" else config.code.build(classes)
        width = config.code.dim if self.code is not None else self.size**2
        self.mask_tower = Tower(channels, config.convs, config.norm, "v1" if config.last == "deformable" else False)
        large = config.last == "large_kernel"
        self.predictor = LargeKernel(channels, width, config.kernel) if large else head_conv(channels, width)

    def forward(self, pyramid: Pyramid, outputs: DenseOutputs) -> Towers:
        """The mask tower's maps."""
        return tuple(self.mask_tower(level) for level in pyramid)

    def choose(self, outputs: DenseOutputs, matches: Matches, batch: Batch) -> Candidates:
        """All positives of the detector whose object's mask is known."""
        found = positives(outputs, matches, batch.truth())
        return found.rows(drawn(found, batch.truth()))

    def numbers(self, dense: Towers, candidates: Candidates) -> Float[Tensor, "n d"]:
        """What the predictor says of each candidate, evaluated there only."""
        if isinstance(self.predictor, LargeKernel):
            return self.predictor.at(patches_at(dense, candidates, self.predictor.kernel))
        return conv_at(patches_at(dense, candidates), self.predictor.weight, self.predictor.bias)

    def loss(self, dense: Towers, candidates: Candidates, batch: Batch) -> Losses:
        """Eq. 3 times lambda_mask, as the released code weighs it: each candidate by its centre-ness, over the sum of weights."""
        said = self.numbers(dense, candidates)
        truth = self.truth(candidates, batch)
        if self.code is None:
            each = mask_cross_entropy(said.unflatten(1, (self.size, self.size)), truth)
        elif self.config.encoding == "implicit":
            each = mask_cross_entropy(self.code.logits(said, candidates.labels), truth)
        else:
            each = distance(self.config.nearness, said, self.code.encode(truth, candidates.labels))
        near = centerness(distances_to_sides(candidates.points, candidates.boxes))
        total = mean_over_ranks(near.sum()).clamp(min=1 / self.config.code.dim)
        return {"mask": self.config.weight * (each * near).sum() / total}

    def truth(self, candidates: Candidates, batch: Batch) -> Bool[Tensor, "n s s"]:
        """What is encoded: the masks of the objects over their boxes."""
        return masks_of_objects(candidates, batch.truth(), self.size)

    def predict(self, dense: Towers, candidates: Candidates) -> BoxMasks:
        """Codes of what NMS left, decoded by one matrix product (3.2, "Mask Reconstruction")."""
        said = self.numbers(dense, candidates)
        if self.code is None:
            return BoxMasks(said.sigmoid().unflatten(1, (self.size, self.size)))
        if self.config.encoding == "implicit":
            return BoxMasks(self.code.logits(said, candidates.labels).sigmoid())
        return BoxMasks(self.code.decode(said, candidates.labels))


def distance(nearness: Nearness, said: Float[Tensor, "n d"], wanted: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """d_mask of eq. 3 for each code (table 4): the mean over its numbers; of the cosine 1 less it."""
    difference = said - wanted
    match nearness:
        case "l2":
            return difference.square().mean(dim=1)
        case "l1":
            return difference.abs().mean(dim=1)
        case "smooth_l1":
            return smooth_l1(difference, 1.0).mean(dim=1)
        case "cosine":
            return 1 - F.cosine_similarity(said, wanted, dim=1)
