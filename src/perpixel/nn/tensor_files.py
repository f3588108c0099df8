"""Tensors from files of other libraries; nothing in a file is ever executed."""

import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from perpixel.errors import InputError

# Where libraries keep the weights inside a checkpoint, most specific first.
INNER = ("model", "state_dict", "model_state_dict", "model_ema")
# What wrappers put before every name.
WRAPPERS = ("module.", "_orig_mod.")
# What the readers of PyTorch and NumPy raise at damaged files, beside their own errors: they parse as they go.
_DAMAGED = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
)
_DAMAGED += (MemoryError, struct.error, zlib.error, zipfile.BadZipFile)
_LARGE, _RATIO = 2**30, 20
"""A file that unpacks to more bytes than the first, and to more than so many times its own, is no file of weights."""


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The weights in a .pth/.pt, .safetensors or .npz file, by name, without training state and wrappers' prefixes.

    Raises:
        InputError: no such file, another kind of file, a pickle with objects other than tensors, or no tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file: name one with weights (.pth, .safetensors or .npz)")
    suffix = path.suffix.lower()
    if suffix == ".pkl":
        raise InputError(
            f"{path} is a pickle, which can execute code and is never loaded: where you trust it, save its tensors with "
            "safetensors.torch.save_file and name that file"
        )
    readers = {".pth": _read_torch, ".pt": _read_torch, ".bin": _read_torch, ".ckpt": _read_torch}
    readers |= {".safetensors": _read_safetensors, ".npz": _read_numpy}
    if suffix not in readers:
        raise InputError(
            f"{path} has the unknown ending {suffix or '(none)'}: weights come as .pth, .safetensors or .npz"
        )
    _refuse_bomb(path)
    tensors = _without_wrapper(readers[suffix](path))
    if not tensors:
        raise InputError(f"{path} holds no tensors by name: it is not a file of weights")
    return tensors


def tensors_of(values: Mapping, path: str | Path = "the checkpoint") -> dict[str, Tensor]:
    """The weights of a checkpoint already in memory: bare, or under `model` or `state_dict`."""
    for key in INNER:
        if isinstance(values.get(key), Mapping):
            return tensors_of(values[key], path)
    return _without_wrapper({str(k): v for k, v in values.items() if isinstance(v, Tensor)})


def _refuse_bomb(path: Path) -> None:
    """Refuses a zip (PyTorch's and NumPy's files are zips) that states to unpack to far more than it holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # no zip, or a damaged one: its reader says so
    if unpacked > max(_LARGE, _RATIO * path.stat().st_size):
        raise InputError(
            f"{path} would unpack to {unpacked / 2**20:.0f} MiB, far more than weights would: it is not read"
        )


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds Python objects beside its tensors, which are never loaded: where you trust it, save its tensors "
            "alone with safetensors.torch.save_file and name that file"
        ) from error
    except _DAMAGED as error:
        raise InputError(f"{path} cannot be read as a PyTorch file: it is truncated or of another kind") from error
    if not isinstance(values, Mapping):
        raise InputError(f"{path} holds one {type(values).__name__}, not weights by name")
    return tensors_of(values, path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, *_DAMAGED) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}") from error


def _read_numpy(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}
    except _DAMAGED as error:
        raise InputError(f"{path} cannot be read as arrays by name: {error}") from error


def _without_wrapper(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return _without_wrapper({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    return tensors
