"""Where the files lie that annotations name: inside the folder the user gave, and nowhere else."""

import os
from pathlib import Path, PurePath, PureWindowsPath


class ImageFolder:
    """A folder of images; of each folder in it the names are listed once.

    Annotations come from strangers: a name may be absolute, climb out by ``..`` or be a link to somebody's other files.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = path.resolve()
        self._links: dict[Path, dict[str, bool]] = {}

    def fault(self, name: str) -> str | None:
        """Why the file `name` of the folder cannot be used, or None."""
        if climbs(name):
            return "leaves the folder of the images: name files inside it, without .. and not from the root"
        file = self.path / name
        links = self._listed(file.parent)
        if file.name not in links:
            return "is missing"
        if links[file.name] and not file.resolve().is_relative_to(self._root):
            return "is a link to a file outside the folder of the images: put the file itself there"
        return None

    def _listed(self, folder: Path) -> dict[str, bool]:
        """The names in a folder, and whether each may lead elsewhere."""
        if folder not in self._links:
            try:
                # Behind a folder that is a link every file lies elsewhere, however plain it looks.
                away = not folder.resolve().is_relative_to(self._root)
                with os.scandir(folder) as entries:
                    self._links[folder] = {entry.name: away or entry.is_symlink() for entry in entries}
            except (
                OSError,
                ValueError,
                RuntimeError,
            ):  # no such folder, a name that no file can have, links in a circle
                self._links[folder] = {}
        return self._links[folder]


def climbs(name: str) -> bool:
    """Whether a name leads out of the folder it is joined to, as written for this system or for Windows."""
    paths = PurePath(name), PureWindowsPath(name)
    return any(path.is_absolute() or path.anchor or ".." in path.parts for path in paths)


def expanded(path: str | Path) -> Path:
    """The path with ``~`` as the user's home; left as it is where there is no such user."""
    return Path(os.path.expanduser(path))
