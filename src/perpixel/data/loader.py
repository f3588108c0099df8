"""Batches for training and evaluation.

What step k holds is a pure function of (seed, k, data set, settings): it does not depend on the number of workers, on where
training was resumed, or on how many processes share the global batch. One worker makes a whole batch; it sends pixels and
masks as two tensors, which keeps shared memory and file handles few.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from perpixel.data.dataset import Dataset, Image, PastFrame
from perpixel.data.geometry import resized_size, whole
from perpixel.data.order import StepOrder, shape_groups
from perpixel.data.sample import Sample, test_sample, train_sample
from perpixel.data.settings import DataConfig, TestSize
from perpixel.errors import InputError
from perpixel.structures import VOID, Batch, Targets, pad_images

_REPLACEMENTS = 20


def train_batches(
    dataset: Dataset,
    data: DataConfig,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    divisor: int = 32,
) -> Iterator[Batch]:
    """Endless training batches, augmented, with targets.

    `Batch.progress` is the step's number, `Batch.ids` are the data set's image ids. Crowds stand in `Targets.ignored`
    only. With `data.skip_bad` an unreadable image is replaced by another one, chosen by the seed, and listed in
    `dataset.skipped`.

    Args:
        dataset: the training set.
        data: augmentation, masks, workers.
        batch_size: images a step for this process.
        seed: chooses order and augmentation.
        start_step: the first step to make.
        rank, world_size: this process and their number; together they see the images of one process with
            `batch_size * world_size`.
        divisor: sides of the padded input are multiples of it.

    Raises:
        InputError: no image to train on, masks or stuff that the settings ask for and the data lack, or an image that cannot
            be read.
    """
    _check_masks(dataset, data)
    if data.stuff and not len(dataset.stuff):
        dataset.stuff_map(0)  # says what is missing
    members = np.arange(len(dataset))
    if not data.keep_empty:
        members = np.flatnonzero(dataset.object_counts > 0)
    if not len(members):
        raise InputError(f"{dataset.name}: there is no image with objects to train on")
    groups = shape_groups(dataset.sizes, members) if data.group_by_shape else [members]
    order = StepOrder(groups, batch_size * world_size, seed)
    work = _TrainSteps(dataset, data, order, batch_size, rank, divisor)
    return _run(work, count(start_step), data.workers, dataset)


def _check_masks(dataset: Dataset, data: DataConfig) -> None:
    """Refuses data that lack the masks that are to be learned from."""
    for name in data.masks_of or ():
        if name not in dataset.classes:
            raise InputError(f"data.masks_of: {name!r} is no class of {dataset.name}: {', '.join(dataset.classes)}")
    if not data.masks or not (missing := dataset.box_only_counts).any():
        return
    if missing.sum() == dataset.object_counts.sum():
        raise InputError(
            f"{dataset.name}: no object has a mask: set data.masks=false and take a method that learns from boxes (BoxInst)"
        )
    if data.masks is True:
        first = dataset.record(int(np.flatnonzero(missing)[0])).id
        raise InputError(
            f"{dataset.name}: {missing.sum()} objects have a box but no mask, the first in image {first!r}; draw them, or"
            " set data.masks=some to learn masks from those that are drawn"
        )


def test_batches(
    dataset: Dataset,
    data: DataConfig,
    *,
    batch_size: int,
    divisor: int = 32,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Every image once, in the data set's order, resized only and without targets.

    `Batch.ids` are positions in the data set (not image ids): `dataset.record(id)` gives the rest. Process `rank` of
    `world_size` gets images rank, rank + world_size and so on. With `data.skip_bad` unreadable images are left out and
    listed in `dataset.skipped`.

    Raises:
        InputError: an image that cannot be read.
    """
    mine = list(range(rank, len(dataset), world_size))
    chunks = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    work = _TestSteps(dataset, data, chunks, divisor)
    return _run(work, range(len(chunks)), data.workers, dataset)


test_batches.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  (not a test case, whatever its name)


def prepare_image(image: Image, test: TestSize) -> tuple[UInt8[Tensor, "3 h w"], tuple[int, int]]:
    """The input of a photo, as `test_batches` makes it.

    Args:
        image: (h, w, 3) uint8 RGB.
        test: the size.

    Returns:
        (3, h, w) uint8, and its (height, width).
    """
    size = resized_size(image.shape[:2], test.short_side, test.max_side)
    pixels = whole(image.shape[:2], size).image(image)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), size


@dataclass(frozen=True)
class _Packed:
    """A batch on its way from a worker: a few large tensors, the rest small arrays; of past frames images and stuff alone."""

    images: Tensor | None
    masks: Tensor | None
    samples: tuple[Sample, ...]
    step: int
    stuff: Tensor | None = None
    skipped: tuple[str, ...] = ()
    failure: str | None = None
    before: tuple[tuple[Tensor, Tensor | None], ...] = ()

    def pin_memory(self) -> "_Packed":
        """Called by the loader where a GPU is present."""
        images, masks, stuff = (_pinned(tensor) for tensor in (self.images, self.masks, self.stuff))
        before = tuple((past.pin_memory(), _pinned(stuff)) for past, stuff in self.before)
        return replace(self, images=images, masks=masks, stuff=stuff, before=before)

    def batch(self, with_targets: bool) -> Batch:
        assert self.images is not None
        counts = [len(sample.boxes) for sample in self.samples]
        masks = [None] * len(counts) if self.masks is None else self.masks.split(counts)
        stuff = [None] * len(counts) if self.stuff is None else self.stuff
        targets = tuple(_targets(*row) for row in zip(self.samples, masks, stuff, strict=True))
        batch = Batch(
            images=self.images,
            sizes=tuple(sample.size for sample in self.samples),
            originals=tuple(sample.original for sample in self.samples),
            targets=targets if with_targets else None,
            ids=tuple(sample.id for sample in self.samples),
            progress=self.step,
        )
        before = tuple(
            replace(batch, images=images, targets=_stuff_alone(maps) if with_targets and maps is not None else None)
            for images, maps in self.before
        )
        return replace(batch, before=before)


def _pinned(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.pin_memory()


def _stuff_alone(maps: Tensor) -> tuple[Targets, ...]:
    """Targets of past frames: nobody reads their objects."""
    none = torch.zeros((0, 4)), torch.zeros(0, dtype=torch.int64)
    return tuple(Targets(*none, stuff=one) for one in maps)


def _targets(sample: Sample, masks: Tensor | None, stuff: Tensor | None) -> Targets:
    return Targets(
        boxes=torch.from_numpy(sample.boxes),
        labels=torch.from_numpy(sample.labels),
        masks=masks,
        centers=None if sample.centers is None else torch.from_numpy(sample.centers),
        keypoints=None if sample.keypoints is None else torch.from_numpy(sample.keypoints),
        ignored=torch.from_numpy(sample.ignored),
        drawn=None if sample.drawn is None else torch.from_numpy(sample.drawn),
        stuff=stuff,
    )


def _pack(samples: list[Sample], divisor: int, step: int, skipped: list[str]) -> _Packed:
    if not samples:
        return _Packed(None, None, (), step, skipped=tuple(skipped))
    images = pad_images([torch.from_numpy(sample.image).permute(2, 0, 1) for sample in samples], divisor)
    masks = None
    if samples[0].masks is not None:
        patches = [sample.masks or () for sample in samples]
        masks = torch.zeros((sum(map(len, patches)), *images.shape[2:]), dtype=torch.bool)
        for mask, patch in zip(masks.numpy(), chain.from_iterable(patches), strict=True):
            patch.paste(mask)
    stuff = None if samples[0].stuff is None else _pack_stuff([sample.stuff for sample in samples], images)
    with_stuff = stuff is not None
    before = tuple(_pack_past(frames, divisor, with_stuff) for frames in zip(*(s.before for s in samples), strict=True))
    light = tuple(replace(sample, image=sample.image[:0], masks=None, stuff=None, before=()) for sample in samples)
    return _Packed(images, masks, light, step, stuff, tuple(skipped), before=before)


def _pack_stuff(maps: Sequence[UInt8[ndarray, "_ _"] | None], images: Tensor) -> UInt8[Tensor, "b h w"]:
    """Maps of stuff as large as the padded images; void around them, and where there is none."""
    stuff = torch.full((len(maps), *images.shape[2:]), VOID, dtype=torch.uint8)
    for row, one in zip(stuff, maps, strict=True):
        if one is not None:
            row[: one.shape[0], : one.shape[1]] = torch.from_numpy(one)
    return stuff


def _pack_past(frames: Sequence[PastFrame], divisor: int, with_stuff: bool) -> tuple[Tensor, Tensor | None]:
    """The past frames of one place in the windows of a batch."""
    images = pad_images([torch.from_numpy(frame.image).permute(2, 0, 1) for frame in frames], divisor)
    return images, _pack_stuff([frame.stuff for frame in frames], images) if with_stuff else None


class _Steps(TorchDataset, ABC):
    """What a worker runs: a step's number in, a packed batch out. A user's error travels as its sentence."""

    with_targets: bool

    def __init__(self, dataset: Dataset, data: DataConfig, divisor: int) -> None:
        self.dataset, self.data, self.divisor = dataset, data, divisor

    def __getitem__(self, step: int) -> _Packed:
        try:
            return self.make(step)
        except InputError as error:
            return _Packed(None, None, (), step, failure=str(error))

    @abstractmethod
    def make(self, step: int) -> _Packed:
        """The batch of a step."""

    def attempt(self, make: Callable[[], Sample], skipped: list[str]) -> Sample | None:
        """A sample; or None, noted, where its image is bad and bad data is to be skipped."""
        try:
            return make()
        except InputError as error:
            if not self.data.skip_bad:
                raise
            skipped.append(str(error))
            return None


class _TrainSteps(_Steps):
    with_targets = True

    def __init__(
        self, dataset: Dataset, data: DataConfig, order: StepOrder, batch_size: int, rank: int, divisor: int
    ) -> None:
        super().__init__(dataset, data, divisor)
        self.order, self.batch_size, self.rank = order, batch_size, rank

    def make(self, step: int) -> _Packed:
        indices = self.order.indices(step)
        skipped: list[str] = []
        first = self.rank * self.batch_size
        samples = [self._sample(int(indices[p]), step, p, skipped) for p in range(first, first + self.batch_size)]
        return _pack(samples, self.divisor, step, skipped)

    def _sample(self, index: int, step: int, position: int, skipped: list[str]) -> Sample:
        for trial in range(_REPLACEMENTS):
            random = np.random.default_rng([self.order.seed, step, position, trial])
            if trial:
                index = self.order.any_index(random)
            sample = self.attempt(lambda i=index, r=random: train_sample(self.dataset, i, self.data, r), skipped)
            if sample is not None:
                return sample
        raise InputError(
            f"{self.dataset.name}: {_REPLACEMENTS} images in a row cannot be read; the last: {skipped[-1]}"
        )


class _TestSteps(_Steps):
    with_targets = False

    def __init__(self, dataset: Dataset, data: DataConfig, chunks: list[list[int]], divisor: int) -> None:
        super().__init__(dataset, data, divisor)
        self.chunks = chunks

    def make(self, step: int) -> _Packed:
        skipped: list[str] = []
        tried = (self.attempt(lambda i=i: test_sample(self.dataset, i, self.data), skipped) for i in self.chunks[step])
        return _pack([sample for sample in tried if sample is not None], self.divisor, step, skipped)


def _run(work: _Steps, steps: Iterable[int], workers: int, dataset: Dataset) -> Iterator[Batch]:
    loader = DataLoader(
        work,
        sampler=steps,
        batch_size=None,
        collate_fn=_unchanged,  # pyright: ignore[reportArgumentType]  (the stubs know lists of samples only)
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_quiet_worker,
    )
    for packed in loader:
        if packed.failure is not None:
            raise InputError(packed.failure)
        for sentence in packed.skipped:
            if sentence not in dataset.skipped:
                dataset.skipped.append(sentence)
        if packed.samples:
            yield packed.batch(work.with_targets)


def _unchanged(packed: _Packed) -> _Packed:
    return packed


def _quiet_worker(_: int) -> None:
    """One thread a worker: the batch is the unit of parallel work."""
    torch.set_num_threads(1)
