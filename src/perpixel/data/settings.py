"""What the data layer lets the user choose: sources, augmentation, test size."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from perpixel.config import ConfigError, from_dict
from perpixel.data.place import expanded
from perpixel.data.text import read_yaml


@dataclass(frozen=True)
class Color:
    """Random changes of colour; 0.4 means a factor drawn from 0.6 to 1.4, 0 means off."""

    # strength of the brightness change
    brightness: float = 0.0
    # strength of the contrast change
    contrast: float = 0.0
    # strength of the saturation change
    saturation: float = 0.0
    # largest turn of the hue, in turns (0.5 is the opposite colour)
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"color.{name}={getattr(self, name)} is not between 0 and 1")
        if not 0 <= self.hue <= 0.5:
            raise ConfigError(f"color.hue={self.hue} is not between 0 and 0.5")


@dataclass(frozen=True)
class Augment:
    """Random changes of a training image; geometry is one affine map of pixels, boxes, polygons and keypoints."""

    # sizes of the short side in pixels, one drawn an image
    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    # the long side never exceeds this many pixels
    max_side: int = 1333
    # chance of a mirror image
    flip: float = 0.5
    # factor on the scale, drawn between the two numbers; it may pass max_side (large-scale jitter: 0.1, 2.0 with crop_size)
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    # smallest share of each side that a random crop keeps; 1 means no crop
    crop: float = 1.0
    # a random crop leaves sides of at most this many pixels; null means no such limit
    crop_size: int | None = None
    # an object is dropped when less than this share of its box is left by the crop
    min_visible: float = 0.1
    # an object is dropped when its box is narrower or lower than this many input pixels
    min_side: float = 1.0
    # random changes of colour
    color: Color = field(default_factory=Color)

    def __post_init__(self) -> None:
        if not self.short_sides or min(self.short_sides) < 1 or self.max_side < 1:
            raise ConfigError("short_sides and max_side are positive numbers of pixels")
        for name in ("flip", "crop", "min_visible"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} is not between 0 and 1")
        if self.crop == 0:
            raise ConfigError("crop=0 would keep nothing of the image; 1 means no crop")
        if not 0 < self.scale_jitter[0] <= self.scale_jitter[1]:
            raise ConfigError(f"scale_jitter={list(self.scale_jitter)} is not of the form [least, most], above 0")
        if self.crop_size is not None and self.crop_size < 1:
            raise ConfigError(f"crop_size={self.crop_size} is not a positive number of pixels")


@dataclass(frozen=True)
class TestSize:
    """The size at which images are evaluated and predicted."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    # the short side in pixels
    short_side: int = 800
    # the long side never exceeds this many pixels
    max_side: int = 1333

    def __post_init__(self) -> None:
        if self.short_side < 1 or self.max_side < 1:
            raise ConfigError("short_side and max_side are positive numbers of pixels")


@dataclass(frozen=True)
class DataConfig:
    """Where images and annotations come from, and how they become batches."""

    # training annotations: COCO json (panoptic too), VOC folder or split file, YOLO data.yaml:split, .odgt, or shapes:N:SEED
    train: str | None = None
    # evaluation annotations, likewise
    val: str | None = None
    # folder of the training images, where it cannot be found from the annotations
    images: str | None = None
    # folder of the evaluation images; null means the same rule as for training
    val_images: str | None = None
    # folder of a panoptic json's pictures of segments for training; null means the json's name without its ending
    segments: str | None = None
    # the same for evaluation
    val_segments: str | None = None
    # go on without bad images and annotations, and list them
    skip_bad: bool = False
    # processes that prepare batches; 0 prepares them in the main process
    workers: int = 2
    # make masks: of no object; of every one, which must then be drawn (true); of those that are drawn (some)
    masks: Literal[False, True, "some"] = False
    # with masks=some: the classes whose masks are used, the others' are withheld; null uses all there are
    masks_of: tuple[str, ...] | None = None
    # make maps of stuff, for panoptic models (true); with objects' classes as stuff too, for semantic ones (all)
    stuff: Literal[False, True, "all"] = False
    # frames of a window: each image and those before it in its video; 1 is the image alone
    frames: int = 1
    # spread of each keypoint, in the data's order, by which evaluation judges; null means COCO's 17
    sigmas: tuple[float, ...] | None = None
    # train on images without objects too
    keep_empty: bool = True
    # put landscape and portrait images into separate batches, which saves padding
    group_by_shape: bool = True
    # random changes of training images
    augment: Augment = field(default_factory=Augment)
    # the size for evaluation and prediction
    test: TestSize = field(default_factory=TestSize)

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers={self.workers} is negative; 0 prepares batches in the main process")
        if self.frames < 1:
            raise ConfigError(f"frames={self.frames} is not at least 1; 1 is the image alone")
        if self.sigmas is not None and not min(self.sigmas, default=0) > 0:
            raise ConfigError(f"sigmas={list(self.sigmas)} are not one positive number a keypoint")
        if self.masks_of is not None and self.masks != "some":
            raise ConfigError("masks_of withholds the masks of other classes: it needs data.masks=some")


def load_data_yaml(path: str | Path) -> dict[str, Any]:
    """The settings of a data file (`data=my.yaml`) as plain values for `DataConfig`.

    Its keys are fields of `DataConfig`; sources and folders in it are relative to the file. YOLO's own data.yaml
    (with ``names``) is understood as well: its splits ``train`` and ``val`` become the sources.

    Raises:
        InputError: no such file, not YAML, or unknown keys (the nearest valid name is given).
    """
    path = Path(path)
    values = read_yaml(path)
    if "names" in values:
        return {split: f"{path}:{split}" for split in ("train", "val") if values.get(split)}
    try:
        from_dict(DataConfig, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    for name in ("train", "val", "images", "val_images", "segments", "val_segments"):
        if isinstance(values.get(name), str):
            values[name] = _beside(path.parent, values[name])
    return values


def _beside(folder: Path, source: str) -> str:
    """A source relative to `folder`; made-up sources (shapes:N, scenes:N, figures:N, crowds:N) stay as they are."""
    made_up = source.startswith(("shapes:", "scenes:", "figures:", "crowds:"))
    return source if made_up else str(folder / expanded(source))
