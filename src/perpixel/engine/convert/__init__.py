"""Checkpoints of other libraries as ours: the weights renamed, and the settings that give the same numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from perpixel.engine.convert.detect import detect_layout
from perpixel.engine.convert.infer import infer_config
from perpixel.engine.convert.panoptic import around, inside, stuff_of
from perpixel.errors import InputError
from perpixel.models.detector import DetectorConfig
from perpixel.models.panoptic import PanopticFPN
from perpixel.nn.backbones import without_pretrained
from perpixel.nn.layers import LevelNorms
from perpixel.nn.renaming import matching, renamed
from perpixel.nn.tensor_files import read_tensors, tensors_of

FROZEN_EPSILON = 1e-5
"""What timm's batch norms, and so our frozen ones, add to a variance."""


@dataclass(frozen=True)
class Conversion:
    """A foreign checkpoint as ours.

    Attributes:
        layout: whose it was.
        config: settings of the model that the weights belong to.
        classes: how many.
        weights: fit ``config.build(classes, stuff)`` exactly.
        unused: entries of the checkpoint that went nowhere: a part of their model that ours does not have.
        harmless: entries that carry nothing: pixel statistics that the settings hold, counters of frozen norms.
        filled: weights of ours that theirs has no entry for because they are constant (a bias that GroupNorm makes needless).
        notes: what a checkpoint does not tell, and was taken as usual.
        stuff: how many classes of stuff; 0 of a detector.
    """

    layout: str
    config: DetectorConfig | PanopticFPN
    classes: int
    weights: dict[str, Tensor]
    unused: tuple[str, ...]
    harmless: tuple[str, ...]
    filled: tuple[str, ...]
    notes: tuple[str, ...]
    stuff: int = 0

    def build(self) -> nn.Module:
        """The model with the weights, in evaluation mode."""
        model = without_pretrained(self.config).build(self.classes, self.stuff)
        model.load_state_dict(self.weights)
        return model.eval()


def convert_checkpoint(
    source: str | Path | Mapping, config: DetectorConfig | PanopticFPN | None = None, layout: str | None = None
) -> Conversion:
    """Turns an FCOS or RetinaNet of AdelaiDet, detectron2, tianzhi0549/FCOS, NAS-FCOS, torchvision or mmdetection into ours.

    Args:
        source: a .pth or .safetensors file, or its contents.
        config: settings of the model to fill; inferred from names, shapes and the library's conventions if None.
        layout: whose checkpoint it is (adelaidet, detectron2, fcos_original, nas_fcos, torchvision, mmdetection); told
            from the names if None.

    Raises:
        InputError: the file cannot be read, is of no known layout, or does not fill the model; names file and weight.
    """
    place = str(source) if isinstance(source, str | Path) else "the checkpoint"
    tensors = tensors_of(source) if isinstance(source, Mapping) else read_tensors(source)
    try:
        found = detect_layout(tensors, layout)
        weights, unknown = renamed(tensors, found.rows(tensors))
        inferred, classes = infer_config(found.base, weights)
    except InputError as error:
        raise InputError(str(error).replace("the checkpoint", place, 1)) from error
    if found.exact_frozen_norms:
        weights = _less_epsilon(weights)
    chosen = config or found.adapt(inferred, tensors)
    stuff = stuff_of(weights)
    if stuff:
        chosen = config or around(found.adapt(inferred, tensors), weights)
        weights = inside(weights)
    fitted, filled, surplus = _fitted(weights, without_pretrained(chosen).build(classes, stuff), place)
    leftover = (*unknown, *surplus)
    harmless = tuple(matching(leftover, (*found.unused, "{*}.num_batches_tracked")))
    unused = tuple(name for name in leftover if name not in harmless)
    return Conversion(found.name, chosen, classes, fitted, unused, harmless, filled, found.notes, stuff)


def _less_epsilon(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Variances of the backbone's frozen norms, which count no batches, less what our norms add."""
    frozen = {
        name
        for name in weights
        if name.startswith("backbone.body.")
        and name.endswith(".running_var")
        and name.replace("running_var", "num_batches_tracked") not in weights
    }
    return {name: tensor - FROZEN_EPSILON if name in frozen else tensor for name, tensor in weights.items()}


def _fitted(
    weights: dict[str, Tensor], model: nn.Module, place: str
) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """Exactly the model's weights; the names among them that are constants; and the names that the model does not have."""
    wanted = model.state_dict()
    constant = _constants(model, wanted)
    missing = [name for name in wanted if name not in weights and name not in constant]
    if missing:
        raise InputError(
            f"{place} has nothing for {len(missing)} of the model's {len(wanted)} weights, first {missing[0]}: "
            "its settings differ from the model's"
        )
    fitted = {}
    for name, ours in wanted.items():
        tensor = weights.get(name, constant.get(name))
        assert tensor is not None
        if tensor.numel() != ours.numel() or tensor.squeeze().shape != ours.squeeze().shape:
            have, need = tuple(tensor.shape), tuple(ours.shape)
            raise InputError(f"{place} has {name} of shape {have}, the model needs {need}: its settings differ")
        fitted[name] = tensor.reshape(ours.shape).to(ours.dtype).contiguous()
    filled = tuple(name for name in wanted if name not in weights)
    return fitted, filled, tuple(name for name in weights if name not in wanted)


def _constants(model: nn.Module, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that a foreign model may lack: zero biases before a norm, counters, counts of positives and of masks."""
    out = {}
    for name, tensor in wanted.items():
        needless = "_tower." in name and name.endswith(".bias") and _is_before_norm(model, name)
        if needless or name.endswith(".num_batches_tracked"):
            out[name] = torch.zeros_like(tensor)
        elif name.endswith(".positive_count.running"):
            out[name] = tensor
        elif name.endswith(".code.counts"):
            out[name] = torch.ones_like(tensor)  # fitted, to nobody knows how many masks
    return out


def _is_before_norm(model: nn.Module, name: str) -> bool:
    """Whether a bias belongs to a convolution that has a norm after it."""
    tower, _, layer = name.removesuffix(".bias").rpartition(".")
    layers = model.get_submodule(tower)
    if not layer.isdigit() or not isinstance(layers, nn.Sequential):
        return False
    at = int(layer)
    return (
        isinstance(layers[at], nn.Conv2d)
        and at + 1 < len(layers)
        and isinstance(layers[at + 1], nn.GroupNorm | LevelNorms)
    )
