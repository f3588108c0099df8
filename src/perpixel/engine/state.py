"""All that a stopped run needs to go on exactly, in one safetensors file."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from perpixel.config import ConfigError, from_dict
from perpixel.engine.checkpoint import load_weights
from perpixel.engine.files import load_tensors, save_tensors
from perpixel.engine.optimize import load_optimizer_tensors, optimizer_tensors
from perpixel.engine.trainee import Trainee
from perpixel.errors import InputError


@dataclass
class RunState:
    """How far a run is. Random state is not part of it: every step draws from (seed, step, rank).

    Attributes:
        step: updates done.
        evaluated: the step of the newest evaluation.
        best: the best value so far of the metric that chooses best.safetensors; None before the first evaluation.
        metrics: of the newest evaluation.
        log_rows: rows of the log that belong to these steps.
        sums: of each loss since the log's last row.
        count: steps in `sums`.
    """

    step: int = 0
    evaluated: int = 0
    best: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    log_rows: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        for name in ("step", "evaluated", "log_rows", "count"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is below 0")
        if self.sums and not self.count:
            raise ValueError("it has sums of losses of no step")

    def add(self, losses: dict[str, float]) -> None:
        """Counts one step's losses into the log's next row."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def means(self) -> dict[str, float]:
        """Mean losses since the log's last row."""
        return {name: value / self.count for name, value in self.sums.items()}

    def clear(self) -> None:
        """Starts the log's next row."""
        self.sums, self.count = {}, 0


def save_state(path: Path, state: RunState, trainee: Trainee) -> None:
    """Writes everything of a run to one file, atomically."""
    tensors = {f"model/{name}": tensor for name, tensor in trainee.model.state_dict().items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in optimizer_tensors(trainee.optimizer).items()}
    if trainee.average is not None:
        tensors |= {f"average/{name}": tensor for name, tensor in trainee.average.state_dict().items()}
    save_tensors(path, tensors, {"state": asdict(state)})


def load_state(path: Path, trainee: Trainee) -> RunState:
    """Puts a run back where `save_state` left it; changes the trainee in place.

    Raises:
        InputError: the file is missing, corrupt or of another model or optimiser.
    """
    tensors, document = load_tensors(path)
    if "state" not in document:
        raise InputError(
            f"{path} is a model's checkpoint, not the state of a run; training.init_from starts from such a file"
        )
    parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimizer": {}, "average": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        if part not in parts:
            raise InputError(f"{path}: {name} is no part of a run's state; the file is corrupt")
        parts[part][rest] = tensor
    load_weights(trainee.model, parts["model"], path)
    load_optimizer_tensors(trainee.optimizer, parts["optimizer"])
    if trainee.average is not None:
        load_weights(trainee.average, parts["average"], path)
    try:
        state = from_dict(RunState, document["state"])
    except ConfigError as error:
        raise InputError(f"{path}: what it says of the run does not fit: {error}; the file is corrupt") from error
    return state
