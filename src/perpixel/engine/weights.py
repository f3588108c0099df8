"""A checkpoint by whatever name: a file, a recipe with published weights, a repository of the Hugging Face hub."""

from pathlib import Path

from perpixel.engine.checkpoint import Checkpoint, load_checkpoint
from perpixel.engine.weights_cache import published_file
from perpixel.engine.weights_hub import hub_file
from perpixel.engine.weights_table import PUBLISHED, no_such_weights


def open_checkpoint(name: str | Path) -> Checkpoint:
    """The checkpoint of that name; see `checkpoint_file`."""
    return load_checkpoint(checkpoint_file(name))


def is_named(name: str) -> bool:
    """Whether it is the name of published weights or of a repository of the hub."""
    return name.startswith("hf:") or name in PUBLISHED


def checkpoint_file(name: str | Path) -> Path:
    """The file that a checkpoint's name means; what is not here yet is downloaded.

    Args:
        name: a file; a name of `perpixel list --weights`; or ``hf:OWNER/NAME`` of the Hugging Face hub, with ``@REVISION`` for a
            branch, a tag or a commit of it. A file that has the name of published weights goes before them.

    Raises:
        InputError: no such weights, or they cannot be had.
    """
    text, path = str(name), Path(name)
    if text.startswith("hf:"):
        return hub_file(text)
    if path.is_file():
        return path
    if text in PUBLISHED:
        return published_file(PUBLISHED[text])
    if path.suffix or len(path.parts) != 1 or path.exists():
        return path  # whoever reads it says what is wrong
    raise no_such_weights(text)
