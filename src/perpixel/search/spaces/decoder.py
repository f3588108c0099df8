"""Compact decoders for one's own semantic data: the space in which arch2 was found (Nekrasov et al., CVPR 2019)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perpixel.data.settings import DataConfig, TestSize
from perpixel.models.mask_losses import pixel_cross_entropy
from perpixel.models.segmenter import Segmenter
from perpixel.nn.decoder import ENCODER_MAPS, ENCODER_STRIDES, Decoder, DecoderGenotype, unused
from perpixel.nn.operations import DECODER_OPERATIONS
from perpixel.search.graph import Graph, Node
from perpixel.search.proxy import Judged, Proxy, ProxyTraining, train_and_judge
from perpixel.search.settings import Search
from perpixel.search.space import Conversation, Decision, Space, Tokens
from perpixel.search.static_outputs import StaticOutputs, open_training_data, static_outputs


class DecoderSpace(Space[DecoderGenotype]):
    """First the merges, two places each in a growing pool; then the cell: an operation; two places and two operations a step."""

    genotype = DecoderGenotype

    def __init__(self, steps: int, merges: int) -> None:
        self._steps, self._merges = steps, merges

    @property
    def kinds(self) -> Mapping[str, Sequence[str]]:
        """Maps that are merged, nodes inside the cell, operations."""
        maps = [f"stride {stride}" for stride in ENCODER_STRIDES]
        nodes = ["input", "first operation"]
        for step in range(1, self._steps):
            nodes += [f"step {step}, left", f"step {step}, right", f"step {step}, sum"]
        merged = [f"merge {merge + 1}" for merge in range(self._merges - 1)]
        return {"map": [*maps, *merged], "node": nodes, "operation": DECODER_OPERATIONS}

    def decisions(self) -> Conversation[DecoderGenotype]:
        """Merges before the cell."""
        operation = Decision("operation", len(DECODER_OPERATIONS))
        merges = []
        for merge in range(self._merges):
            place = Decision("map", ENCODER_MAPS + merge)
            merges.append([(yield place), (yield place)])
        cell: list[int | list[int]] = [(yield operation)]
        for step in range(self._steps):
            node = Decision("node", 2 + 3 * step)
            cell.append([(yield node), (yield node), (yield operation), (yield operation)])
        return DecoderGenotype.parse([cell, merges])

    def tokens(self, genotype: DecoderGenotype) -> Tokens:
        """The answers that make this decoder."""
        (first, *steps), merges = genotype.notation()
        flat = [*(token for pair in merges for token in pair), first, *(token for step in steps for token in step)]
        return tuple(flat)

    def graph(self, genotype: DecoderGenotype) -> Graph:
        """The merges, and apart from them the cell that each branch of a merge is."""
        nodes = {f"map {i}": Node(f"stride {stride}", "input") for i, stride in enumerate(ENCODER_STRIDES)}
        edges = []
        for merge, pair in enumerate(genotype.merges, start=ENCODER_MAPS):
            nodes[f"map {merge}"] = Node(f"merge {merge - ENCODER_MAPS + 1}", "aggregation")
            edges += [(f"map {place}", f"map {merge}") for place in pair]
        nodes["dec"] = Node("concat, dec", "output")
        edges += [(f"map {place}", "dec") for place in unused(genotype.merges, first=ENCODER_MAPS)]
        nodes["0"], nodes["1"] = Node("cell: input", "input"), Node(genotype.first, "operation")
        edges.append(("0", "1"))
        for number, step in enumerate(genotype.steps):
            left, right, total = (str(2 + 3 * number + i) for i in range(3))
            for node, source, operation in zip((left, right), step.inputs, step.operations, strict=True):
                nodes[node] = Node(operation, "operation")
                edges.append((str(source), node))
            nodes[total] = Node("sum", "aggregation")
            edges += [(left, total), (right, total)]
        nodes["out"] = Node("cell: sum", "output")
        inputs = [step.inputs for step in genotype.steps]
        taken = {place for pair in inputs for place in pair}
        ends = [*([] if 1 in taken else [1]), *unused(inputs, first=4, stride=3)]
        edges += [(str(place), "out") for place in ends]
        return Graph(nodes, edges)


class DecoderNetwork(nn.Module):
    """A decoder, and classifiers of its output and of its merges."""

    def __init__(self, genotype: DecoderGenotype, channels: Sequence[int], width: int, classes: int) -> None:
        super().__init__()
        self.decoder = Decoder(genotype, channels, width)
        self.classifiers = nn.ModuleList(nn.Conv2d(width, classes, 3, padding=1) for _ in (0, *genotype.merges))

    def forward(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> list[Tensor]:
        """Class logits of the output, then of the merges."""
        dec, merges = self.decoder(maps)
        return [classify(one) for classify, one in zip(self.classifiers, (dec, *merges), strict=True)]


class DecoderProxy(Proxy):
    """A decoder that learns while the encoder, whose maps lie in memory, stays as it is."""

    def __init__(self, genotype: DecoderGenotype, outputs: StaticOutputs, width: int, auxiliary: float) -> None:
        self._frame, self._auxiliary = outputs.frames[-1], auxiliary
        channels = [one.shape[1] for one in self._frame.maps]
        self.network = DecoderNetwork(genotype, channels, width, len(outputs.classes)).to(outputs.train.device)

    def _logits(self, network: nn.Module, chosen: Int[Tensor, " b"]) -> list[Tensor]:
        return network([one[chosen] for one in self._frame.maps])

    def told(self, network: nn.Module, chosen: Int[Tensor, " b"]) -> list[Judged]:
        """Logits and truth of each image."""
        return [(self._logits(network, chosen)[0], self._frame.truth[chosen])]

    def loss(self, network: nn.Module, chosen: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Cross entropy of the output, and of the merges' own classifiers at a small weight."""
        truth = self._frame.truth[chosen].long()
        output, *merges = (pixel_cross_entropy(logits, truth) for logits in self._logits(network, chosen))
        return output + self._auxiliary * torch.stack(merges).mean()


@cache
def prepare(segmenter: Segmenter, data: DataConfig, limit: int | None, meta_val: float, seed: int) -> StaticOutputs:
    """Runs the encoder over the data, once a process.

    Raises:
        InputError: data that cannot be read, or weights that cannot be had.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = open_training_data(data)
    model = segmenter.build(0, len(dataset.stuff))
    return static_outputs(model, dataset, data, limit=limit, meta_val=meta_val, seed=seed, device=device)


@dataclass(frozen=True)
class DecoderReward:
    """Trains a decoder on cached maps of the encoder, and judges it by the geometric mean of mIoU, fwIoU and mAcc.

    The attributes are those of `DecoderSearch`.
    """

    segmenter: Segmenter
    data: DataConfig
    training: ProxyTraining
    limit: int | None
    meta_val: float
    seed: int

    def __call__(self, genotype: DecoderGenotype) -> float:
        """The reward, 0..1."""
        outputs = prepare(self.segmenter, self.data, self.limit, self.meta_val, self.seed)
        proxy = DecoderProxy(genotype, outputs, self.segmenter.width, self.segmenter.auxiliary)
        return train_and_judge(proxy, outputs, self.training)


@dataclass(frozen=True, kw_only=True)
class DecoderSearch(Search):
    """The published search's first task: the decoder alone on cached maps, 5 epochs, without distillation.

    Attributes:
        model: the encoder, which stays as it is, and the decoder's width; `model.decoder` is what is searched.
        data: the training split alone is used, at `data.test`'s size.
        training: of each decoder.
        steps: of the decoder's cell.
        merges: of maps.
        limit: so many images at most; null takes all.
        meta_val: share of the images that decoders are judged on.
    """

    model: Segmenter = field(default_factory=lambda: Segmenter(width=48, auxiliary=0.15))
    data: DataConfig = field(default_factory=lambda: DataConfig(test=TestSize(300, 10_000), stuff="all"))
    training: ProxyTraining = field(default_factory=lambda: ProxyTraining(5, 64, 3e-3, average=0.9))
    steps: int = 3
    merges: int = 3
    limit: int | None = 4000
    meta_val: float = 0.1

    def space(self) -> DecoderSpace:
        """Decoders of so many merges and steps."""
        return DecoderSpace(self.steps, self.merges)

    def reward(self) -> DecoderReward:
        """What a short training on meta-train gives on meta-val.

        Raises:
            InputError: no training data.
        """
        open_training_data(self.data)  # says at once what is wrong
        return DecoderReward(self.model, self.data, self.training, self.limit, self.meta_val, self.seed)
