"""The short training that a detector's decoder is judged after (thesis 004, 7.3.3 and 7.4.1), on a fixed backbone's maps."""

import itertools
import statistics
import time
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perpixel.data.loader import train_batches
from perpixel.data.open import open_dataset
from perpixel.data.settings import DataConfig
from perpixel.engine.average import averaged
from perpixel.engine.cost import flop_counter
from perpixel.engine.metrics import coco_metrics
from perpixel.models.detector import Detector, DetectorConfig
from perpixel.models.heads import Losses
from perpixel.nn.backbones import Backbone, without_pretrained
from perpixel.nn.layers import Pixels
from perpixel.search.static_outputs import meta_split
from perpixel.search.trial import report
from perpixel.structures import Batch, Detections, pad_images


@dataclass(frozen=True)
class DetectorProxyTraining:
    """How long and how fast a trial learns.

    Attributes:
        steps: updates by Adam.
        batch_size: images an update.
        learning_rate: of Adam.
        average: decay of the moving average of the weights that is judged (Polyak).
    """

    steps: int = 300
    batch_size: int = 200
    learning_rate: float = 8e-4
    average: float = 0.9


@dataclass(frozen=True)
class CachedMaps:
    """All that trials learn and are judged on.

    Attributes:
        maps: of the backbone, n of each stride.
        batch: the images and their targets.
        train: places of the images that trials learn from (meta-train).
        val: places of those that they are judged on (meta-val).
        classes: how many.
    """

    maps: tuple[Float[Tensor, "n _ _ _"], ...]
    batch: Batch
    train: Int[Tensor, " t"]
    val: Int[Tensor, " v"]
    classes: int

    def chosen(self, rows: Int[Tensor, " k"]) -> tuple[tuple[Tensor, ...], Batch]:
        """Maps and batch of some of the images."""
        places, targets = rows.tolist(), self.batch.truth()
        batch = replace(
            self.batch,
            images=self.batch.images[rows],
            sizes=tuple(self.batch.sizes[i] for i in places),
            targets=tuple(targets[i] for i in places),
        )
        return tuple(one[rows] for one in self.maps), batch


@cache
def cached_maps(
    backbone: Backbone, pixels: Pixels, data: DataConfig, limit: int | None, meta_val: float, seed: int
) -> CachedMaps:
    """Runs the backbone over the data's training images, once a process; each is resized and cut once, by the seed.

    Raises:
        InputError: data that cannot be read, or weights that cannot be had.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert data.train is not None
    dataset = open_dataset(data.train, data.images, skip_bad=data.skip_bad)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    train, val = meta_split(count, meta_val, seed)
    batches = list(itertools.islice(train_batches(dataset, data, batch_size=1, seed=seed), count))
    images = pad_images([batch.images[0] for batch in batches], 32)
    batch = Batch(
        images,
        tuple(batch.sizes[0] for batch in batches),
        targets=tuple(batch.truth()[0] for batch in batches),
    ).to(device)
    module = backbone.build().to(device).eval()
    maps: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        for row in range(count):
            maps.append(module(pixels.normalize(batch.images[row : row + 1], batch.sizes[row : row + 1])))
    joined = tuple(torch.cat(stage) for stage in zip(*maps, strict=True))
    return CachedMaps(joined, batch, train.to(device), val.to(device), len(dataset.classes))


class DetectorProxy:
    """A neck and a head that learn on cached maps.

    Args:
        config: of the detector; its backbone is not run.
        cached: maps, images and targets.
    """

    def __init__(self, config: DetectorConfig, cached: CachedMaps):
        self.cached = cached
        model = without_pretrained(config).build(cached.classes)
        self.model: Detector = model.to(cached.train.device)
        self.judged: Detector = self.model

    def train(self, training: DetectorProxyTraining) -> None:
        """Learns on meta-train; what is judged from then on is the moving average."""
        learning = [*self.model.neck.parameters(), *self.model.box_head.parameters()]
        optimizer = torch.optim.Adam(learning, lr=training.learning_rate)
        average = averaged(self.model, training.average)
        self.model.train()
        order: list[Tensor] = []
        for _ in range(training.steps):
            if not order:
                shuffled = self.cached.train[torch.randperm(len(self.cached.train)).to(self.cached.train.device)]
                # Parts of like sizes: a last one of a single image would have bad statistics.
                order = list(shuffled.tensor_split(-(-len(shuffled) // training.batch_size)))
            optimizer.zero_grad()
            torch.stack(list(self._losses(self.model, order.pop()).values())).sum().backward()
            optimizer.step()
            average.update_parameters(self.model)
        judged = average.module.eval()
        assert isinstance(judged, Detector)
        self.judged = judged

    @torch.no_grad()
    def loss(self) -> float:
        """The sum of the detector's losses on meta-val, a mean over images (eq. 7.2); its parts are reported."""
        parts = [self._losses(self.judged, row[None]) for row in self.cached.val]
        means = {name: statistics.fmean(part[name].item() for part in parts) for name in parts[0]}
        report(**{f"{name} loss": value for name, value in means.items()})
        return sum(means.values())

    @torch.no_grad()
    def average_precision(self) -> float:
        """Box AP on meta-val, 0..1."""
        truth, results = [], []
        for row in self.cached.val:
            maps, batch = self.cached.chosen(row[None])
            found = self.judged.detections(*self.judged.heads(maps, self.judged.neck(maps)), batch)[0]
            truth.append((int(row), batch))
            results += _results(int(row), found)
        value = coco_metrics(_truth(truth, self.cached.classes), results).summary["AP"]
        report(AP=value)
        return value

    def multiply_adds(self) -> int:
        """Of neck and head, for one image of the proxy's size."""
        with torch.no_grad(), flop_counter() as counter:
            self._decode()
        return counter.get_total_flops() // 2

    def milliseconds(self, repetitions: int = 5) -> float:
        """Of neck and head, for one image of the proxy's size, on this machine: the median."""
        times = []
        with torch.no_grad():
            for _ in range(repetitions + 1):
                began = time.perf_counter()
                self._decode()
                if self.cached.train.is_cuda:
                    torch.cuda.synchronize()
                times.append(1000 * (time.perf_counter() - began))
        return statistics.median(times[1:])

    def _decode(self) -> None:
        maps, _ = self.cached.chosen(self.cached.val[:1])
        self.judged.heads(maps, self.judged.neck(maps))

    def _losses(self, model: Detector, rows: Int[Tensor, " k"]) -> Losses:
        maps, batch = self.cached.chosen(rows)
        return model.losses(*model.heads(maps, model.neck(maps)), batch)


@dataclass(frozen=True)
class Budget:
    """What a decoder may cost before its reward falls.

    Attributes:
        kind: multiply-adds (in units of 1e9) or milliseconds, of neck and head on one image of the proxy's size.
        most: that cost nothing.
        weight: what twice as much takes off the reward.
    """

    kind: Literal["multiply_adds", "milliseconds"] = "multiply_adds"
    most: float = 5.0
    weight: float = 1.0

    def penalty(self, proxy: DetectorProxy) -> float:
        """What is taken off the reward; the cost is reported."""
        cost = proxy.multiply_adds() / 1e9 if self.kind == "multiply_adds" else proxy.milliseconds()
        report(**{self.kind: cost})
        return self.weight * max(0.0, cost / self.most - 1)


def _truth(rows: list[tuple[int, Batch]], classes: int) -> dict:
    """The chosen images as COCO's form has them."""
    images, annotations = [], []
    for number, batch in rows:
        height, width = batch.sizes[0]
        images.append({"id": number, "height": height, "width": width})
        target = batch.truth()[0]
        for (x1, y1, x2, y2), label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            area = box[2] * box[3]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label,
                    "bbox": box,
                    "area": area,
                    "iscrowd": 0,
                }
            )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in range(classes)],
    }


def _results(number: int, found: Detections) -> list[dict]:
    """Detections as COCO's form has them."""
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return [
        {"image_id": number, "category_id": label, "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for (x1, y1, x2, y2), score, label in rows
    ]
