"""AdelaiDet's BlendMask checkpoints: every name is used, settings are told by names and shapes. Numbers are in tests/parity."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perpixel.engine.convert import convert_checkpoint
from perpixel.engine.convert.blendmask import ADELAIDET_BLENDMASK
from perpixel.models.blendmask import BlendMask
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.nn.bases import ProtoFPN
from perpixel.nn.fpn import FPN
from perpixel.nn.renaming import renamed
from perpixel.ops.assign import LevelRanges

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
    ],
)
def test_settings_and_every_name(name, backbone, neck, head, instance):
    """And the number of parameters is the reference's."""
    found = listed(name)
    conversion = convert_checkpoint({key: torch.zeros(shape) for key, shape in found["entries"].items()})
    config = conversion.config
    assert (config.backbone, config.neck, config.head, config.instance) == (backbone, neck, head, instance)
    assert (conversion.layout, conversion.classes, config.selection.threshold_on) == ("adelaidet", 80, "product")
    assert conversion.unused == conversion.filled == ()
    assert all(key.endswith("num_batches_tracked") for key in conversion.harmless)
    assert sum(p.numel() for p in conversion.build().parameters()) == found["parameters"]


def test_of_a_panoptic_model_the_instance_part_is_taken():
    """P2 and the semantic branch are left over, and the user is told; P3 and coarser do not depend on P2."""
    entries = listed("Panoptic_R_50_1x")["entries"]
    conversion = convert_checkpoint({key: torch.zeros(shape) for key, shape in entries.items()})
    assert conversion.config.instance == BlendMask() and conversion.config.neck == FPN()
    more = ("panoptic_module.", "backbone.fpn_lateral2.", "backbone.fpn_output2.")
    assert set(conversion.unused) == {key for key in entries if key.startswith(more)}


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
