"""perpixel: instance-level perception by per-pixel prediction."""

__version__ = "0.1.0"
