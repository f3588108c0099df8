"""perpixel: instance-level perception by per-pixel prediction.

import perpixel
found = perpixel.load("runs/cells/best.safetensors").predict("photo.jpg")
found.plot().show()
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Instances", "from_pretrained", "load", "predict", "recipes"]

if TYPE_CHECKING:
    from perpixel import recipes
    from perpixel.engine.instances import Instances
    from perpixel.engine.load import from_pretrained, load, predict

_HOMES = {
    "Instances": "perpixel.engine.instances",
    "from_pretrained": "perpixel.engine.load",
    "load": "perpixel.engine.load",
    "predict": "perpixel.engine.load",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: torch and timm take seconds."""
    import importlib

    if name == "recipes":
        return importlib.import_module("perpixel.recipes")
    if name not in _HOMES:
        raise AttributeError(f"module 'perpixel' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
