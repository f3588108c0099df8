"""From a checkpoint file to a model at work."""

from collections.abc import Iterator
from pathlib import Path

import torch

from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.engine.instances import Instances
from perpixel.engine.predict import Predictor
from perpixel.engine.sources import Anything


def load(path: str | Path, device: torch.device | str | None = None) -> Predictor:
    """The model of a checkpoint, ready to predict; the checkpoint holds all that is needed.

    Args:
        path: a .safetensors file that `perpixel train` or `perpixel convert` wrote.
        device: where to compute; None takes the GPU if there is one.

    Raises:
        InputError: no such file, or not a checkpoint of this library.
    """
    checkpoint = load_checkpoint(path)
    return Predictor(build_model(checkpoint), checkpoint.class_names, checkpoint.recipe.data.test, device)


def predict(
    path: str | Path, source: Anything, score: float = 0.5, device: torch.device | str | None = None
) -> Instances | list[Instances] | Iterator[Instances]:
    """What the model of a checkpoint finds in `source`; see `Predictor.predict`. To predict often, `load` once."""
    return load(path, device).predict(source, score)
