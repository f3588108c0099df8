"""Whether BoxInst suits a data set: how often two near pixels of like colours have the same label (thesis 002, figure 6.3)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64, UInt8
from numpy import ndarray
from torch import Tensor

from perpixel.data.dataset import Dataset, Record
from perpixel.data.geometry import resized_size, whole
from perpixel.engine.bar import counting_bar
from perpixel.engine.recipe import Recipe
from perpixel.errors import InputError
from perpixel.models.boxinst import BoxInst, BoxInstHead, Scene
from perpixel.models.detector import DetectorConfig
from perpixel.ops.affinity import color_similarity, ends, half_neighbourhood
from perpixel.ops.boxes import filled_boxes
from perpixel.structures import Batch, pad_images

TAUS: tuple[float, ...] = tuple(k / 100 for k in range(100))
"""Thresholds at which pairs are counted."""

NEIGHBOURHOODS: tuple[tuple[int, int], ...] = ((3, 1), (3, 2), (5, 1), (5, 2))
"""(size, dilation) of table 6.3."""

PAPER: dict[float, float] = {0.0: 0.941, 0.1: 0.983, 0.2: 0.984}
"""Table 6.2, COCO val2017, 3x3 with dilation 2: the share of right pairs by tau."""

Offset = tuple[int, int]


@dataclass(frozen=True)
class Affinity:
    """Pairs of pixels that touch a box, counted over a data set, by likeness of their colours.

    Attributes:
        size, dilation: of the patch of neighbours.
        right: pairs with one label whose likeness is at least each of `TAUS`.
        wrong: pairs with two labels, likewise: BoxInst would take them for pairs with one.
    """

    size: int
    dilation: int
    right: Int64[ndarray, " t"]
    wrong: Int64[ndarray, " t"]

    def share_right(self, tau: float) -> float:
        """Of the pairs that BoxInst trusts at `tau`, how many have one label ("prop." of table 6.2); 0 without any."""
        at = TAUS.index(tau)
        return float(self.right[at] / max(self.right[at] + self.wrong[at], 1))

    def kept(self, tau: float) -> float:
        """Of all pairs with one label, how many it trusts: the red curve of figure 6.3."""
        return float(self.right[TAUS.index(tau)] / max(self.right[0], 1))

    def mistaken(self, tau: float) -> float:
        """Of all pairs with two labels, those across an outline, how many it trusts all the same."""
        return float(self.wrong[TAUS.index(tau)] / max(self.wrong[0], 1))


@dataclass(frozen=True)
class AffinityStudy:
    """What was counted.

    Attributes:
        affinities: one a neighbourhood, the recipe's own first.
        images, objects: that were looked at.
        without_mask: objects left out because only their box is known.
    """

    affinities: tuple[Affinity, ...]
    images: int
    objects: int
    without_mask: int


def study_affinity(dataset: Dataset, recipe: Recipe, limit: int | None = None) -> AffinityStudy:
    """Counts pairs as BoxInst's loss sees them: at the recipe's test size, colours averaged over the masks' cells.

    Every object has pairs of its own: those with at least one pixel in its box, each once (E_in of eq.
    6.5), labelled by its mask.

    Args:
        dataset: with masks.
        recipe: gives theta, the stride of the masks, the size of the images.
        limit: look at so many images only, evenly spread; None looks at all.

    Raises:
        InputError: the recipe is not of BoxInst, or no object has a mask.
    """
    model = recipe.model
    if not isinstance(model, DetectorConfig) or not isinstance(model.instance, BoxInst):
        raise InputError(f"{recipe.name} is not a recipe of BoxInst; take boxinst_mobilenetv2 or boxinst_r50_1x")
    config = model.instance
    head = config.build(8, 8, model.box_strides(), 1)
    chosen = tuple(dict.fromkeys([(config.size, config.dilation), *NEIGHBOURHOODS]))
    offsets = {one: tuple(half_neighbourhood(*one)) for one in chosen}
    counts = {offset: np.zeros((2, len(TAUS)), dtype=np.int64) for group in offsets.values() for offset in group}
    indices = range(len(dataset)) if limit is None else np.unique(np.linspace(0, len(dataset) - 1, limit).astype(int))
    objects = without_mask = 0
    with counting_bar("colour affinity", len(indices)) as bar:
        for index in indices:
            record = dataset.record(int(index))
            rows = [row for row in np.flatnonzero(~record.crowd).tolist() if record.shapes[row] is not None]
            without_mask += int((~record.crowd).sum()) - len(rows)
            objects += len(rows)
            if rows:
                size = resized_size(record.size, recipe.data.test.short_side, recipe.data.test.max_side)
                view = _View(head, record, dataset.image(int(index)), size)
                count_edges(counts, view.scene, view.boxes(rows), view.masks(rows), config.theta)
            bar.advance()
    if not objects:
        raise InputError(f"{dataset.name}: no object has a mask; colour affinity compares colours with masks")
    affinities = []
    for (side, dilation), group in offsets.items():
        total = np.sum([counts[offset] for offset in group], axis=0)
        at_least = total[:, ::-1].cumsum(axis=1)[:, ::-1]
        affinities.append(Affinity(side, dilation, right=at_least[1], wrong=at_least[0]))
    return AffinityStudy(tuple(affinities), len(indices), objects, without_mask)


class _View:
    """One image as the loss sees it: scaled to the network's input, then in cells of the masks' stride."""

    def __init__(
        self, head: BoxInstHead, record: Record, image: UInt8[ndarray, "_ _ 3"], size: tuple[int, int]
    ) -> None:
        self.record, self.stride, self.placement = record, head.stride, whole(record.size, size)
        pixels = torch.from_numpy(self.placement.image(image)).permute(2, 0, 1)
        batch = Batch(pad_images([pixels], 32), (size,), (record.size,))
        self.padded = (batch.images.shape[2], batch.images.shape[3])
        self.cells = (self.padded[0] // self.stride, self.padded[1] // self.stride)
        self.scene = head.scene(batch, *self.cells)

    def boxes(self, rows: list[int]) -> Bool[Tensor, "n h w"]:
        """The cells of each object's box."""
        boxes = torch.from_numpy(self.placement.boxes(self.record.boxes[rows])).float()
        return filled_boxes(boxes, self.stride, *self.cells)

    def masks(self, rows: list[int]) -> Bool[Tensor, "n h w"]:
        """The mask of each object at the middle pixel of every cell."""
        first = self.stride // 2
        out = np.zeros((len(rows), *self.cells), dtype=bool)
        for mask, row in zip(out, rows, strict=True):
            shape = self.record.shapes[row]
            assert shape is not None
            whole_mask = np.zeros(self.padded, dtype=bool)
            self.placement.patch(shape).paste(whole_mask)
            mask[:] = whole_mask[first :: self.stride, first :: self.stride]
        return torch.from_numpy(out)


def count_edges(
    counts: dict[Offset, Int64[ndarray, "2 t"]],
    scene: Scene,
    boxes: Bool[Tensor, "n h w"],
    masks: Bool[Tensor, "n h w"],
    theta: float,
) -> None:
    """Adds the pairs of one image to `counts`.

    Args:
        counts: by offset of the pair: row 0 pairs with two labels, row 1 with one; by the last of `TAUS` that the likeness
            reaches.
        scene: one image.
        boxes, masks: of its objects.
        theta: of eq. 6.7.
    """
    bins = {offset: _bins(scene, offset, theta) for offset in counts}
    reach = max(max(down, abs(right)) for down, right in counts)
    for box, mask in zip(boxes.numpy(), masks.numpy(), strict=True):
        down, across = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        if not len(down):
            continue
        # Nothing farther than `reach` from the box is an end of one of its pairs.
        top, bottom = max(0, down[0] - reach), min(box.shape[0], down[-1] + 1 + reach)
        left, right = max(0, across[0] - reach), min(box.shape[1], across[-1] + 1 + reach)
        box, mask = (torch.from_numpy(part[top:bottom, left:right]) for part in (box, mask))
        for offset, count in counts.items():
            first_inside, second_inside = ends(box, offset)
            first_label, second_label = ends(mask, offset)
            here = bins[offset][top : top + first_label.shape[0], left : left + first_label.shape[1]]
            chosen = (first_inside | second_inside) & (here >= 0)
            found = here[chosen] + len(TAUS) * (first_label == second_label)[chosen]
            count += torch.bincount(found, minlength=2 * len(TAUS)).view(2, -1).numpy()


def _bins(scene: Scene, offset: Offset, theta: float) -> Int[Tensor, "h w"]:
    """Which of `TAUS` the likeness of each pair reaches; -1 where an end cannot be seen."""
    likeness = color_similarity(*ends(scene.colors, offset), theta)[0]
    first, second = ends(scene.valid[0], offset)
    reached = torch.bucketize(likeness, torch.tensor(TAUS), right=True) - 1
    return torch.where(first & second, reached, -1)


def advice(affinity: Affinity, enough: float = 0.975, least_kept: float = 0.2) -> str:
    """One sentence: whether BoxInst suits these images, and with which tau.

    Args:
        affinity: of the recipe's neighbourhood.
        enough: share of right pairs that is taken to suit: a little under COCO's at the chapter's tau (98.3 % there, 97.8 %
            measured here).
        least_kept: share of the right pairs that must be left to learn from.
    """
    usable = [tau for tau in TAUS[5:61:5] if affinity.kept(tau) >= least_kept]
    if not usable:
        return (
            "BoxInst does not suit these images: neighbouring pixels of one object are seldom alike in colour "
            f"(at tau=0.05 only {100 * affinity.kept(0.05):.0f} % of the right pairs are left)."
        )
    good = [tau for tau in usable if affinity.share_right(tau) >= enough]
    tau = good[0] if good else max(usable, key=affinity.share_right)
    numbers = (
        f"{100 * affinity.share_right(tau):.1f} % of the pairs it trusts are right (the thesis on COCO: 98.3 %) "
        f"and {100 * affinity.kept(tau):.0f} % of the right pairs are left to learn from"
    )
    if good:
        return f"BoxInst suits these images: with model.instance.tau={tau:g}, {numbers}."
    return (
        f"It is doubtful that BoxInst suits these images: at best, with model.instance.tau={tau:g}, only {numbers}; "
        "expect outlines that are lost where object and ground have one colour."
    )
