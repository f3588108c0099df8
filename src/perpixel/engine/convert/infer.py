"""Settings read from the names and shapes of weights, once they have our names."""

import re
from dataclasses import replace
from typing import Literal

from perpixel.engine.convert.backbone import Weights, backbone_settings, count
from perpixel.engine.convert.blendmask import blendmask_settings
from perpixel.engine.convert.nas_fcos import head_settings, neck_settings
from perpixel.errors import InputError
from perpixel.models.blendmask import BlendMask
from perpixel.models.boxinst import BoxInst
from perpixel.models.condinst import CondInst
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.heads import BoxHeadConfig, InstanceHeadConfig
from perpixel.models.meinst import MEInst
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.bifpn import BiFPN
from perpixel.nn.cells import SearchedFPN
from perpixel.nn.fpn import FPN, NeckConfig
from perpixel.nn.layers import HeadNorm
from perpixel.ops.dynamic import filter_count


def infer_config(base: DetectorConfig, weights: Weights) -> tuple[DetectorConfig, int]:
    """`base` with everything that names and shapes tell filled in, and the number of classes.

    Raises:
        InputError: a backbone, a head or an anchor count that no setting of ours has.
    """
    backbone, neck = backbone_settings(base.backbone, weights), _neck(base.neck, weights)
    head, classes = _head(base.head, weights, len(neck.pyramid_strides(backbone.stages)))
    instance = None if base.instance is None else _instance(base.instance, weights)
    return replace(base, backbone=backbone, neck=neck, head=head, instance=instance), classes


def _neck(base: NeckConfig, weights: Weights) -> NeckConfig:
    if "neck.cells.0.down.0.weights" in weights:
        return _bifpn(weights)
    if isinstance(base, SearchedFPN):
        return neck_settings(base, weights)
    assert isinstance(base, FPN)
    top = weights.get("neck.top.0.weight")
    outputs = count(weights, r"neck\.output\.(\d+)\.weight")
    if not outputs:
        raise InputError("the checkpoint has no feature pyramid known here: give a recipe whose neck fits")
    width = weights["neck.output.0.weight"].shape[0]
    return replace(
        base,
        channels=width,
        top_levels=count(weights, r"neck\.top\.(\d+)\.weight"),
        top_from="p5" if top is None or top.shape[1] == width else "c5",
    )


def _bifpn(weights: Weights) -> BiFPN:
    sums = count(weights, r"neck\.cells\.0\.up\.(\d+)\.weights")
    return BiFPN(
        channels=weights["neck.lateral.0.0.weight"].shape[0],
        repeats=count(weights, r"neck\.cells\.(\d+)\.down\.0\.weights"),
        top_levels=sums + 1 - count(weights, r"neck\.lateral\.(\d+)\.0\.weight"),
        norm="batch" if "neck.lateral.0.1.running_mean" in weights else "group",
    )


def _head(base: BoxHeadConfig, weights: Weights, levels: int) -> tuple[BoxHeadConfig, int]:
    logits = weights.get("box_head.class_logits.weight")
    if logits is None:
        raise InputError("the checkpoint has no class predictor of FCOS or RetinaNet")
    rows = len(logits)
    scaled = "box_head.scales.0.scale" in weights
    norm = _tower_norm(weights)
    if isinstance(base, FCOS):
        per_level = "box_head.class_tower.1.0.weight" in weights or "box_head.shared_tower.1.0.weight" in weights
        quality = "box_head.quality.weight" in weights
        head = replace(
            base,
            class_convs=_tower_depth(weights, r"box_head\.class_tower"),
            box_convs=_tower_depth(weights, r"box_head\.box_tower"),
            shared_convs=_tower_depth(weights, r"box_head\.shared_tower"),
            norm="batch" if per_level else norm,
            deformable=_deformable_tower(weights, r"box_head\.\w+_tower"),
            level_scales=scaled,
            quality=base.quality if quality else "none",
            box_weight=base.box_weight if quality else "none",
            levels=replace(base.levels, limits=base.levels.limits[: levels - 1]),
        )
        return head_settings(head, base, weights), rows
    assert isinstance(base, RetinaNet)
    per_cell = len(weights["box_head.deltas.weight"]) // 4
    if rows % per_cell or per_cell not in (1, 9):
        raise InputError(
            f"the checkpoint has {per_cell} anchors a cell, 9 or 1 are known: give a recipe whose anchors fit"
        )
    head = replace(
        base,
        convs=_tower_depth(weights, r"box_head\.class_tower"),
        norm=norm,
        level_scales=scaled,
        **({"scales": (4.0,), "ratios": (1.0,), "sizes": None} if per_cell == 1 else {}),
    )
    return head, rows // per_cell


def _instance(base: InstanceHeadConfig, weights: Weights) -> InstanceHeadConfig:
    if isinstance(base, BlendMask):
        return blendmask_settings(base, weights)
    if isinstance(base, MEInst):
        return _meinst(base, weights)
    assert isinstance(base, CondInst)
    branch = "instance_head.mask_branch"
    convs = count(weights, rf"{branch}\.tower\.(\d+)\.0\.weight")
    channels, mask_width = weights[f"{branch}.tower.{convs}.weight"].shape[:2]
    kind = BoxInst() if channels == BoxInst().mask_channels else base
    found = replace(
        kind,
        mask_channels=channels,
        mask_levels=count(weights, rf"{branch}\.refine\.(\d+)\.0\.weight"),
        mask_convs=convs,
        mask_width=mask_width,
        semantic="instance_head.semantic_branch.logits.weight" in weights,
    )
    filters = len(weights["instance_head.controller.weight"])
    networks = {
        filter_count((channels + 2, *[width] * (depth - 1), 1)): (depth, width)
        for width in (16, 8, 4, 2)
        for depth in (4, 2, 1, 3)
    }
    if filters not in networks:
        raise InputError(
            f"the checkpoint has mask networks of {filters} numbers with {channels} mask channels, which is no depth from "
            "1 to 4 and width from 2 to 16: give a recipe whose instance head fits"
        )
    depth, width = networks[filters]
    return replace(found, depth=depth, width=width)


def _meinst(base: MEInst, weights: Weights) -> MEInst:
    dim, pixels = weights["instance_head.code.components"].shape[-2:]
    tower = r"instance_head\.mask_tower"
    return replace(
        base,
        code=replace(base.code, dim=dim, size=round(pixels**0.5)),
        last="deformable" if _deformable_tower(weights, tower) else "plain",
        convs=_tower_depth(weights, tower),
    )


def _deformable_tower(weights: Weights, tower: str) -> Literal[False, True, "v1"]:
    """Whether the towers of that name pattern end in deformable convolutions: 3 numbers a sample, or 2 in version 1."""
    pattern = re.compile(rf"{tower}\.\d+\.offset\.weight")
    numbers = {len(tensor) for name, tensor in weights.items() if pattern.fullmatch(name)}
    return "v1" if numbers == {18} else bool(numbers)


def _tower_norm(weights: Weights) -> HeadNorm:
    """Of all levels; a list of norms, one a level, is none of these."""
    normalized = "box_head.class_tower.1.weight" in weights or "box_head.shared_tower.1.weight" in weights
    return "group" if normalized else "none"


def _tower_depth(weights: Weights, tower: str) -> int:
    pattern = re.compile(rf"{tower}\.\d+\.weight")
    return sum(tensor.ndim == 4 for name, tensor in weights.items() if pattern.fullmatch(name))
