"""One door to every kind of data set."""

from collections.abc import Sequence
from pathlib import Path

from perpixel.data.cityscapes import is_cityscapes, read_cityscapes
from perpixel.data.coco import read_coco
from perpixel.data.dataset import Dataset
from perpixel.data.shapes import ShapesDataset
from perpixel.data.voc import read_voc, voc_root
from perpixel.data.yolo import read_yolo
from perpixel.errors import InputError

_FORMS = (
    "a COCO json, a Pascal VOC folder or split file (ImageSets/Main/train.txt), a YOLO folder or data.yaml:train,"
    " a Cityscapes split (gtFine/train), or shapes:N:SEED"
)


def open_dataset(
    source: str | Path,
    images: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
) -> Dataset:
    """The data set named by `source`; its kind is recognised.

    Args:
        source: a COCO json; a Pascal VOC folder (Annotations/ and JPEGImages/ or images/) or a split file in it; a YOLO
            folder (images/ and labels/) or ``data.yaml:SPLIT``; a split of Cityscapes
            (gtFine/train); or ``shapes:N`` / ``shapes:N:SEED`` for synthetic images.
        images: the folder of the images, where it cannot be found from the annotations.
        classes: the training set's classes, given to open an evaluation set with the same labels.
        skip_bad: leave out bad images and annotations and list them in `Dataset.skipped`.

    Raises:
        InputError: names the file, the field and the mend.
    """
    text = str(source)
    folder = None if images is None else Path(images).expanduser()
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images (images=)")
    if text.startswith("shapes:"):
        return _shapes(text, classes)
    file, _, split = text.rpartition(":")
    if file.endswith((".yaml", ".yml")):
        return read_yolo(Path(file).expanduser(), split, folder, classes=classes, skip_bad=skip_bad)
    path = Path(text).expanduser()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder of annotations; give {_FORMS}")
    if path.suffix.lower() in (".yaml", ".yml"):
        raise InputError(f"{path}: say which split is meant, as in {path}:train")
    if path.suffix.lower() == ".json":
        return read_coco(path, folder, classes=classes, skip_bad=skip_bad)
    if voc_root(path) is not None:
        return read_voc(path, folder, classes=classes, skip_bad=skip_bad)
    if is_cityscapes(path):
        return read_cityscapes(path, folder, classes=classes, skip_bad=skip_bad)
    if path.is_dir() and (path / "labels").is_dir():
        return read_yolo(path, None, folder, classes=classes, skip_bad=skip_bad)
    raise InputError(f"{path}: not a data set that is known here; give {_FORMS}")


def _shapes(text: str, classes: Sequence[str] | None) -> ShapesDataset:
    numbers = text.split(":")[1:]
    if len(numbers) > 2 or not all(number.isdigit() for number in numbers):
        raise InputError(f"{text}: synthetic shapes are written shapes:N or shapes:N:SEED, as in shapes:200:0")
    return ShapesDataset(int(numbers[0]), seed=int(numbers[1]) if len(numbers) == 2 else 0, classes=classes)
