"""BlurConv (thesis 004, eq. 3.4) by hand, where it stands in backbones, and that its weights are a plain convolution's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perpixel.errors import InputError
from perpixel.nn.backbones import Backbone
from perpixel.nn.blur import BlurConv2d
from perpixel.nn.fold import fold_norms


def test_by_hand():
    """1 2 1 over 4 both ways after a 1x1 convolution by 2, mirrored borders, stride 2, on a map of 4 x 4.

    A one at row 1, column 2 becomes a 2. The outputs stand at rows and columns 0 and 2. Rows: row 0 sees row 1 twice, itself and
    its mirror at -1: 1/4 + 1/4 = 1/2; row 2 sees it once: 1/4. Columns: column 0 does not see column 2; column 2 is it: 1/2.
    """
    conv = nn.Conv2d(1, 1, 1, stride=2, bias=False)
    nn.init.constant_(conv.weight, 2.0)
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 2] = 1
    assert BlurConv2d(conv, 3)(x)[0, 0].tolist() == [[0, 2 * 1 / 2 * 1 / 2], [0, 2 * 1 / 4 * 1 / 2]]


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("kernel, groups", [(1, 1), (3, 1), (3, 4), (7, 1)])
@pytest.mark.parametrize("side", [12, 13])
def test_equals_convolution_then_blur(size, kernel, groups, side):
    """Eq. 3.4 spelled out: the convolution without stride, the binomial weights over the mirrored map, every other value.

    The output is as large as the strided convolution's. A bias passes, for the weights add up to 1.
    """
    conv = nn.Conv2d(4, 8, kernel, stride=2, padding=kernel // 2, groups=groups)
    binomial = torch.tensor({3: [1.0, 2, 1], 5: [1.0, 4, 6, 4, 1], 7: [1.0, 6, 15, 20, 15, 6, 1]}[size])
    weights = torch.outer(binomial, binomial) / binomial.sum() ** 2
    x = torch.randn(2, 4, side, side + 1)
    whole = F.conv2d(x, conv.weight, conv.bias, padding=kernel // 2, groups=groups)
    mirrored = F.pad(whole, [size // 2] * 4, mode="reflect")
    blurred = F.conv2d(mirrored, weights.expand(8, 1, size, size), groups=8)[:, :, ::2, ::2]
    found = BlurConv2d(conv, size)(x)
    assert found.shape == conv(x).shape
    torch.testing.assert_close(found, blurred)


def strided(name, **settings):
    network = Backbone(name, weights=None, frozen_stages=0, **settings).build().body
    return {
        part: type(m) is BlurConv2d
        for part, m in network.named_modules()
        if isinstance(m, BlurConv2d) or (isinstance(m, nn.Conv2d) and m.stride != (1, 1))
    }


def test_where_it_stands():
    """All strided convolutions but the one that reads the image; in a ResNet 3x3 and shortcuts, in MobileNetV2 depthwise ones."""
    names = [f"layer{i}.0.{part}" for i in (2, 3, 4) for part in ("conv2", "downsample.0")]
    assert strided("resnet26", blur=3) == {"conv1": False} | dict.fromkeys(names, True)
    assert strided("resnet26") == {"conv1": False} | dict.fromkeys(names, False)
    mobile = [f"blocks.{i}.0.conv_dw" for i in (1, 2, 3, 5)]
    assert strided("mobilenetv2_100", blur=5) == {"conv_stem": False} | dict.fromkeys(mobile, True)


def test_names_are_the_plain_ones_and_frozen_parts_stay_frozen():
    plain = Backbone("resnet26", weights=None).build()
    blurred = Backbone("resnet26", weights=None, blur=3).build()
    assert plain.state_dict().keys() == blurred.state_dict().keys()
    blurred.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 96)
    assert [m.shape for m in blurred(x)] == [m.shape for m in plain(x)]
    assert not torch.allclose(blurred(x)[0], plain(x)[0], atol=1e-2)
    fixed = {name.split(".")[1] for name, p in blurred.named_parameters() if not p.requires_grad}
    assert fixed == {"conv1", "layer1"}


@torch.no_grad()
def test_norms_fold_into_it():
    """A norm's scale and shift pass the blur: folded maps are equal but for rounding."""
    backbone = Backbone("resnet10t", weights=None, blur=3, norm="train", frozen_stages=0).build()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
    x = torch.randn(1, 3, 64, 96)
    before = backbone.eval()(x)
    folded = fold_norms(backbone, x)
    assert folded > 10 and not any(type(m) is nn.BatchNorm2d for m in backbone.modules())
    for one, two in zip(backbone(x), before, strict=True):
        assert (one - two).abs().max() < 1e-4 * two.abs().max()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Backbone("resnet26", weights=None, blur=3, deformable_stages=(16,)), "DeformConv2d of stride 2"),
        (Backbone("tf_mobilenetv3_small_075", weights=None, blur=3, frozen_stages=0), "Conv2dSame of stride 2"),
        (Backbone("swin_tiny_patch4_window7_224", weights=None, blur=3, frozen_stages=0), "no strided convolution"),
    ],
)
def test_what_it_cannot_replace_is_said_in_a_sentence(config, message):
    with pytest.raises(InputError, match=rf"backbone\.blur=3.* {message}"):
        config.build()
