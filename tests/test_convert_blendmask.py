"""AdelaiDet's BlendMask checkpoints: every name is used, settings are told by names and shapes. Numbers are in tests/parity."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perpixel.engine.convert import convert_checkpoint
from perpixel.engine.convert.blendmask import ADELAIDET_BLENDMASK
from perpixel.engine.convert.file import stuff_names
from perpixel.engine.convert.panoptic import ADELAIDET_PANOPTIC, inside
from perpixel.errors import InputError
from perpixel.models.blendmask import BlendMask
from perpixel.models.fcos import FCOS
from perpixel.models.panoptic import PanopticFPN
from perpixel.nn.backbones import Backbone
from perpixel.nn.bases import ProtoFPN
from perpixel.nn.fpn import FPN
from perpixel.nn.renaming import renamed
from perpixel.ops.assign import LevelRanges
from perpixel.ops.panoptic import RELEASED

KEYS = Path(__file__).parent / "golden" / "keys"
FULL = FCOS(level_scales=False)
SHARED = replace(FULL, class_convs=0, box_convs=0, shared_convs=3)
R50 = Backbone("resnet50", stride_in_1x1=True, weights=None)


def listed(name):
    return json.loads((KEYS / f"adet_BlendMask_{name}.json").read_text())


@pytest.mark.parametrize(
    ("name", "backbone", "neck", "head", "instance"),
    [
        ("R_50_1x", R50, FPN(), FULL, BlendMask()),
        (
            "550_R_50_1x",
            R50,
            FPN(top_levels=1),
            replace(SHARED, levels=LevelRanges((64.0, 128.0, 256.0))),
            BlendMask(ProtoFPN(convs=2)),
        ),
        (
            "RT_R_50_4x_syncbn_shtw",
            replace(R50, norm="train"),
            FPN(top_levels=0),
            replace(SHARED, levels=LevelRanges((64.0, 128.0))),
            BlendMask(ProtoFPN(convs=2)),
        ),
        (
            "RT_R_50_4x_bn-head_syncbn_shtw",
            replace(R50, norm="train"),
            FPN(top_levels=0),
            replace(SHARED, levels=LevelRanges((64.0, 128.0)), norm="batch"),
            BlendMask(ProtoFPN(convs=2)),
        ),
        (
            "DLA_34_syncbn_4x",
            Backbone("dla34", norm="train", frozen_stages=0, weights=None),
            FPN(top_levels=0),
            replace(FULL, levels=LevelRanges((64.0, 128.0))),
            BlendMask(),
        ),
    ],
)
def test_settings_and_every_name(name, backbone, neck, head, instance):
    """And the number of parameters is the reference's.

    Of the real-time models on ResNet-50 less the norms of the stem (2 x 64 numbers) and of the first stage (3 blocks of
    2 x (64 + 64 + 256), a shortcut of 2 x 256): a checkpoint does not tell that they were trained, so these layers are frozen.
    Of DLA-34 less two projections (64 -> 128 and 128 -> 256 channels, each with a norm) whose results nobody reads.
    """
    less = {"train resnet50": 128 + 3 * 768 + 512, "train dla34": (64 + 2) * 128 + (128 + 2) * 256}
    gone = less.get(f"{backbone.norm} {backbone.name}", 0)
    found = listed(name)
    conversion = convert_checkpoint({key: torch.zeros(shape) for key, shape in found["entries"].items()})
    config = conversion.config
    assert (config.backbone, config.neck, config.head, config.instance) == (backbone, neck, head, instance)
    assert (conversion.layout, conversion.classes, config.selection.threshold_on) == ("adelaidet", 80, "product")
    assert conversion.unused == conversion.filled == ()
    assert all("num_batches_tracked" in key or ".project." in key for key in conversion.harmless)
    assert sum(p.numel() for p in conversion.build().parameters()) == found["parameters"] - gone


def test_a_panoptic_model():
    """BlendMask on P3 to P7 and the semantic branch on P2 to P5: every name used, as many parameters as theirs."""
    found = listed("Panoptic_R_50_1x")
    conversion = convert_checkpoint({key: torch.zeros(shape) for key, shape in found["entries"].items()})
    config = conversion.config
    assert isinstance(config, PanopticFPN) and (config.width, config.weight, config.merge) == (128, 0.5, RELEASED)
    assert (conversion.layout, conversion.classes, conversion.stuff) == ("adelaidet", 80, 53)
    detector = config.detector
    assert detector.backbone == replace(R50, stages=(4, 8, 16, 32)) and detector.box_strides() == (8, 16, 32, 64, 128)
    assert (detector.neck, detector.head, detector.instance) == (FPN(), FULL, BlendMask())
    assert conversion.unused == conversion.filled == ()
    assert sum(p.numel() for p in conversion.build().parameters()) == found["parameters"]


def test_weights_of_a_panoptic_model_land_where_they_belong():
    """Their rows count stages and enlargements, ours stages; P2 stands first."""
    names = list(listed("Panoptic_R_50_1x")["entries"])
    table, unknown = renamed({name: torch.tensor(i) for i, name in enumerate(names)}, ADELAIDET_PANOPTIC.rows(names))
    theirs = {ours: names[int(i)] for ours, i in inside(table).items()}
    assert unknown == [] and len(theirs) == len(names)
    for ours, wanted in {
        "branch.levels.0.0.0.weight": "panoptic_module.p2.0.weight",
        "branch.levels.1.0.1.bias": "panoptic_module.p3.0.norm.bias",
        "branch.levels.2.1.0.weight": "panoptic_module.p4.2.weight",
        "branch.levels.3.2.1.weight": "panoptic_module.p5.4.norm.weight",
        "branch.predictor.bias": "panoptic_module.predictor.bias",
        "detector.neck.lateral.0.weight": "backbone.fpn_lateral2.weight",
        "detector.neck.output.3.bias": "backbone.fpn_output5.bias",
        "detector.instance_head.top.bias": "top_layer.bias",
    }.items():
        assert theirs[ours] == wanted


def test_stuff_is_named_as_coco_names_it():
    """53 classes by rising number, from banner (92) to rug-merged (200)."""
    stuff = stuff_names(53)
    assert len(stuff) == 53 and list(stuff.category_ids) == sorted(set(stuff.category_ids))
    assert (stuff.names[0], stuff.category_ids[0], stuff.names[-1], stuff.category_ids[-1]) == (
        "banner",
        92,
        "rug-merged",
        200,
    )
    assert len(stuff_names(0)) == 0
    with pytest.raises(InputError, match="predicts 11 kinds of stuff, and names are known for COCO's 53"):
        stuff_names(11)


def test_weights_land_where_they_belong():
    """A number for each weight, sent through the table: levels, convolutions and norms stay apart."""
    names = list(listed("R_50_1x")["entries"])
    table, unknown = renamed({name: torch.tensor(i) for i, name in enumerate(names)}, ADELAIDET_BLENDMASK.rows(names))
    theirs = {ours: names[int(i)] for ours, i in table.items()}
    assert unknown == []
    for ours, wanted in {
        "top.bias": "top_layer.bias",
        "bottom.refine.2.0.weight": "basis_module.refine.2.0.weight",
        "bottom.refine.1.1.running_var": "basis_module.refine.1.1.running_var",
        "bottom.tower.4.0.weight": "basis_module.tower.4.0.weight",
        "bottom.tower.5.bias": "basis_module.tower.5.bias",
        "semantic.tower.0.0.weight": "basis_module.seg_head.0.weight",
        "semantic.tower.0.1.running_mean": "basis_module.seg_head.1.running_mean",
        "semantic.tower.1.0.weight": "basis_module.seg_head.3.weight",
        "semantic.tower.1.1.bias": "basis_module.seg_head.4.bias",
        "semantic.logits.weight": "basis_module.seg_head.6.weight",
    }.items():
        assert theirs[f"instance_head.{ours}"] == wanted
