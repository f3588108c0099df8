"""Masks of the photo made over the whole of it, all at once: what `perpixel.ops.mask_windows` must equal."""

from torch.nn import functional

from perpixel.ops.masks import aligned_bilinear, spread_over_boxes
from perpixel.structures import BoxMasks


def paste_box_masks(values, boxes, size, threshold=0.5):
    """Values over each box, corner to corner: a pixel belongs to the mask where the value at its centre reaches `threshold`."""
    return spread_over_boxes(values, boxes, size) >= threshold


def resize_image_masks(values, stride, input_size, original_size, threshold=0.5):
    """Probabilities over the padded input: enlarged, cropped to the image inside the padding, brought to the photo's size.

    Masks hold what is strictly larger than `threshold`.
    """
    large = aligned_bilinear(values[:, None].float(), stride)[:, :, : input_size[0], : input_size[1]]
    return functional.interpolate(large, size=original_size, mode="bilinear", align_corners=False)[:, 0] > threshold


def whole_masks(masks, boxes, size):
    """Masks in either frame, of a photo as large as the network's input."""
    if isinstance(masks, BoxMasks):
        return paste_box_masks(masks.values, boxes, size)
    return resize_image_masks(masks.values, masks.stride, size, size)
