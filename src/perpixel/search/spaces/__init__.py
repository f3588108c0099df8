"""What can be searched by name: the subclass of `Search` in each module here, under the module's name."""

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
    return {name: _search_in(name) for name in search_names()}


def search_names() -> list[str]:
    """The names, without importing anything."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get_search(name: str) -> type[Search]:
    """The kind of search of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    known = search_names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise InputError(f"{name!r} is not a search; {hint}")
    return _search_in(name)


def _search_in(name: str) -> type[Search]:
    """The one public subclass of `Search` in a module here."""
    path = f"{__name__}.{name}"
    module = importlib.import_module(path)
    return next(
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Search) and value.__module__ == path
    )
