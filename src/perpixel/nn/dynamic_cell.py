"""Dynamic cells as data: what replaces the decoder on every frame of a video but the first (thesis 004, 6.3).

The cell's pool starts with five maps: layer 4 and ``dec`` of the previous frame, layers 2, 3 and 4 of the current one. A step
takes two of the pool with replacement, applies an operation to each and joins the results by an aggregation; the result goes
into the pool. What no later step takes is concatenated, and reduced to the current frame's ``dec``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.nn.aggregations import AGGREGATIONS, Aggregation, build_aggregation
from perpixel.nn.decoder import unused
from perpixel.nn.layers import resized, same_size
from perpixel.nn.operations import CELL_OPERATIONS, Operation, build_operation, conv_unit

CELL_INPUTS = ("previous layer 4", "previous dec", "layer 2", "layer 3", "layer 4")
"""What the pool starts with, in this order."""

DEC = 1
"""The place of the previous frame's ``dec`` in the pool."""


@dataclass(frozen=True)
class CellStep:
    """One step of a dynamic cell: the five tokens of the thesis.

    Attributes:
        inputs: places in the pool: 0..4 as `CELL_INPUTS`, then the steps' results.
        operations: applied to them (`CELL_OPERATIONS`).
        aggregation: joins the two results (`AGGREGATIONS`).
    """

    inputs: tuple[int, int]
    operations: tuple[Operation, Operation]
    aggregation: Aggregation


@dataclass(frozen=True)
class CellGenotype:
    """A dynamic cell as data."""

    steps: tuple[CellStep, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("steps is empty: a dynamic cell needs at least one")
        for number, step in enumerate(self.steps):
            pool = len(CELL_INPUTS) + number
            if not all(0 <= place < pool for place in step.inputs):
                raise ValueError(
                    f"steps[{number}].inputs={list(step.inputs)} must lie in 0..{pool - 1}, the nodes there are by then"
                )

    @classmethod
    def parse(cls, tokens: Sequence[Sequence[int]]) -> "CellGenotype":
        """From five numbers a step: two inputs, two operations (table 6.1), one aggregation (table 6.2)."""
        return cls(
            tuple(
                CellStep((a, b), (CELL_OPERATIONS[c], CELL_OPERATIONS[d]), AGGREGATIONS[e]) for a, b, c, d, e in tokens
            )
        )

    def notation(self) -> list[list[int]]:
        """Five numbers a step; `parse` is its inverse.

        Raises:
            ValueError: an operation that is not of table 6.1.
        """
        number = CELL_OPERATIONS.index
        return [
            [*step.inputs, *map(number, step.operations), AGGREGATIONS.index(step.aggregation)] for step in self.steps
        ]


class DynamicCell(nn.Module):
    """The current frame's ``dec`` from the previous frame's and the current encoder.

    Args:
        genotype: what the cell is.
        channels: of the encoder's layers 2, 3 and 4 (strides 8, 16, 32).
        width: channels of ``dec`` and of every map inside.
    """

    def __init__(self, genotype: CellGenotype, channels: Sequence[int], width: int):
        super().__init__()
        self.inputs = tuple(step.inputs for step in genotype.steps)
        given = (channels[2], width, *channels)
        taken = {place for pair in self.inputs for place in pair}
        # A 1x1 convolution brings an encoder's map to the cell's width; maps that no step takes have none.
        self.adapt = nn.ModuleDict(
            {str(place): conv_unit(given[place], width, 1) for place in sorted(taken) if place < 5 and place != DEC}
        )
        self.steps = nn.ModuleList(
            nn.ModuleList(build_operation(name, width) for name in step.operations) for step in genotype.steps
        )
        self.joins = nn.ModuleList(build_aggregation(step.aggregation, width) for step in genotype.steps)
        self.outputs = unused(self.inputs, first=len(CELL_INPUTS))
        self.reduce = conv_unit(width * len(self.outputs), width, 1)

    def forward(
        self,
        previous_layer4: Float[Tensor, "b c4 h4 w4"],
        previous_dec: Float[Tensor, "b c h w"],
        layers: Sequence[Float[Tensor, "b _ _ _"]],
    ) -> Float[Tensor, "b c h w"]:
        """The ``dec`` of the current frame, as large as the previous one.

        Args:
            previous_layer4, previous_dec: of the previous frame.
            layers: 2, 3 and 4 of the current frame.
        """
        given = (previous_layer4, previous_dec, *layers)
        pool = [self.adapt[str(i)](one) if str(i) in self.adapt else one for i, one in enumerate(given)]
        for (a, b), (left, right), join in zip(self.inputs, self.steps, self.joins, strict=True):  # pyright: ignore[reportGeneralTypeIssues]
            pool.append(join(*same_size([left(pool[a]), right(pool[b])])))
        size = (previous_dec.shape[2], previous_dec.shape[3])
        last = [resized(one, size) for one in same_size([pool[node] for node in self.outputs])]
        return self.reduce(torch.cat(last, dim=1))
