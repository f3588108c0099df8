"""What can be predicted on: files, folders, patterns, arrays, videos and cameras, opened one after the other.

A source is listed first and read when its turn comes, so memory holds a few frames whatever the number of photos, and a
photo that cannot be read stops nothing but itself.
"""

import glob
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from os.path import exists, isdir, isfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps

from perpixel.data.image import SUFFIXES, read_image, to_rgb
from perpixel.data.place import expanded
from perpixel.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")

Pixels = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Frame:
    """One picture, read.

    Attributes:
        image: (h, w, 3) RGB.
        path: the file it came from, or None.
        number: which frame of a video or camera, or None.
    """

    image: Pixels
    path: Path | None = None
    number: int | None = None


@dataclass(frozen=True)
class Photo:
    """A picture in a file, or pixels at hand."""

    name: str
    path: Path | None = None
    pixels: Pixels | None = None

    def frames(self) -> Iterator[Frame]:
        """The one frame; an InputError names a file that cannot be read."""
        if self.pixels is not None:
            yield Frame(self.pixels, self.path)
        elif self.path is not None:
            yield Frame(read_image(self.path), self.path)


@dataclass(frozen=True)
class Video:
    """A video file or a camera."""

    name: str
    place: Path | int

    @property
    def path(self) -> Path | None:
        """The file, or None for a camera."""
        return self.place if isinstance(self.place, Path) else None

    def frames(self) -> Iterator[Frame]:
        """Its frames as they come; an InputError says what cannot be opened."""
        with closing(self._open()) as reader:
            number = -1
            while True:
                there, image = reader.read()
                if not there:
                    break
                number += 1
                yield Frame(np.ascontiguousarray(image[:, :, ::-1]), self.path, number)
        if number < 0:
            raise InputError(f"{self.name} holds no frame that can be decoded")

    def rate(self) -> float:
        """Frames a second, 25 where the source does not say."""
        with closing(self._open()) as reader:
            rate = reader.get(opencv().CAP_PROP_FPS)
            return rate if 0 < rate < 1000 else 25.0

    def length(self) -> int | None:
        """Number of frames the file states; None for a camera."""
        if self.path is None:
            return None
        with closing(self._open()) as reader:
            count = int(reader.get(opencv().CAP_PROP_FRAME_COUNT))
            return count if 0 < count < 2**31 else None  # damaged files state anything

    def _open(self) -> "_Reader":
        if self.path is not None and not isfile(self.path):
            raise InputError(f"{self.path}: no such video file")
        return _Reader(self.place if isinstance(self.place, int) else str(self.place), self.name)


@dataclass(frozen=True)
class FrameFolder(Video):
    """A folder of pictures that are the frames of one video, in the order of their names, 2.jpg before 10.jpg."""

    def frames(self) -> Iterator[Frame]:
        """Its frames; an InputError names a picture that cannot be read."""
        for number, file in enumerate(self._files()):
            yield Frame(read_image(file), file, number)

    def rate(self) -> float:
        """Frames a second of what is made of it; a folder does not say."""
        return 10.0

    def length(self) -> int | None:
        """Number of pictures."""
        return len(self._files())

    def _files(self) -> list[Path]:
        if not isinstance(self.place, Path) or not self.place.is_dir():
            raise InputError(f"{self.name}: no such folder with the frames of a video")
        files = sorted((path for path in self.place.iterdir() if path.suffix.lower() in SUFFIXES), key=_by_number)
        if not files:
            raise InputError(f"{self.name} holds no picture ({', '.join(SUFFIXES[:4])} ...)")
        return files


def _by_number(path: Path) -> list[tuple[int, str]]:
    """A name as a key that sorts the numbers in it by their size."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


class _Reader:
    """OpenCV's capture with `close`, refusing what cannot be opened."""

    def __init__(self, place: int | str, name: str):
        self.capture = opencv().VideoCapture(place)
        if not self.capture.isOpened():
            raise InputError(f"{name} cannot be opened as a video or camera")
        self.read, self.get, self.close = self.capture.read, self.capture.get, self.capture.release


Source = Photo | Video
One = str | Path | int | Image.Image | np.ndarray | torch.Tensor | Source
Anything = One | Iterable[One]


def as_video(source: str | Path) -> str | Path | Video:
    """A folder as the frames of one video; everything else as it is."""
    folder = expanded(source)
    return FrameFolder(str(folder), folder) if folder.is_dir() else source


def opencv(user: str = "videos and cameras need") -> Any:
    """OpenCV, which few parts need; `user` names this one with its verb.

    Raises:
        InputError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise InputError(f"{user} OpenCV: pip install 'perpixel[video]'") from error
    return cv2


def is_single(source: Anything) -> bool:
    """Whether the source is exactly one picture: a photo's path, a PIL image, an array, a tensor."""
    if isinstance(source, Image.Image | np.ndarray | torch.Tensor):
        return True
    if isinstance(source, str | Path):
        return _is_photo_file(Path(source))
    return False


def is_stream(source: Anything) -> bool:
    """Whether the source is a video or a camera, whose frames come one after the other."""
    if isinstance(source, str | Path):
        return Path(source).suffix.lower() in VIDEO_SUFFIXES or _camera(source) is not None
    return isinstance(source, int)


def is_camera(source: Anything) -> bool:
    """Whether the source is a camera's number."""
    return isinstance(source, int) or (isinstance(source, str) and _camera(source) is not None)


def list_sources(source: object) -> Iterator[Source]:
    """Every photo and video of `source` in order, none of them opened yet.

    Takes the path of a photo or video, a folder (its photos and videos, sorted, subfolders too), a pattern such as
    ``photos/*.jpg``, a camera's number, a PIL image, an array (h, w, 3) uint8 RGB or (h, w) uint8 grey, a tensor
    (3, h, w) uint8 or float 0..1, and lists of all these.

    Raises:
        InputError: what is none of these, an empty folder or pattern, or a URL.
    """
    if isinstance(source, str | Path):
        yield from _listed_path(source)
    elif isinstance(source, bool):
        raise InputError(f"{source} is nothing to predict on: give a path, an image or a camera number")
    elif isinstance(source, int):
        yield Video(f"camera {source}", source)
    elif isinstance(source, Image.Image | np.ndarray | torch.Tensor):
        yield _in_memory(source)
    elif isinstance(source, Photo | Video):
        yield source
    elif isinstance(source, Iterable):
        for item in source:
            yield from list_sources(item)
    else:
        raise InputError(f"{type(source).__name__} is nothing to predict on: give a path, an image or a camera number")


def _listed_path(source: str | Path) -> Iterator[Source]:
    text = str(source)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://|(https?|ftp|rtsp):/", text):
        raise InputError(f"{text} is a URL: download it and give the file, since perpixel reads no network addresses")
    path = expanded(source)
    camera = _camera(source)
    if camera is not None:
        yield Video(f"camera {camera}", camera)
    elif isdir(path):
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES + VIDEO_SUFFIXES and p.is_file())
        if not found:
            raise InputError(f"{path} holds no photo or video ({', '.join(SUFFIXES[:4])} ...)")
        yield from (_file(p) for p in found)
    elif not exists(path) and glob.has_magic(text):
        found = sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise InputError(f"no file matches the pattern {text}")
        for name in found:
            if Path(name).is_file():
                yield _file(Path(name))
    else:
        yield _file(path)


def _file(path: Path) -> Source:
    return Video(str(path), path) if path.suffix.lower() in VIDEO_SUFFIXES else Photo(str(path), path)


def _camera(source: str | Path) -> int | None:
    """The camera's number where the text is nothing but a number and no file has that name."""
    return int(source) if isinstance(source, str) and source.isdecimal() and not exists(source) else None


def _is_photo_file(path: Path) -> bool:
    if path.suffix.lower() in VIDEO_SUFFIXES or isdir(expanded(path)) or _camera(str(path)) is not None:
        return False
    return exists(path) or not glob.has_magic(str(path))


def _in_memory(source: Image.Image | np.ndarray | torch.Tensor) -> Photo:
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or "PIL image"
        return Photo(name, Path(name) if Path(name).is_file() else None, to_rgb(ImageOps.exif_transpose(source)))
    if isinstance(source, torch.Tensor):
        return Photo("tensor", pixels=_tensor_pixels(source))
    return Photo("array", pixels=_array_pixels(source))


def _array_pixels(array: np.ndarray) -> Pixels:
    if array.dtype != np.uint8:
        raise InputError(f"an array of {array.dtype} is not a photo: give uint8 values 0..255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 2 and array.size:
        return np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InputError(
            f"an array of shape {array.shape} is not a photo: give (h, w, 3) in RGB order or (h, w) in grey"
        )
    return np.ascontiguousarray(array)


def _tensor_pixels(tensor: torch.Tensor) -> Pixels:
    if tensor.ndim != 3 or tensor.shape[0] != 3 or not tensor.numel():
        raise InputError(f"a tensor of shape {tuple(tensor.shape)} is not a photo: give (3, h, w), several as a list")
    if tensor.dtype.is_floating_point:
        low, high = float(tensor.min()), float(tensor.max())
        if not (low >= 0 and high <= 1):
            raise InputError(f"a float tensor holds 0..1, this one {low:.3g}..{high:.3g}: divide by 255 or give uint8")
        tensor = (tensor * 255).round().to(torch.uint8)
    if tensor.dtype != torch.uint8:
        raise InputError(f"a tensor of {tensor.dtype} is not a photo: give uint8, or float in 0..1")
    return np.ascontiguousarray(tensor.detach().permute(1, 2, 0).cpu().numpy())
