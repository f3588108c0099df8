"""Mask probabilities in the frame of a box or of the network's input: how one becomes the other.

`perpixel.ops.mask_windows` makes masks of the photo from either.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from torchvision.ops import roi_align

from perpixel.structures import BoxMasks, ImageMasks


def spread_over_boxes(
    values: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], size: tuple[int, int]
) -> Float[Tensor, "n h w"]:
    """Values over each box, corner to corner, at every pixel of the image, all instances at once.

    Value (i, j) stands at the centre of its cell of the box; between centres it is bilinear, beyond the outermost centres
    it falls to 0 within one cell.

    Args:
        values: (n, s, s) probabilities.
        boxes: (n, 4) xyxy in pixels of the image.
        size: (height, width) of the image.
    """
    vertical = tents(boxes[:, 1], boxes[:, 3], slice(0, size[0]), values.shape[1])
    horizontal = tents(boxes[:, 0], boxes[:, 2], slice(0, size[1]), values.shape[2])
    # Bilinear interpolation is separable: two small matrix products instead of a gather a pixel.
    return vertical @ values.float() @ horizontal.mT


def tents(
    low: Float[Tensor, " n"], high: Float[Tensor, " n"], pixels: slice, cells: int
) -> Float[Tensor, "n pixels cells"]:
    """Weight of each cell at each pixel's centre along one axis: a tent of one cell's half width around its centre."""
    centers = torch.arange(pixels.start, pixels.stop, device=low.device) + 0.5
    extent = (high - low).clamp(min=torch.finfo(torch.float32).eps)
    position = (centers - low[:, None]) / extent[:, None] * cells - 0.5
    distance = (position[:, :, None] - torch.arange(cells, device=low.device)).abs()
    return (1 - distance).clamp(min=0)


def crop_masks(
    masks: Bool[Tensor, "m h w"], rows: Int[Tensor, " n"], boxes: Float[Tensor, "n 4"], size: int
) -> Bool[Tensor, "n s s"]:
    """What `spread_over_boxes` should have been given: each box cut into `size` x `size` cells, true where half a cell is mask.

    Args:
        masks: (m, h, w) of one image.
        rows: (n,) the mask that each box crops.
        boxes: (n, 4) xyxy in pixels of the image; what lies outside the image is no mask.
        size: cells a side.
    """
    # RoIAlign continues an image by one pixel past its border: a frame of nothing keeps masks that touch it from growing.
    framed = functional.pad(masks[:, None].to(boxes.dtype), (1, 1, 1, 1))
    regions = torch.cat([rows[:, None].to(boxes.dtype), boxes + 1], dim=1)
    covered = roi_align(framed, regions, size, aligned=True)
    return covered[:, 0] >= 0.5


def edge_pixels(masks: Bool[Tensor, "n h w"]) -> Bool[Tensor, "n h w"]:
    """Pixels that have one of the other kind among their 8 neighbours: the mask's outline, both its sides.

    Past the border of the map nothing is known, so a mask that touches it has no edge there.
    """
    values = masks[:, None].float()
    highest = functional.max_pool2d(values, 3, stride=1, padding=1)
    lowest = -functional.max_pool2d(-values, 3, stride=1, padding=1)
    return (highest > lowest)[:, 0]


def aligned_bilinear(values: Float[Tensor, "n c h w"], factor: int) -> Float[Tensor, "n c h2 w2"]:
    """Maps enlarged `factor` times so that value (i, j) lands on the point (i + 0.5) * factor of a location.

    Replicates the last row and column, interpolates with aligned corners to factor * n + 1, shifts by factor // 2 with
    replication at the top and left, and crops (CondInst's reference implementation).
    """
    if factor == 1:
        return values
    height, width = values.shape[2:]
    padded = functional.pad(values, (0, 1, 0, 1), mode="replicate")
    size = (factor * height + 1, factor * width + 1)
    large = functional.interpolate(padded, size=size, mode="bilinear", align_corners=True)
    shifted = functional.pad(large, (factor // 2, 0, factor // 2, 0), mode="replicate")
    return shifted[:, :, : factor * height, : factor * width]


def probabilities_in_input(
    masks: BoxMasks | ImageMasks, boxes: Float[Tensor, "n 4"], size: tuple[int, int]
) -> Float[Tensor, "n h w"]:
    """Mask probabilities at every pixel of the network's input, all instances at once: what an exported file ends in.

    Args:
        masks: of n instances in either frame.
        boxes: (n, 4) in pixels of the input; box masks are spread over them.
        size: (height, width) of the input inside its padding.
    """
    if isinstance(masks, BoxMasks):
        return spread_over_boxes(masks.values, boxes, size)
    return aligned_bilinear(masks.values[:, None].float(), masks.stride)[:, 0, : size[0], : size[1]]
