"""Stages of models that add masks: filters, mask features and logits, masks of the photo."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from hotcoco import mask as codec
from torch import Tensor, nn

from perpixel.models import blendmask, condinst
from perpixel.models.blendmask import BlendMaskHead
from perpixel.models.condinst import CondInstHead
from perpixel.models.detector import Detector
from perpixel.models.meinst import MEInstHead
from perpixel.ops.boxes import clip_boxes
from perpixel.ops.sampling import conv_at, patches_at
from perpixel.structures import Batch, BoxMasks, Candidates, ImageMasks

from .whole_masks import paste_box_masks, resize_image_masks


def box_pixels(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """What AdelaiDet's BoxInst takes as the mask of a box: rows int(y1) to int(y2 + 1), columns alike."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
        mask[int(y1) : int(y2 + 1), int(x1) : int(x2 + 1)] = True
    return masks


def mass_centers(masks: Tensor) -> Tensor:
    """Mean (x, y) pixel index of each mask."""
    found = [mask.nonzero().float().mean(dim=0).flip(0) for mask in masks]
    return torch.stack(found)


def polygon_truth(size: int, candidates: Candidates, batch: Batch) -> Tensor:
    """The polygons of each candidate's object drawn in `size` x `size` cells of its box, as detectron2 has it.

    Images 0 and 1 of the golden files, in this order; polygons are moved to the box's corner and scaled to the cells.
    """
    images = json.loads((Path(__file__).parents[1] / "golden" / "annotations.json").read_text())
    drawn: dict[tuple[int, int], np.ndarray] = {}
    assert candidates.target is not None
    rows = list(zip(candidates.image.tolist(), candidates.target.tolist(), strict=True))
    for image, target in dict.fromkeys(rows):
        x1, y1, x2, y2 = batch.truth()[image].boxes[target].double().tolist()
        shift, scale = np.array([x1, y1]), size / np.array([max(x2 - x1, 0.1), max(y2 - y1, 0.1)])
        polygons = [np.array(polygon).reshape(-1, 2) for polygon in images[image][target]["polygons"]]
        cells = [((polygon - shift) * scale).ravel().tolist() for polygon in polygons]
        drawn[image, target] = codec.decode(codec.merge(codec.frPyObjects(cells, size, size)))
    return torch.from_numpy(np.stack([drawn[row] for row in rows])).bool()


def stages(head: CondInstHead | BlendMaskHead | MEInstHead, dense: object, candidates: Candidates) -> dict[str, Tensor]:
    """What does not depend on the order of the candidates, and their logits and embeddings in the order given."""
    if isinstance(head, MEInstHead):
        assert isinstance(dense, tuple) and isinstance(head.predictor, nn.Conv2d)
        maps = {f"head/mask_coef/{level}": head.predictor(tower) for level, tower in enumerate(dense)}
        return maps | {"prop/pred_masks": head.predict(dense, candidates).values[:, None]}
    embedding = head.controller if isinstance(head, CondInstHead) else head.top
    assert embedding is not None and isinstance(dense, condinst.Maps | blendmask.Maps)
    at = conv_at(patches_at(dense.towers, candidates), embedding.weight, embedding.bias)
    # Ours never computes them everywhere; the references do.
    everywhere = {
        f"head/top/{level}": F.conv2d(tower, embedding.weight, embedding.bias, padding=1)
        for level, tower in enumerate(dense.towers)
    }
    if isinstance(dense, blendmask.Maps):
        assert isinstance(head, BlendMaskHead)
        masks = {"bases": dense.bases, "mask_logits_roi": head.logits(dense, candidates).flatten(1)}
    else:
        assert isinstance(head, CondInstHead)
        masks = {"mask_feats": dense.features, "mask_logits_stride4": head.logits(dense, candidates)[:, None]}
    return everywhere | masks | {"prop/top_feat": at}


Bounds = tuple[np.ndarray, np.ndarray]
"""Of each mask the pixels that surely belong to it, and those that may: between lie those whose probability is 0.5."""


def wrong_pixels(stored: dict[str, np.ndarray], case: str, masks: Bounds, rows: Tensor) -> float:
    """Largest share of the photo's pixels by which a mask's area, or a stored mask itself, differs.

    Args:
        stored: the golden file.
        case: A or B.
        masks: ours.
        rows: ours of each stored one.
    """
    least, most = (bound[rows.numpy()] for bound in masks)
    area = stored[f"{case}/det/mask_area"]
    areas = np.maximum(least.sum(axis=(1, 2)) - area, area - most.sum(axis=(1, 2)))
    width = stored[f"{case}/det/mask_hw"][1]
    bits = np.unpackbits(stored[f"{case}/det/mask_bits"].reshape(12, least.shape[1], -1), axis=2)[..., :width] > 0
    chosen = stored[f"{case}/det/mask_bits_index"]
    pixels = ((least[chosen] & ~bits) | (bits & ~most[chosen])).sum(axis=(1, 2))
    return float(max(areas.max(), pixels.max(), 0) / least[0].size)


def photo_masks(model: Detector, batch: Batch, original: tuple[int, int], ours: np.ndarray) -> dict[str, Bounds]:
    """Masks of the photo by each way there is: as they come, and by resizing each instance's whole map.

    Masks over boxes are spread here over boxes that were first cut at the photo's border, as detectron2 does it, which moves
    them; ours as they come lie over the whole box. BlendMask's are 0.5 exactly where a box leaves the bases, and which side of
    0.5 a sum of halves falls on is a matter of rounding.
    """
    found = model.predict(batch)[0]
    if isinstance(found.masks, BoxMasks):
        scale = torch.tensor([original[1] / found.size[1], original[0] / found.size[0]]).repeat(2)
        cut = clip_boxes(found.boxes * scale, original)
        bounds = [paste_box_masks(found.masks.values, cut, original, 0.5 + margin).numpy() for margin in (1e-6, -1e-6)]
        return {"masks in cut boxes": (bounds[0], bounds[1])}
    assert isinstance(found.masks, ImageMasks)
    whole = resize_image_masks(found.masks.values, found.masks.stride, found.size, original).numpy()
    return {"masks": (ours, ours), "masks, whole maps": (whole, whole)}
