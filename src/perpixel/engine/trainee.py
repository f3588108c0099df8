"""The model that learns, with its optimiser and the average of its weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from perpixel.engine.average import averaged
from perpixel.engine.checkpoint import initialize_from
from perpixel.engine.distributed import World
from perpixel.engine.optimize import build_optimizer
from perpixel.engine.recipe import Recipe, built
from perpixel.engine.settings import Training
from perpixel.engine.weights import checkpoint_file
from perpixel.errors import InputError
from perpixel.models.heads import Losses, Model
from perpixel.nn.backbones import without_pretrained
from perpixel.structures import Batch


@dataclass(frozen=True)
class Trainee:
    """What changes from step to step.

    Attributes:
        model: learns.
        optimizer: its optimiser.
        average: the moving average of its weights, if the run keeps one.
    """

    model: nn.Module
    optimizer: Optimizer
    average: AveragedModel | None = None

    @property
    def published(self) -> nn.Module:
        """The weights that are evaluated and used: the average if there is one."""
        return self.model if self.average is None else self.average.module


class LossModule(nn.Module):
    """A model whose forward is its loss: what the wrapper for several processes needs."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Losses:
        """The model's losses."""
        return self.model.loss(batch)


def synchronized(losses: LossModule, world: World) -> nn.Module:
    """The losses with gradients averaged over all processes."""
    if world.size == 1:
        return losses
    return DistributedDataParallel(losses, gradient_as_bucket_view=True)


def check_share(training: Training, world: World) -> None:
    """Refuses settings that do not divide over the processes.

    Raises:
        InputError: names the setting.
    """
    if training.batch_size % (world.size * training.accumulate):
        raise InputError(
            f"training.batch_size={training.batch_size} does not divide by {world.size} processes "
            f"times training.accumulate={training.accumulate}"
        )
    if training.sync_batch_norm and world.size > 1 and world.device.type != "cuda":
        raise InputError("training.sync_batch_norm=true works on GPUs only; leave it false on the CPU")


def build_trainee(
    recipe: Recipe,
    class_names: Sequence[str],
    world: World,
    prepare: Callable[[nn.Module, World], list[str]],
    fresh: bool,
    stuff: int = 0,
) -> tuple[Trainee, list[str]]:
    """The model, its optimiser and average, and what to tell the user about their start.

    Args:
        recipe: what to build.
        class_names: of the data.
        world: gives the device.
        prepare: gives a fresh model what it takes from the data (`TrainingData.prepare`).
        fresh: whether the run starts now; a resumed run gets its weights from its own state.
        stuff: classes of stuff in the data.
    """
    training, notes = recipe.training, []
    torch.manual_seed(training.seed)
    starts_from_file = training.init_from is not None or not fresh
    config = without_pretrained(recipe.model) if starts_from_file else recipe.model
    model: nn.Module = built(config, len(class_names), stuff, recipe.name)
    if fresh and training.init_from is not None:
        anew = initialize_from(cast(Model, model), checkpoint_file(training.init_from), class_names)
        notes.append(f"weights from {training.init_from}" + (f"; these start anew: {', '.join(anew)}" if anew else ""))
    if training.sync_batch_norm and world.size > 1:
        from timm.layers.norm_act import convert_sync_batchnorm

        model = convert_sync_batchnorm(model)
    model.to(world.device).train()
    if fresh:
        notes += prepare(model, world)
    average = None if training.average is None else averaged(model, training.average)
    if training.compile:
        model.compile()
    return Trainee(model, build_optimizer(model, training), average), notes
