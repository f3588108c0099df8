"""The folder of a search: its files, and when it may be written to."""

import json
from dataclasses import dataclass
from pathlib import Path

from perpixel.config import family, from_dict, short, to_dict
from perpixel.engine.files import halves, write_text
from perpixel.errors import InputError
from perpixel.search.settings import Search

CHANGEABLE = ("trials", "runner", "workers", "cpus", "gpus", "time_limit")
"""Settings that a resumed search may change: what is proposed depends on none of them."""


@dataclass(frozen=True)
class SearchFolder:
    """Where a search keeps its files.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def settings(self) -> Path:
        """What is searched and how."""
        return self.path / "search.json"

    @property
    def state(self) -> Path:
        """All that going on needs."""
        return self.path / "state.safetensors"

    @property
    def page(self) -> Path:
        """The report to look at."""
        return self.path / "search.html"

    @property
    def best(self) -> Path:
        """The best genotypes, as plain values."""
        return self.path / "best.json"


def open_folder(folder: SearchFolder, search: Search, resume: bool) -> None:
    """Creates the folder, or takes away what a killed search had half written there, and writes the settings into it.

    Raises:
        InputError: a folder with other files or of another search, or settings that a resumed search may not change.
    """
    if not resume and folder.path.is_dir() and set(folder.path.iterdir()) - set(halves(folder.path)):
        raise InputError(f"{folder.path} is not empty: say --resume to go on, or choose another --out")
    if resume:
        before, now = to_dict(load_search(folder.path, type(search))), to_dict(search)
        changed = [name for name in now if now[name] != before[name] and name not in CHANGEABLE]
        if changed:
            raise InputError(
                f"{folder.path} was searched with {changed[0]}={before[changed[0]]}, not {now[changed[0]]}: "
                "go on with the same, or start a new search"
            )
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder.path} cannot be created: {error}") from error
    for half in halves(folder.path):
        half.unlink(missing_ok=True)
    values = {"kind": type(search).__name__} | to_dict(search)
    write_text(folder.settings, json.dumps(values, indent=1) + "\n")


def load_search(path: Path, cls: type[Search] = Search) -> Search:
    """The settings of the search in a folder.

    Args:
        path: the folder.
        cls: what kind of search; `Search` takes any kind that is imported.

    Raises:
        InputError: there is none, or of another kind.
    """
    file = SearchFolder(path).settings
    if not file.is_file():
        raise InputError(f"{path} holds no search: there is no {file.name}")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON ({error})") from error
    kind = values.get("kind") if isinstance(values, dict) else None
    if cls is not Search and kind != cls.__name__:
        raise InputError(f"{file} is no {cls.__name__}: choose another --out")
    if kind is not None and kind not in [known.__name__ for known in family(cls)]:
        raise InputError(
            f"{path} was searched by {short(kind)}, which is none of perpixel's own: in Python import the module that "
            f'defines it, then call perpixel.search.runner.show_run("{path}")'
        )
    return from_dict(cls, values)
