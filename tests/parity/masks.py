"""Stages of models that add masks: filters, mask features and logits, masks of the photo."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.models.condinst import CondInstHead, Maps
from perpixel.models.detector import Detector
from perpixel.ops.masks import resize_image_masks
from perpixel.ops.sampling import conv_at, patches_at
from perpixel.structures import Batch, Candidates, ImageMasks


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


def stages(head: CondInstHead, dense: Maps, candidates: Candidates) -> dict[str, Tensor]:
    """What does not depend on the order of the candidates, and their logits and filters in the order given."""
    at = conv_at(patches_at(dense.towers, candidates), head.controller.weight, head.controller.bias)
    # Ours never computes them everywhere; the references do.
    everywhere = {
        f"head/top/{level}": F.conv2d(tower, head.controller.weight, head.controller.bias, padding=1)
        for level, tower in enumerate(dense.towers)
    }
    logits = head.logits(dense, candidates)[:, None]
    return everywhere | {"mask_feats": dense.features, "mask_logits_stride4": logits, "prop/top_feat": at}


def wrong_pixels(stored: dict[str, np.ndarray], case: str, masks: np.ndarray, rows: Tensor) -> float:
    """Largest share of the photo's pixels by which a mask's area, or a stored mask itself, differs.

    Args:
        stored: the golden file.
        case: A or B.
        masks: ours.
        rows: ours of each stored one.
    """
    ours = masks[rows.numpy()]
    areas = np.abs(ours.sum(axis=(1, 2)) - stored[f"{case}/det/mask_area"])
    width = stored[f"{case}/det/mask_hw"][1]
    bits = np.unpackbits(stored[f"{case}/det/mask_bits"].reshape(12, ours.shape[1], -1), axis=2)[..., :width]
    pixels = (ours[stored[f"{case}/det/mask_bits_index"]] != bits).sum(axis=(1, 2))
    return float(max(areas.max(), pixels.max()) / ours[0].size)


def whole_masks(model: Detector, batch: Batch, original: tuple[int, int]) -> np.ndarray:
    """Masks of the photo by resizing each instance's whole map."""
    found = model.predict(batch)[0]
    assert isinstance(found.masks, ImageMasks)
    return resize_image_masks(found.masks.values, found.masks.stride, found.size, original).numpy()
