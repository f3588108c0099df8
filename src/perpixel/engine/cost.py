"""What a model costs: multiply-adds of its dense forward and parameters, by part.

Counted of convolutions and matrix products alone: biases, norms and activations are less than a hundredth. What runs once for
each object found (a mask network, NMS) is not dense, and not counted.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import deform_conv2d  # noqa: F401  (registers the operator)

from perpixel.models.heads import ModelConfig
from perpixel.nn.backbones import without_pretrained

CLASSES, STUFF = 80, 53
"""COCO's."""


@dataclass(frozen=True)
class Cost:
    """Of one part of a model, or of all of it.

    Attributes:
        part: its name.
        multiply_adds: of the dense forward of one image.
        parameters: numbers in it; statistics and affine maps of frozen norms are none.
        trained: those that training changes.
    """

    part: str
    multiply_adds: int
    parameters: int
    trained: int


def cost_of(config: ModelConfig, size: tuple[int, int]) -> list[Cost]:
    """Costs of the parts of the config's model, then of all of it, for COCO's classes.

    No number is computed: the forward runs on tensors without values.

    Args:
        config: of the model; its weights are not needed.
        size: (height, width) of the network's input; rounded up to what batches are padded to, multiples of 32.
    """
    height, width = (math.ceil(side / 32) * 32 for side in size)
    model = without_pretrained(config).build(CLASSES, STUFF).eval().to("meta")
    counter = flop_counter()
    with torch.no_grad(), counter:
        model(torch.empty((1, 3, height, width), device="meta"))
    flops = {str(name): sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    root = type(model).__name__
    costs = [_cost(name, module, flops[f"{root}.{name}"]) for name, module in _parts(model, flops, root)]
    total = _cost("total", model, flops["Global"])
    rest = total.multiply_adds - sum(cost.multiply_adds for cost in costs)
    between = [Cost("between them", rest, 0, 0)] if rest else []
    return [*costs, *between, total]


def table(costs: Sequence[Cost]) -> str:
    """Costs in columns: multiply-adds in units of 1e9, parameters in units of 1e6."""
    width = max(len(cost.part) for cost in costs)
    lines = [f"{'part':{width}}  multiply-adds (G)  parameters (M)  trained (M)"]
    lines += [
        f"{cost.part:{width}}  {cost.multiply_adds / 1e9:17.2f}  {cost.parameters / 1e6:14.3f}  {cost.trained / 1e6:11.3f}"
        for cost in costs
    ]
    return "\n".join(lines)


def _parts(model: nn.Module, flops: dict[str, int], root: str, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The model's children that compute; in place of one whose own children are called from outside, these."""
    for name, module in model.named_children():
        path = f"{prefix}{name}"
        if f"{root}.{path}" in flops:
            yield path, module
        else:
            yield from _parts(module, flops, root, f"{path}.")


def _cost(part: str, module: nn.Module, flops: int) -> Cost:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return Cost(part, flops // 2, sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained))


def _deformable(
    image: Sequence[int], weight: Sequence[int], *rest: object, out_shape: Sequence[int], **more: object
) -> int:
    """As of a plain convolution of these shapes; the convolution that predicts the offsets is counted by itself."""
    batch, _, height, width = out_shape
    return 2 * batch * height * width * math.prod(weight)


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter, which takes 2 for a multiply-add, told of deformable convolutions."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.torchvision.deform_conv2d: _deformable})
