"""NAS-FCOS: pyramids and heads for one's own boxes (thesis 004, 7.3): first the pyramid, then the head on it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from perpixel.config import from_dict
from perpixel.data.settings import Augment, DataConfig
from perpixel.errors import InputError
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.nn.cells import (
    PYRAMID_AGGREGATIONS,
    PYRAMID_BLOCKS,
    PYRAMID_INPUTS,
    PYRAMID_OPERATIONS,
    PyramidGenotype,
    SearchedFPN,
)
from perpixel.nn.head_cells import HEAD_LAYERS, HEAD_OPERATIONS, HeadGenotype
from perpixel.ops.assign import LevelRanges
from perpixel.search.detector_proxy import Budget, DetectorProxy, DetectorProxyTraining, cached_maps
from perpixel.search.early_stop import EarlyStop
from perpixel.search.graph import Graph, Node
from perpixel.search.settings import Search
from perpixel.search.space import Conversation, Decision, Space, Tokens


class PyramidSpace(Space[PyramidGenotype]):
    """Two places in a growing pool, two operations and a join for each block."""

    genotype = PyramidGenotype

    @property
    def kinds(self) -> Mapping[str, Sequence[str]]:
        """Maps, operations, joins."""
        maps = [*(f"C{level}" for level in range(2, 6)), *(f"block {i}" for i in range(1, PYRAMID_BLOCKS))]
        return {"map": maps, "operation": PYRAMID_OPERATIONS, "join": PYRAMID_AGGREGATIONS}

    def decisions(self) -> Conversation[PyramidGenotype]:
        """Block after block."""
        operation, join = Decision("operation", len(PYRAMID_OPERATIONS)), Decision("join", len(PYRAMID_AGGREGATIONS))
        blocks = []
        for block in range(PYRAMID_BLOCKS):
            place = Decision("map", PYRAMID_INPUTS + block)
            blocks.append([(yield place), (yield place), (yield operation), (yield operation), (yield join)])
        return PyramidGenotype.parse(blocks)

    def tokens(self, genotype: PyramidGenotype) -> Tokens:
        """The answers that make this pyramid."""
        return tuple(token for block in genotype.notation() for token in block)

    def graph(self, genotype: PyramidGenotype) -> Graph:
        """Maps that are taken, the blocks, and P3 to P5; what nobody takes flows into all of these."""
        nodes = {
            str(place): Node(f"C{place + 2}", "input") for place in range(PYRAMID_INPUTS) if place in genotype.taken()
        }
        edges = []
        for place, block in enumerate(genotype.blocks, PYRAMID_INPUTS):
            for side, (source, operation) in enumerate(zip(block.inputs, block.operations, strict=True)):
                nodes[f"{place}.{side}"] = Node(operation, "operation")
                edges += [(str(source), f"{place}.{side}"), (f"{place}.{side}", str(place))]
            nodes[str(place)] = Node(block.aggregation, "aggregation")
        for level, place in zip((5, 4, 3), genotype.outputs(), strict=True):
            nodes[f"P{level}"] = Node(f"P{level}", "output")
            edges += [(str(source), f"P{level}") for source in (place, *genotype.dangling())]
        return Graph(nodes, edges)


class HeadSpace(Space[HeadGenotype]):
    """The layer from which on weights are shared, then six operations."""

    genotype = HeadGenotype

    @property
    def kinds(self) -> Mapping[str, Sequence[str]]:
        """Layers, operations."""
        return {"shared from": [f"layer {i}" for i in range(HEAD_LAYERS)] + ["nowhere"], "operation": HEAD_OPERATIONS}

    def decisions(self) -> Conversation[HeadGenotype]:
        """Sharing first."""
        shared = yield Decision("shared from", HEAD_LAYERS + 1)
        numbers = []
        for _ in range(HEAD_LAYERS):
            numbers.append((yield Decision("operation", len(HEAD_OPERATIONS))))
        return HeadGenotype.parse(numbers, shared)

    def tokens(self, genotype: HeadGenotype) -> Tokens:
        """The answers that make this head."""
        return (genotype.shared_from, *genotype.notation())

    def graph(self, genotype: HeadGenotype) -> Graph:
        """A chain; layers with weights for each level say so."""
        nodes, edges = {"in": Node("P3 to P7", "input")}, []
        last = "in"
        for layer, operation in enumerate(genotype.operations):
            own = ", by level" if layer < genotype.shared_from else ""
            nodes[str(layer)] = Node(f"{operation}{own}", "operation")
            edges.append((last, str(layer)))
            last = str(layer)
        nodes["out"] = Node("predictions", "output")
        return Graph(nodes, [*edges, (last, "out")])


@dataclass(frozen=True)
class NasFCOSReward:
    """Trains a decoder on cached maps of the backbone; minus its loss on meta-val (eq. 7.2), or its AP; less what costs too much.

    The attributes are those of `NasFCOSSearch`.
    """

    model: DetectorConfig
    data: DataConfig
    training: DetectorProxyTraining
    judged_by: Literal["loss", "ap"]
    worst: float
    budget: Budget | None
    limit: int | None
    meta_val: float
    seed: int

    def __call__(self, genotype: PyramidGenotype | HeadGenotype) -> float:
        """The reward; 0 is the worst there is."""
        maps = cached_maps(self.model.backbone, self.model.pixels, self.data, self.limit, self.meta_val, self.seed)
        proxy = DetectorProxy(with_genotype(self.model, genotype), maps)
        proxy.train(self.training)
        value = self.worst - proxy.loss() if self.judged_by == "loss" else proxy.average_precision()
        if self.budget is not None:
            value -= self.budget.penalty(proxy)
        return max(0.0, value)


def with_genotype(model: DetectorConfig, genotype: PyramidGenotype | HeadGenotype) -> DetectorConfig:
    """The detector with that pyramid, or that head."""
    if isinstance(genotype, PyramidGenotype):
        assert isinstance(model.neck, SearchedFPN)
        return replace(model, neck=replace(model.neck, genotype=genotype))
    assert isinstance(model.head, FCOS)
    return replace(model, head=replace(model.head, genotype=genotype))


PROXY_DETECTOR = DetectorConfig(
    backbone=Backbone("mobilenetv2_100.ra_in1k", stages=(4, 8, 16, 32)),
    neck=SearchedFPN(channels=64),
    # Sizes as at short side 800, scaled to 384.
    head=FCOS(initial_distance=1.0, levels=LevelRanges(tuple(0.48 * limit for limit in LevelRanges().limits))),
)
"""A backbone for which maps of some thousand images fit into memory; one that was trained on the data is better (7.4.1)."""


@dataclass(frozen=True, kw_only=True)
class NasFCOSSearch(Search):
    """Pyramids at 64 channels first, then, on the best of them at 128, heads; each learns 300 steps on cached maps.

    Attributes:
        searched: the pyramid, with the model's head; or the head, on the pyramid of `pyramid`.
        pyramid: a file of a search's best pyramids (`best.json` in its folder), the first of which heads are tried on; null keeps
            that of `model.neck`.
        model: the backbone, which stays as it is, and everything that is not searched.
        data: the training split alone is used; `data.augment` cuts one square of each image, once.
        training: of each decoder.
        judged_by: the validation loss (eq. 7.2), or AP (figure 7.9).
        worst: a loss that is worth nothing: the reward is `worst` less the loss. A constant leaves the controller's advantages as
            they are, and a trial that fails, whose reward is 0, is no better than the worst.
        budget: what decoders may cost; null asks for accuracy alone.
        limit: so many images at most; null takes all.
        meta_val: share of the images that decoders are judged on (the thesis: 1715 of 5715).
    """

    searched: Literal["pyramid", "head"] = "pyramid"
    pyramid: Path | None = None
    model: DetectorConfig = field(default_factory=lambda: PROXY_DETECTOR)
    data: DataConfig = field(default_factory=lambda: DataConfig(augment=Augment((384,), 10_000, crop_size=384)))
    training: DetectorProxyTraining = field(default_factory=DetectorProxyTraining)
    early_stop: EarlyStop | None = None
    judged_by: Literal["loss", "ap"] = "loss"
    worst: float = 10.0
    budget: Budget | None = None
    limit: int | None = 5715
    meta_val: float = 0.3

    def space(self) -> Space[Any]:
        """Pyramids or heads."""
        return PyramidSpace() if self.searched == "pyramid" else HeadSpace()

    def reward(self) -> NasFCOSReward:
        """What a short training on meta-train gives on meta-val.

        Raises:
            InputError: no training data, or a file without pyramids.
        """
        if self.data.train is None:
            raise InputError("data.train is not set: name the training images, such as data.train=my/train.json")
        model = self.model
        if self.searched == "head":
            assert isinstance(model.neck, SearchedFPN)
            genotype = model.neck.genotype if self.pyramid is None else best_pyramid(self.pyramid)
            # 7.4.1: 128 channels "to deliver more information" to the head.
            model = replace(model, neck=replace(model.neck, genotype=genotype, channels=2 * model.neck.channels))
        return NasFCOSReward(
            model,
            self.data,
            self.training,
            self.judged_by,
            self.worst,
            self.budget,
            self.limit,
            self.meta_val,
            self.seed,
        )


def best_pyramid(path: Path) -> PyramidGenotype:
    """The first of a search's best pyramids.

    Raises:
        InputError: a file that cannot be read, or that holds none.
    """
    try:
        first = json.loads(path.read_text("utf-8"))[0]["genotype"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"pyramid={path} holds no genotypes: name the best.json of a search") from error
    return from_dict(PyramidGenotype, first)
