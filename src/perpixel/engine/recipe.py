"""A recipe: everything needed to reproduce a run, and its form in JSON."""

import importlib
import json
import pkgutil
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import perpixel.models
import perpixel.nn
from perpixel.config import ConfigError, from_dict, to_dict
from perpixel.data.settings import DataConfig
from perpixel.engine.settings import Training
from perpixel.models.heads import ModelConfig

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
        values: Any = json.loads(text)
    except json.JSONDecodeError as error:
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


@cache
def load_model_configs() -> None:
    """Imports every module of methods and layers, so that the configs named by ``kind`` are known."""
    for package in (perpixel.models, perpixel.nn):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
