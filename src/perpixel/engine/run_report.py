"""What a training run measures of itself, and the report it keeps up to date."""

from dataclasses import replace
from pathlib import Path

from perpixel.data.dataset import Dataset
from perpixel.data.loader import test_batches
from perpixel.engine.distributed import World
from perpixel.engine.environment import environment
from perpixel.engine.evaluate import Evaluation, evaluate
from perpixel.engine.logs import read_log
from perpixel.engine.recipe import Recipe
from perpixel.engine.report_page import write_report
from perpixel.engine.runs import RunFolder
from perpixel.models.heads import Model

EXAMPLES = 24
"""Photos in the report."""


class RunReport:
    """Measures the model on the validation split, and writes the report of the best weights so far.

    Args:
        recipe: of the run.
        dataset: its validation split; None: then the report has the curves of the training alone.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset | None) -> None:
        self._recipe, self._dataset = recipe, dataset
        self._newest: Evaluation | None = None
        self._best: tuple[Evaluation, int] | None = None

    def measure(self, model: Model, world: World) -> dict[str, float]:
        """The metrics of the validation split by name; every process calls it."""
        data, dataset = self._recipe.data, self._dataset
        if dataset is None:
            return {}
        share = max(self._recipe.training.batch_size // world.size, 1)
        batches = test_batches(dataset, data, batch_size=share, rank=world.rank, world_size=world.size)
        found = evaluate(
            model, dataset, batches, world.device, examples=EXAMPLES, progress=world.first, sigmas=data.sigmas
        )
        self._newest = replace(found, results=[])  # the largest part, which no report needs
        return found.summary

    def write(self, folder: RunFolder, step: int, best: bool, world: World) -> Path:
        """Writes the report into the run's folder; one process calls it.

        Args:
            folder: of the run.
            step: that the run has reached.
            best: whether the newest weights are the best so far.
            world: gives the device.
        """
        if best and self._newest is not None:
            self._best = self._newest, step
        notes = [f"training on {self._recipe.data.train}, {step} of {self._recipe.training.steps} steps"]
        # A resumed run knows the numbers of the best weights, not what they found.
        found, measured = self._best or (self._newest, step)
        if found is not None:
            which = folder.best.name if self._best is not None else f"{folder.last.name}, which is not the best"
            notes.append(f"measured: {which}, step {measured}, on {self._recipe.data.val}: {found.images} images")
        return write_report(
            folder.path,
            self._recipe,
            environment(str(world.device)),
            dataset=self._dataset,
            found=found,
            log=read_log(folder.log),
            step=measured if found is not None else step,
            notes=notes,
        )
