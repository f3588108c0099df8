"""Features inside boxes: where maps are sampled, at which level, and what bilinear interpolation finds there.

A map's value (i, j) stands at the pixel ((j + 0.5) stride, (i + 0.5) stride), the point of its location.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import roi_align

from perpixel.ops.groups import rows_by

Maps = Sequence[Float[Tensor, "b c _ _"]]


def bin_centers(boxes: Float[Tensor, "n 4"], size: int) -> Float[Tensor, "n s s 2"]:
    """Centres (x, y) of the `size` x `size` equal parts of each box, row by row: where RoIPred samples (thesis 004, 3.3.1).

    They are a location's point plus the offsets of eq. 3.2 and 3.3, whichever point that is: x1 is the point less l, and
    (l + r) the box's width, so p + o_x(i) = x1 + (x2 - x1)(2 i + 1) / (2 size).
    """
    part = (torch.arange(size, device=boxes.device) + 0.5) / size
    centers = boxes[:, None, :2] + (boxes[:, 2:] - boxes[:, :2])[:, None] * part[:, None]
    return _crossed(centers[:, :, 0], centers[:, :, 1])


def kernel_places(points: Float[Tensor, "n 2"], step: Float[Tensor, " n"], size: int) -> Float[Tensor, "n s s 2"]:
    """Where a convolution of `size` x `size` around each point reads: places (x, y) that are `step` pixels apart."""
    reach = (torch.arange(size, device=points.device) - size // 2) * step[:, None]
    return _crossed(points[:, :1] + reach, points[:, 1:] + reach)


def _crossed(x: Float[Tensor, "n s"], y: Float[Tensor, "n s"]) -> Float[Tensor, "n s s 2"]:
    """The grid of these columns and rows."""
    size = x.shape[1]
    return torch.stack([x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)


def sample_maps(
    maps: Maps,
    strides: Sequence[int],
    image: Int[Tensor, " n"],
    level: Int[Tensor, " n"],
    places: Float[Tensor, "n r s 2"],
) -> Float[Tensor, "n c r s"]:
    """What each row's map holds at its places (x, y), in pixels of the network's input: bilinear, zero outside the map.

    So torchvision's `deform_conv2d` samples, at these places only. At least float32, whatever the maps are.
    """
    kind = torch.promote_types(maps[0].dtype, torch.float32)
    samples = torch.zeros((*places.shape[:3], maps[0].shape[1]), dtype=kind, device=places.device)
    for values, stride, rows in zip(maps, strides, rows_by(level, len(maps)), strict=True):
        found = _interpolated(values, image[rows], places[rows] / stride - 0.5)
        samples = samples.index_copy(0, rows, found.to(kind))
    return samples.permute(0, 3, 1, 2)


def _interpolated(
    values: Float[Tensor, "b c h w"], image: Int[Tensor, " m"], at: Float[Tensor, "m r s 2"]
) -> Float[Tensor, "m r s c"]:
    """Between the four values around each index (x, y); all four are read at once, so the gradient is one scatter."""
    height, width = values.shape[2:]
    corner = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=at.device)[:, None, None]
    low = at.floor()[:, None]
    part = at[:, None] - low
    across, down = torch.where(corner == 1, part, 1 - part).unbind(-1)
    x, y = (low.long() + corner).unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    # The map itself is read, not a padded copy. Advanced indices around a slice come first: (m, 4, s, s, c).
    found = values[image[:, None, None, None], :, y.clamp(0, height - 1), x.clamp(0, width - 1)]
    return (found * (across * down * inside)[..., None]).sum(dim=1)


def level_of_size(boxes: Float[Tensor, "n 4"], length: float, levels: int) -> Int[Tensor, " n"]:
    """The level that a box's longer side falls to: thesis 004, 3.4.

    Level p, counted from 1, takes sides in [2^(p-2) L, 2^(p-1) L); what is shorter goes to the first, what is longer to the last.

    Args:
        boxes: xyxy.
        length: L, the canonical length, in pixels: where the second level begins.
        levels: how many there are.
    """
    side = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
    first = length * 2.0 ** torch.arange(levels - 1, device=boxes.device)
    return (side[:, None] >= first).sum(dim=1)


def align_boxes(
    maps: Maps,
    strides: Sequence[int],
    image: Int[Tensor, " n"],
    level: Int[Tensor, " n"],
    boxes: Float[Tensor, "n 4"],
    size: int,
) -> Float[Tensor, "n c s s"]:
    """RoIAlign with one sample a bin, at each row's level, in float32.

    The samples are those at `bin_centers`, but for places less than half a cell from the map's border, where RoIAlign goes on
    with the border's values and `sample_maps` falls to zero.
    """
    regions = torch.cat([image[:, None].to(boxes.dtype), boxes], dim=1)
    samples = torch.zeros((boxes.shape[0], maps[0].shape[1], size, size), device=boxes.device)
    for values, stride, rows in zip(maps, strides, rows_by(level, len(maps)), strict=True):
        found = roi_align(values.float(), regions[rows], size, 1 / stride, sampling_ratio=1, aligned=True)
        samples = samples.index_copy(0, rows, found)
    return samples
