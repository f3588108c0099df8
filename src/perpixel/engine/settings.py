"""How a model is trained: every setting of the training loop."""

import math
from dataclasses import dataclass
from typing import Literal

Optimizer = Literal["sgd", "adam", "adamw"]


@dataclass(frozen=True)
class PartTraining:
    """How one part of a model learns, where that differs from the rest.

    Attributes:
        part: dotted name of the module, such as backbone.
        learning_rate_factor: it learns this much faster.
        optimizer: of this part; None: the run's.
    """

    part: str
    learning_rate_factor: float = 1.0
    optimizer: Optimizer | None = None

    def __post_init__(self):
        if not (self.learning_rate_factor > 0 and math.isfinite(self.learning_rate_factor)):
            raise ValueError(f"learning_rate_factor={self.learning_rate_factor} is not a positive number")


@dataclass(frozen=True)
class Training:
    """Settings of a training run; the defaults are the FCOS paper's (thesis, section 3.3: 90,000 steps of 16 images).

    A step is one update of the weights. Everything that depends on the step is a pure function of it, so a run can stop
    anywhere and go on.

    Attributes:
        steps: updates in all.
        batch_size: images a step, over all processes together.
        accumulate: parts that a process takes its share of a step's images in, to save memory; a loss's normaliser sees one.
        optimizer: stochastic gradient descent with momentum, Adam (weight decay enters its gradients), or AdamW (it does not).
        learning_rate: before warm-up and decay.
        scale_learning_rate_to: the linear rule: the batch size for which `learning_rate` was chosen; it is multiplied by
            batch_size / scale_learning_rate_to. None takes `learning_rate` as it is.
        momentum: of sgd.
        betas: of adam and adamw.
        weight_decay: of weights that are neither a normalisation's nor a bias.
        weight_decay_norm: of scales and shifts of normalisation layers; None: as weight_decay.
        weight_decay_bias: of other biases; None: as weight_decay.
        parts: parts of the model that learn in another way than the rest.
        bias_learning_rate_factor: biases outside normalisation layers learn this much faster.
        warmup: the factor of the learning rate during warm-up grows from warmup_factor to 1, or stays there.
        warmup_steps: how long.
        warmup_factor: see warmup.
        schedule: how the learning rate falls: times gamma at each milestone; straight to 0; half a cosine to 0; (1 - t) ** power.
        milestones: of schedule step, as fractions of `steps`, so that a shorter run has the same shape.
        gamma: see schedule.
        power: see schedule.
        clip_gradients: largest L2 norm of all gradients together; None does not clip.
        average: decay of a moving average of the weights, which is then what is evaluated and published; None: no average.
            It warms up as min(average, (1 + step) / (10 + step)).
        precision: of the network's dense part; losses are always float32.
        sync_batch_norm: BatchNorm over all processes' images.
        compile: compile the network's dense part with torch.compile.
        seed: of initial weights, order of images, augmentation and sampling.
        init_from: a checkpoint, or the name of published weights, to start from (fine-tuning); a class predictor of another
            class count starts anew.
        evaluate_every: steps between evaluations on the validation split; there is always one at the end. None: only that.
        save_every: steps between checkpoints; there is always one at an evaluation, at the end and on Ctrl-C.
        log_every: steps that one line of the log sums up.
        tensorboard: write TensorBoard files beside the log.
    """

    steps: int = 90_000
    batch_size: int = 16
    accumulate: int = 1
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.01
    scale_learning_rate_to: int | None = None
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    weight_decay_norm: float | None = None
    weight_decay_bias: float | None = None
    parts: tuple[PartTraining, ...] = ()
    bias_learning_rate_factor: float = 1.0
    warmup: Literal["linear", "constant"] = "linear"
    warmup_steps: int = 1000
    warmup_factor: float = 0.001
    schedule: Literal["step", "linear", "cosine", "poly"] = "step"
    milestones: tuple[float, ...] = (60 / 90, 80 / 90)
    gamma: float = 0.1
    power: float = 0.9
    clip_gradients: float | None = None
    average: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    sync_batch_norm: bool = False
    compile: bool = False
    seed: int = 0
    init_from: str | None = None
    evaluate_every: int | None = 5000
    save_every: int = 1000
    log_every: int = 20
    tensorboard: bool = False

    def __post_init__(self):
        for name in (
            "steps",
            "batch_size",
            "accumulate",
            "save_every",
            "log_every",
            "scale_learning_rate_to",
            "evaluate_every",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is not at least 1")
        for name in ("learning_rate", "gamma", "power", "clip_gradients", "bias_learning_rate_factor"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}={value} is not a positive number")
        for name in ("weight_decay", "weight_decay_norm", "weight_decay_bias", "warmup_steps", "seed"):
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name}={value} is below 0 or no number")
        for name in ("momentum", "average"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name}={value} is not between 0 and 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={list(self.betas)} are not between 0 and 1")
        if not 0 <= self.warmup_factor <= 1:
            raise ValueError(f"warmup_factor={self.warmup_factor} is not between 0 and 1")
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} is not below steps={self.steps}; set warmup_steps too, "
                f"for instance to {self.steps // 10}"
            )
        if not all(0 < milestone < 1 for milestone in self.milestones):
            raise ValueError(
                f"milestones={list(self.milestones)} are fractions of steps, between 0 and 1: "
                f"write [{', '.join(f'{m / self.steps:.4g}' if m >= 1 else str(m) for m in self.milestones)}]"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size={self.batch_size} does not divide into accumulate={self.accumulate} parts")
