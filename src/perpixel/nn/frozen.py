"""Layers that training leaves alone: batch norms with fixed statistics, stages without gradients."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with fixed statistics and a fixed affine map, all buffers; the same in training and inference.

    Its state has a batch norm's names but for the counter. It is one fused kernel, and no instance of `nn.BatchNorm2d`: neither
    weight decay nor a conversion to SyncBatchNorm finds it.

    Args:
        norm: the batch norm to freeze. An activation inside it (timm's `BatchNormAct2d`) is kept.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("a batch norm without running statistics cannot be frozen")
        ones = torch.ones_like(norm.running_var)
        self.eps = norm.eps
        self.num_features = norm.num_features
        self.register_buffer("weight", norm.weight.detach().clone() if norm.affine else ones)
        self.register_buffer("bias", norm.bias.detach().clone() if norm.affine else ones * 0)
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)
        self.act = getattr(norm, "act", None) or nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """(x - mean) / sqrt(var + eps) * weight + bias, then the activation."""
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return self.act(x)

    def extra_repr(self) -> str:
        """What print shows."""
        return f"{self.num_features}, eps={self.eps}"


def with_frozen_norms(module: nn.Module) -> nn.Module:
    """`module` with every batch norm in it replaced by a frozen one, in place; a batch norm itself is returned frozen."""
    if isinstance(module, nn.BatchNorm2d):
        return FrozenBatchNorm(module)
    for name, child in module.named_children():
        setattr(module, name, with_frozen_norms(child))
    return module


def freeze_until(network: nn.Module, last: str) -> None:
    """Freezes, in the order in which the network lists them, all parts up to and with the one named `last`.

    Frozen parts have no parameter with a gradient, and their batch norms keep their statistics.

    Args:
        network: changed in place.
        last: dotted name of a part of it.

    Raises:
        KeyError: no such part.
    """
    for name, child in list(network.named_children()):
        if last.startswith(f"{name}."):
            return freeze_until(child, last.removeprefix(f"{name}."))
        setattr(network, name, with_frozen_norms(child).requires_grad_(False))
        if name == last:
            return None
    raise KeyError(last)
