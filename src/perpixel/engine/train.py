"""Trains a recipe: opens its data and runs the loop."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from perpixel.data.dataset import Dataset
from perpixel.data.loader import train_batches
from perpixel.data.open import open_dataset
from perpixel.engine.codes import give_codes
from perpixel.engine.distributed import World
from perpixel.engine.evaluate import check_keypoints
from perpixel.engine.loop import TrainingData, TrainResult, fit
from perpixel.engine.recipe import Recipe
from perpixel.engine.run_report import RunReport
from perpixel.engine.runs import RunFolder
from perpixel.errors import InputError
from perpixel.models.heads import ModelConfig
from perpixel.structures import Batch


def train(
    recipe: Recipe, output: Path | str, *, resume: bool = False, device: torch.device | str | None = None
) -> TrainResult:
    """Trains a recipe; the same call serves the CPU, one GPU and every process that `torchrun` starts.

    Args:
        recipe: model, data and training.
        output: the run's folder: recipe.json, log.jsonl, report.html, best and last weights. New or empty, unless `resume`.
        resume: go on with the run in `output`, exactly as if it had not stopped.
        device: where to compute; None takes the GPU if there is one.

    Raises:
        InputError: settings, data or folder do not fit; says what to do.
        DivergedError: a loss or gradient became NaN or infinite; the last checkpoint is untouched.
    """
    RunFolder(Path(output)).check(recipe, resume)  # before the data, whose opening may take minutes
    data = open_training_data(recipe)
    result = fit(recipe, output, data, resume=resume, device=device)
    if skipped := data.skipped():
        listed = Path(output) / "skipped.txt"
        listed.write_text("".join(f"{sentence}\n" for sentence in skipped), encoding="utf-8")
        print(f"{len(skipped)} images or objects were left out: {listed}")
    return result


def check_learned_keypoints(model: ModelConfig, dataset: Dataset) -> None:
    """Refuses data without the keypoints that a model learns.

    Raises:
        InputError: says which setting mends it.
    """
    learned = model.keypoint_names()
    if not learned or learned == dataset.keypoint_names:
        return
    if not dataset.keypoint_names:
        raise InputError(
            f"{dataset.name}: has no keypoints, and this model learns from them: set data.train to such data"
        )
    names = ",".join(dataset.keypoint_names)
    raise InputError(f"{dataset.name}: has other keypoints than the model: set model.instance.keypoints=[{names}]")


def open_training_data(recipe: Recipe) -> TrainingData:
    """The recipe's training and validation split as the loop takes them.

    Raises:
        InputError: no training split, or files that cannot be read.
    """
    data, training = recipe.data, recipe.training
    if data.train is None:
        raise InputError("data.train is not set: name a COCO json, a VOC folder or a YOLO data.yaml, or shapes:200")
    all_stuff = data.stuff == "all"
    dataset = open_dataset(data.train, data.images, segments=data.segments, skip_bad=data.skip_bad, all_stuff=all_stuff)
    check_learned_keypoints(recipe.model, dataset)

    def batches(start_step: int, world: World) -> Iterator[Batch]:
        return train_batches(
            dataset,
            data,
            batch_size=training.batch_size // world.size,
            seed=training.seed,
            start_step=start_step,
            rank=world.rank,
            world_size=world.size,
        )

    def prepare(model: nn.Module, world: World) -> list[str]:
        return give_codes(model, dataset, data, world)

    if data.val is None:
        return TrainingData(
            dataset.classes,
            dataset.category_ids,
            batches,
            report=RunReport(recipe, None).write,
            skipped=lambda: dataset.skipped,
            prepare=prepare,
            stuff=dataset.stuff,
            skeleton=dataset.skeleton,
        )
    validation = open_dataset(
        data.val,
        data.val_images,
        classes=dataset.classes,
        stuff=dataset.stuff.names,
        segments=data.val_segments,
        skip_bad=data.skip_bad,
        all_stuff=all_stuff,
    )
    check_keypoints(recipe.model.keypoint_names(), validation, data.sigmas)

    report = RunReport(recipe, validation)

    def skipped() -> list[str]:
        return [*dataset.skipped, *validation.skipped]

    return TrainingData(
        dataset.classes,
        dataset.category_ids,
        batches,
        report.measure,
        report=report.write,
        skipped=skipped,
        prepare=prepare,
        stuff=dataset.stuff,
        skeleton=dataset.skeleton,
    )
