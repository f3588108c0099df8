"""What a network that stays as it is gives for every image of a search, computed once and kept in memory.

Each worker process keeps its own. Images are resized only, and padded to one size; nothing is augmented.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from perpixel.data.dataset import Dataset, PastFrame
from perpixel.data.geometry import resized_size
from perpixel.data.loader import prepare_image
from perpixel.data.open import open_dataset
from perpixel.data.settings import DataConfig
from perpixel.errors import InputError
from perpixel.models.segmenter import SegmenterModel
from perpixel.structures import VOID


@dataclass(frozen=True)
class Frames:
    """The same place of every window: one frame each.

    Attributes:
        maps: of the encoder, strides 4, 8, 16 and 32, n of each.
        truth: class of every pixel of the input, or `VOID`.
    """

    maps: tuple[Float[Tensor, "n _ _ _"], ...]
    truth: UInt8[Tensor, "n h w"]


@dataclass(frozen=True)
class StaticOutputs:
    """All that trials learn and are judged on.

    Attributes:
        frames: of each window, the earliest first; images alone are windows of one.
        train: places of the windows that trials learn from (meta-train).
        val: places of those that they are judged on (meta-val).
        classes: their names.
    """

    frames: tuple[Frames, ...]
    train: Int[Tensor, " t"]
    val: Int[Tensor, " v"]
    classes: tuple[str, ...]


def open_training_data(data: DataConfig) -> Dataset:
    """The training split, with what every pixel is.

    Raises:
        InputError: no training data are named, or they cannot be read.
    """
    if data.train is None:
        raise InputError("data.train is not set: name the training images, such as data.train=camvid/train")
    return open_dataset(data.train, data.images, segments=data.segments, skip_bad=data.skip_bad, all_stuff=True)


def meta_split(count: int, share: float, seed: int) -> tuple[Int[Tensor, " t"], Int[Tensor, " v"]]:
    """Places in random order: those to learn from, and a share, at least one, to be judged on.

    Raises:
        InputError: fewer than two.
    """
    if count < 2:
        raise InputError(
            f"data.train has {count} images to search on; two are needed, to learn from and to be judged on"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held = min(max(1, round(share * count)), count - 1)
    return order[held:], order[:held]


@torch.no_grad()
def static_outputs(
    model: SegmenterModel,
    dataset: Dataset,
    data: DataConfig,
    *,
    limit: int | None,
    meta_val: float,
    seed: int,
    device: torch.device,
) -> StaticOutputs:
    """Runs the encoder over the data.

    Args:
        model: whose encoder it is; stays as it is.
        dataset: the images, windows of `data.frames`.
        data: the size, the length of windows.
        limit: so many images at most, evenly spread; None takes all.
        meta_val: share of the windows that trials are judged on.
        seed: of the split.
        device: where to compute and keep the outputs.

    Raises:
        InputError: an image that cannot be read, or too few.
    """
    step = 1 if limit is None else max(1, -(-len(dataset) // limit))
    chosen = range(0, len(dataset), step)
    train, val = meta_split(len(chosen), meta_val, seed)
    size = _common_size(dataset, data, chosen)
    model = model.to(device).eval()
    maps: list[list[list[Tensor]]] = [[[] for _ in range(4)] for _ in range(data.frames)]
    truths: list[list[Tensor]] = [[] for _ in range(data.frames)]
    for index in chosen:
        for place, frame in enumerate(window(dataset, index, data.frames)):
            image, inside, truth = prepared(frame, data, size)
            normalized = model.pixels.normalize(image[None].to(device), (inside,))
            for kept, new in zip(maps[place], model.encode(normalized), strict=True):
                kept.append(new)
            truths[place].append(truth.to(device))
    frames = tuple(
        Frames(tuple(torch.cat(one) for one in mine), torch.stack(truth))
        for mine, truth in zip(maps, truths, strict=True)
    )
    return StaticOutputs(frames, train.to(device), val.to(device), tuple(dataset.stuff.names))


def window(dataset: Dataset, index: int, frames: int) -> list[PastFrame]:
    """An image after the frames before it."""
    past = dataset.before(index, frames - 1) if frames > 1 else []
    return [*past, PastFrame(dataset.image(index), dataset.stuff_map(index))]


def prepared(
    frame: PastFrame, data: DataConfig, padded: tuple[int, int]
) -> tuple[UInt8[Tensor, "3 h w"], tuple[int, int], UInt8[Tensor, "h w"]]:
    """A frame padded to the size of the input, its own size, and the class of every pixel, `VOID` in the padding."""
    image, (height, width) = prepare_image(frame.image, data.test)
    truth = torch.full(padded, VOID, dtype=torch.uint8)
    if frame.stuff is not None:
        truth[:height, :width] = torch.from_numpy(_classes(frame.stuff, (height, width)))
    below, right = padded[0] - height, padded[1] - width
    return F.pad(image, (0, right, 0, below)), (height, width), truth


def _classes(stuff: UInt8[ndarray, "_ _"], size: tuple[int, int]) -> UInt8[ndarray, "h w"]:
    """The class at the middle of each pixel of the input; objects and unknown pixels are void."""
    rows = ((np.arange(size[0]) + 0.5) * stuff.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * stuff.shape[1] / size[1]).astype(int)
    seen = stuff[rows[:, None], columns]
    return np.where((seen == 0) | (seen == VOID), VOID, seen - np.uint8(1)).astype(np.uint8)


def _common_size(dataset: Dataset, data: DataConfig, chosen: Sequence[int]) -> tuple[int, int]:
    """Height and width that hold every image, multiples of 32."""
    sides = []
    for index in chosen:
        height, width = dataset.sizes[index].tolist()
        sides.append(resized_size((height, width), data.test.short_side, data.test.max_side))
    return max(-(-h // 32) * 32 for h, _ in sides), max(-(-w // 32) * 32 for _, w in sides)
