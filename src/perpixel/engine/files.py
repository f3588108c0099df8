"""Files that are never half written, and safetensors with one JSON document beside the tensors."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from perpixel.config import load_json
from perpixel.errors import InputError

PART = ".part"
"""Ending of a file that is being written."""
UNSPEAKABLE = "backslashreplace"
"""How text is written that UTF-8 cannot say; JSON reads it as it was."""
DOCUMENT, SHARED = "perpixel", "perpixel.shared"


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary file in the same folder, which then replaces `path` in one go.

    A reader, or a process killed at any moment, sees the whole old file or the whole new one.

    Raises:
        InputError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors makes files that only their owner may read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    r"""Writes a text file in UTF-8, atomically; what UTF-8 cannot say, such as a file's name in another encoding, as ``\udcff``.

    Raises:
        InputError: the file cannot be written.
    """
    write_atomically(path, lambda file: _encode(file, text))


def _encode(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", errors=UNSPEAKABLE)


def halves(folder: Path) -> list[Path]:
    """Files in a folder that a killed process had begun to write."""
    return list(folder.glob(f".*{PART}"))


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there; the rename is durable without it
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Writes named tensors and one JSON document to a safetensors file, atomically.

    A tensor under several names (tied weights) is stored once; the other names are noted in the file.
    """
    kept: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    names: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        where = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and where in names:
            shared[name] = names[where]
        else:
            names[where] = name
            # Views into one storage (parts of a fused weight) become tensors of their own: safetensors takes no overlaps.
            copied = tensor.cpu().contiguous()
            kept[name] = copied.clone() if copied.untyped_storage().nbytes() != copied.nbytes else copied
    metadata = {DOCUMENT: json.dumps(document)}
    if shared:  # safetensors writes several entries in random order; with one, the same content is the same bytes
        metadata[SHARED] = json.dumps(shared)
    write_atomically(path, lambda file: save_file(kept, file, metadata=metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote: the tensors on the CPU and the document.

    Raises:
        InputError: no such file, truncated, corrupt, or not written by this library.
    """
    if not path.is_file():
        raise InputError(
            f"{path} does not exist" if not path.exists() else f"{path} is a folder, not a checkpoint file"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, MemoryError) as error:
        raise InputError(
            f"{path} is truncated, corrupt or no safetensors file ({error}); "
            "a checkpoint of another library becomes ours with `perpixel convert`"
        ) from error
    if DOCUMENT not in metadata:
        raise InputError(
            f"{path} holds weights but no recipe of perpixel; `perpixel convert` makes it a checkpoint of ours"
        )
    try:
        document, shared = load_json(metadata[DOCUMENT]), load_json(metadata.get(SHARED, "{}"))
    except ValueError as error:
        raise InputError(f"{path}: its metadata is not valid JSON ({error}); the file is corrupt") from error
    if not isinstance(document, dict) or not isinstance(shared, dict):
        raise InputError(f"{path}: its metadata holds no values by name; the file is corrupt")
    for name, original in shared.items():
        if not isinstance(original, str) or original not in tensors:
            raise InputError(f"{path}: its metadata names a tensor for {name} that is not there; the file is corrupt")
    return tensors | {name: tensors[original] for name, original in shared.items()}, document
