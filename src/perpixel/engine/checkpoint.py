"""Checkpoints: a model's weights with the recipe, the class names and all else that using them needs, in one file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path

from torch import Tensor, nn

from perpixel import __version__
from perpixel.config import ConfigError, from_dict
from perpixel.engine.files import load_tensors, save_tensors
from perpixel.engine.recipe import Recipe, built, recipe_from_json, recipe_to_json
from perpixel.errors import InputError
from perpixel.models.heads import Model
from perpixel.nn.backbones import without_pretrained
from perpixel.structures import Stuff


@dataclass(frozen=True)
class Origin:
    """Whose weights a checkpoint holds that was converted from published ones.

    Attributes:
        address: of the published file.
        sha256: of that file.
        publisher: who published it.
        licence: on which terms.
    """

    address: str
    sha256: str
    publisher: str
    licence: str


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: the file.
        recipe: how the model was built and trained.
        class_names: name of each class index.
        category_ids: what each class index is called in the data set's own results, for COCO json.
        weights: tensors by name, as the model's ``state_dict`` has them.
        step: updates that made these weights.
        metrics: of the validation split at that step; empty if there was no evaluation.
        version: of the library that wrote the file.
        stuff: the classes without objects that a panoptic model knows.
        skeleton: pairs of the data's keypoints that a limb joins, counted from 0; the recipe's model knows their names.
        origin: whose weights these are, if they were published by others.
    """

    path: Path
    recipe: Recipe
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    weights: dict[str, Tensor] = field(repr=False)
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    version: str = __version__
    stuff: Stuff = field(default_factory=Stuff)
    skeleton: tuple[tuple[int, int], ...] = ()
    origin: Origin | None = None


def save_checkpoint(
    path: Path | str,
    model: nn.Module,
    recipe: Recipe,
    class_names: Sequence[str],
    *,
    category_ids: Sequence[int] | None = None,
    step: int = 0,
    metrics: Mapping[str, float] | None = None,
    stuff: Stuff | None = None,
    skeleton: Sequence[tuple[int, int]] = (),
    origin: Origin | None = None,
) -> None:
    """Writes a checkpoint that stands alone: `load_checkpoint` and `build_model` need nothing else. Atomic.

    Args:
        path: a .safetensors file; an old one is replaced in one go.
        model: its ``state_dict`` is stored, tied weights once.
        recipe: how to build the model.
        class_names: name of each class index.
        category_ids: what each class index is called in the data set's own results; 1, 2, ... if not given.
        step: updates that made these weights.
        metrics: of the validation split.
        stuff: the classes without objects, where the data know them.
        skeleton: pairs of keypoints that a limb joins.
        origin: whose weights these are, if they were published by others.

    Raises:
        InputError: the file cannot be written.
    """
    document = {
        "version": __version__,
        "recipe": json.loads(recipe_to_json(recipe)),
        "class_names": list(class_names),
        "category_ids": list(range(1, len(class_names) + 1) if category_ids is None else category_ids),
        "step": step,
        "metrics": dict(metrics or {}),
    }
    if stuff:
        document["stuff"] = {"names": list(stuff.names), "category_ids": list(stuff.category_ids)}
    if skeleton:
        document["skeleton"] = [list(pair) for pair in skeleton]
    if origin is not None:
        document["origin"] = asdict(origin)
    save_tensors(Path(path), model.state_dict(), document)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Reads a checkpoint file; nothing in it is executed.

    Raises:
        InputError: no such file, truncated, corrupt, of another library, or with a recipe that this version cannot build.
    """
    path = Path(path)
    weights, document = load_tensors(path)
    wanted = [one.name for one in fields(_About) if one.default is MISSING and one.default_factory is MISSING]
    for name in ("recipe", *wanted):
        if name not in document:
            raise InputError(f"{path} has no {name} in its metadata: it is not a model's checkpoint")
    recipe = recipe_from_json(json.dumps(document["recipe"]), str(path))
    try:
        about = from_dict(_About, {one.name: document[one.name] for one in fields(_About) if one.name in document})
    except ConfigError as error:
        raise InputError(f"{path}: its metadata does not fit: {error}; the file is corrupt") from error
    return Checkpoint(
        path=path, recipe=recipe, weights=weights, **{f.name: getattr(about, f.name) for f in fields(about)}
    )


@dataclass(frozen=True)
class _About:
    """What the file's document says beside the recipe; fields as of `Checkpoint`."""

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    step: int
    metrics: dict[str, float]
    version: str
    stuff: Stuff = field(default_factory=Stuff)
    skeleton: tuple[tuple[int, int], ...] = ()
    origin: Origin | None = None

    def __post_init__(self) -> None:
        for names, numbers in ((self.class_names, self.category_ids), (self.stuff.names, self.stuff.category_ids)):
            if len(names) != len(numbers):
                raise ValueError(f"{len(names)} classes have {len(numbers)} category numbers")


def build_model(checkpoint: Checkpoint) -> Model:
    """The checkpoint's model with its weights, in evaluation mode on the CPU.

    Raises:
        InputError: weights and recipe do not belong together; names the file and the first key that does not fit.
    """
    config = without_pretrained(checkpoint.recipe.model)
    model = built(config, len(checkpoint.class_names), len(checkpoint.stuff), str(checkpoint.path))
    load_weights(model, checkpoint.weights, checkpoint.path)
    return model.eval()


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Loads weights that must fit the model exactly.

    Raises:
        InputError: a missing, unknown or misshapen key, or one that holds NaN; names the file and the first such key.
    """
    for message in misfits(model, weights):
        raise InputError(f"{path}: {message}")
    for name, fresh in model.state_dict().items():
        if not bool(weights[name].isfinite().all()) and bool(fresh.isfinite().all()):
            raise InputError(
                f"{path}: {name} holds values that are not finite numbers: the file is damaged, or its training diverged; "
                "take an earlier one"
            )
    model.load_state_dict(dict(weights))


def misfits(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """One sentence for each key that keeps `weights` from fitting the model."""
    wanted = model.state_dict()
    out = [f"{name} is missing: the recipe's model needs it" for name in wanted if name not in weights]
    out += [f"{name} is unknown to the recipe's model" for name in weights if name not in wanted]
    for name, tensor in wanted.items():
        if name in weights and weights[name].dtype.is_floating_point != tensor.dtype.is_floating_point:
            out.append(f"{name} is of {weights[name].dtype}, the recipe's model needs {tensor.dtype}")
        elif name in weights and weights[name].shape != tensor.shape:
            out.append(f"{name} is {tuple(weights[name].shape)}, the recipe's model needs {tuple(tensor.shape)}")
    return out


def initialize_from(model: nn.Module, path: Path | str, class_names: Sequence[str]) -> list[str]:
    """Starts `model` from a checkpoint of the same model, perhaps trained on other classes (fine-tuning).

    A tensor whose shape differs only because the class count does (its first dimension, a multiple of the class counts)
    keeps its fresh values; so does a part of the model that the file does not have at all, such as a mask head where the file
    holds a detector of boxes. Everything else must fit.

    Args:
        model: freshly initialised for `class_names`.
        path: the checkpoint.
        class_names: of the new data.

    Returns:
        The names of the parts and tensors that start anew.

    Raises:
        InputError: anything else differs; names the file and the key.
    """
    checkpoint = load_checkpoint(path)
    old, new = len(checkpoint.class_names), len(class_names)
    wanted = model.state_dict()
    weights: dict[str, Tensor] = dict(checkpoint.weights)
    parts = {name.partition(".")[0] for name in weights}
    fresh = {}
    for name, tensor in wanted.items():
        part = name.partition(".")[0]
        if part not in parts:
            weights[name], fresh[part] = tensor, None
        elif old != new and name in weights and _differs_by_classes(weights[name], tensor, old, new):
            weights[name], fresh[name] = tensor, None
    load_weights(model, weights, path)
    return list(fresh)


def _differs_by_classes(stored: Tensor, wanted: Tensor, old: int, new: int) -> bool:
    if not stored.ndim or stored.ndim != wanted.ndim or stored.shape[1:] != wanted.shape[1:]:
        return False
    # An anchor-based predictor has several rows a class; both counts must be the same multiple of theirs.
    return stored.shape != wanted.shape and stored.shape[0] * new == wanted.shape[0] * old
