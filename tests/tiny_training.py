"""A model and data small enough to train in a test, here or in processes of their own."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from perpixel.config import override
from perpixel.data.settings import DataConfig
from perpixel.engine.distributed import World
from perpixel.engine.loop import TrainingData, fit
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import Training
from perpixel.errors import InputError
from perpixel.models.heads import Losses, Model, ModelConfig
from perpixel.ops.reduce import mean_over_ranks
from perpixel.structures import Batch, Detections, Targets

CLASSES = ("cat", "dog", "owl")


@dataclass(frozen=True)
class TinyTrainingConfig(ModelConfig):
    """Two convolutions.

    Attributes:
        width: channels between them.
        norm: between them.
        dropout: between them.
        scale: of the loss.
        per_image: divide the loss by the images, not by the objects of all processes.
        nan_at: the step at which its loss is not a number; None: never.
    """

    width: int = 4
    norm: Literal["batch", "group"] = "group"
    dropout: float = 0.0
    scale: float = 1.0
    per_image: bool = False
    nan_at: int | None = None

    def build(self, classes: int, stuff: int = 0) -> "TinyTraining":
        return TinyTraining(self, classes)


class TinyTraining(Model):
    """Classifies every stride-4 cell of an image as its targets' labels, in a loss normalised over processes."""

    def __init__(self, config: TinyTrainingConfig, classes: int):
        super().__init__()
        self.config = config
        self.first = nn.Conv2d(3, config.width, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(config.width) if config.norm == "batch" else nn.GroupNorm(2, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.predictor = nn.Conv2d(config.width, classes, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.predictor(self.dropout(self.norm(self.first(images / 255)).relu()))

    def loss(self, batch: Batch) -> Losses:
        logits = self(batch.images.float())
        total = logits.new_zeros(())
        for image, target in zip(logits, batch.truth(), strict=True):
            wanted = torch.zeros_like(image)
            wanted[target.labels] = 1
            weight = float(len(target))
            total = total + weight * nn.functional.binary_cross_entropy_with_logits(image, wanted)
        count = torch.tensor(float(sum(len(t) for t in batch.truth())))
        divisor = torch.tensor(float(len(batch))) if self.config.per_image else mean_over_ranks(count).clamp(min=1)
        broken = torch.nan if batch.progress == self.config.nan_at else 0.0
        return {
            "class": self.config.scale * total / divisor,
            "size": logits.square().mean() * 0.01 + broken,
        }

    def predict(self, batch: Batch) -> list[Detections]:
        return []


def tiny_recipe(model: TinyTrainingConfig | None = None, **training: object) -> Recipe:
    """A recipe of twelve steps of four images."""
    quick: dict = {
        "steps": 12,
        "batch_size": 4,
        "learning_rate": 0.1,
        "warmup_steps": 3,
        "save_every": 2,
        "log_every": 3,
    }
    return Recipe("tiny", model or TinyTrainingConfig(), DataConfig(), Training(**(quick | training)))


def tiny_data(recipe: Recipe, pause: float = 0.0, evaluate: bool = False) -> TrainingData:
    """Images of step k drawn from (seed, k); each process takes its slice."""

    def batches(start: int, world: World) -> Iterator[Batch]:
        size = recipe.training.batch_size
        share = size // world.size
        mine = slice(world.rank * share, (world.rank + 1) * share)
        step = start
        while True:
            time.sleep(pause)
            random = torch.Generator().manual_seed(1000 * recipe.training.seed + step)
            images = torch.randint(0, 256, (size, 3, 32, 32), generator=random, dtype=torch.uint8)
            counts = torch.randint(1, 4, (size,), generator=random).tolist()
            targets = tuple(_targets(n, random) for n in counts)
            ids = tuple(range(step * size, step * size + size))
            yield Batch(images[mine], ((32, 32),) * share, ((32, 32),) * share, targets[mine], ids[mine])
            step += 1

    def score(model: Model, world: World) -> dict[str, float]:
        """Smaller weights are better: any number that depends on the weights will do."""
        return {"bbox/AP": 1 / (1 + sum(p.abs().sum().item() for p in model.parameters())), "other": 0.0}

    return TrainingData(CLASSES, (3, 5, 9), batches, score if evaluate else None)


def _targets(count: int, random: torch.Generator) -> Targets:
    labels = torch.randint(0, len(CLASSES), (count,), generator=random)
    return Targets(torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(count, 1), labels)


@dataclass(frozen=True)
class Job:
    """A training run for another process.

    Attributes:
        output: the run's folder; an `InputError`'s sentence goes to ``RANK.txt`` beside it.
        model: what is trained.
        settings: ``field=value`` of `Training`.
        pause: seconds before each batch.
        environment: variables of the process.
    """

    output: Path
    model: TinyTrainingConfig = field(default_factory=TinyTrainingConfig)
    settings: tuple[str, ...] = ()
    pause: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> BaseProcess:
        """Starts it. One server process imports everything once and forks: no thread of this one gets in its way."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tiny_training"])
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        process = context.Process(target=self.run)
        process.start()
        return process

    def run(self) -> None:
        """What the process does."""
        os.environ.update(self.environment)
        torch.set_num_threads(1)
        recipe = tiny_recipe(self.model)
        recipe = replace(recipe, training=override(recipe.training, self.settings))
        try:
            fit(recipe, self.output, tiny_data(recipe, self.pause, True), device="cpu")
        except InputError as error:
            self.output.with_name(os.environ.get("RANK", "0") + ".txt").write_text(str(error))
            sys.exit(2)


def wait_for_rows(output: Path, rows: int, processes: list[BaseProcess]) -> None:
    """Returns when the log of a run has so many rows."""
    deadline = time.monotonic() + 150
    while not (output / "log.jsonl").exists() or (output / "log.jsonl").read_text().count("\n") < rows:
        assert all(process.is_alive() for process in processes), "the run ended early"
        assert time.monotonic() < deadline, "the run is too slow"
        time.sleep(0.02)
