"""Arguments that several commands share: a recipe, `key=value` settings, the device."""

import argparse
from collections.abc import Sequence
from typing import Any, TypeVar, cast

T = TypeVar("T")

SETTINGS_HELP = (
    "settings by dotted path, such as training.steps=2000 or model.head.radius=2.0; data=FILE.yaml reads the data settings "
    "of a file. `perpixel show RECIPE` prints all of them"
)


FAST = ("off", "exact", "bf16", "compile")
"""Levels of speed, as `perpixel.engine.fast` has them."""


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds the list of `key=value` settings."""
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=SETTINGS_HELP)


def add_skip_bad(parser: argparse.ArgumentParser) -> None:
    """Adds `--skip-bad`, short for ``data.skip_bad=true``."""
    parser.add_argument(
        "--skip-bad",
        dest="settings",
        action="append_const",
        const="data.skip_bad=true",
        help="go on without bad images and annotations, and list them",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds the choice of a device."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; the first GPU if there is one, else the processor")


def add_fast(parser: argparse.ArgumentParser) -> None:
    """Adds the level of speed."""
    parser.add_argument(
        "--fast",
        nargs="?",
        const=True,
        choices=FAST,
        help="how the network is made faster (docs/speed.md): exact, the default, changes nothing but rounding; bf16 computes in"
        " bfloat16; compile does as well, for each size of picture anew; --fast alone takes bf16 where the hardware has it",
    )


def with_settings(recipe: T, settings: Sequence[str]) -> T:
    """The recipe, or whatever else has settings for data, with `key=value` settings applied in order.

    Raises:
        InputError: a setting that does not exist or does not fit.
    """
    from dataclasses import replace

    from perpixel.config import merge, override
    from perpixel.data.settings import load_data_yaml

    data: Any = getattr(recipe, "data", None)
    if data is None:
        return override(recipe, settings)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key == "data" and equals:
            data = merge(data, load_data_yaml(value))
    changed = replace(cast(Any, recipe), data=data)
    return override(changed, [s for s in settings if s.partition("=")[0] != "data"])


def chosen_device(name: str | None):
    """The named device, or the best there is."""
    import torch

    from perpixel.errors import InputError

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name} is not a device: say cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no GPU that PyTorch can use here; leave the option out")
    return device
