"""Folding: the same function, found by watching, on every family of backbones that recipes use."""

import copy

import pytest
import torch
from torch import nn

from perpixel.nn.backbones import Backbone
from perpixel.nn.fold import NORMS, fold_norms
from perpixel.nn.frozen import FrozenBatchNorm


def with_random_statistics(network: nn.Module) -> nn.Module:
    """A trained network's norms are not the identity."""
    for part in network.modules():
        if isinstance(part, NORMS):
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.2, 0.2)
    return network.eval()


def norms_in(network: nn.Module) -> int:
    return sum(isinstance(part, NORMS) for part in network.modules())


FAMILIES = {
    "resnet": Backbone("test_resnet", weights=None),
    "resnet bottlenecks": Backbone("resnet26", weights=None),
    "stride in 1x1": Backbone("resnet26", weights=None, stride_in_1x1=True),
    "resnext": Backbone("seresnext26t_32x4d", weights=None, norm="train", frozen_stages=0),
    "deformable": Backbone("resnet26", weights=None, deformable_stages=(16, 32)),
    "mobilenetv2": Backbone("mobilenetv2_035", weights=None),
    "regnetx": Backbone("regnetx_002", weights=None, norm="train", frozen_stages=0),
    "dla": Backbone("dla46_c", weights=None, norm="train", frozen_stages=0),
}


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES.keys())
def test_backbones(config):
    """Every norm of these families follows a convolution, so none is left, and the maps are equal."""
    network = with_random_statistics(config.build())
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected = network(images)
    norms = norms_in(network)
    assert fold_norms(network, torch.zeros(1, 3, 64, 64)) == norms > 0
    assert norms_in(network) == 0
    with torch.no_grad():
        for ours, theirs in zip(network(images), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_by_hand():
    """1x1 convolution with weight 3, bias 1; norm of mean 2, variance 4 - eps, weight 5, bias 7.

    (3x + 1 - 2) / 2 * 5 + 7 = 7.5x + 4.5.
    """
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1e-3)
    for tensor, value in zip(
        (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias),
        (3, 1, 2, 4 - 1e-3, 5, 7),
        strict=True,
    ):
        nn.init.constant_(tensor, value)
    network = nn.Sequential(conv, FrozenBatchNorm(norm))
    assert fold_norms(network, torch.zeros(1, 1, 2, 2)) == 1
    assert conv.weight.item() == pytest.approx(7.5) and conv.bias.item() == pytest.approx(4.5)
    assert isinstance(network[1], nn.Identity)


class Twice(nn.Module):
    """A convolution whose result is read by a norm and by an addition."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class Returned(Twice):
    """A convolution whose result is returned as it is, beside the norm's."""

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y), y


class SharedNorm(Twice):
    """One norm after two convolutions."""

    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.norm(self.conv(x)) + self.norm(self.other(x))


class OneOfTwo(Twice):
    """One convolution called twice, its norm once."""

    def forward(self, x):
        return self.norm(self.conv(x)) + self.conv(2 * x)


class NormFirst(Twice):
    """A norm before its convolution."""

    def forward(self, x):
        return self.conv(self.norm(x))


class Between(Twice):
    """Something between the two."""

    def forward(self, x):
        return self.norm(self.conv(x).relu())


@pytest.mark.parametrize("kind", [Twice, Returned, SharedNorm, OneOfTwo, NormFirst, Between])
def test_what_cannot_be_folded_stays(kind):
    network = with_random_statistics(kind())
    expected = copy.deepcopy(network)
    x = torch.randn(1, 3, 4, 4)
    assert fold_norms(network, x) == 0
    torch.testing.assert_close(network(x), expected(x), rtol=0, atol=0)


def test_a_convolution_shared_by_levels_is_folded():
    """Both calls are read by the same norm alone."""

    class Shared(Twice):
        def forward(self, x):
            return self.norm(self.conv(x)) + self.norm(self.conv(2 * x))

    network = with_random_statistics(Shared())
    x = torch.randn(1, 3, 4, 4)
    expected = network(x)
    assert fold_norms(network, x) == 1
    torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)


def test_norms_that_learn_are_refused():
    with pytest.raises(ValueError, match="eval"):
        fold_norms(Twice().train(), torch.zeros(1, 3, 4, 4))
