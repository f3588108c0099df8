"""The optimiser: which parameters decay, how its state becomes named tensors and back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from perpixel.engine.settings import PartTraining, Training
from perpixel.errors import InputError

NORMALIZATIONS = (
    nn.modules.batchnorm._NormBase,  # every BatchNorm and InstanceNorm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


def parameters_by_kind(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """The trainable parameters by name under ``weight``, ``norm`` (a normalisation's scale and shift) and ``bias``.

    A parameter shared by several modules appears once, under its first name.
    """
    kinds: dict[str, dict[str, nn.Parameter]] = {"weight": {}, "norm": {}, "bias": {}}
    seen: set[nn.Parameter] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            kind = "norm" if isinstance(module, NORMALIZATIONS) else "bias" if name == "bias" else "weight"
            kinds[kind][f"{prefix}.{name}" if prefix else name] = parameter
    return kinds


def build_optimizer(model: nn.Module, training: Training) -> Optimizer:
    """The optimiser over the trainable parameters: three groups of each part, with their own weight decay and learning rate.

    Raises:
        InputError: nothing to train, or a part in `training.parts` that the model does not have.
    """
    kinds = parameters_by_kind(model)
    if not any(kinds.values()):
        raise InputError("the model has no trainable parameter: every one is frozen by its settings")
    for part in training.parts:
        if part.part not in dict(model.named_modules()):
            known = ", ".join(name for name, _ in model.named_children())
            raise InputError(f"training.parts: the model has no part {part.part}, but {known}")
    decays = {"weight": None, "norm": training.weight_decay_norm, "bias": training.weight_decay_bias}
    rest = PartTraining("")
    groups: dict[str, list[dict[str, Any]]] = {}
    for kind, parameters in kinds.items():
        decay = decays[kind]
        bias_factor = training.bias_learning_rate_factor if kind == "bias" else 1.0
        for part in (rest, *training.parts):
            mine = [(n, p) for n, p in parameters.items() if _part_of(n, training, rest) == part]
            scale = bias_factor * part.learning_rate_factor
            if mine:
                groups.setdefault(part.optimizer or training.optimizer, []).append(
                    {
                        "params": mine,
                        "weight_decay": training.weight_decay if decay is None else decay,
                        "scale": scale,
                        "lr": training.learning_rate * scale,
                    }
                )
    made = [_optimizer(name, rows, training) for name, rows in groups.items()]
    return made[0] if len(made) == 1 else SeveralOptimizers(made)


def _part_of(name: str, training: Training, rest: PartTraining) -> PartTraining:
    """The first part that holds a parameter."""
    return next((part for part in training.parts if name.startswith(f"{part.part}.")), rest)


def _optimizer(name: str, groups: list[dict[str, Any]], training: Training) -> Optimizer:
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=training.momentum)
    if name == "adam":
        return torch.optim.Adam(groups, betas=training.betas)
    return torch.optim.AdamW(groups, betas=training.betas)


class SeveralOptimizers(Optimizer):
    """Optimisers of different kinds, each over its own parameters, that step together and keep one state."""

    def __init__(self, optimizers: list[Optimizer]):
        super().__init__([group for one in optimizers for group in one.param_groups], {})
        self.optimizers = optimizers
        for one in optimizers:
            one.state = self.state

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of each."""
        for one in self.optimizers:
            one.step()


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Sets the learning rate of every group: `rate` times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers, as ``PARAMETER/NAME`` -> tensor."""
    return {
        f"{name}/{key}": value
        for name, parameter in _named(optimizer).items()
        for key, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Gives the optimiser back what `optimizer_tensors` took from it.

    Raises:
        InputError: a tensor of a parameter that the optimiser does not have, or of another shape.
    """
    named = _named(optimizer)
    for name, tensor in tensors.items():
        parameter_name, _, key = name.rpartition("/")
        if parameter_name not in named:
            raise InputError(f"the optimiser's state holds {name}, which is no trainable parameter of this model")
        parameter = named[parameter_name]
        if tensor.ndim and tensor.shape != parameter.shape:
            raise InputError(
                f"the optimiser's state {name} is {tuple(tensor.shape)}, the parameter {tuple(parameter.shape)}"
            )
        # A count of steps stays where torch keeps it, on the CPU; everything else lies with its parameter.
        optimizer.state[parameter][key] = (
            tensor.clone() if tensor.ndim == 0 and key == "step" else tensor.to(parameter.device, copy=True)
        )


def _named(optimizer: Optimizer) -> dict[str, nn.Parameter]:
    return {
        name: parameter
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }
