"""Decoders as data: the published notation, the published sizes, and the pool's arithmetic by hand."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from perpixel.config import ConfigError, from_dict, to_dict
from perpixel.nn.decoder import ARCH0, ARCH1, ARCH2, Decoder, DecoderCell, DecoderGenotype, Merge, unused
from perpixel.nn.operations import DECODER_OPERATIONS, build_operation

ENCODER = (24, 32, 96, 320)
"""Channels of MobileNetV2's maps of strides 4, 8, 16, 32."""
KEYS = Path(__file__).resolve().parents[2] / "shared" / "reference" / "keys"
PUBLISHED = {
    "arch0": (ARCH0, 2_666_260, "nasseg_VOC-segm_arch0_segm-23378522.pth.json"),
    "arch1": (ARCH1, 2_846_484, "nasseg_VOC-segm_arch1_segm-12f78b21.pth.json"),
    "arch2": (ARCH2, 2_889_492, "nasseg_VOC-segm_arch2_segm-8f00fc4d.pth.json"),
}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def idle(genotype):
    """The one map of the encoder that no merge takes: each of the three leaves one out."""
    (place,) = set(range(4)) - {place for pair in genotype.merges for place in pair}
    return place


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_networks(name):
    """The published totals less MobileNetV2's 1,811,712, less its first block's 32 x 32 expansion with batch norm (1,088), less
    four 3x3 classifiers of 21 classes (4 * (64 * 9 * 21 + 21) = 48,468), less the adapter of the map that no merge takes (c
    channels: 64 c + 128) leave the decoder."""
    genotype, total, _ = PUBLISHED[name]
    expected = total - 1_811_712 - 1_088 - 48_468 - (64 * ENCODER[idle(genotype)] + 128)
    assert count(Decoder(genotype, ENCODER, 64)) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_are_those_of_the_published_files(name):
    genotype, _, file = PUBLISHED[name]
    if not (KEYS / file).is_file():
        pytest.skip("the lists of published keys are not beside this checkout")
    rows = json.loads((KEYS / file).read_text())["state_dict"]
    theirs = [tuple(shape) for key, shape, _ in rows if key.startswith("decoder.") and "_clf" not in key.split(".")[1]]
    theirs += [tuple(shape) for key, shape, _ in rows if key.startswith("decoder.pre_clf.")]
    for _, shape, _ in [row for row in rows if row[0].startswith(f"decoder.adapt{idle(genotype) + 1}.")]:
        theirs.remove(tuple(shape))
    ours = [tuple(tensor.shape) for tensor in Decoder(genotype, ENCODER, 64).state_dict().values()]
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize("genotype", [ARCH0, ARCH1, ARCH2])
def test_notation_and_json_return(genotype):
    assert DecoderGenotype.parse(genotype.notation()) == genotype
    assert from_dict(DecoderGenotype, json.loads(json.dumps(to_dict(genotype)))) == genotype


def test_arch2_is_the_thesis_figure():
    """[5, [0, 0, 4, 1], …]: first a 3x3 convolution at rate 3; then pooling and a 3x3 convolution, both of the cell's input."""
    assert ARCH2.notation() == [[5, [0, 0, 4, 1], [3, 2, 0, 1], [5, 6, 5, 0]], [[1, 3], [4, 3], [2, 2]]]
    assert ARCH2.first == "conv3_rate3" and ARCH2.steps[0].operations == ("pool", "conv3")
    decoder = Decoder(ARCH2, ENCODER, 8)
    # Merge 4 is taken by merge 5; 5 and 6 are concatenated. 4 and 5 join strides 8 and 32, 6 has stride 16 alone.
    assert decoder.outputs == (5, 6) and decoder.stride == 8
    # 3 is in steps 2 and 1, 5 and 6 in step 3: left are the first result (1) and the sums 4, 7, 10.
    assert decoder.merges[0].cells[0].outputs == (1, 4, 7, 10)


@pytest.mark.parametrize(
    ("notation", "what"),
    [
        ([[5, [0, 2, 4, 1]], [[1, 3]]], r"steps\[0\].inputs=\[0, 2\] must lie in 0..1"),
        ([[5, [0, 0, 4, 1], [5, 0, 0, 0]], [[1, 3]]], r"steps\[1\].inputs=\[5, 0\] must lie in 0..4"),
        ([[5, [0, 0, 4, 1]], [[1, 4]]], r"merges\[0\]=\[1, 4\] must lie in 0..3"),
        ([[5, [0, 0, 4, 1]], []], "merges is empty"),
    ],
)
def test_places_that_are_not_there_are_refused(notation, what):
    with pytest.raises(ValueError, match=what):
        DecoderGenotype.parse(notation)


def test_a_wrong_place_in_settings_is_said_in_a_sentence():
    values = to_dict(ARCH2) | {"merges": [[9, 0]]}
    with pytest.raises(ConfigError, match=r"merges\[0\]=\[9, 0\] must lie in 0..3"):
        from_dict(DecoderGenotype, values)


def test_a_cell_by_hand():
    """Operations that are all skips: the pool is 0: x, 1: x, step (0, 1) adds x, x, 2x; step (4, 4) adds 2x, 2x, 4x. Taken are
    0, 1 and 4; of first result and sums only 7 (4x) is left. With the second step at (0, 0), 4 (2x) and 7 (2x) are left: 4x."""
    skip, x = 9, torch.randn(1, 4, 3, 5)
    one = DecoderGenotype.parse([[skip, [0, 1, skip, skip], [4, 4, skip, skip]], [[0, 1]]])
    other = DecoderGenotype.parse([[skip, [0, 1, skip, skip], [0, 0, skip, skip]], [[0, 1]]])
    assert DecoderCell(one, 4).outputs == (7,) and DecoderCell(other, 4).outputs == (4, 7)
    torch.testing.assert_close(DecoderCell(one, 4)(x), 4 * x)
    torch.testing.assert_close(DecoderCell(other, 4)(x), 4 * x)


def test_a_merge_enlarges_the_smaller_map():
    merge = Merge(ARCH2, 4).eval()
    out = merge(torch.randn(1, 4, 3, 4), torch.randn(1, 4, 6, 8))
    assert out.shape == (1, 4, 6, 8) and (out >= 0).all()


def test_unused():
    """Three pairs make 5, 6, 7; 5 and 6 are taken."""
    assert unused([(0, 1), (5, 2), (5, 6)], first=5) == (7,)
    assert unused([(0, 1), (0, 1)], first=5) == (5, 6)


@pytest.mark.parametrize("name", DECODER_OPERATIONS)
def test_operations_keep_the_size(name):
    operation = build_operation(name, 4).eval()
    x = torch.randn(2, 4, 7, 9)
    out = operation(x)
    assert out.shape == x.shape
    kind = {"skip": x, "none": torch.zeros_like(x)}
    if name in kind:
        assert torch.equal(out, kind[name])


def test_pooling_is_a_convolution_of_the_mean_everywhere():
    """In training too: batch norm sees the enlarged map, as table 6.1 has the convolution after the upsampling."""
    pool = build_operation("pool", 4).train()
    x = torch.randn(2, 4, 5, 6)
    plain = nn.Sequential(pool.conv, nn.BatchNorm2d(4), nn.ReLU()).train()
    enlarged = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(pool(x), plain(enlarged))
    torch.testing.assert_close(pool.norm.running_var, plain[1].running_var)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_genotype_runs_and_every_parameter_learns(data):
    """Genotypes drawn from the whole space: notation returns, the map has the stated stride, each parameter has a gradient."""
    number = st.integers(0, len(DECODER_OPERATIONS) - 1)

    def place(pool):
        return data.draw(st.integers(0, pool - 1))

    cell = [
        data.draw(number),
        *([place(2 + 3 * i), place(2 + 3 * i), data.draw(number), data.draw(number)] for i in range(3)),
    ]
    genotype = DecoderGenotype.parse([cell, [[place(4 + i), place(4 + i)] for i in range(3)]])
    assert DecoderGenotype.parse(genotype.notation()) == genotype
    decoder = Decoder(genotype, (2, 3, 4, 5), 4)
    sides = (16, 8, 4, 2)
    dec, merges = decoder([torch.randn(2, c, side, side) for c, side in zip((2, 3, 4, 5), sides, strict=True)])
    assert dec.shape == (2, 4, 64 // decoder.stride, 64 // decoder.stride) and len(merges) == 3
    (dec.sum() + sum(one.sum() for one in merges)).backward()
    assert [n for n, p in decoder.named_parameters() if p.grad is None] == []
