"""NAS-FCOS: genotypes, the pyramid and the towers they become, costs, checkpoints, and that it learns."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perpixel.cli.main import main
from perpixel.config import ConfigError, from_dict, to_dict
from perpixel.engine.convert import convert_checkpoint
from perpixel.engine.cost import cost_of
from perpixel.errors import InputError
from perpixel.models.condinst import CondInst
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.backbones import Backbone
from perpixel.nn.cells import (
    NAS_FCOS_PYRAMID,
    PYRAMID_OPERATIONS,
    Block,
    PyramidBlock,
    PyramidGenotype,
    SearchedFPN,
)
from perpixel.nn.deform import DeformConv2d
from perpixel.nn.head_cells import HEAD_OPERATIONS, NAS_FCOS_HEAD, HeadGenotype, SearchedTower
from perpixel.ops.boxes import pairwise_iou
from perpixel.structures import Batch, Targets
from tiny_batches import batch_of

KEYS = Path(__file__).parent / "golden" / "keys"
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import nas_fcos_cost  # noqa: E402

SKIP, SUM, CONCAT = 3, 0, 1
TINY = Backbone("test_resnet", weights=None, norm="train", frozen_stages=0)
CHANNELS, STRIDES = (8, 16, 24, 32), (4, 8, 16, 32)


def skips(*inputs: tuple[int, int]) -> PyramidGenotype:
    """A pyramid of sums without operations."""
    return PyramidGenotype.parse([[a, b, SKIP, SKIP, SUM] for a, b in inputs])


def maps(sides=(32, 16, 8, 4), channels=CHANNELS):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, c, s, s + 2, generator=generator) for c, s in zip(channels, sides, strict=True))


def test_published_genotypes_survive_their_notation_and_json():
    """Facts about the first code: the seventh node, 6, is the only one that nothing takes; 8, 9, 10 are P5, P4, P3."""
    assert PyramidGenotype.parse(NAS_FCOS_PYRAMID.notation()) == NAS_FCOS_PYRAMID
    assert NAS_FCOS_PYRAMID.notation()[3] == [1, 3, 4, 3, 1]
    assert NAS_FCOS_PYRAMID.dangling() == (6,)
    assert NAS_FCOS_PYRAMID.outputs() == (8, 9, 10)
    assert NAS_FCOS_PYRAMID.taken() & {0, 1, 2, 3} == {1, 2, 3}
    assert HeadGenotype.parse(NAS_FCOS_HEAD.notation()) == NAS_FCOS_HEAD
    assert NAS_FCOS_HEAD.operations == ("deform3", "conv3", "deform3", "conv1", "skip", "skip")
    for genotype in (NAS_FCOS_PYRAMID, NAS_FCOS_HEAD):
        assert from_dict(type(genotype), json.loads(json.dumps(to_dict(genotype)))) == genotype


def test_places_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"blocks\[1\]\.inputs=\[5, 0\] must lie in 0\.\.4"):
        skips((0, 0), (5, 0), (0, 0))
    with pytest.raises(ValueError, match="at least 3 blocks"):
        skips((0, 0))
    with pytest.raises(ValueError, match=r"shared_from=7 must lie in 0\.\.6"):
        HeadGenotype.parse([0] * 6, 7)
    wrong = to_dict(NAS_FCOS_PYRAMID)
    wrong["blocks"][0]["inputs"] = [9, 9]
    with pytest.raises(ConfigError, match=r"blocks\[0\]\.inputs=\[9, 9\]"):
        from_dict(PyramidGenotype, wrong)


def adapted(neck, inputs):
    return {int(place): adapt(inputs[int(place)]) for place, adapt in neck.adapt.items()}


def larger(x, like):
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def test_a_pyramid_of_sums_against_its_equations():
    """Nodes by hand, a = C3, b = C4, c = C5 at one width:

    x4 = c + c, x5 = a + up(b), dangling both; P5 = x6 = b + up(c), P4 = x7 = b + b, P3 = x8 = a + a before eq. 7.1, and after it
    P5 = down(up(x6) + x5 + up(x4)), since x5 is the larger; C2 is not brought to the width, for nobody takes it.
    """
    genotype = skips((3, 3), (1, 2), (2, 3), (2, 2), (1, 1))
    assert genotype.dangling() == (4, 5)
    torch.manual_seed(0)
    neck = SearchedFPN(genotype, channels=8).build(CHANNELS, STRIDES).eval()
    inputs = maps()
    with torch.no_grad():
        pyramid = neck(inputs)
        pool = adapted(neck, inputs)
        assert set(pool) == {1, 2, 3}
        a, b, c = pool[1], pool[2], pool[3]
        x4, x5, x6, x7, x8 = c + c, a + larger(b, a), b + larger(c, b), b + b, a + a
        expected = [
            x8 + larger(x4, a) + x5,
            larger(larger(x7 + larger(x4, b), a) + x5, b),
            larger(larger(x6 + larger(x4, b), a) + x5, c),
        ]
        for ours, wanted in zip(pyramid[:3], expected, strict=True):
            torch.testing.assert_close(ours, wanted)
        p6 = neck.top[0](pyramid[2])
        torch.testing.assert_close(pyramid[3], p6)
        torch.testing.assert_close(pyramid[4], neck.top[1](p6.relu()))
    assert neck.strides == (8, 16, 32, 64, 128)


def test_a_concatenation_joins_pairs_of_channels():
    """Two groups of two numbers each: out 0 = w00 x0 + w01 x1, out 1 = w10 y0 + w11 y1, after ReLU, norms of fresh statistics.

    x = (1, 2), y = (-3, 4) everywhere, weights 1, 10, 100, 1000: out = (1 + 20, 0 + 4000) / sqrt(1.00001).
    """
    block = Block(PyramidBlock((0, 0), ("skip", "skip"), "concat"), 2, 2).eval()
    with torch.no_grad():
        block.join.conv.weight.copy_(torch.tensor([[1.0, 10.0], [100.0, 1000.0]])[..., None, None])
        x = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
        y = torch.tensor([-3.0, 4.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
        out = block(x, y) * math.sqrt(1.00001)
    torch.testing.assert_close(out[0, :, 1, 1], torch.tensor([21.0, 4000.0]))


@pytest.mark.parametrize("name", PYRAMID_OPERATIONS)
def test_operations_keep_size_and_reach_as_far_as_the_table_says(name):
    """Table 7.1: how far from the middle an impulse is felt. Separable convolutions come twice: 2 x 1, 2 x 3 and 2 x 12."""
    reach = {"sep3": 2, "sep3_rate3": 6, "sep5_rate6": 24, "skip": 0, "deform3": 1}[name]
    torch.manual_seed(0)
    operation = Block(PyramidBlock((0, 0), (name, "skip"), "sum"), 4, 4).operations[0].double().eval()
    for conv in operation.modules():
        if isinstance(conv, nn.Conv2d) and conv.weight.any():
            nn.init.uniform_(conv.weight, 0.5, 1)  # no ReLU cuts
    image = torch.zeros(1, 4, 61, 61, dtype=torch.float64)
    with torch.no_grad():
        empty = operation(image.clone())
        image[:, :, 30, 30] = 1
        felt = ((operation(image) - empty).abs() > 1e-12).any(dim=1)[0]
    assert felt.shape == (61, 61)
    assert (torch.nonzero(felt) - 30).abs().max() == reach


def test_narrow_nodes_widen_at_the_end():
    """@128-256: 128 inside, and 256 of the last three and of the dangling one; a result that is read on is widened besides."""
    neck = SearchedFPN(channels=16, widen=2).build(CHANNELS, STRIDES)
    assert [tuple(block.join.conv.weight.shape) for block in neck.blocks] == [
        (16 if place in (6, 8, 9, 10) else 8, 2, 1, 1) for place in range(4, 11)
    ]
    assert [x.shape[1] for x in neck(maps())] == [16] * 5
    read_on = PyramidGenotype.parse([[1, 3, SKIP, SKIP, SUM], [4, 2, SKIP, SKIP, SUM], [5, 1, SKIP, SKIP, CONCAT]])
    neck = SearchedFPN(read_on, channels=16, widen=2, top_levels=0).build(CHANNELS, STRIDES)
    assert [x.shape[1] for x in neck(maps())] == [16] * 3
    sum(x.sum() for x in neck(maps())).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_levels_of_odd_sides_and_missing_maps():
    neck = SearchedFPN(channels=8).build(CHANNELS[1:], STRIDES[1:])
    sizes = ((13, 25), (7, 13), (4, 7))
    inputs = tuple(torch.randn(1, c, *size) for c, size in zip(CHANNELS[1:], sizes, strict=True))
    assert [tuple(x.shape[2:]) for x in neck(inputs)] == [*sizes, (2, 4), (1, 2)]
    with_c2 = SearchedFPN(skips((0, 3), (1, 1), (2, 2), (3, 3)), channels=8)
    with pytest.raises(InputError, match=r"strides \[4\]: set model\.backbone\.stages=\[4, 8, 16, 32\]"):
        with_c2.build(CHANNELS[1:], STRIDES[1:])
    with pytest.raises(InputError, match=r"model\.neck\.channels=9"):
        SearchedFPN(channels=9).build(CHANNELS, STRIDES)


def test_weights_are_shared_from_a_layer_on():
    """Two layers of their own for three levels, then one for all: 3 x 2 + 1 convolutions; own weights differ, shared do not."""
    tower = SearchedTower(HeadGenotype(("conv1", "conv1", "conv1"), shared_from=2), 32, levels=3)
    assert len([m for m in tower.modules() if isinstance(m, nn.Conv2d)]) == 7
    x = torch.randn(1, 32, 4, 4)
    assert not torch.equal(tower(x, 0), tower(x, 1))
    shared = SearchedTower(HeadGenotype(("conv1", "skip")), 32, levels=3)
    assert torch.equal(shared(x, 0), shared(x, 2))
    assert all(isinstance(m, nn.GroupNorm) for m in shared.modules() if "Norm" in type(m).__name__)
    with pytest.raises(InputError, match="GroupNorm"):
        SearchedTower(NAS_FCOS_HEAD, 48, levels=3)


def test_every_operation_of_the_head_trains():
    tower = SearchedTower(HeadGenotype(HEAD_OPERATIONS, shared_from=3), 32, levels=2)
    (tower(torch.randn(1, 32, 8, 8), 0) + tower(torch.randn(1, 32, 8, 8), 1)).sum().backward()
    assert [n for n, p in tower.named_parameters() if p.grad is None] == []
    assert all((c.offset.weight == 0).all() for c in tower.modules() if isinstance(c, DeformConv2d))


@pytest.mark.parametrize("head", [FCOS, RetinaNet])
def test_every_method_sits_on_it(head):
    """CondInst on a found pyramid and found towers whose first layer differs by level; a gradient for every weight."""
    config = DetectorConfig(
        backbone=TINY,
        neck=SearchedFPN(channels=32),
        head=head(genotype=replace(NAS_FCOS_HEAD, shared_from=1)),
        instance=CondInst(mask_width=16),
    )
    model = config.build(classes=3).train()
    for objects in ((2, 1), (0, 0)):
        model.zero_grad(set_to_none=True)
        losses = model.loss(batch_of(objects))
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert len(model.eval().predict(replace(batch_of((1, 1)), targets=None))) == 2


def test_losses_of_the_first_fcos():
    """IoU in pixels and the class loss over positives and images, by hand from AdelaiDet's way.

    One positive location at (4, 4) of stride 8 in a box of 8 x 8 pixels, predicted (2, 2, 2, 2) pixels: (16 + 1) / (64 + 1); in
    strides it would be (0.25 + 1) / (1 + 1).
    """
    box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    for unit, expected in (("pixel", -math.log(17 / 65)), ("stride", -math.log(1.25 / 2))):
        config = FCOS(box_loss="iou", radius=None, iou_unit=unit, count_images=True)
        head = config.build(32, (8, 16, 32, 64, 128), 2)
        outputs = head(tuple(torch.zeros(1, 32, 2, 2) for _ in range(5)))
        outputs = replace(outputs, regression=torch.full_like(outputs.regression, 0.25))
        target = Targets(box, torch.tensor([1]))
        losses = head.loss(outputs, head.assign(outputs.locations, [target]), [target])
        assert losses["box"].item() == pytest.approx(expected, rel=1e-6)
        plain = replace(config, count_images=False).build(32, head.strides, 2)
        once = plain.loss(outputs, plain.assign(outputs.locations, [target]), [target])
        assert losses["class"].item() == pytest.approx(once["class"].item() / 2, rel=1e-6)


def test_it_learns():
    """Two bright squares on a dark ground, found by a tiny network with the found decoder after 60 steps."""
    torch.manual_seed(0)
    head = FCOS(genotype=NAS_FCOS_HEAD, initial_distance=1.0)
    model = DetectorConfig(backbone=TINY, neck=SearchedFPN(channels=32), head=head).build(classes=2).train()
    image = torch.full((3, 64, 64), 40, dtype=torch.uint8)
    boxes, labels = torch.tensor([[4.0, 4, 28, 28], [32.0, 30, 60, 58]]), torch.tensor([0, 1])
    for (x1, y1, x2, y2), label in zip(boxes.long().tolist(), labels.tolist(), strict=True):
        image[label * 2, y1:y2, x1:x2] = 220
    flipped = torch.stack([64 - boxes[:, 2], boxes[:, 1], 64 - boxes[:, 0], boxes[:, 3]], dim=1)
    targets = (Targets(boxes, labels), Targets(flipped, labels))
    batch = Batch(torch.stack([image, image.flip(2)]), ((64, 64),) * 2, targets=targets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model.loss(batch).values()).backward()
        optimizer.step()
    found = model.eval().predict(replace(batch, targets=None))[0]
    for label in (0, 1):
        assert pairwise_iou(found.boxes[found.labels == label][:1], boxes[label][None]) > 0.7


FROZEN_NORMS, FROZEN_BIASES = 2 * 26_560, 8 * 256
C2 = 256 * 256 + 2 * 256


@pytest.mark.parametrize(
    ("name", "layout", "more", "filled"),
    [
        ("nasfcos_R_50_NAS_densebox", "nas_fcos", -C2, 0),
        ("nasfcos_R_50_NAS_head", "nas_fcos", -C2, 0),
        ("nasfcos_R_50_NAS_retinanet", "nas_fcos", -C2, 0),
        ("nasfcos_R_101_NAS_densebox", "nas_fcos", -C2, 0),
        # C2 has 24 channels; the stem's and the first block's norms are frozen, so no parameters.
        ("nasfcos_Mobile_NAS_densebox", "nas_fcos", -(24 * 256 + 512) - 2 * (32 + 32 + 16), 0),
        ("nasfcos_Mobile_NAS_head", "nas_fcos", -(24 * 256 + 512) - 2 * (32 + 32 + 16), 0),
        ("mm_nas_fcos_r50", "mmdetection", -FROZEN_NORMS, 0),
        ("mm_nas_fcos_fcoshead_r50", "mmdetection", FROZEN_BIASES - FROZEN_NORMS, 8),
    ],
)
def test_checkpoints_convert_by_their_names(name, layout, more, filled):
    """Every name is used but those of C2, which nothing reads; parameters are as many as theirs but for what is counted apart."""
    listed = json.loads((KEYS / f"{name}.json").read_text())
    conversion = convert_checkpoint({key: torch.zeros(shape) for key, shape in listed["entries"].items()})
    assert (conversion.layout, conversion.classes, conversion.unused) == (layout, 80, ())
    carries_nothing = ("num_batches_tracked", "decoder.fpn.adapt1", "cell_anchors")
    assert all(any(part in key for part in carries_nothing) for key in conversion.harmless)
    assert len(conversion.filled) == filled
    assert sum(p.numel() for p in conversion.build().parameters()) == listed["parameters"] + more
    config = conversion.config
    assert config.neck == SearchedFPN()
    found = name in ("nasfcos_R_50_NAS_head", "nasfcos_Mobile_NAS_head", "mm_nas_fcos_r50")
    assert config.head.genotype == (NAS_FCOS_HEAD if found else None)
    assert isinstance(config.head, RetinaNet if "retinanet" in name else FCOS)


def test_mmdetections_cells_land_where_they_belong():
    """Cells are called after their inputs: c02 takes C3 (0) and C5 (2), and is the fourth block, [1, 3] of ours."""
    listed = json.loads((KEYS / "mm_nas_fcos_r50.json").read_text())["entries"]
    tensors = {key: torch.full(shape, float(i)) for i, (key, shape) in enumerate(listed.items())}
    weights, place = convert_checkpoint(tensors).weights, list(listed).index
    for ours, theirs in {
        "neck.blocks.3.operations.0.0.weight": "neck.fpn.c02.input1_conv.conv.weight",
        "neck.blocks.6.operations.1.0.offset.bias": "neck.fpn.c61.input2_conv.conv.conv_offset.bias",
        "neck.blocks.2.join.norm.running_var": "neck.fpn.c32.out_conv.bn.running_var",
        "neck.adapt.2.1.bias": "neck.adapt_convs.1.bn.bias",
        "box_head.class_tower.shared.3.0.weight": "bbox_head.cls_convs.3.conv.weight",
    }.items():
        assert weights[ours].flatten()[0] == place(theirs)


def test_frozen_norms_of_the_first_code_add_nothing_to_the_variance():
    """Theirs divide by sqrt(var), ours by sqrt(var + 0.00001): the variance is taken less that."""
    listed = json.loads((KEYS / "nasfcos_R_50_NAS_densebox.json").read_text())["entries"]
    weights = convert_checkpoint({key: torch.ones(shape) for key, shape in listed.items()}).weights
    assert weights["backbone.body.layer1.0.bn1.running_var"][0] == torch.tensor(1.0) - 1e-5
    assert weights["neck.adapt.1.1.running_var"][0] == 1


@pytest.mark.parametrize("row", [2, 3, 9], ids=lambda row: " ".join(nas_fcos_cost.ROWS[row][:2]))
def test_table_7_2(row):
    """Ours with what the paper's counter has besides: within 0.3 % of the paper's multiply-adds, 1 % of its trained parameters.

    The numbers of all rows are in docs/methods/nas_fcos.md.
    """
    ours = {2: 38_651_524_608, 3: 94_986_608_896, 9: 185_752_464_896}[row]
    _, backbone, recipe, settings, flops, parameters = nas_fcos_cost.ROWS[row]
    measured = nas_fcos_cost.measure(backbone, recipe, settings)
    assert measured.ours == ours
    assert measured.theirs / 1e9 == pytest.approx(flops, rel=0.003)
    assert measured.trained / 1e6 == pytest.approx(parameters, rel=0.01)


def test_costs_by_hand():
    """A RetinaNet head of one convolution on a 64 x 64 picture, P3 of 8 x 8 cells to P7 of one: 64 + 16 + 4 + 1 + 1 = 86 places.

    Two towers of 32 x 32 x 9, then 9 x 80 and 9 x 4 numbers of 32 x 9: 86 x (18432 + 756 x 288) = 20,309,760. Biases are none.
    """
    config = DetectorConfig(backbone=TINY, neck=SearchedFPN(channels=32), head=RetinaNet(convs=1))
    costs = {cost.part: cost for cost in cost_of(config, (40, 64))}
    assert list(costs) == ["backbone", "neck", "box_head", "total"]
    assert costs["box_head"].multiply_adds == 86 * (2 * 32 * 32 * 9 + 756 * 32 * 9)
    assert costs["box_head"].parameters == 2 * (32 * 32 * 9 + 32) + 756 * (32 * 9 + 1)
    assert sum(c.multiply_adds for c in costs.values()) == 2 * costs["total"].multiply_adds
    frozen = cost_of(replace(config, backbone=replace(TINY, frozen_stages=2)), (64, 64))[-1]
    assert frozen.trained < frozen.parameters


def test_a_deformable_convolution_costs_as_a_plain_one_and_its_offsets():
    """64 -> 64 channels: as many multiply-adds as a plain convolution, and 64 x 54 x 9 for two groups' offsets, in two towers."""
    head = replace(RetinaNet(), convs=1)
    plain = replace(head, genotype=HeadGenotype(("conv3",)))
    deformable = replace(head, genotype=HeadGenotype(("deform3",)))
    config = DetectorConfig(backbone=TINY, neck=SearchedFPN(channels=64), head=head)
    one, two = (cost_of(replace(config, head=h), (64, 64))[2].multiply_adds for h in (plain, deformable))
    assert two - one == 86 * 2 * 54 * 64 * 9


def test_show_prints_costs(capsys):
    assert main(["show", "nas_fcos_mobilenetv2", "--cost", "--size", "64", "96"]) == 0
    out = capsys.readouterr().out
    assert "one image of 64x96" in out and "box_head" in out and "total" in out
    assert main(["show", "nas_fcos_mobilenetv2", "--cost", "--size", "0", "96"]) == 2
    assert main(["show", "blendmask_panoptic_mobilenetv2", "--cost", "--size", "64", "64"]) == 0
    assert "detector.backbone" in capsys.readouterr().out
