"""What an assignment can reach at all, from annotations alone: thesis 002, tables 3.1 and 3.2.

Best possible recall: the share of objects that at least one training sample stands for. Ambiguity: among the positive
locations of FCOS, how many could be trained on one object, on two, on three, on more (3.3.5 counts them in crowds).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from perpixel.models.fcos import FCOS, FCOSHead
from perpixel.models.heads import BoxHeadConfig
from perpixel.models.retinanet import RetinaNet
from perpixel.structures import Targets

Sample = tuple[Targets, tuple[int, int]]
FULL_PYRAMID = (8, 16, 32, 64, 128)
ONE_LEVEL = (16,)


@dataclass(frozen=True)
class Reach:
    """Counts over a data set.

    Attributes:
        name: the setting.
        objects, recalled: objects, and those that some location is trained on.
        ambiguous: positive locations allowed one object, two, three, more; None where locations have no such choice.
    """

    name: str
    objects: int
    recalled: int
    ambiguous: tuple[int, int, int, int] | None

    @property
    def best_possible_recall(self) -> float:
        """Recalled objects over objects; 0 without any."""
        return self.recalled / max(self.objects, 1)

    @property
    def ambiguity(self) -> tuple[float, ...] | None:
        """Shares of the positive locations allowed one, two, three, more objects."""
        if self.ambiguous is None:
            return None
        return tuple(count / max(sum(self.ambiguous), 1) for count in self.ambiguous)


def settings_of(head: BoxHeadConfig, strides: tuple[int, ...]) -> dict[str, tuple[BoxHeadConfig, tuple[int, ...]]]:
    """A head's own setting on a pyramid of `strides`, and the rows of tables 3.1 and 3.2 beside it.

    Rows of FCOS vary the head if it is FCOS, and FCOS's defaults otherwise; so do those of RetinaNet.
    """
    plain, pyramid = (head, strides) if isinstance(head, FCOS) else (FCOS(), FULL_PYRAMID)
    anchors, anchor_pyramid = (head, strides) if isinstance(head, RetinaNet) else (RetinaNet(), FULL_PYRAMID)
    alone = replace(plain.levels, limits=())
    return {
        "this recipe": (head, strides),
        "FCOS, P4 only, no centre sampling": (replace(plain, radius=None, levels=alone), ONE_LEVEL),
        "FCOS, FPN, no centre sampling": (replace(plain, radius=None), pyramid),
        "FCOS, P4 only, centre sampling": (replace(plain, radius=1.5, levels=alone), ONE_LEVEL),
        "FCOS, FPN, centre sampling": (replace(plain, radius=1.5), pyramid),
        "RetinaNet, no low-quality matches": (replace(anchors, low_quality=None), anchor_pyramid),
        "RetinaNet, low-quality matches >= 0.4": (replace(anchors, low_quality=0.4), anchor_pyramid),
        "RetinaNet, all low-quality matches": (replace(anchors, low_quality=0.0), anchor_pyramid),
    }


def pyramid_shapes(size: tuple[int, int], strides: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(height, width) of every level for a padded input: each stride-2 convolution rounds up."""
    return tuple((-(-size[0] // stride), -(-size[1] // stride)) for stride in strides)


@torch.no_grad()
def reach(name: str, config: BoxHeadConfig, strides: tuple[int, ...], samples: Iterable[Sample]) -> Reach:
    """Counts what `config` can reach in `samples`: (targets, (height, width) of the padded network input)."""
    head = config.build(channels=32, strides=strides, classes=1)
    objects = recalled = 0
    ambiguous = torch.zeros(5, dtype=torch.long)
    for targets, size in samples:
        locations = head.locate(pyramid_shapes(size, strides))
        matched = head.assign(locations, [targets]).target[0]
        objects += len(targets)
        recalled += len(matched[matched >= 0].unique())
        if isinstance(head, FCOSHead):
            choices = head.allowed(locations, targets).sum(dim=1)
            ambiguous += torch.bincount(choices.clamp(max=4), minlength=5)
    _, one, two, three, more = ambiguous.tolist()
    counts = (one, two, three, more) if isinstance(head, FCOSHead) else None
    return Reach(name, objects, recalled, counts)
