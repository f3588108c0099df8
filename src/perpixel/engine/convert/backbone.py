"""Settings of a backbone read from the names and shapes of its weights, once they have our names."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from perpixel.errors import InputError
from perpixel.nn.backbones import Backbone

Weights = Mapping[str, Tensor]

BODY = "backbone.body"

# timm's name by (blocks of each stage, groups, channels a group of the first stage).
RESNETS: dict[tuple[tuple[int, ...], int, int], str] = {
    ((3, 4, 6, 3), 1, 64): "resnet50",
    ((3, 4, 23, 3), 1, 64): "resnet101",
    ((3, 8, 36, 3), 1, 64): "resnet152",
    ((3, 4, 6, 3), 32, 4): "resnext50_32x4d",
    ((3, 4, 23, 3), 32, 4): "resnext101_32x4d",
    ((3, 4, 23, 3), 32, 8): "resnext101_32x8d",
    ((3, 4, 23, 3), 64, 4): "resnext101_64x4d",
}
# timm's name by blocks of each stage.
VOVNETS: dict[tuple[int, ...], str] = {
    (1, 1, 2, 2): "ese_vovnet39b",
    (1, 1, 4, 3): "ese_vovnet57b",
    (1, 3, 9, 3): "ese_vovnet99b",
}

# Strides of the stages, by channels.
_RESNET_STRIDES = {256: 4, 512: 8, 1024: 16, 2048: 32}
_VOVNET_STRIDES = {256: 4, 512: 8, 768: 16, 1024: 32}
_MOBILENET_STRIDES = {24: 4, 32: 8, 96: 16, 320: 32}
_DLA_STRIDES = {64: 4, 128: 8, 256: 16, 512: 32}


def backbone_settings(base: Backbone, weights: Weights) -> Backbone:
    """`base` with what the weights of backbone and neck tell.

    Raises:
        InputError: a backbone that no setting of ours has.
    """
    if f"{BODY}.base_layer.0.weight" in weights:
        found, strides = _dla(base, weights), _DLA_STRIDES
    elif f"{BODY}.stem_0.conv.weight" in weights:
        found, strides = _vovnet(base, weights), _VOVNET_STRIDES
    elif f"{BODY}.blocks.0.0.conv_dw.weight" in weights:
        found, strides = _mobilenet(base, weights), _MOBILENET_STRIDES
    else:
        found, strides = _resnet(base, weights), _RESNET_STRIDES
    lateral = re.compile(r"neck\.lateral\.\d+(\.0)?\.weight")
    laterals = [weights[name].shape[1] for name in sorted(weights) if lateral.fullmatch(name)]
    unknown = [channels for channels in laterals if channels not in strides]
    if unknown:
        raise InputError(
            f"the backbone of the checkpoint has a stage of {unknown[0]} channels, which no {found.name} has"
        )
    trained = any(name.startswith(BODY) and name.endswith("num_batches_tracked") for name in weights)
    return replace(
        found,
        stages=tuple(strides[channels] for channels in laterals) or base.stages,
        norm="train" if trained else "frozen",
        weights=None,
    )


def _resnet(base: Backbone, weights: Weights) -> Backbone:
    blocks = tuple(count(weights, rf"{BODY}\.layer{stage}\.(\d+)\.conv1\.weight") for stage in (1, 2, 3, 4))
    first = weights.get(f"{BODY}.layer1.0.conv2.weight")
    width = 0 if first is None else first.shape[1]
    groups = 0 if first is None else first.shape[0] // first.shape[1]
    if (blocks, groups, width) not in RESNETS:
        raise InputError(
            f"the backbone of the checkpoint is not a ResNet or ResNeXt known here (blocks {blocks}, {groups} groups of "
            f"{width} channels): give a recipe whose backbone fits"
        )
    deformable, interval = _deformable(weights)
    return replace(
        base,
        name=RESNETS[blocks, groups, width],
        stride_in_1x1=base.stride_in_1x1 and groups == 1,
        deformable_stages=deformable,
        deformable_interval=interval,
    )


def _dla(base: Backbone, weights: Weights) -> Backbone:
    """AdelaiDet's configs freeze nothing of it."""
    shapes = [
        tuple(weights[f"{BODY}.{name}.weight"].shape) if f"{BODY}.{name}.weight" in weights else None
        for name in ("level3.tree1.tree1.conv2", "level5.tree1.conv2", "level5.tree1.conv3")
    ]
    if shapes != [(128, 128, 3, 3), (512, 512, 3, 3), None]:
        raise InputError("the backbone of the checkpoint is a DLA other than DLA-34: give a recipe whose backbone fits")
    return replace(base, name="dla34", stride_in_1x1=False, frozen_stages=0)


def _mobilenet(base: Backbone, weights: Weights) -> Backbone:
    """NAS-FCOS's: the stem and the first block are frozen."""
    blocks = tuple(count(weights, rf"{BODY}\.blocks\.{i}\.(\d+)\.conv_dw\.weight") for i in range(7))
    if blocks != (1, 2, 3, 4, 3, 3, 1) or len(weights[f"{BODY}.conv_stem.weight"]) != 32:
        raise InputError(
            "the backbone of the checkpoint is a MobileNet other than V2 at width 1: give a recipe whose backbone fits"
        )
    return replace(base, name="mobilenetv2_100", stride_in_1x1=False, frozen_stages=1)


def _vovnet(base: Backbone, weights: Weights) -> Backbone:
    """AdelaiDet's configs freeze nothing of it but the norms."""
    blocks = tuple(count(weights, rf"{BODY}\.stages_{i}\.blocks\.(\d+)\.conv_concat\.conv\.weight") for i in range(4))
    if blocks not in VOVNETS:
        raise InputError(
            f"the backbone of the checkpoint is not a VoVNet known here (blocks {blocks}): give a recipe whose backbone fits"
        )
    squeezed = count(weights, rf"{BODY}\.(stages_\d\.blocks\.\d+)\.attn\.fc\.weight") == sum(blocks)
    return replace(base, name=VOVNETS[blocks], stride_in_1x1=False, squeeze_every_block=squeezed, frozen_stages=0)


def _deformable(weights: Weights) -> tuple[tuple[int, ...], int]:
    """Strides of the stages with offsets, and the step between such blocks."""
    found = [re.fullmatch(r"backbone\.body\.layer(\d)\.(\d+)\.conv2\.offset\.weight", name) for name in weights]
    blocks = sorted((int(m[1]), int(m[2])) for m in found if m)
    steps = {b - a for (stage, a), (other, b) in itertools.pairwise(blocks) if stage == other}
    return tuple(sorted({2 ** (stage + 1) for stage, _ in blocks})), min(steps, default=1)


def count(weights: Weights, pattern: str) -> int:
    """How many different first groups the names that fit have."""
    compiled = re.compile(pattern)
    return len({found[1] for name in weights if (found := compiled.fullmatch(name))})
