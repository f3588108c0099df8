"""The learning rate as a pure function of the step: warm-up times decay."""

import math
from bisect import bisect_right

from perpixel.engine.settings import Training


def learning_rate_factor(step: int, training: Training) -> float:
    """What the learning rate of update `step` (the first is 0) is multiplied by."""
    return batch_factor(training) * warmup_factor(step, training) * decay_factor(step, training)


def batch_factor(training: Training) -> float:
    """The linear rule (Goyal et al. 2017, section 2.1): batch_size over the batch size the learning rate was chosen for."""
    reference = training.scale_learning_rate_to
    return 1.0 if reference is None else training.batch_size / reference


def warmup_factor(step: int, training: Training) -> float:
    """Below 1 during the first `warmup_steps` updates."""
    if step >= training.warmup_steps:
        return 1.0
    if training.warmup == "constant":
        return training.warmup_factor
    return training.warmup_factor + (1 - training.warmup_factor) * step / training.warmup_steps


def decay_factor(step: int, training: Training) -> float:
    """Falls from 1 as `training.schedule` says; linear, cosine and poly would reach 0 after the last update."""
    done = step / training.steps
    if training.schedule == "step":
        return training.gamma ** bisect_right(milestone_steps(training), step)
    if training.schedule == "linear":
        return 1 - done
    if training.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return (1 - done) ** training.power


def milestone_steps(training: Training) -> list[int]:
    """The first updates with a smaller learning rate: the milestones' fractions of `steps`, rounded."""
    return sorted(round(milestone * training.steps) for milestone in training.milestones)
