"""What can be searched by name: every public subclass of `Search` in a module here, under the module's name."""

import difflib
import importlib
import inspect
import pkgutil
from functools import cache

from perpixel.errors import InputError
from perpixel.search.settings import Search


@cache
def all_searches() -> dict[str, type[Search]]:
    """The kinds of search by name."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        name = f"{__name__}.{module.name}"
        for value in vars(importlib.import_module(name)).values():
            if inspect.isclass(value) and issubclass(value, Search) and value.__module__ == name:
                found[module.name] = value
    return found


def get_search(name: str) -> type[Search]:
    """The kind of search of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    known = all_searches()
    if name not in known:
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise InputError(f"{name!r} is not a search; {hint}")
    return known[name]
