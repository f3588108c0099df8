"""Compact decoders as data: the family in which arch2 was found (Nekrasov et al., CVPR 2019; thesis 004, 6.3.1 and figure 6.2).

A decoder starts from a pool of the encoder's maps, finest first. Each merge takes two maps of the pool with replacement, passes
each through a cell of its own, and adds the sum to the pool. Sums that no later merge takes are concatenated and reduced. All
cells have the same form and weights of their own.

Inside a cell the pool starts with its input and the first operation's result. A step takes two of it with replacement, applies
an operation to each and adds three nodes: both results and their sum. The cell's output is the sum of the nodes nobody takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.nn.layers import same_size
from perpixel.nn.operations import DECODER_OPERATIONS, Operation, build_operation, conv_unit

ENCODER_STRIDES = (4, 8, 16, 32)
"""Of the encoder's maps that a decoder starts from."""

ENCODER_MAPS = len(ENCODER_STRIDES)


@dataclass(frozen=True)
class DecoderStep:
    """One step of a decoder's cell.

    Attributes:
        inputs: places in the cell's pool: 0 its input, 1 the first operation's result, then three nodes a step.
        operations: applied to them.
    """

    inputs: tuple[int, int]
    operations: tuple[Operation, Operation]


@dataclass(frozen=True)
class DecoderGenotype:
    """A decoder as data.

    Attributes:
        first: the operation on the cell's input.
        steps: of the cell.
        merges: two places each in the decoder's pool: 0..3 the encoder's maps, finest first, then the merges' results.
    """

    first: Operation
    steps: tuple[DecoderStep, ...]
    merges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for number, step in enumerate(self.steps):
            _check(f"steps[{number}].inputs", step.inputs, 2 + 3 * number)
        for number, pair in enumerate(self.merges):
            _check(f"merges[{number}]", pair, ENCODER_MAPS + number)
        if not self.merges:
            raise ValueError("merges is empty: a decoder needs at least one")

    @classmethod
    def parse(cls, notation: Sequence[Any]) -> "DecoderGenotype":
        """From the published notation, ``[[first, [a, b, operation a, operation b], …], [[a, b], …]]``."""
        (first, *steps), merges = notation
        name = DECODER_OPERATIONS
        return cls(
            name[first],
            tuple(DecoderStep((a, b), (name[c], name[d])) for a, b, c, d in steps),
            tuple((a, b) for a, b in merges),
        )

    def notation(self) -> list[Any]:
        """The published notation; `parse` is its inverse."""
        number = DECODER_OPERATIONS.index
        steps = [[*step.inputs, *map(number, step.operations)] for step in self.steps]
        return [[number(self.first), *steps], [list(pair) for pair in self.merges]]


def _check(name: str, places: Sequence[int], pool: int) -> None:
    if not all(0 <= place < pool for place in places):
        raise ValueError(f"{name}={list(places)} must lie in 0..{pool - 1}, the nodes there are by then")


def unused(inputs: Sequence[tuple[int, int]], first: int, stride: int = 1) -> tuple[int, ...]:
    """The nodes first, first + stride, … that no pair takes; one is made by each pair."""
    taken = {place for pair in inputs for place in pair}
    return tuple(node for node in (first + stride * i for i in range(len(inputs))) if node not in taken)


ARCH0 = DecoderGenotype.parse([[8, [0, 0, 5, 2], [0, 2, 8, 8], [0, 5, 1, 4]], [[3, 3], [3, 2], [3, 0]]])
ARCH1 = DecoderGenotype.parse([[2, [1, 0, 3, 6], [0, 1, 2, 8], [2, 0, 6, 1]], [[2, 3], [3, 1], [4, 4]]])
ARCH2 = DecoderGenotype.parse([[5, [0, 0, 4, 1], [3, 2, 0, 1], [5, 6, 5, 0]], [[1, 3], [4, 3], [2, 2]]])


class DecoderCell(nn.Module):
    """The cell of a decoder on maps of `channels`."""

    def __init__(self, genotype: DecoderGenotype, channels: int):
        super().__init__()
        self.first = build_operation(genotype.first, channels)
        self.steps = nn.ModuleList(
            nn.ModuleList(build_operation(name, channels) for name in step.operations) for step in genotype.steps
        )
        self.inputs = tuple(step.inputs for step in genotype.steps)
        taken = {place for pair in self.inputs for place in pair}
        sums = unused(self.inputs, first=4, stride=3)
        self.outputs = sums if 1 in taken else (1, *sums)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The sum of the nodes that no step takes."""
        pool = [x, self.first(x)]
        for (a, b), (left, right) in zip(self.inputs, self.steps, strict=True):  # pyright: ignore[reportGeneralTypeIssues]
            results = left(pool[a]), right(pool[b])
            pool += [*results, results[0] + results[1]]
        return torch.stack([pool[node] for node in self.outputs]).sum(0)


class Merge(nn.Module):
    """Two maps of `channels`, each through a cell and a 1x1 convolution, at the larger one's size, summed."""

    def __init__(self, genotype: DecoderGenotype, channels: int):
        super().__init__()
        self.cells = nn.ModuleList(DecoderCell(genotype, channels) for _ in range(2))
        self.reduce = nn.ModuleList(conv_unit(channels, channels, 1, activation=False) for _ in range(2))

    def forward(self, x: Float[Tensor, "b c _ _"], y: Float[Tensor, "b c _ _"]) -> Float[Tensor, "b c _ _"]:
        """ReLU of the sum."""
        branches = [reduce(cell(one)) for one, cell, reduce in zip((x, y), self.cells, self.reduce, strict=True)]
        left, right = same_size(branches)
        return F.relu(left + right)


class Decoder(nn.Module):
    """The encoder's maps decoded at the largest size among the merges that are concatenated.

    Args:
        genotype: what the decoder is.
        channels: of the encoder's four maps, finest first.
        width: channels of every map inside, and of the output.

    Attributes:
        stride: of the output.
    """

    def __init__(self, genotype: DecoderGenotype, channels: Sequence[int], width: int):
        super().__init__()
        taken = {place for pair in genotype.merges for place in pair}
        # Maps that no merge takes (arch2: stride 4) have none: the published files hold theirs, which nothing reads.
        self.adapt = nn.ModuleDict({str(i): conv_unit(c, width, 1) for i, c in enumerate(channels) if i in taken})
        self.merges = nn.ModuleList(Merge(genotype, width) for _ in genotype.merges)
        self.inputs = genotype.merges
        self.outputs = unused(genotype.merges, first=ENCODER_MAPS)
        strides = list(ENCODER_STRIDES)
        for pair in genotype.merges:
            strides.append(min(strides[place] for place in pair))
        self.stride = min(strides[node] for node in self.outputs)
        self.reduce = conv_unit(width * len(self.outputs), width, 1)

    def forward(
        self, maps: Sequence[Float[Tensor, "b _ _ _"]]
    ) -> tuple[Float[Tensor, "b c h w"], list[Float[Tensor, "b c _ _"]]]:
        """The decoded map (``dec`` in the thesis), and every merge's result, for auxiliary classifiers."""
        pool = [self.adapt[str(i)](one) if str(i) in self.adapt else one for i, one in enumerate(maps)]
        for (a, b), merge in zip(self.inputs, self.merges, strict=True):
            pool.append(merge(pool[a], pool[b]))
        last = same_size([pool[node] for node in self.outputs])
        return self.reduce(torch.cat(last, dim=1)), pool[ENCODER_MAPS:]
