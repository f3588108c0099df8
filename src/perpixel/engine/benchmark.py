"""How fast models find objects, compared with each other in one run.

All subjects see the same picture in turn, round after round, so that a busy neighbour or a warm processor slows all of them; a
ratio is the median of the ratios within each round. Nothing measured in another run can be compared.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn
from torchvision.models.detection import fcos_resnet50_fpn

from perpixel import __version__
from perpixel.data.settings import TestSize
from perpixel.engine.bar import counting_bar
from perpixel.engine.cost import flop_counter
from perpixel.engine.environment import processor_name
from perpixel.engine.predict import AnyPredictor, Predictor
from perpixel.engine.sources import Frame

STAGES = ("before", "network", "after", "draw")
"""Resize and normalise; the dense part; selection, masks and run lengths; the annotated picture."""

Pixels = UInt8[np.ndarray, "h w 3"]


class Subject(ABC):
    """Something that is measured.

    Args:
        name: of its row.
        network: modules whose calls, from the first's begin to the last's end, are the network; none if it cannot be told.
    """

    def __init__(self, name: str, network: Sequence[nn.Module], device: torch.device):
        self.name, self.network, self.device = name, tuple(network), device
        self.marks: list[float] = []
        if network:
            network[0].register_forward_pre_hook(lambda *_: self.marks.append(self.now()))
            network[-1].register_forward_hook(lambda *_: self.marks.append(self.now()))

    def now(self) -> float:
        """Seconds, once the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @abstractmethod
    def find(self) -> tuple[int, Callable[[], Any] | None]:
        """Finds what is in the picture: the number of objects, and how to draw them if it can."""

    def round(self) -> tuple[dict[str, float], int]:
        """Milliseconds of each stage, `total` without drawing, and the number of objects."""
        self.marks.clear()
        began = self.now()
        count, draw = self.find()
        ended = self.now()
        spent = {"total": ended - began}
        if self.marks:
            # A network may run more than once a picture; what lies between is counted as network.
            first, last = self.marks[0], self.marks[-1]
            spent |= {"before": first - began, "network": last - first, "after": ended - last}
        if draw is not None:
            draw()
            spent["draw"] = self.now() - ended
        return {stage: 1000 * seconds for stage, seconds in spent.items()}, count


class Ours(Subject):
    """Anything with the library's interface of prediction: a model or an exported file."""

    def __init__(self, name: str, predictor: AnyPredictor, picture: Pixels, score: float):
        model = [predictor.model] if isinstance(predictor, Predictor) else []
        super().__init__(name, model, getattr(predictor, "device", torch.device("cpu")))
        predictor.test_size = TestSize(min(picture.shape[:2]), max(picture.shape[:2]))
        self.predictor, self.frame, self.score = predictor, Frame(picture), score

    def find(self) -> tuple[int, Callable[[], Any]]:
        """From pixels to `Instances`, masks as run lengths."""
        (found,) = self.predictor.predict_frames([self.frame], self.score)
        return len(found), found.plot


class Torchvision(Subject):
    """torchvision's FCOS R-50 with random weights, eager, as it comes."""

    def __init__(self, picture: Pixels, device: torch.device):
        size = {"min_size": min(picture.shape[:2]), "max_size": max(picture.shape[:2])}
        model: Any = fcos_resnet50_fpn(weights=None, weights_backbone=None, **size)
        spread_logits(model.head.classification_head.cls_logits, model.head.regression_head.bbox_reg)
        self.model = model.to(device).eval()
        self.picture = picture
        super().__init__("torchvision FCOS R-50", [model.backbone, model.head], device)

    @torch.inference_mode()
    def find(self) -> tuple[int, None]:
        """From pixels to boxes."""
        image = torch.from_numpy(self.picture).to(self.device).permute(2, 0, 1).float() / 255
        return len(self.model([image])[0]["boxes"]), None


def spread_logits(class_logits: nn.Conv2d, distances: nn.Conv2d | None = None) -> None:
    """Random weights score everything alike: spreads scores so that a real number of objects passes, each with a box."""
    # Half of the inputs pass their ReLU: logits of deviation 0.7 around the prior's, the same for every width.
    nn.init.normal_(class_logits.weight, std=0.7 * (2 / class_logits.weight[0].numel()) ** 0.5)
    if distances is not None and distances.bias is not None:
        nn.init.constant_(distances.bias, 2.0)


@dataclass(frozen=True)
class Row:
    """What one subject took: milliseconds over all rounds.

    Attributes:
        name: of the subject.
        objects: it found.
        median, low, high: of the whole without drawing; the quartiles are the spread.
        fastest: round.
        stages: median of each stage that could be told apart.
        faster: than the first subject, as the median of the ratios within each round.
        gflop: of one picture, 2 for a multiplication and an addition; None where it cannot be counted.
        parameters: in millions, or None.
    """

    name: str
    objects: int
    median: float
    low: float
    high: float
    fastest: float
    stages: dict[str, float]
    faster: float
    gflop: float | None
    parameters: float | None


@dataclass(frozen=True)
class Report:
    """One run.

    Attributes:
        size: (height, width) of the picture.
        rounds: after the warm-up.
        rows: of each subject, in order.
        machine: hardware and versions.
    """

    size: tuple[int, int]
    rounds: int
    rows: list[Row]
    machine: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return asdict(self)

    def __str__(self) -> str:
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        lines = [f"{self.size[0]}x{self.size[1]}, batch 1, {self.rounds} rounds; {machine}"]
        lines += [
            "",
            "| | faster | ms | quartiles | fastest | " + " | ".join(STAGES) + " | objects | GFLOP | M parameters |",
        ]
        lines.append("| --- " + "| ---: " * (len(STAGES) + 7) + "|")
        for row in self.rows:
            stages = " | ".join(f"{row.stages[s]:.1f}" if s in row.stages else "" for s in STAGES)
            counted = " | ".join("" if x is None else f"{x:.1f}" for x in (row.gflop, row.parameters))
            lines.append(
                f"| {row.name} | {row.faster:.2f}x | {row.median:.1f} | {row.low:.1f} - {row.high:.1f} | "
                f"{row.fastest:.1f} | {stages} | {row.objects} | {counted} |"
            )
        return "\n".join(lines)


def random_picture(size: tuple[int, int]) -> Pixels:
    """Coarse noise of (height, width), the same at every call."""
    coarse = np.random.default_rng(0).integers(0, 256, (-(-size[0] // 16), -(-size[1] // 16), 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(16, 0).repeat(16, 1)[: size[0], : size[1]])


def measure(subjects: Sequence[Subject], size: tuple[int, int], rounds: int, progress: bool = True) -> Report:
    """Times all subjects, round after round.

    Args:
        subjects: the first is what the others are compared with.
        size: (height, width) of the picture, for the report.
        rounds: after two that warm up.
        progress: whether to show a bar.
    """
    spent: list[list[dict[str, float]]] = [[] for _ in subjects]
    objects = [0] * len(subjects)
    with counting_bar("benchmark", (rounds + 2) * len(subjects), show=progress) as bar:
        for number in range(rounds + 2):
            for row, subject in enumerate(subjects):
                stages, objects[row] = subject.round()
                if number >= 2:
                    spent[row].append(stages)
                bar.advance()
    rows = [_row(subject, objects[i], spent[i], spent[0]) for i, subject in enumerate(subjects)]
    return Report(size, rounds, rows, _machine(subjects[0].device))


def _row(subject: Subject, objects: int, mine: list[dict[str, float]], first: list[dict[str, float]]) -> Row:
    totals = [stages["total"] for stages in mine]
    low, _, high = quantiles(totals, n=4, method="inclusive") if len(totals) > 1 else totals * 3
    return Row(
        name=subject.name,
        objects=objects,
        median=median(totals),
        low=low,
        high=high,
        fastest=min(totals),
        stages={stage: median(s[stage] for s in mine) for stage in STAGES if stage in mine[0]},
        faster=median(f["total"] / m["total"] for f, m in zip(first, mine, strict=True)),
        gflop=_gflop(subject),
        parameters=_parameters(subject),
    )


def _gflop(subject: Subject) -> float | None:
    if not subject.network:
        return None
    with flop_counter() as counter:
        subject.find()
    return counter.get_total_flops() / 1e9


def _parameters(subject: Subject) -> float | None:
    if not subject.network:
        return None
    whole = subject.model if isinstance(subject, Torchvision) else subject.network[0]
    return sum(parameter.numel() for parameter in whole.parameters()) / 1e6


def _machine(device: torch.device) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    facts = {
        "device": name,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "perpixel": __version__,
    }
    if hasattr(os, "getloadavg"):
        facts["load"] = f"{os.getloadavg()[0]:.1f}"
    return facts
