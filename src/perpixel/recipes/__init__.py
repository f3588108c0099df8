"""Published settings: every public function of a module here is a recipe, every `Table` a table of ablations, found by name.

A recipe function takes nothing and returns a frozen `Recipe`. The first line of its docstring says what it is, the rest gives the
command, the paper's number and ours, kept apart.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from perpixel.engine.ablation import Table
from perpixel.engine.recipe import Recipe
from perpixel.errors import InputError

RecipeFunction = Callable[[], Recipe]


@cache
def all_recipes() -> dict[str, RecipeFunction]:
    """All recipe functions by name."""
    found = {}
    for name, value in _contents():
        if inspect.isfunction(value) and inspect.signature(value) == inspect.signature(_shape):
            found[name] = value
    return found


@cache
def all_tables() -> dict[str, Table]:
    """All tables of ablations by name, those of a module in its order."""
    return {value.name: value for _, value in _contents() if isinstance(value, Table)}


def _contents() -> Iterator[tuple[str, Any]]:
    """Everything in the modules here, by name."""
    for module in pkgutil.iter_modules(__path__):
        yield from vars(importlib.import_module(f"{__name__}.{module.name}")).items()


def _shape() -> Recipe:
    """What a recipe function looks like: no parameters, a `Recipe` back."""
    raise AssertionError("a signature to compare with")


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    known = all_recipes()
    if name not in known:
        raise InputError(f"{name!r} is not a recipe; {_hint(name, known, 'perpixel list')}")
    return known[name]()


def get_table(name: str) -> Table:
    """The table of ablations of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    known = all_tables()
    if name not in known:
        raise InputError(f"{name!r} is not a table of ablations; {_hint(name, known, 'perpixel ablate --list')}")
    return known[name]


def _hint(name: str, known: Iterable[str], command: str) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"did you mean {close[0]}?" if close else f"{command} shows all"
