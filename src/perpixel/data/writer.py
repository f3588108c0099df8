"""What writes a data set in some form."""

import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from PIL import Image as Pillow

from perpixel.data.document import Document, Losses
from perpixel.data.image import image_size
from perpixel.errors import InputError

Part = str | None
"""The name of a part of a data set, such as train; None for the whole."""


class Writer(ABC):
    """Writes the parts of a data set into a folder that is empty at first.

    Args:
        out: the folder.
        losses: counts what the form cannot carry.
        link: make hard links to the image files in place of copies.

    Attributes:
        form: what the form is called on the command line.
        flat: whether all images of a part lie in one folder.
        by_stem: whether an image's annotations are found by its name without ending, which must be unique then.
        states_size: whether the annotations say how large an image is.
        carries_classes: whether it has a place for what is said of the whole data set and of classes beside their names.
    """

    form: ClassVar[str]
    flat: ClassVar[bool] = False
    by_stem: ClassVar[bool] = True
    states_size: ClassVar[bool] = True
    carries_classes: ClassVar[bool] = False

    def __init__(self, out: Path, losses: Losses, link: bool = False) -> None:
        self.out, self.losses, self.link = out, losses, link

    @abstractmethod
    def place(self, file: str, part: Part) -> Path:
        """Where the image called `file` goes, from `out`."""

    @abstractmethod
    def write(self, document: Document, part: Part, files: dict[int | str, str]) -> None:
        """Writes the annotations of a part.

        Args:
            document: its images and objects.
            part: its name.
            files: what each image is called, by its id.
        """

    def finish(self, document: Document, parts: list[Part]) -> None:
        """Writes what tells of all parts; `document` is the whole."""
        return None

    def put_image(self, document: Document, image: int | str, file: str, part: Part) -> None:
        """Copies or links an image into its place, or draws it there if it is made on the fly."""
        target = self.out / self.place(file, part)
        target.parent.mkdir(parents=True, exist_ok=True)
        source = document.path(image)
        try:
            if source is None or not (self.states_size or self._upright(document, image, source)):
                Pillow.fromarray(document.dataset.image(document.rows[image])).save(target, quality=95)
            elif self.link:
                target.hardlink_to(source.resolve())
            else:
                shutil.copyfile(source, target)
        except OSError as error:
            done = "linked" if self.link else "copied"
            raise InputError(f"{source or file}: cannot be {done} to {target} ({error})") from error

    def _upright(self, document: Document, image: int | str, source: Path) -> bool:
        """Whether the file, turned as its EXIF data say, has the size that its annotations were made for."""
        upright = image_size(source) == document.dataset.record(document.rows[image]).size
        if not upright:
            self.losses.changed["images saved anew, as their annotations were made before the camera's turn"] += 1
        return upright

    def names(self, document: Document) -> dict[int | str, str]:
        """What each image is called in this form: as before where that is possible, else with its folders or a number."""
        if not (self.flat or self.by_stem):
            return document.files
        chosen: dict[int | str, str] = {}
        taken: set[str] = set()
        for identity, file in document.files.items():
            name = Path(file)
            candidates = [name.name, file.replace("/", "_")] if self.flat else [file]
            stem, suffix = candidates[-1].removesuffix(name.suffix), name.suffix
            candidates += [f"{stem}_{number}{suffix}" for number in range(2, len(document.files) + 2)]
            chosen[identity] = next(c for c in candidates if c.removesuffix(suffix).lower() not in taken)
            taken.add(chosen[identity].removesuffix(suffix).lower())
        return chosen
