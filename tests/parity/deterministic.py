"""Weights made from their names: the same formula gave the reference implementations theirs.

The value of element j of a weight is a + b u, with u in [-1, 1) hashed from the weight's name and j (splitmix64), and a, b from
what kind of weight the name tells. Statistics and affine maps of norms are far from 0 and 1 on purpose, so that a swapped or
ignored buffer shows.
"""

import math
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

SAMPLE = 4096


def hashed(name: str, count: int) -> np.ndarray:
    """`count` numbers in [-1, 1), exact in float32."""
    first = np.array([zlib.crc32(name.encode())], dtype=np.uint64) << np.uint64(32)
    z = first + np.arange(count, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def middle_and_spread(name: str, shape: Sequence[int], anchors: bool) -> tuple[float, float]:
    """(a, b) of a weight; `anchors`: its model is RetinaNet."""
    kind = name.rpartition(".")[2]
    # The last two are no weights: constants of CondInst, and the step that BoxInst has reached.
    if kind in ("num_batches_tracked", "sizes_of_interest", "_iter"):
        return 0.0, 0.0
    if kind == "running_mean":
        return 0.0, 0.05
    # The weights of a BiFPN's sums are called weights_f...
    one = kind in ("running_var", "scale") or kind.startswith("weights_f")
    if one or (kind == "weight" and len(shape) == 1):
        return 1.0, 0.25
    if kind == "explained_variances":
        return 4.0, 3.0
    if kind == "means":
        return 0.0, 1.0
    if kind == "bias":
        if name.endswith(("cls_logits.bias", "cls_score.bias")):
            return -5.0, 0.5
        if name.endswith(("bbox_pred.bias", "bbox_reg.bias")) and not anchors:
            return 2.0, 0.5
        return 0.0, 0.1
    gain = 1.0
    if name.endswith(("stem.conv1.weight", "base_layer.0.weight")):
        gain = 1 / 64
    elif name.endswith(("cls_logits.weight", "cls_score.weight")):
        gain = 2.0
    elif name.endswith("controller.weight"):
        gain = 0.5
    elif ".repeated_bifpn." in name and ".outputs_f" in name:
        gain = 2.5
    elif re.search(r"bottom_up\.level\d", name):
        gain = 1.2
    elif anchors and name.endswith(("bbox_pred.weight", "bbox_reg.weight")):
        gain = 0.3
    return 0.0, gain * math.sqrt(3 / math.prod(shape[1:]))


def weights(entries: Mapping[str, Sequence[int]], anchors: bool) -> dict[str, Tensor]:
    """A checkpoint's weights from its names and shapes."""
    out = {}
    for name, shape in entries.items():
        middle, spread = middle_and_spread(name, shape, anchors)
        values = middle + spread * hashed(name, math.prod(shape))
        kind = np.int64 if name.endswith("num_batches_tracked") else np.float32
        out[name] = torch.from_numpy(values.astype(kind).reshape(tuple(shape)))
    return out


def sampled(values: Tensor, count: int = SAMPLE) -> Tensor:
    """The `count` elements of a tensor that a golden file keeps."""
    flat = values.detach().flatten()
    if len(flat) <= count:
        return flat
    return flat[torch.arange(count) * len(flat) // count]
