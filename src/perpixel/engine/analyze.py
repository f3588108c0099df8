"""What a recipe's assignment can reach on a data set, from annotations alone."""

from collections.abc import Iterator

import torch

from perpixel.data.geometry import resized_size
from perpixel.data.open import open_dataset
from perpixel.engine.bar import Bar, counting_bar
from perpixel.engine.recipe import Recipe
from perpixel.errors import InputError
from perpixel.models.analysis import Reach, Sample, reach, settings_of
from perpixel.models.detector import DetectorConfig
from perpixel.structures import Targets


def analyze(recipe: Recipe) -> Iterator[Reach]:
    """The recipe's own assignment and the rows of tables 3.1 and 3.2 (thesis 002), at the recipe's test size.

    Raises:
        InputError: no data.train, or the recipe's model assigns no locations.
    """
    if recipe.data.train is None:
        raise InputError("data.train is not set: name the annotations to analyse")
    if not isinstance(recipe.model, DetectorConfig):
        raise InputError(f"{recipe.name} has no box head to analyse; choose a detector, such as fcos_r50_1x")
    samples = list(_samples(recipe))
    rows = settings_of(recipe.model.head, recipe.model.box_strides())
    with counting_bar("analyze", len(rows) * len(samples)) as bar:
        for name, (config, strides) in rows.items():
            yield reach(name, config, strides, _counted(samples, bar))


def _counted(samples: list[Sample], bar: Bar) -> Iterator[Sample]:
    for sample in samples:
        yield sample
        bar.advance()


def _samples(recipe: Recipe) -> Iterator[Sample]:
    """Boxes scaled to the network's input, and the padded input's size; crowds are no objects."""
    assert recipe.data.train is not None
    dataset = open_dataset(recipe.data.train, recipe.data.images, skip_bad=recipe.data.skip_bad)
    for index in range(len(dataset)):
        record = dataset.record(index)
        height, width = resized_size(record.size, recipe.data.test.short_side, recipe.data.test.max_side)
        factors = torch.tensor([width / record.size[1], height / record.size[0]]).repeat(2)
        boxes = torch.from_numpy(record.boxes[~record.crowd]) * factors
        labels = torch.from_numpy(record.labels[~record.crowd])
        yield Targets(boxes, labels), (-(-height // 32) * 32, -(-width // 32) * 32)
