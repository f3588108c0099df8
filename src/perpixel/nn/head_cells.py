"""Towers as data: the operations, one after the other, that NAS-FCOS puts in place of a head's four 3x3 convolutions.

Thesis 004, 7.3.2: six operations with GroupNorm; from one of them on, all levels share the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.nn.cells import cell_operation

HeadOperation = Literal["conv1", "conv3", "sep3", "sep3_rate3", "skip", "deform3", "sep5_rate6"]

HEAD_OPERATIONS: tuple[HeadOperation, ...] = ("conv1", "conv3", "sep3", "sep3_rate3", "skip", "deform3", "sep5_rate6")
"""Places 0 to 5 are the numbers of the published notation; the last stands in the thesis's text alone."""
HEAD_LAYERS = 6
"""In every head of the thesis's search space."""


@dataclass(frozen=True)
class HeadGenotype:
    """A tower as data.

    Attributes:
        operations: one after the other.
        shared_from: the first operation whose weights all levels share; those before have weights for each level.
    """

    operations: tuple[HeadOperation, ...]
    shared_from: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.shared_from <= len(self.operations):
            raise ValueError(f"shared_from={self.shared_from} must lie in 0..{len(self.operations)}")

    @classmethod
    def parse(cls, numbers: Sequence[int], shared_from: int = 0) -> "HeadGenotype":
        """From the published notation, a number an operation."""
        return cls(tuple(HEAD_OPERATIONS[number] for number in numbers), shared_from)

    def notation(self) -> list[int]:
        """The numbers of the operations."""
        return [HEAD_OPERATIONS.index(name) for name in self.operations]


NAS_FCOS_HEAD = HeadGenotype.parse([5, 1, 5, 0, 4, 4])
"""The tower that the thesis found (figure 7.4): all of it shared."""


class SearchedTower(nn.Module):
    """The trunk of a head: a genotype's operations on every level's map.

    Args:
        genotype: the operations.
        channels: in and out.
        levels: of the pyramid.
    """

    def __init__(self, genotype: HeadGenotype, channels: int, levels: int):
        super().__init__()
        if channels % 32:
            raise InputError(
                f"model.neck.channels={channels} does not divide into GroupNorm's 32 groups: use a multiple of 32"
            )
        norm = partial(nn.GroupNorm, 32)
        own, shared = genotype.operations[: genotype.shared_from], genotype.operations[genotype.shared_from :]
        self.own = nn.ModuleList(
            nn.Sequential(*(cell_operation(name, channels, norm) for name in own)) for _ in range(levels if own else 0)
        )
        self.shared = nn.Sequential(*(cell_operation(name, channels, norm) for name in shared))
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d) and conv.weight.any():  # offsets start at zero and stay there
                nn.init.normal_(conv.weight, std=0.01)

    def forward(self, x: Float[Tensor, "b c h w"], level: int = 0) -> Float[Tensor, "b c h w"]:
        """The features of one level's map."""
        return self.shared(self.own[level](x) if self.own else x)
