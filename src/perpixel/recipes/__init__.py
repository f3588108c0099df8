"""Published settings: every public function of a module here is a recipe, found by its name.

A recipe function takes nothing and returns a frozen `Recipe`. The first line of its docstring says what it is, the rest gives the
command, the paper's number and ours, kept apart.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache

from perpixel.engine.recipe import Recipe
from perpixel.errors import InputError

RecipeFunction = Callable[[], Recipe]


@cache
def all_recipes() -> dict[str, RecipeFunction]:
    """All recipe functions by name."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        contents = vars(importlib.import_module(f"{__name__}.{module.name}"))
        for name, value in contents.items():
            if inspect.isfunction(value) and inspect.signature(value) == inspect.signature(_shape):
                found[name] = value
    return found


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
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else "perpixel list shows all"
        raise InputError(f"{name!r} is not a recipe; {hint}")
    return known[name]()
