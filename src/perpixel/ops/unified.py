"""One layer for stuff and objects (thesis 004, 5.4.3): weights of objects from their embeddings, truth by channel, what is kept.

Pure functions. Channels are those of the stuff first, then one an object.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perpixel.ops.boxes import filled_boxes
from perpixel.structures import VOID, Targets

UNKNOWN = -1
"""In maps of channels: a pixel that trains nothing."""


def mean_embeddings(
    embeddings: Float[Tensor, "n d"], owner: Int[Tensor, " n"], objects: int
) -> tuple[Float[Tensor, "objects d"], Bool[Tensor, " objects"]]:
    """The mean embedding of each object, and which objects have one: those with at least one row (N_i of 5.4.3 may be 0).

    Args:
        embeddings: of candidates.
        owner: (n,) the object of each.
        objects: how many there are.
    """
    total = embeddings.new_zeros((objects, embeddings.shape[1])).index_add(0, owner, embeddings)
    count = torch.bincount(owner, minlength=objects)
    return total / count.clamp(min=1)[:, None], count > 0


def channel_map(target: Targets, known: Bool[Tensor, " n"], stuff: int) -> Int[Tensor, "h w"]:
    """The channel that each pixel should be: its class of stuff, or `stuff` + the number of its object among those known.

    `UNKNOWN` where nobody says what is there, in crowds, and on objects that have no channel. Where masks overlap the first
    counts.

    Args:
        target: with masks and a map of stuff.
        known: objects that have a channel.
        stuff: classes of stuff.
    """
    assert target.masks is not None and target.stuff is not None
    channel = torch.where(known, stuff + known.cumsum(0) - 1, UNKNOWN)
    # One more object below all others, for pixels of no mask.
    masks = torch.cat([target.masks, target.masks.new_ones((1, *target.masks.shape[1:]))])
    owner = torch.cat([channel, channel.new_tensor([UNKNOWN])])[masks.to(torch.uint8).argmax(dim=0)]
    classes = target.stuff.long() - 1
    return torch.where(target.stuff == 0, owner, torch.where(target.stuff == VOID, UNKNOWN, classes))


def unified_loss(
    logits: Sequence[Float[Tensor, "_ _ _"]], channels: Sequence[Int[Tensor, "_ _"]], stride: int
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Summed cross entropy of the pixels that are known, the logits enlarged to them, and how many they are.

    Args:
        logits: of each image, in as many channels as it has stuff and objects.
        channels: what they should be, in pixels of the input.
        stride: pixels of the input a step of the logits.
    """
    total, count = torch.stack([image.sum() * 0 for image in logits]).sum(), channels[0].new_zeros(())
    for image, truth in zip(logits, channels, strict=True):
        large = F.interpolate(image[None], scale_factor=stride, mode="bilinear", align_corners=False)
        # Sides that are no multiple of the features' stride are rounded up.
        inside = large[:, :, : truth.shape[0], : truth.shape[1]]
        total = total + F.cross_entropy(inside, truth[None], ignore_index=UNKNOWN, reduction="sum")
        count = count + (truth != UNKNOWN).sum()
    return total, count


def kept_objects(
    logits: Float[Tensor, "c h w"], boxes: Float[Tensor, "n 4"], stride: int, overlap: float
) -> Int[Tensor, " m"]:
    """Rows of objects, best first, that do not lose more than `overlap` of their mask to better ones that are kept.

    An object's mask is where in its box it would win if there were stuff alone: outside of it objects of one look need not beat
    each other to beat the stuff. Duplicates that NMS left share theirs with a better one.

    Args:
        logits: of the stuff, then of the n objects, best first.
        boxes: of the objects, in pixels of the input.
        stride: pixels of the input a step of the logits.
        overlap: between 0 and 1.
    """
    stuff = len(logits) - len(boxes)
    alone = (logits[stuff:] > logits[:stuff].amax(dim=0)) & filled_boxes(boxes, stride, *logits.shape[1:])
    # Decided on the device: the host does not wait for each object.
    taken, kept = alone.new_zeros(alone.shape[1:]), alone.new_zeros(len(alone))
    for row, mask in enumerate(alone):
        area, lost = mask.sum().double(), (mask & taken).sum()
        kept[row] = (area > 0) & (lost <= overlap * area)
        taken = taken | (mask & kept[row])
    return torch.nonzero(kept).squeeze(1)
