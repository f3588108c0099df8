"""A recipe: everything needed to reproduce a run, and its form in JSON."""

import importlib
import json
import pkgutil
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import perpixel.models
import perpixel.nn
from perpixel.config import ConfigError, from_dict, load_json, to_dict
from perpixel.data.settings import DataConfig
from perpixel.engine.settings import Training
from perpixel.errors import InputError
from perpixel.models.heads import Model, ModelConfig

FORMAT = 1
"""Version of the JSON; a reader refuses a newer one."""


@dataclass(frozen=True)
class Recipe:
    """Everything needed to reproduce a run.

    Attributes:
        name: of the method and its settings; a run's folder is called after it.
        model: what is trained.
        data: on what, and how images are read.
        training: how.
    """

    name: str
    model: ModelConfig
    data: DataConfig = field(default_factory=DataConfig)
    training: Training = field(default_factory=Training)


def recipe_to_json(recipe: Recipe) -> str:
    """The recipe as indented JSON with its format's version; `recipe_from_json` is the inverse."""
    return json.dumps({"format": FORMAT, "recipe": to_dict(recipe)}, indent=2)


def recipe_from_json(text: str, source: str = "recipe") -> Recipe:
    """The recipe that `recipe_to_json` wrote.

    Args:
        text: the JSON.
        source: what messages call it: the name of the file it came from.

    Raises:
        ConfigError: not such JSON, written by a newer version, or with settings that do not exist.
    """
    try:
        values: Any = load_json(text)
    except ValueError as error:
        raise ConfigError(f"{source} is not valid JSON: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("format"), int) or "recipe" not in values:
        raise ConfigError(f"{source} is not a recipe of perpixel: it needs the keys format and recipe")
    if values["format"] > FORMAT:
        raise ConfigError(
            f"{source} has format {values['format']}, this perpixel reads up to {FORMAT}: upgrade it with pip install -U perpixel"
        )
    load_model_configs()
    try:
        return from_dict(Recipe, values["recipe"])
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def built(config: ModelConfig, classes: int, stuff: int, source: str) -> Model:
    """The model of a recipe.

    Args:
        config: of the model.
        classes, stuff: how many.
        source: what messages call the recipe.

    Raises:
        InputError: numbers that no layer can have, such as -1 channels; says what PyTorch says of them.
    """
    try:
        return config.build(classes, stuff)
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AssertionError, MemoryError) as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(
            f"{source}: a model with these settings cannot be built ({said}): correct its model settings"
        ) from error


@cache
def load_model_configs() -> None:
    """Imports every module of methods and layers, so that the configs named by ``kind`` are known."""
    for package in (perpixel.models, perpixel.nn):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
