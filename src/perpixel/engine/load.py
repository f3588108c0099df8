"""From a file to a model at work."""

from collections.abc import Iterator
from pathlib import Path

import torch

from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.engine.exported import is_exported, load_exported
from perpixel.engine.instances import Instances
from perpixel.engine.predict import AnyPredictor, Predictor
from perpixel.engine.sources import Anything
from perpixel.engine.video import VideoPredictor
from perpixel.engine.weights import checkpoint_file
from perpixel.errors import InputError
from perpixel.models.heads import VideoModel


def load(
    path: str | Path, device: torch.device | str | None = None, optimize: str | bool | None = None
) -> AnyPredictor:
    """The model of a checkpoint or exported file, ready to predict; the file holds all that is needed.

    Args:
        path: a .safetensors file that `perpixel train` or `perpixel convert` wrote, or an .onnx, .xml or .pt2 file of
            `perpixel export`; or a name of `perpixel list --weights`, such as ``condinst_r50_3x``, whose published weights are
            downloaded and converted the first time; or ``hf:OWNER/NAME`` of the Hugging Face hub, ``@REVISION`` behind it.
        device: where to compute; None takes the GPU if there is one.
        optimize: how a checkpoint's model is made faster: `exact` (the default), which changes nothing but rounding, `bf16`,
            `compile` or `off`; True takes what suits the hardware (`Predictor.optimize`).

    Raises:
        InputError: no such file, not one of this library, weights that cannot be had, or a level of speed that does not fit it.
    """
    path = checkpoint_file(path)
    if is_exported(path):
        if optimize is not None:
            raise InputError(f"{path} is fast as it was exported: leave optimize out, or choose at `perpixel export`")
        return load_exported(path, device)
    checkpoint = load_checkpoint(path)
    model = build_model(checkpoint)
    kind = VideoPredictor if isinstance(model, VideoModel) else Predictor
    predictor = kind(
        model,
        checkpoint.class_names,
        checkpoint.recipe.data.test,
        device,
        category_ids=checkpoint.category_ids,
        stuff=checkpoint.stuff,
        keypoint_names=checkpoint.recipe.model.keypoint_names(),
        skeleton=checkpoint.skeleton,
    )
    return predictor.optimize("exact" if optimize is None else optimize)


def from_pretrained(
    repository: str,
    revision: str | None = None,
    device: torch.device | str | None = None,
    optimize: str | bool | None = None,
) -> AnyPredictor:
    """The model of a repository of the Hugging Face hub that `perpixel push` filled; `load` takes ``hf:OWNER/NAME`` as well.

    Args:
        repository: OWNER/NAME.
        revision: a branch, a tag or a commit; None is the newest of ``main``.
        device, optimize: as of `load`.

    Raises:
        InputError: no such repository, revision or file, or no way to it.
    """
    return load(f"hf:{repository}" + (f"@{revision}" if revision else ""), device, optimize)


def predict(
    path: str | Path, source: Anything, score: float = 0.5, device: torch.device | str | None = None
) -> Instances | list[Instances] | Iterator[Instances]:
    """What the model of a file finds in `source`; see `Predictor.predict`. To predict often, `load` once."""
    return load(path, device).predict(source, score)
