"""One door to every kind of data set."""

from collections.abc import Sequence
from os.path import exists, isdir
from pathlib import Path

from perpixel.data.camvid import is_camvid, read_camvid
from perpixel.data.cityscapes import is_cityscapes, read_cityscapes
from perpixel.data.coco import read_coco
from perpixel.data.crowdhuman import read_crowdhuman
from perpixel.data.crowds import CrowdsDataset
from perpixel.data.cvat import cvat_file, read_cvat
from perpixel.data.dataset import Dataset
from perpixel.data.extras import Extras
from perpixel.data.figures import FiguresDataset
from perpixel.data.generated import GeneratedDataset
from perpixel.data.json_kind import json_kind
from perpixel.data.labelme import is_labelme, read_labelme
from perpixel.data.lvis import read_lvis
from perpixel.data.panoptic import read_panoptic
from perpixel.data.place import expanded
from perpixel.data.scenes import ScenesDataset
from perpixel.data.semantic import SemanticDataset
from perpixel.data.shapes import ShapesDataset
from perpixel.data.voc import read_voc, voc_root
from perpixel.data.yolo import read_yolo
from perpixel.errors import InputError

_FORMS = (
    "a COCO or LVIS json, a COCO panoptic json, a Pascal VOC folder or split file (ImageSets/Main/train.txt), a YOLO folder or"
    " data.yaml:train, a Cityscapes split (gtFine/train), a CamVid split (a folder train beside trainannot),"
    " a CrowdHuman file (annotation_train.odgt), a folder of LabelMe's json files,"
    " an xml of CVAT for images 1.1, shapes:N:SEED, scenes:N:SEED,"
    " figures:N:SEED or crowds:N:SEED"
)
_GENERATED = {kind.form: kind for kind in (ShapesDataset, ScenesDataset, FiguresDataset, CrowdsDataset)}


def open_dataset(
    source: str | Path,
    images: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    stuff: Sequence[str] | None = None,
    segments: str | Path | None = None,
    skip_bad: bool = False,
    all_stuff: bool = False,
    extras: Extras | None = None,
) -> Dataset:
    """The data set named by `source`; its kind is recognised.

    Args:
        source: a COCO json, for instances or panoptic; an LVIS json; a Pascal VOC folder (Annotations/ and JPEGImages/ or
            images/) or a split file in it; a YOLO folder (images/ and labels/) or ``data.yaml:SPLIT``; a split of Cityscapes
            (gtFine/train) or CamVid (camvid/train); CrowdHuman's .odgt; a folder of LabelMe's json
            files; an xml of CVAT for images 1.1, or a folder with its annotations.xml; or ``shapes:N`` / ``shapes:N:SEED``
            for synthetic images, ``scenes:N:SEED`` for such with stuff, ``figures:N:SEED`` for stick figures with joints,
            ``crowds:N:SEED`` for people close together.
        images: the folder of the images, where it cannot be found from the annotations.
        classes: the training set's classes, given to open an evaluation set with the same labels.
        stuff: the training set's stuff, likewise.
        segments: the folder of a panoptic json's pictures, where it is not beside the json under its name.
        skip_bad: leave out bad images and annotations and list them in `Dataset.skipped`.
        all_stuff: take the classes of objects for stuff too (data.stuff=all).
        extras: collects the fields that COCO, VOC, YOLO, LabelMe and CVAT files have beyond what is read.

    Raises:
        InputError: names the file, the field and the mend.
    """
    if all_stuff:
        dataset = SemanticDataset(_opened(source, images, None, None, segments, skip_bad, extras))
    else:
        dataset = _opened(source, images, classes, stuff, segments, skip_bad, extras)
    if stuff and len(dataset.stuff) and dataset.stuff.names != tuple(stuff):
        raise InputError(
            f"{source}: its stuff is {', '.join(dataset.stuff.names)}, the training set's is {', '.join(stuff)}: they must agree"
        )
    return dataset


def _opened(
    source: str | Path,
    images: str | Path | None,
    classes: Sequence[str] | None,
    stuff: Sequence[str] | None,
    segments: str | Path | None,
    skip_bad: bool,
    extras: Extras | None,
) -> Dataset:
    text = str(source)
    folder = None if images is None else expanded(images)
    if folder is not None and not isdir(folder):
        raise InputError(f"{folder}: no such folder of images (images=)")
    if text.partition(":")[0] in _GENERATED and ":" in text:
        return _generated(text, classes)
    file, _, split = text.rpartition(":")
    if file.endswith((".yaml", ".yml")):
        return read_yolo(expanded(file), split, folder, classes=classes, skip_bad=skip_bad, extras=extras)
    path = expanded(text)
    if not exists(path):
        raise InputError(f"{path}: no such file or folder of annotations; give {_FORMS}")
    if path.suffix.lower() in (".yaml", ".yml"):
        raise InputError(f"{path}: say which split is meant, as in {path}:train")
    if path.suffix.lower() == ".odgt":
        return read_crowdhuman(path, folder, classes=classes, skip_bad=skip_bad)
    if path.suffix.lower() == ".json":
        match json_kind(path):
            case "panoptic":
                pictures = None if segments is None else expanded(segments)
                return read_panoptic(path, folder, pictures, classes=classes, stuff=stuff, skip_bad=skip_bad)
            case "lvis":
                return read_lvis(path, folder, classes=classes, skip_bad=skip_bad)
            case "instances":
                return read_coco(path, folder, classes=classes, skip_bad=skip_bad, extras=extras)
    if voc_root(path) is not None:
        return read_voc(path, folder, classes=classes, skip_bad=skip_bad, extras=extras)
    if is_cityscapes(path):
        return read_cityscapes(path, folder, classes=classes, skip_bad=skip_bad)
    if is_camvid(path):
        return read_camvid(path, folder, skip_bad=skip_bad)
    if path.is_dir() and (path / "labels").is_dir():
        return read_yolo(path, None, folder, classes=classes, skip_bad=skip_bad, extras=extras)
    xml = cvat_file(path)
    if xml is not None:
        return read_cvat(xml, folder, classes=classes, skip_bad=skip_bad, extras=extras)
    if is_labelme(path):
        return read_labelme(path, folder, classes=classes, skip_bad=skip_bad, extras=extras)
    raise InputError(f"{path}: not a data set that is known here; give {_FORMS}")


def _generated(text: str, classes: Sequence[str] | None) -> GeneratedDataset:
    form, *numbers = text.split(":")
    if len(numbers) > 2 or not all(number.isdecimal() and len(number) < 10 for number in numbers):
        raise InputError(f"{text}: synthetic {form} are written {form}:N or {form}:N:SEED, as in {form}:200:0")
    return _GENERATED[form](int(numbers[0]), seed=int(numbers[1]) if len(numbers) == 2 else 0, classes=classes)
