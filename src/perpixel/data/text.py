"""Text files that a user gives, read or refused in one sentence."""

from pathlib import Path
from typing import Any

import yaml

from perpixel.config import load_yaml
from perpixel.errors import InputError


def read_text(path: Path) -> str:
    """The UTF-8 text in `path`.

    Raises:
        InputError: the file cannot be read or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error.reason})") from error
    except ValueError as error:  # a name that no file can have
        raise InputError(f"{str(path)!r} cannot be read ({error})") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in the YAML file `path`.

    Raises:
        InputError: the file cannot be read, is not YAML, or holds something else than settings by name.
    """
    try:
        values = load_yaml(read_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no settings by name, such as train: annotations.json")
    return values
