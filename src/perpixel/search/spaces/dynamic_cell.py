"""Dynamic cells for videos: what replaces the decoder on all frames but the first (thesis 004, 6.3 and 6.4.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perpixel.data.dataset import Dataset
from perpixel.data.settings import DataConfig, TestSize
from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.errors import InputError
from perpixel.models.mask_losses import pixel_cross_entropy
from perpixel.models.segmenter import SegmenterModel
from perpixel.nn.aggregations import AGGREGATIONS
from perpixel.nn.dynamic_cell import CELL_INPUTS, CellGenotype, DynamicCell
from perpixel.nn.operations import CELL_OPERATIONS
from perpixel.search.graph import Graph, Node
from perpixel.search.proxy import Judged, Proxy, ProxyTraining, train_and_judge
from perpixel.search.settings import Search
from perpixel.search.space import Conversation, Decision, Space, Tokens
from perpixel.search.static_outputs import StaticOutputs, open_training_data, static_outputs


class CellSpace(Space[CellGenotype]):
    """Five answers a step: two inputs with replacement, an operation on each, an aggregation; a step's result is an input too."""

    genotype = CellGenotype

    def __init__(self, steps: int) -> None:
        self._steps = steps

    @property
    def kinds(self) -> Mapping[str, Sequence[str]]:
        """Inputs, operations and aggregations (tables 6.1 and 6.2)."""
        inputs = (*CELL_INPUTS, *(f"step {step + 1}" for step in range(self._steps - 1)))
        return {"input": inputs, "operation": CELL_OPERATIONS, "aggregation": AGGREGATIONS}

    def decisions(self) -> Conversation[CellGenotype]:
        """The steps one after the other."""
        steps = []
        for step in range(self._steps):
            inputs = Decision("input", len(CELL_INPUTS) + step)
            operations = Decision("operation", len(CELL_OPERATIONS))
            answers = []
            for decision in (inputs, inputs, operations, operations, Decision("aggregation", len(AGGREGATIONS))):
                answers.append((yield decision))
            steps.append(answers)
        return CellGenotype.parse(steps)

    def tokens(self, genotype: CellGenotype) -> Tokens:
        """The answers that make this cell."""
        return tuple(token for step in genotype.notation() for token in step)

    def graph(self, genotype: CellGenotype) -> Graph:
        """Inputs, two operations and an aggregation a step, and what is concatenated at the end."""
        taken = {place for step in genotype.steps for place in step.inputs}
        nodes = {str(place): Node(CELL_INPUTS[place], "input") for place in sorted(taken) if place < len(CELL_INPUTS)}
        edges = []
        for place, step in enumerate(genotype.steps, start=len(CELL_INPUTS)):
            for side, (source, operation) in enumerate(zip(step.inputs, step.operations, strict=True)):
                nodes[f"{place}.{side}"] = Node(operation, "operation")
                edges.append((str(source), f"{place}.{side}"))
            nodes[str(place)] = Node(step.aggregation, "aggregation")
            edges += [(f"{place}.{side}", str(place)) for side in range(2)]
        nodes["dec"] = Node("concat, dec", "output")
        last = len(CELL_INPUTS) + len(genotype.steps)
        edges += [(str(place), "dec") for place in range(len(CELL_INPUTS), last) if place not in taken]
        return Graph(nodes, edges)


class CellProxy(Proxy):
    """A cell that learns while the static network, whose outputs lie in memory, stays as it is."""

    def __init__(self, genotype: CellGenotype, prepared: "Prepared") -> None:
        self._prepared = prepared
        width = prepared.decoded.shape[1]
        channels = [one.shape[1] for one in prepared.outputs.frames[0].maps[1:]]
        self.network = DynamicCell(genotype, channels, width).to(prepared.decoded.device)

    def told(self, network: nn.Module, chosen: Int[Tensor, " b"]) -> list[Judged]:
        """Logits and truth of all frames but the first."""
        first, *later = self._prepared.outputs.frames
        layer4, dec = first.maps[-1][chosen], self._prepared.decoded[chosen]
        found = []
        for frame in later:
            layers = [one[chosen] for one in frame.maps[1:]]
            dec = network(layer4, dec, layers)
            layer4 = layers[-1]
            found.append((self._prepared.classifier(dec), frame.truth[chosen]))
        return found

    def loss(self, network: nn.Module, chosen: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """The sum of the cross entropies of all frames but the first."""
        each = [pixel_cross_entropy(logits, truth.long()) for logits, truth in self.told(network, chosen)]
        return torch.stack(each).sum()


@dataclass(frozen=True)
class Prepared:
    """What all trials share.

    Attributes:
        outputs: of the encoder.
        decoded: the static decoder's output of each window's first frame.
        classifier: the static network's.
    """

    outputs: StaticOutputs
    decoded: Float[Tensor, "n c h w"]
    classifier: nn.Module


def open_static(static: str, data: DataConfig) -> tuple[SegmenterModel, Dataset]:
    """The static network and the data to search on.

    Raises:
        InputError: no such checkpoint, one of another kind of model, or data of other classes.
    """
    checkpoint = load_checkpoint(static)
    model = build_model(checkpoint)
    if not isinstance(model, SegmenterModel):
        raise InputError(f"{static} is no semantic model: train one, such as `perpixel train arch2_camvid`")
    dataset = open_training_data(data)
    if tuple(dataset.stuff.names) != tuple(checkpoint.stuff.names):
        raise InputError(f"{static} knows other classes than {data.train}: train the static network on these data")
    return model, dataset


@cache
def prepare(static: str, data: DataConfig, limit: int | None, meta_val: float, seed: int) -> Prepared:
    """Runs the static network over the data, once a process.

    Raises:
        InputError: as `open_static`, or an image that cannot be read.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, dataset = open_static(static, data)
    outputs = static_outputs(model, dataset, data, limit=limit, meta_val=meta_val, seed=seed, device=device)
    model.requires_grad_(False)
    with torch.no_grad():
        maps = zip(*(one.split(8) for one in outputs.frames[0].maps), strict=True)
        decoded = torch.cat([model.decoder(some)[0] for some in maps])
    return Prepared(outputs, decoded, model.classifier)


@dataclass(frozen=True)
class CellReward:
    """Trains a cell on cached outputs of the static network, and judges it by the geometric mean of mIoU, fwIoU and mAcc.

    The attributes are those of `DynamicCellSearch`.
    """

    static: str
    data: DataConfig
    training: ProxyTraining
    limit: int | None
    meta_val: float
    seed: int

    def __call__(self, genotype: CellGenotype) -> float:
        """The reward, 0..1."""
        prepared = prepare(self.static, self.data, self.limit, self.meta_val, self.seed)
        return train_and_judge(CellProxy(genotype, prepared), prepared.outputs, self.training)


@dataclass(frozen=True, kw_only=True)
class DynamicCellSearch(Search):
    """Thesis 004, 6.4.1, on CamVid. On Cityscapes: 4 steps, 10 epochs, windows of 2 frames.

    Attributes:
        static: checkpoint of the trained per-frame network, whose encoder, decoder and classifier stay as they are.
        data: the training split alone is used, at `data.test`'s size, in windows of `data.frames`.
        training: of each cell.
        steps: of a cell.
        limit: so many windows at most; null takes all.
        meta_val: share of the windows that cells are judged on.
    """

    static: str | None = None
    data: DataConfig = field(default_factory=lambda: DataConfig(test=TestSize(360, 10_000), stuff="all", frames=3))
    training: ProxyTraining = field(default_factory=lambda: ProxyTraining(20, 48, 8e-3))
    steps: int = 5
    limit: int | None = None
    meta_val: float = 0.1

    def space(self) -> CellSpace:
        """Dynamic cells of so many steps."""
        return CellSpace(self.steps)

    def reward(self) -> CellReward:
        """What a short training on meta-train gives on meta-val.

        Raises:
            InputError: no static network, or no windows of frames.
        """
        if self.static is None:
            raise InputError(
                "static is not set: name the trained per-frame network, such as static=arch2/best.safetensors"
            )
        if self.data.frames < 2:
            raise InputError("a dynamic cell learns from windows of frames: set data.frames=2")
        open_training_data(self.data).before(0, 1)  # says at once what is wrong, here and in the next line
        open_static(self.static, self.data)
        return CellReward(self.static, self.data, self.training, self.limit, self.meta_val, self.seed)
