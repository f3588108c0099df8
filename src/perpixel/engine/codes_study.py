"""How much of a data set's masks a code of so many numbers keeps: the upper bound of what MEInst can reach (its figure 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perpixel.data.dataset import Dataset, Record
from perpixel.data.mask_crops import cut_out, drawn_rows, patch_of
from perpixel.engine.bar import counting_bar
from perpixel.engine.codes import fit_code
from perpixel.errors import InputError
from perpixel.nn.mask_codes import PCA, LinearCode, logit_height
from perpixel.ops.masks import spread_over_boxes

DIMS = (5, 10, 20, 40, 60, 80, 100, 150, 200)
PAPER = {100: 0.025}
"""Figure 5, COCO train2017: "only 2.5 %" error at 100 numbers."""
SMALL, LARGE = 32**2, 96**2
"""COCO's limits of small and large objects, in pixels of the mask."""
EXAMPLES = 6


@dataclass(frozen=True)
class Kept:
    """What is left of masks that were encoded and decoded.

    Attributes:
        dim: numbers a mask; None: the cells themselves, no code.
        variance: share of the masks' variance that the numbers keep.
        cells: mean IoU of decoded masks with the masks, both in cells of the box: the paper's measure.
        photo: mean IoU of decoded masks, spread over the box, with the masks in pixels of the photo.
        small, medium, large: the same of objects by COCO's sizes; NaN where there is none.
    """

    dim: int | None
    variance: float
    cells: float
    photo: float
    small: float
    medium: float
    large: float

    @property
    def error(self) -> float:
        """E_recon of figure 5."""
        return 1 - self.cells


@dataclass(frozen=True)
class CodesStudy:
    """What was measured.

    Attributes:
        code: plain components, the most that were asked for.
        kept: a row a number of numbers, the last without a code.
        fitted_to: masks that the code was fitted to.
        objects, images: that it was measured on.
        shared: classes with too few masks for a dictionary of their own.
        examples, labels: masks to show, and their classes.
    """

    code: LinearCode
    kept: tuple[Kept, ...]
    fitted_to: int
    objects: int
    images: int
    shared: tuple[str, ...]
    examples: Bool[Tensor, "n s s"]
    labels: Int[Tensor, " n"]


def study_codes(
    dataset: Dataset,
    *,
    fit_to: Dataset | None = None,
    size: int = 28,
    dims: Sequence[int] | None = None,
    class_specific: bool = False,
    limit: int | None = None,
    skip_bad: bool = False,
    workers: int = 0,
) -> CodesStudy:
    """Fits a code and measures what it keeps of a data set's masks.

    Args:
        dataset: with masks.
        fit_to: what the code is fitted to; None fits it to `dataset`, as the paper does.
        size: cells a side.
        dims: numbers a mask, each of which makes a row; None takes those of `DIMS` that fit.
        class_specific: a dictionary for each class.
        limit: measure so many images only, evenly spread; None measures all. The fit sees all either way.
        skip_bad: go on without images whose masks cannot be drawn.
        workers: processes that draw masks for the fit.

    Raises:
        InputError: no masks, other classes in `fit_to`, or more numbers than cells.
    """
    if fit_to is not None and fit_to.classes != dataset.classes:
        raise InputError(f"{fit_to.name} has other classes than {dataset.name}: fit the code to data of the same ones")
    wanted = tuple(dim for dim in DIMS if dim <= size**2) if dims is None else tuple(sorted(set(dims)))
    if not wanted or wanted[0] < 1 or wanted[-1] > size**2:
        raise InputError(f"--dims {list(wanted)} are not between 1 and {size**2}, the cells of a mask")
    code = PCA(wanted[-1], size, whiten=False, logit=False, class_specific=class_specific).build(len(dataset.classes))
    fitted = fit_code(code, fit_to or dataset, skip_bad=skip_bad, workers=workers)
    tally = _Tally(code, wanted)
    indices = range(len(dataset)) if limit is None else np.unique(np.linspace(0, len(dataset) - 1, limit).astype(int))
    with counting_bar("reconstruction", len(indices)) as bar:
        for index in indices:
            tally.add(dataset.record(int(index)))
            bar.advance()
    return CodesStudy(
        code,
        tally.rows(),
        fitted.masks,
        len(tally.areas),
        len(indices),
        fitted.shared,
        torch.stack(tally.examples),
        torch.cat(tally.labels),
    )


class _Tally:
    """IoUs of every object by number of numbers, the last column without a code."""

    def __init__(self, code: LinearCode, dims: tuple[int, ...]) -> None:
        self.code, self.dims = code, dims
        self.cells: list[Tensor] = []
        self.photo: list[Tensor] = []
        self.areas: list[int] = []
        self.examples: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.lost, self.deviation = torch.zeros(len(dims), dtype=torch.float64), 0.0

    def add(self, record: Record) -> None:
        """Measures every drawn object of an image; a mask without a pixel is none."""
        for row in drawn_rows(record):
            patch = patch_of(record.shapes[row], record.size)
            area = int(patch.pixels.sum())
            if not area:
                continue
            box = torch.from_numpy(record.boxes[row]).double()
            # The window holds mask and box: nothing beyond it belongs to either.
            left, top = (int(min(a, b)) for a, b in zip(patch.box[:2], box[:2].floor().tolist(), strict=True))
            right, bottom = (int(max(a, b)) for a, b in zip(patch.box[2:], box[2:].ceil().tolist(), strict=True))
            truth = torch.zeros(bottom - top, right - left, dtype=torch.bool)
            x1, y1, x2, y2 = patch.box
            truth[y1 - top : y2 - top, x1 - left : x2 - left] = torch.from_numpy(patch.pixels)
            moved = (box - torch.tensor([left, top] * 2)).float()
            label = torch.tensor([int(record.labels[row])])
            mask = torch.from_numpy(cut_out(patch, record.boxes[row], self.code.size))[None]
            self._measure(mask, label, truth, moved)
            self.areas.append(area)

    def _measure(
        self, mask: Bool[Tensor, "1 s s"], label: Tensor, truth: Bool[Tensor, "h w"], box: Float[Tensor, " 4"]
    ) -> None:
        values = reconstructions(self.code, mask, label, self.dims)
        flat = mask.flatten(1).float()
        self.lost += (values.flatten(1) - flat).square().sum(dim=1)
        self.deviation += float((flat - self.code.means[label if len(self.code.counts) > 1 else [0]]).square().sum())
        every = torch.cat([values, mask.float()])
        self.cells.append(_iou(every >= 0.5, mask))
        spread = spread_over_boxes(as_released(every), box.expand(len(every), 4), (truth.shape[0], truth.shape[1]))
        self.photo.append(_iou(spread >= 0.5, truth[None]))
        if len(self.areas) % 37 == 0 and len(self.examples) < EXAMPLES:
            self.examples.append(mask[0])
            self.labels.append(label)

    def rows(self) -> tuple[Kept, ...]:
        if not self.areas:
            raise InputError("there is no mask to reconstruct")
        areas, photo, cells = torch.tensor(self.areas), torch.stack(self.photo), torch.stack(self.cells).mean(dim=0)
        sizes = (areas < SMALL, (areas >= SMALL) & (areas < LARGE), areas >= LARGE)
        by_size = torch.stack([photo[chosen].mean(dim=0) for chosen in sizes])
        share = torch.cat([1 - self.lost / max(self.deviation, 1e-9), torch.ones(1, dtype=torch.float64)])
        return tuple(
            Kept(dim, *(float(v) for v in (share[i], cells[i], photo[:, i].mean(), *by_size[:, i])))
            for i, dim in enumerate((*self.dims, None))
        )


def reconstructions(
    code: LinearCode, mask: Bool[Tensor, "1 s s"], label: Tensor, dims: Sequence[int]
) -> Float[Tensor, "d s s"]:
    """A mask from the first so many of its numbers, not cut off at 0 and 1 (eq. 1 of a plain code)."""
    full = code.encode(mask, label)
    few = torch.arange(code.dim) < torch.tensor(dims)[:, None]
    flat = code.reconstruct(torch.where(few, full, 0), label.expand(len(dims)))
    return flat.unflatten(1, (code.size, code.size))


def as_released(values: Float[Tensor, "n s s"]) -> Float[Tensor, "n s s"]:
    """Reconstructions of plain codes as those of logits: the same components, ended by a sigmoid (`LinearCode.fit`)."""
    return (logit_height(None)[0] * (2 * values - 1)).sigmoid()


def _iou(found: Bool[Tensor, "n h w"], truth: Bool[Tensor, "1 h w"]) -> Float[Tensor, " n"]:
    """IoU of each mask with the truth; 1 where neither has a pixel."""
    both, either = (found & truth).sum(dim=(1, 2)), (found | truth).sum(dim=(1, 2))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)
