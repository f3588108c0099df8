"""The files a prediction leaves: annotated pictures and videos, and one file of COCO results."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from perpixel.engine.instances import Instances
from perpixel.engine.sources import Source, Video, opencv
from perpixel.engine.visualize import Style
from perpixel.errors import InputError

WRITABLE = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Endings of annotated pictures; photos of other kinds become PNG."""


class ResultsFile:
    """A JSON list of COCO results, written as they come and put in place whole.

    Memory does not grow with the number of photos. When the work breaks off, what was found so far is kept as valid JSON.
    """

    def __init__(self, path: Path):
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._file: IO[str]
        self._first = True

    def __enter__(self) -> "ResultsFile":
        try:
            self._file = self._temporary.open("w", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror}") from error
        self._file.write("[")
        return self

    def add(self, results: Sequence[dict[str, Any]], file_name: str) -> None:
        """Appends the results of one photo, with its name."""
        for result in results:
            self._file.write("\n" if self._first else ",\n")
            self._file.write(json.dumps(result | {"file_name": file_name}))
            self._first = False

    def __exit__(self, *_: object) -> None:
        try:
            with self._file:
                self._file.write("\n]\n")
                self._file.flush()
                os.fsync(self._file.fileno())
            self._temporary.replace(self.path)
        except OSError as error:
            self._temporary.unlink(missing_ok=True)
            raise InputError(f"{self.path} cannot be written: {error.strerror}") from error


class PictureWriter:
    """Writes what was found in one source: a picture of a photo; of a video a video, or a folder with a picture of each frame."""

    def __init__(self, path: Path, source: Source, style: Style | None, frames_apart: bool = False):
        self.path, self._apart = path, frames_apart
        self._source, self._style = source, style
        self._writer: Any = None
        if isinstance(source, Video):
            self.path = path.with_name(f"{path.stem}_frames") if frames_apart else path.with_suffix(".mp4")
            # Video frames keep their size, whatever it is, unless the style gives a scale.
            style = style or Style()
            self._style = replace(style, scale=style.scale or 1)
        elif path.suffix.lower() not in WRITABLE:
            self.path = path.with_suffix(".png")

    def __enter__(self) -> "PictureWriter":
        return self

    def add(self, found: Instances) -> None:
        """Draws one photo or the next frame."""
        if not isinstance(self._source, Video):
            found.save(self.path, self._style)
            return
        if self._apart:
            file = found.path if found.path is not None and found.path.suffix.lower() in WRITABLE else None
            found.save(self.path / (f"{found.frame or 0:06}.jpg" if file is None else file.name), self._style)
            return
        picture = np.asarray(found.plot(self._style))
        if self._writer is None:
            cv2 = opencv()
            code = cv2.VideoWriter_fourcc(*"mp4v")
            size = (picture.shape[1], picture.shape[0])
            self._writer = cv2.VideoWriter(str(self.path), code, self._source.rate(), size)
            if not self._writer.isOpened():
                raise InputError(f"{self.path} cannot be written as a video by this OpenCV")
        self._writer.write(np.ascontiguousarray(picture[:, :, ::-1]))

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()


def unique_names(names: Sequence[str]) -> list[str]:
    """The names with ``_2``, ``_3`` ... before the ending where two are alike up to the ending, so no file hides another."""
    seen: Counter[str] = Counter()
    taken = {Path(name).stem.lower() for name in names}
    unique = []
    for name in names:
        stem, suffix = Path(name).stem, Path(name).suffix
        seen[stem.lower()] += 1
        number, chosen = seen[stem.lower()], stem
        while number > 1 and (chosen == stem or chosen.lower() in taken):
            chosen, number = f"{stem}_{number}", number + 1
        taken.add(chosen.lower())
        unique.append(chosen + suffix)
    return unique
