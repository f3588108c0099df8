"""A feature pyramid as data: NAS-FCOS's (thesis 004, 7.3.2), and the neck that a genotype becomes.

The pool starts with the backbone's maps C2 to C5, each brought to the pyramid's width. A block takes two maps of the pool, passes
each through an operation, joins them and adds the result to the pool. The last three results are P5, P4 and P3; any other that no
block takes is added to all three (eq. 7.1). Maps of different sizes are brought to one size bilinearly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.nn.aggregations import ConcatReduce
from perpixel.nn.deform import DeformConv2d
from perpixel.nn.fpn import Maps, Neck, NeckConfig
from perpixel.nn.layers import resized, same_size
from perpixel.nn.operations import Norm, build_operation, conv_unit

PyramidOperation = Literal["sep3", "sep3_rate3", "sep5_rate6", "skip", "deform3"]
PyramidAggregation = Literal["sum", "concat"]

PYRAMID_OPERATIONS: tuple[PyramidOperation, ...] = ("sep3", "sep3_rate3", "sep5_rate6", "skip", "deform3")
"""Places are the numbers of table 7.1."""
PYRAMID_AGGREGATIONS: tuple[PyramidAggregation, ...] = ("sum", "concat")
PYRAMID_INPUTS = 4
"""The backbone's maps: C2 to C5, of strides 4, 8, 16 and 32."""
PYRAMID_BLOCKS = 7
"""In every pyramid of the thesis's search space."""
OUTPUT_STRIDES = (32, 16, 8)
"""Of the last three blocks' results, in their order; the thesis's text has them the other way round, its found pyramid not."""


@dataclass(frozen=True)
class PyramidBlock:
    """One step of a pyramid.

    Attributes:
        inputs: places in the pool: 0..3 are C2 to C5, then one a block.
        operations: applied to them.
        aggregation: sum, or concatenation and a 1x1 convolution.
    """

    inputs: tuple[int, int]
    operations: tuple[PyramidOperation, PyramidOperation]
    aggregation: PyramidAggregation = "concat"


@dataclass(frozen=True)
class PyramidGenotype:
    """A pyramid as data.

    Attributes:
        blocks: in order; the last three make P5, P4 and P3.
    """

    blocks: tuple[PyramidBlock, ...]

    def __post_init__(self) -> None:
        if len(self.blocks) < len(OUTPUT_STRIDES):
            raise ValueError(f"a pyramid needs at least {len(OUTPUT_STRIDES)} blocks, for P5, P4 and P3")
        for number, block in enumerate(self.blocks):
            pool = PYRAMID_INPUTS + number
            if not all(0 <= place < pool for place in block.inputs):
                raise ValueError(f"blocks[{number}].inputs={list(block.inputs)} must lie in 0..{pool - 1}")

    @classmethod
    def parse(cls, notation: Sequence[Sequence[int]]) -> "PyramidGenotype":
        """From the published notation, ``[input a, input b, operation a, operation b, aggregation]`` a block."""
        name = PYRAMID_OPERATIONS
        return cls(
            tuple(PyramidBlock((a, b), (name[c], name[d]), PYRAMID_AGGREGATIONS[e]) for a, b, c, d, e in notation)
        )

    def notation(self) -> list[list[int]]:
        """The published notation; `parse` is its inverse."""
        number, aggregation = PYRAMID_OPERATIONS.index, PYRAMID_AGGREGATIONS.index
        return [[*b.inputs, *map(number, b.operations), aggregation(b.aggregation)] for b in self.blocks]

    def taken(self) -> frozenset[int]:
        """Places of the pool that some block takes."""
        return frozenset(place for block in self.blocks for place in block.inputs)

    def outputs(self) -> tuple[int, ...]:
        """Places of the results that become P5, P4 and P3."""
        end = PYRAMID_INPUTS + len(self.blocks)
        return tuple(range(end - len(OUTPUT_STRIDES), end))

    def dangling(self) -> tuple[int, ...]:
        """Places of the results that no block takes and that are no outputs: they are added to all of these (eq. 7.1)."""
        return tuple(place for place in range(PYRAMID_INPUTS, self.outputs()[0]) if place not in self.taken())


NAS_FCOS_PYRAMID = PyramidGenotype.parse(
    [
        [3, 3, 4, 4, 1],
        [3, 3, 4, 4, 1],
        [4, 3, 4, 3, 1],
        [1, 3, 4, 3, 1],
        [5, 3, 4, 4, 1],
        [4, 7, 4, 4, 1],
        [7, 2, 4, 4, 1],
    ]
)
"""The pyramid that the thesis found (figure 7.3)."""


@dataclass(frozen=True)
class SearchedFPN(NeckConfig):
    """Settings of a pyramid that a genotype says.

    Attributes:
        genotype: what it is.
        channels: of every pyramid map.
        widen: the maps of the pool are that many times narrower: 2 at 256 channels is the thesis's "@128-256". The last blocks'
            joins widen them: the thesis does not say what does, but nothing else costs as little as table 7.2 has it.
        top_levels: levels above P5, each a 3x3 convolution of stride 2.
    """

    genotype: PyramidGenotype = NAS_FCOS_PYRAMID
    channels: int = 256
    widen: int = 1
    top_levels: int = 2

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> "SearchedPyramid":
        """The network over maps of `channels` at `strides`: those that a block takes, and those whose sizes P3 to P5 have."""
        have = dict(zip(strides, channels, strict=True))
        needed = {2 ** (place + 2) for place in self.genotype.taken() if place < PYRAMID_INPUTS} | set(OUTPUT_STRIDES)
        if missing := sorted(needed - set(strides)):
            raise InputError(
                f"model.neck.genotype needs the backbone's maps of strides {missing}: set model.backbone.stages="
                f"{sorted({*needed, *strides})}"
            )
        if self.widen < 1 or self.channels % (2 * self.widen):
            raise InputError(
                f"model.neck.channels={self.channels} does not divide into {self.widen} times an even width: use a multiple "
                f"of {2 * max(1, self.widen)}"
            )
        return SearchedPyramid(self, have)

    def pyramid_strides(self, strides: tuple[int, ...]) -> tuple[int, ...]:
        """P3 to P5, then doubled for every top level, whatever the backbone's."""
        return (*sorted(OUTPUT_STRIDES), *(OUTPUT_STRIDES[0] * 2 ** (i + 1) for i in range(self.top_levels)))


class SearchedPyramid(Neck):
    """The backbone's maps at one width, the blocks, strided convolutions on top.

    Args:
        config: its settings.
        channels: of the backbone's maps, by stride.
    """

    def __init__(self, config: SearchedFPN, channels: dict[int, int]):
        super().__init__()
        genotype, width = config.genotype, config.channels // config.widen
        self.channels = config.channels
        self.backbone_strides = tuple(channels)
        self.strides = config.pyramid_strides(self.backbone_strides)
        self.inputs = tuple(block.inputs for block in genotype.blocks)
        self.outputs, self.dangling = genotype.outputs(), genotype.dangling()
        used = sorted(place for place in genotype.taken() if place < PYRAMID_INPUTS)
        # Keys are places of the pool: a map that nothing takes is not adapted.
        self.adapt = nn.ModuleDict({str(place): conv_unit(channels[2 ** (place + 2)], width, 1) for place in used})
        ends = {*self.outputs, *self.dangling}
        self.blocks = nn.ModuleList(
            Block(block, width, config.channels if place in ends and place not in genotype.taken() else width)
            for place, block in enumerate(genotype.blocks, PYRAMID_INPUTS)
        )
        read_on = set(self.outputs) & genotype.taken()
        self.widened = nn.ModuleDict({str(place): _widening(width, config.channels) for place in sorted(read_on)})
        self.top = nn.ModuleList(
            nn.Conv2d(config.channels, config.channels, 3, stride=2, padding=1) for _ in range(config.top_levels)
        )
        for conv in self.top:
            nn.init.kaiming_uniform_(conv.weight, a=1)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, maps: Maps) -> Maps:
        """P3, P4, ... from the backbone's maps, finest first."""
        by_stride = dict(zip(self.backbone_strides, maps, strict=True))
        pool = {int(place): adapt(by_stride[2 ** (int(place) + 2)]) for place, adapt in self.adapt.items()}
        for place, ((a, b), block) in enumerate(zip(self.inputs, self.blocks, strict=True), PYRAMID_INPUTS):
            pool[place] = block(pool[a], pool[b])
        pyramid = []
        for place, stride in zip(self.outputs, OUTPUT_STRIDES, strict=True):
            x = self.widened[str(place)](pool[place]) if str(place) in self.widened else pool[place]
            for other in self.dangling:
                left, right = same_size((x, pool[other]))
                x = left + right
            height, width = by_stride[stride].shape[2:]
            pyramid.insert(0, resized(x, (height, width)))
        for conv in self.top:
            pyramid.append(conv(pyramid[-1] if len(pyramid) == len(OUTPUT_STRIDES) else F.relu(pyramid[-1])))
        return tuple(pyramid)


class Block(nn.Module):
    """Two maps of `width`, each through its operation, at the larger one's size, joined into one of `out` channels."""

    def __init__(self, block: PyramidBlock, width: int, out: int):
        super().__init__()
        self.operations = nn.ModuleList(cell_operation(name, width, nn.BatchNorm2d) for name in block.operations)
        self.join = ConcatReduce(width, out) if block.aggregation == "concat" else Sum(width, out)

    def forward(self, x: Float[Tensor, "b c _ _"], y: Float[Tensor, "b c _ _"]) -> Float[Tensor, "b out _ _"]:
        """The join."""
        return self.join(*same_size([operation(z) for operation, z in zip(self.operations, (x, y), strict=True)]))


class Sum(nn.Module):
    """The sum, widened where `out` is more than `width`."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.widen = _widening(width, out)

    def forward(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        """The sum."""
        return self.widen(x + y)


def cell_operation(name: str, channels: int, norm: Norm) -> nn.Module:
    """An operation of a found pyramid or tower; a deformable convolution is modulated, with two groups of offsets."""
    if name == "deform3":
        return nn.Sequential(DeformConv2d(channels, channels, offset_groups=2), norm(channels), nn.ReLU())
    return build_operation(name, channels, norm)  # pyright: ignore[reportArgumentType]


def _widening(width: int, out: int) -> nn.Module:
    """Each channel becomes out / width channels, by a factor each; nothing where there is nothing to widen."""
    return nn.Identity() if out == width else nn.Conv2d(width, out, 1, groups=width, bias=False)
