"""Batch norms folded into the convolutions before them: the same function in fewer passes over memory."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from perpixel.nn.blur import BlurConv2d
from perpixel.nn.deform import DeformConv2d
from perpixel.nn.frozen import FrozenBatchNorm

CONVOLUTIONS = (nn.Conv2d, Conv2dSame, DeformConv2d, BlurConv2d)
"""Exact classes that are linear in their weight; a subclass that rescales its weight at every call is none of them."""

NORMS = (nn.BatchNorm2d, FrozenBatchNorm, BatchNormAct2d)


def fold_norms(network: nn.Module, images: Float[Tensor, "b c h w"]) -> int:
    """Folds, in place, every batch norm that is all that reads a convolution's result; returns how many.

    Which norm reads which convolution is not guessed from names or order: one forward pass is watched, operation by
    operation. What cannot be folded (a norm before its convolution, a result read twice) stays as it is. Norms must be in
    evaluation mode; activations inside them are kept. Results are equal but for rounding, about 1e-6 of their size.

    Args:
        network: any module; `network(images)` must run.
        images: small ones will do.
    """
    if any(type(part) in NORMS and part.training for part in network.modules() if isinstance(part, nn.BatchNorm2d)):
        raise ValueError("norms that still learn cannot be folded: call eval() first")
    pairs = _pairs(network, images)
    for conv, norm in pairs:
        _fold(conv, norm)
    _replace(network, {norm: _activation(norm) for _, norm in pairs})
    return len(pairs)


class _Watch(TorchDispatchMode):
    """Notes which tensors each operation reads, and inside which norm it happens."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: nn.Module | None = None
        self.readers: dict[int, set[nn.Module | None]] = defaultdict(set)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor):
                self.readers[id(value)].add(self.inside)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _pairs(network: nn.Module, images: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Convolutions with the norm that alone reads them, at every call of either."""
    made: dict[nn.Module, list[Tensor]] = defaultdict(list)
    read: dict[nn.Module, list[Tensor]] = defaultdict(list)
    watch = _Watch()

    def convolved(conv: nn.Module, _: Any, out: Tensor) -> None:
        # Kept, so that no other tensor gets its id; what read an earlier tensor of this id does not count.
        made[conv].append(out)
        watch.readers[id(out)] = set()

    def entered(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read[norm].append(inputs[0])
        watch.inside = norm

    def left(*_: Any) -> None:
        watch.inside = None

    handles = []
    for part in network.modules():
        if type(part) in CONVOLUTIONS:
            handles.append(part.register_forward_hook(convolved))
        elif type(part) in NORMS:
            handles += [part.register_forward_pre_hook(entered), part.register_forward_hook(left)]
    try:
        with watch:
            results = network(images)
    finally:
        for handle in handles:
            handle.remove()
    returned = {id(value) for value in tree_leaves(results)}
    pairs = []
    for conv, outputs in made.items():
        readers = set().union(*(watch.readers[id(out)] for out in outputs))
        norm = readers.pop() if len(readers) == 1 else None
        mine = {id(out) for out in outputs}
        if norm is not None and {id(x) for x in read[norm]} == mine and not mine & returned:
            pairs.append((conv, norm))
    return pairs


def _fold(conv: Any, norm: Any) -> None:
    """The convolution with the norm's affine map in its weight and bias."""
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight = nn.Parameter(weight.detach(), requires_grad=False)
    conv.bias = nn.Parameter(bias.detach(), requires_grad=False)


def _activation(norm: nn.Module) -> nn.Module:
    """What is left of a norm once it is folded."""
    return getattr(norm, "act", None) or nn.Identity()


def _replace(network: nn.Module, by: dict[nn.Module, nn.Module]) -> None:
    """Puts other modules in the places of those named, wherever they stand."""
    children: Iterable[tuple[str, nn.Module]] = list(network.named_children())
    for name, child in children:
        if child in by:
            setattr(network, name, by[child])
        else:
            _replace(child, by)
