"""Writes small detectors of every exported method as checkpoint, ONNX and OpenVINO files: python tiny_exports.py FOLDER.

In a process of its own, where no shape checks break the trace.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from perpixel.data.settings import DataConfig, TestSize
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.checkpoint import build_model, load_checkpoint, save_checkpoint
from perpixel.engine.export import export_detector, onnx_to_openvino
from perpixel.engine.export_int8 import export_int8
from perpixel.engine.exported import facts_of
from perpixel.engine.recipe import Recipe
from perpixel.models.blendmask import BlendMask
from perpixel.models.boxinst import BoxInst
from perpixel.models.candidates import Selection
from perpixel.models.condinst import CondInst
from perpixel.models.detector import DetectorConfig
from perpixel.models.directpose import DirectPose, KPAlign
from perpixel.models.duplicates import KeypointNMS
from perpixel.models.fcos import FCOS
from perpixel.models.meinst import MEInst
from perpixel.models.panoptic import PanopticFPN
from perpixel.models.pointins import PointINS
from perpixel.models.retinanet import RetinaNet
from perpixel.models.smalmask import SmalMask
from perpixel.models.smalmask2 import SmalMask2
from perpixel.nn.backbones import Backbone
from perpixel.nn.bases import ProtoFPN
from perpixel.nn.fpn import FPN
from perpixel.nn.mask_codes import PCA
from perpixel.ops.assign import LevelRanges
from perpixel.ops.panoptic import Merge
from perpixel.structures import COCO_SKELETON, Stuff

FCOS_TINY = FCOS(class_convs=1, box_convs=1, levels=LevelRanges(limits=(64.0,)), initial_distance=2.0, prior=0.2)
BASE = DetectorConfig(
    backbone=Backbone("test_resnet", weights=None, norm="train", frozen_stages=0, stages=(8, 16)),
    neck=FPN(channels=32, top_levels=0),
    head=FCOS_TINY,
    selection=Selection(threshold=0.02, keep=12, iou=0.5),
)
# Every box head and every instance head is in one of them.
MODELS = {
    "fcos": replace(BASE, selection=replace(BASE.selection, threshold_on="score")),
    "retinanet": replace(
        BASE, head=RetinaNet(convs=1, norm="group"), selection=replace(BASE.selection, clip_first=True)
    ),
    "condinst": replace(BASE, instance=CondInst(mask_width=16, mask_convs=1, mask_levels=2)),
    "boxinst": replace(
        BASE,
        head=RetinaNet(convs=1, norm="group"),
        selection=replace(BASE.selection, clip_first=True),
        instance=BoxInst(mask_width=16, mask_convs=1, mask_levels=1),
    ),
    "pointins": replace(BASE, instance=PointINS(size=7, width=16, channels=4, convs=1)),
    "meinst": replace(BASE, instance=MEInst(code=PCA(6, 12, class_specific=True), convs=1, last="large_kernel")),
    "blendmask": replace(
        BASE,
        instance=BlendMask(ProtoFPN((8, 16), width=16, convs=1), region=28, attention=7, semantic_weight=0.0),
    ),
    "smalmask": replace(BASE, instance=SmalMask(convs=1, size=14, levels="below")),
    "smalmask2": replace(BASE, instance=SmalMask2(size=14, lengths=(32.0, 64.0))),
    "directpose": replace(
        BASE,
        head=replace(FCOS_TINY, box_loss="none"),
        instance=DirectPose(align=KPAlign(width=8), heat_map=None),
        duplicates=KeypointNMS(enter=60),
    ),
    "panoptic": PanopticFPN(
        replace(
            BASE,
            backbone=replace(BASE.backbone, stages=(4, 8, 16)),
            box_stride=8,
            instance=CondInst(mask_width=16, mask_convs=1, mask_levels=2),
        ),
        width=32,
        merge=Merge(score=0.1, stuff_area=64),
    ),
}
TEST_SIZE = TestSize(short_side=96, max_side=160)


def write_all(folder: Path) -> None:
    """NAME.safetensors, NAME.onnx, NAME.xml and NAME.bin of each model; int8.onnx and fixed.onnx of fcos."""
    names = ("disc", "ring", "cross")
    for number, (name, config) in enumerate(MODELS.items()):
        torch.manual_seed(number)
        stuff = Stuff(("sky", "grass"), (9, 11)) if isinstance(config, PanopticFPN) else Stuff()
        model = config.build(len(names), len(stuff)).eval()
        for convolution in [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]:
            torch.nn.init.kaiming_normal_(convolution.weight)  # what is found depends on the image
        for name_of_weight, weight in model.named_parameters():
            # Moderate, as after training: of mask probabilities that are all 0 or 1, many pixels between lie at 1/2 exactly.
            if name_of_weight in (
                "instance_head.controller.weight",
                "instance_head.top.weight",
                "instance_head.predictor.down_across.weight",
                "instance_head.predictor.across_down.weight",
                "box_head.deltas.weight",
            ):
                weight.data.mul_(0.2)
        path = folder / f"{name}.safetensors"
        recipe = Recipe(name, config, replace(DataConfig(), test=TEST_SIZE))
        skeleton = COCO_SKELETON if config.keypoint_names() else ()
        save_checkpoint(path, model, recipe, names, category_ids=(3, 5, 8), stuff=stuff, skeleton=skeleton)
        checkpoint = load_checkpoint(path)
        facts = facts_of(checkpoint)
        began = time.monotonic()
        export_detector(build_model(checkpoint), facts, folder / f"{name}.onnx")
        onnx_to_openvino(folder / f"{name}.onnx", facts, folder / f"{name}.xml")
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    checkpoint = load_checkpoint(folder / "fcos.safetensors")
    export_detector(build_model(checkpoint), facts_of(checkpoint, (96, 128)), folder / "fixed.onnx")
    ShapesDataset(3, seed=1).write_coco(folder / "photos")
    print(export_int8(build_model(checkpoint), facts_of(checkpoint), folder / "int8.onnx", folder / "photos", False))


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
