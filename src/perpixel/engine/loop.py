"""The training loop: one for the CPU, one GPU, several GPUs and several machines.

A step is a pure function of the weights, the optimiser's state and (seed, step, rank): images, augmentation, learning rate
and random numbers all follow from those, so a run that is killed goes on exactly as if it had not been.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from perpixel.engine.accidents import accidents_told
from perpixel.engine.checkpoint import save_checkpoint
from perpixel.engine.distributed import World, joined_world
from perpixel.engine.interruption import Interruption
from perpixel.engine.logs import RunLog
from perpixel.engine.optimize import set_learning_rate
from perpixel.engine.progress import Display, describe
from perpixel.engine.recipe import Recipe
from perpixel.engine.runs import RunFolder
from perpixel.engine.schedule import learning_rate_factor
from perpixel.engine.state import RunState, load_state, save_state
from perpixel.engine.steps import split_batch, step_seed
from perpixel.engine.trainee import LossModule, Trainee, build_trainee, check_share, synchronized
from perpixel.errors import InputError
from perpixel.models.heads import Losses, Model
from perpixel.structures import Batch, Stuff

SHOWN = ("AP", "AP50", "AP75", "PQ", "mIoU")
"""Metrics, of any kind, that the terminal shows; the log holds all."""


class DivergedError(InputError):
    """A loss or a gradient is no longer a finite number."""


def _nothing(model: nn.Module, world: World) -> list[str]:
    """Most models take nothing from the data beforehand."""
    return []


def _unreported(folder: RunFolder, step: int, best: bool, world: World) -> Path | None:
    """A search's trainings have nobody who looks at each."""
    return None


@dataclass(frozen=True)
class TrainingData:
    """What the loop needs of the data; `perpixel.engine.train` makes it from a recipe.

    Attributes:
        class_names: name of each label.
        category_ids: what each label is called in the data set's own results.
        batches: (first step, world) -> endless batches, one a step: this process's share of each step's images.
        evaluate: (model, world) -> metrics by name, best when largest, the same on every process; None without a
            validation split.
        report: (folder, step, whether the newest weights are the best, world) -> the page it wrote for people, or None; called
            by the first process after each evaluation, without evaluations at the end.
        criteria: the first of these metrics that an evaluation gives chooses the best weights.
        skipped: a sentence for each image or object left out so far.
        stuff: the classes without objects, where the data know them.
        skeleton: pairs of the data's keypoints that a limb joins.
        prepare: (fresh model, world) -> what to tell the user: gives the model what it takes from the data before it learns
            (MEInst's mask codes); called in every process, which must end with the same.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    batches: Callable[[int, World], Iterator[Batch]]
    evaluate: Callable[[Model, World], dict[str, float]] | None = None
    report: Callable[[RunFolder, int, bool, World], Path | None] = _unreported
    criteria: tuple[str, ...] = ("semantic/mIoU", "panoptic/PQ", "segm/AP", "keypoints/AP", "bbox/AP")
    skipped: Callable[[], list[str]] = list
    prepare: Callable[[nn.Module, World], list[str]] = _nothing
    stuff: Stuff = field(default_factory=Stuff)
    skeleton: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    Attributes:
        output: the run's folder.
        step: updates done.
        last: the newest weights.
        best: the weights with the best metric, or None where nothing was evaluated.
        metrics: of the newest evaluation.
        interrupted: whether Ctrl-C ended the run before its last step.
    """

    output: Path
    step: int
    last: Path
    best: Path | None
    metrics: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False


def fit(
    recipe: Recipe,
    output: Path | str,
    data: TrainingData,
    *,
    resume: bool = False,
    device: torch.device | str | None = None,
) -> TrainResult:
    """Trains the recipe's model on `data` and keeps weights, state and log in the folder `output`.

    Args:
        recipe: what to train and how.
        output: the run's folder; must be new, or empty, unless `resume`.
        data: class names, batches and evaluation.
        resume: go on with the run in `output` from its last saved step (from the start if none was saved).
        device: where to compute; None takes the GPU if there is one. With `torchrun`, each process takes its own.

    Raises:
        InputError: settings that do not fit the machine, the folder or the data.
        DivergedError: a loss or gradient became NaN or infinite; nothing was saved since.
    """
    folder, training = RunFolder(Path(output)), recipe.training
    with joined_world(device) as world:
        check_share(training, world)
        folder.check(recipe, resume)
        world.wait()  # nobody writes before everybody has looked
        if world.first:
            folder.open(recipe)
        resuming = resume and folder.state.exists()
        trainee, notes = build_trainee(
            recipe, data.class_names, world, data.prepare, fresh=not resuming, stuff=len(data.stuff)
        )
        state = load_state(folder.state, trainee) if resuming else RunState()
        if state.step > training.steps:
            raise InputError(f"training.steps={training.steps}: the run in {folder.path} has done {state.step} already")
        world.wait()
        board = folder.path / "tensorboard" if training.tensorboard else None
        with (
            RunLog(folder.log, state.log_rows, board) if world.first else nullcontext() as log,
            Display(training.steps, state.step, world.first) as display,
            Interruption(patient=world.size > 1) as interruption,
        ):
            for note in notes:
                display.say(note)
            run = _Run(recipe, folder, data, world, trainee, state, log, display)
            with accidents_told(lambda: f"after step {state.step}", run.kept):
                interrupted = run.go(interruption)
        return TrainResult(
            folder.path,
            state.step,
            folder.last,
            folder.best if state.best is not None else None,
            state.metrics,
            interrupted,
        )


class _Run:
    """One run in progress: its parts and the loop over them."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        data: TrainingData,
        world: World,
        trainee: Trainee,
        state: RunState,
        log: RunLog | None,
        display: Display,
    ):
        self.recipe, self.training, self.folder, self.data, self.world = recipe, recipe.training, folder, data, world
        self.trainee, self.state, self.log, self.display = trainee, state, log, display
        self.losses = synchronized(LossModule(cast(Model, trainee.model)), world)
        self.page: Path | None = None
        self.parameters = [p for group in trainee.optimizer.param_groups for p in group["params"]]

    def go(self, interruption: Interruption) -> bool:
        """Runs to the last step, or until asked to stop; returns whether it was."""
        state, training = self.state, self.training
        if state.step and self.world.first:
            self._publish(self.folder.last)  # killed between writing the state and these weights
        self._evaluate_if_due()  # killed between saving a step and its evaluation
        batches = self.data.batches(state.step, self.world)
        stop, seconds, images = False, 0.0, 0
        try:
            while state.step < training.steps and not stop:
                began = time.monotonic()
                losses, gradient_norm, stop = self._update(self._next(batches), interruption)
                seconds += time.monotonic() - began
                state.step += 1
                state.add(losses)
                images += training.batch_size
                speed = images / seconds
                rate = training.learning_rate * learning_rate_factor(state.step - 1, training)
                self.display.advance(state.step, describe(state.means(), rate, speed))
                finished = state.step == training.steps
                if finished or state.step % training.log_every == 0:
                    self._report(rate, gradient_norm, speed)
                    seconds, images = 0.0, 0
                if finished or stop or state.step % training.save_every == 0 or self._evaluation_due():
                    self._save()
                if finished or not stop:
                    self._evaluate_if_due()
        finally:
            _close(batches)
        if self.data.evaluate is None and self.world.first:
            self.page = self.data.report(self.folder, state.step, False, self.world)
        if self.page is not None:
            self.display.say(f"look at {self.page}")
        if stop := stop and state.step < training.steps:
            self.display.say(
                f"stopped after step {state.step} of {training.steps}, all is saved: the same command with "
                f"--resume --out {self.folder.path} goes on from here"
            )
        return stop

    def _next(self, batches: Iterator[Batch]) -> Batch:
        """The next step's images; a bad one, or a worker's death, ends the run, but loses none of its steps."""
        try:
            return next(batches)
        except (InputError, RuntimeError):
            self._save()
            raise

    def _update(self, batch: Batch, interruption: Interruption) -> tuple[dict[str, float], float, bool]:
        """One step: gradients of all parts of the batch, a look at the numbers, then the new weights."""
        step, training, trainee = self.state.step, self.training, self.trainee
        torch.manual_seed(step_seed(training.seed, step, self.world.rank))
        set_learning_rate(trainee.optimizer, training.learning_rate * learning_rate_factor(step, training))
        trainee.optimizer.zero_grad()
        losses = self._gradients(replace(batch, progress=step).to(self.world.device, non_blocking=True))
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        # One exchange and one wait for the device a step: every process sees the same numbers and decides alike.
        asked = norm.new_tensor(float(interruption.asked))
        *values, gradient_norm, stop = self.world.mean(torch.stack([*losses.values(), norm, asked])).tolist()
        named = dict(zip(losses, values, strict=True))
        if not all(map(math.isfinite, [*values, gradient_norm])):
            self._diverged(named, gradient_norm, batch)
        if training.clip_gradients is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, training.clip_gradients, norm)
        trainee.optimizer.step()
        if trainee.average is not None:
            trainee.average.update_parameters(trainee.model)
        return named, gradient_norm, stop > 0

    def _gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Adds up the gradients of the batch's parts; returns the mean losses by name."""
        parts = split_batch(batch, self.training.accumulate)
        totals: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            silent = self.world.size > 1 and number < len(parts) - 1  # processes exchange gradients once a step
            with self.losses.no_sync() if silent else nullcontext():  # pyright: ignore
                with torch.autocast(self.world.device.type, torch.bfloat16, self.training.precision == "bfloat16"):
                    losses: Losses = self.losses(part)
                scaled = {name: loss.float() / len(parts) for name, loss in losses.items()}
                torch.stack(list(scaled.values())).sum().backward()
            for name, loss in scaled.items():
                totals[name] = totals[name] + loss.detach() if name in totals else loss.detach()
        return totals

    def _diverged(self, losses: dict[str, float], gradient_norm: float, batch: Batch) -> None:
        images = ", ".join(self.world.gather([str(i) for i in batch.ids]))
        named = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        raise DivergedError(
            f"step {self.state.step + 1}: a loss or gradient is not finite ({named}, gradient norm {gradient_norm:.4g}) "
            f"on the images {images}; {self.kept()}; a smaller training.learning_rate, a longer training.warmup_steps or "
            "training.clip_gradients helps, or these images' annotations are wrong (`perpixel check`)"
        )

    def kept(self) -> str:
        """What is left of a run that ends early."""
        return f"{self.folder.last} is untouched" if self.folder.last.exists() else "nothing was saved yet"

    def _report(self, rate: float, gradient_norm: float, speed: float) -> None:
        """A row of the log, and a line where no bar is drawn."""
        losses = self.state.means()
        self.state.clear()
        if self.log is not None:
            self.log.write(
                {
                    "step": self.state.step,
                    "loss": sum(losses.values()),
                    "losses": losses,
                    "learning_rate": rate,
                    "gradient_norm": gradient_norm,
                    "images_per_second": round(speed, 2),
                }
            )
        self.display.line(self.state.step, describe(losses, rate, speed))

    def _evaluation_due(self) -> bool:
        step, every = self.state.step, self.training.evaluate_every
        due = step == self.training.steps or (every is not None and step and step % every == 0)
        return bool(self.data.evaluate is not None and due and self.state.evaluated < step)

    def _evaluate_if_due(self) -> None:
        """Evaluates, keeps the best weights, saves."""
        if self.data.evaluate is None or not self._evaluation_due():
            return
        state, published = self.state, cast(Model, self.trainee.published)
        self.world.share(list(published.buffers()))
        with self.display.paused():
            state.metrics = self.data.evaluate(published, self.world)
        self.trainee.model.train()
        state.evaluated = state.step
        shown = {name: value for name, value in state.metrics.items() if name.split("/")[-1] in SHOWN}
        self.display.say(f"step {state.step}: " + ", ".join(f"{name} {value:.3f}" for name, value in shown.items()))
        if self.log is not None:
            self.log.write({"step": state.step, "metrics": state.metrics})
        value = next(state.metrics[name] for name in self.data.criteria if name in state.metrics)
        better = state.best is None or value > state.best
        if better:
            state.best = value
            if self.world.first:
                self._publish(self.folder.best)
        self._save()
        if self.world.first:
            self.page = self.data.report(self.folder, state.step, better, self.world)

    def _save(self) -> None:
        """The state first: all of a resume comes from it, so a kill between the two files costs nothing."""
        if self.log is not None:
            if not torch.stack([parameter.isfinite().all() for parameter in self.parameters]).all():
                raise DivergedError(
                    f"step {self.state.step}: the update made weights that are not finite; {self.kept()}; "
                    "a smaller training.learning_rate or training.clip_gradients helps"
                )
            self.log.sync()
            self.state.log_rows = self.log.rows
            save_state(self.folder.state, self.state, self.trainee)
            self._publish(self.folder.last)

    def _publish(self, path: Path) -> None:
        save_checkpoint(
            path,
            self.trainee.published,
            self.recipe,
            self.data.class_names,
            category_ids=self.data.category_ids,
            stuff=self.data.stuff,
            skeleton=self.data.skeleton,
            step=self.state.step,
            metrics=self.state.metrics if self.state.evaluated == self.state.step else {},
        )


def _close(batches: Iterator[Batch]) -> None:
    """Ends the workers behind an endless generator."""
    close = getattr(batches, "close", None)
    if close is not None:
        close()
