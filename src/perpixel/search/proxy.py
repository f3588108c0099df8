"""The short training that a segmentation network's reward is measured after (thesis 004, 6.3.3 and 6.4.1)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from perpixel.engine.average import averaged
from perpixel.engine.semantic_metrics import SemanticMetrics, count_pixels, semantic_metrics
from perpixel.search.static_outputs import StaticOutputs
from perpixel.search.trial import report, worth_going_on
from perpixel.structures import VOID

Judged = tuple[Float[Tensor, "b k _ _"], UInt8[Tensor, "b h w"]]
"""Class logits of some frames, and their truth."""


@dataclass(frozen=True)
class ProxyTraining:
    """How long and how fast a trial learns.

    Attributes:
        epochs: times the windows of meta-train are seen; halfway the trial may be given up.
        batch_size: windows an update.
        learning_rate: of Adam.
        average: decay of the moving average of the weights that is judged (Polyak); null judges the weights.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    average: float | None = None


class Proxy(ABC):
    """A network that learns, and how it reads inputs that lie in memory.

    Attributes:
        network: what learns.
    """

    network: nn.Module

    @abstractmethod
    def loss(self, network: nn.Module, chosen: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Of the windows at these places, by the network or its average."""

    @abstractmethod
    def told(self, network: nn.Module, chosen: Int[Tensor, " b"]) -> list[Judged]:
        """Class logits and truth of every frame of these windows that is judged."""


def train_and_judge(proxy: Proxy, outputs: StaticOutputs, training: ProxyTraining) -> float:
    """Trains on meta-train; the reward on meta-val, reported with its parts. Asks halfway whether to go on."""
    network = proxy.network
    optimizer = torch.optim.Adam(network.parameters(), lr=training.learning_rate)
    average = None if training.average is None else averaged(network, training.average)
    judged = network if average is None else average.module
    for epoch in range(training.epochs):
        if epoch and epoch == training.epochs // 2:
            value = judge(proxy, judged, outputs, training.batch_size)
            if not worth_going_on(value):
                return value
        network.train()
        order = outputs.train[torch.randperm(len(outputs.train)).to(outputs.train.device)]
        # Parts of like sizes: a last one of a single window could not be normalised.
        for chosen in order.tensor_split(-(-len(order) // training.batch_size)):
            optimizer.zero_grad()
            proxy.loss(network, chosen).backward()
            optimizer.step()
            if average is not None:
                average.update_parameters(network)
    return judge(proxy, judged, outputs, training.batch_size)


@torch.no_grad()
def judge(proxy: Proxy, network: nn.Module, outputs: StaticOutputs, batch_size: int) -> float:
    """The reward on meta-val; what it is made of is reported."""
    network.eval()
    counts = []
    for chosen in outputs.val.split(batch_size):
        for logits, truth in proxy.told(network, chosen):
            size = (truth.shape[1], truth.shape[2])
            predicted = F.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(1)
            for mine, true in zip(predicted.cpu(), truth.long().cpu(), strict=True):
                if bool((true != VOID).any()):  # a frame that nobody labelled says nothing
                    counts.append(count_pixels(true, mine, len(outputs.classes)))
    metrics = semantic_metrics(counts, outputs.classes)
    report(mIoU=metrics.mean_iou, fwIoU=metrics.weighted_iou, mAcc=metrics.mean_accuracy)
    return reward_of(metrics)


def reward_of(metrics: SemanticMetrics) -> float:
    """The geometric mean of mean IoU, frequency-weighted IoU and mean accuracy (6.3.3)."""
    return (metrics.mean_iou * metrics.weighted_iou * metrics.mean_accuracy) ** (1 / 3)
