"""Checkpoints of other libraries: every name used, settings inferred, bad files refused in one sentence."""

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from perpixel.config import override
from perpixel.engine.convert import convert_checkpoint
from perpixel.engine.convert.adelaidet import ADELAIDET
from perpixel.engine.convert.condinst import ADELAIDET_CONDINST, MMDETECTION_CONDINST
from perpixel.engine.convert.detect import LAYOUTS, detect_layout
from perpixel.engine.convert.fcos_original import FCOS_ORIGINAL
from perpixel.engine.convert.infer import infer_config
from perpixel.engine.convert.layout import Layout
from perpixel.engine.recipe import Recipe
from perpixel.errors import InputError
from perpixel.models.boxinst import BoxInst
from perpixel.models.condinst import CondInst
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.meinst import MEInst
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.backbones import Backbone
from perpixel.nn.bifpn import BiFPN
from perpixel.nn.fpn import FPN
from perpixel.nn.layers import Pixels
from perpixel.nn.renaming import matching, renamed
from perpixel.ops.assign import LevelRanges
from perpixel.ops.dynamic import filter_count

KEYS = Path(__file__).parent / "golden" / "keys"

FROZEN_AFFINE = 53_120
"""Numbers in the affine maps of ResNet-50's norms: 2 x 26,560 channels. mmdetection and torchvision count them as parameters."""
CODE = 60 * 784 + 60 + 784
"""MEInst's components, variances and means, which AdelaiDet counts as parameters; its deformable convolutions have no bias."""
IDLE_PROJECTIONS = (64 + 2) * 128 + (128 + 2) * 256
"""Of DLA-34's levels 3 and 4: 1x1 convolutions and norms whose results nobody reads."""
TOWER_BIASES = 2 * 4 * 256
"""Biases beside a GroupNorm, which our towers have and some of theirs do not."""


def zeros(name: str) -> tuple[dict[str, Tensor], dict]:
    """A checkpoint with the names and shapes of a reference model."""
    listed = json.loads((KEYS / f"{name}.json").read_text())
    return {key: torch.zeros(shape) for key, shape in listed["entries"].items()}, listed


@pytest.mark.parametrize(
    ("name", "layout", "classes", "more", "filled"),
    [
        ("adet_FCOS_R_50_1x", "adelaidet", 80, 0, 0),
        ("adet_FCOS_MS_V_39_3x", "adelaidet", 80, 0, 0),
        ("adet_FCOS_RT_MS_R_50_4x_syncbn", "adelaidet", 80, 0, 0),
        ("adet_FCOS_RT_MS_R_50_4x_syncbn_bn_head", "adelaidet", 80, 0, 0),
        ("adet_FCOS_RT_MS_DLA_34_4x_syncbn", "adelaidet", 80, -IDLE_PROJECTIONS, 0),
        ("adet_FCOS_RT_MS_DLA_34_4x_syncbn_bn_head", "adelaidet", 80, -IDLE_PROJECTIONS, 0),
        ("adet_FCOS_RT_MS_DLA_34_4x_syncbn_shared_towers", "adelaidet", 80, -IDLE_PROJECTIONS, 0),
        ("adet_FCOS_RT_MS_DLA_34_4x_syncbn_shared_towers_bn_head", "adelaidet", 80, -IDLE_PROJECTIONS, 0),
        ("adet_CondInst_MS_R_50_1x", "adelaidet", 80, 0, 0),
        ("adet_CondInst_MS_R_50_3x_sem", "adelaidet", 80, 0, 0),
        ("adet_BoxInst_MS_R_50_1x", "adelaidet", 80, 0, 0),
        ("adet_CondInst_MS_R_50_BiFPN_1x", "adelaidet", 80, 0, 0),
        ("adet_CondInst_MS_R_50_BiFPN_3x_sem", "adelaidet", 80, 0, 0),
        ("adet_BoxInst_MS_R_50_BiFPN_1x", "adelaidet", 80, 0, 0),
        ("adet_MEInst_R_50_1x_none", "adelaidet", 80, -CODE, 1),
        ("adet_MEInst_R_50_1x", "adelaidet", 80, 3 * 256 - CODE, 4),
        ("d2_fcos_R_50_FPN_1x", "detectron2", 80, 0, 1),
        ("d2_retinanet_R_50_FPN_1x", "detectron2", 80, 0, 1),
        ("tv_fcos_resnet50_fpn", "torchvision", 91, 0, 0),
        ("tv_retinanet_resnet50_fpn", "torchvision", 91, 0, 0),
        ("tv_retinanet_resnet50_fpn_v2", "torchvision", 91, TOWER_BIASES, 8),
        ("mm_fcos_r50", "mmdetection", 80, TOWER_BIASES - FROZEN_AFFINE, 8),
        ("mm_fcos_r50_center_normbbox_giou", "mmdetection", 80, -FROZEN_AFFINE, 0),
        ("mm_retinanet_r50", "mmdetection", 80, -FROZEN_AFFINE, 0),
        ("mm_condinst_r50", "mmdetection", 80, -FROZEN_AFFINE, 0),
        ("mm_boxinst_r50", "mmdetection", 80, -FROZEN_AFFINE, 0),
    ],
)
def test_every_name_is_used_and_every_weight_filled(name: str, layout: str, classes: int, more: int, filled: int):
    """And the number of parameters is the reference's, but for what is counted otherwise."""
    tensors, listed = zeros(name)
    conversion = convert_checkpoint(tensors)
    assert (conversion.layout, conversion.classes) == (layout, classes)
    assert conversion.unused == ()
    steps_and_constants = ("num_batches_tracked", "mask_head.sizes_of_interest", "mask_head._iter")
    idle = tuple(f"backbone.body.level{level}.project." for level in (3, 4))
    assert all(key.endswith(steps_and_constants) or key.startswith(idle) for key in conversion.harmless)
    assert len(conversion.filled) == filled
    assert sum(p.numel() for p in conversion.build().parameters()) == listed["parameters"] + more


def test_settings_of_a_real_time_model():
    """Three levels, no extra ones, limits 64 and 128, batch norms trained."""
    config = convert_checkpoint(zeros("adet_FCOS_RT_MS_R_50_4x_syncbn")[0]).config
    assert isinstance(config.head, FCOS)
    assert config.neck == FPN(top_levels=0)
    assert config.head.levels.limits == (64.0, 128.0)
    assert config.backbone == Backbone("resnet50", stride_in_1x1=True, norm="train", weights=None)


REAL_TIME = FCOS(levels=LevelRanges((64.0, 128.0)))
SHARED = replace(REAL_TIME, class_convs=0, box_convs=0, shared_convs=4)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("syncbn", REAL_TIME),
        ("syncbn_bn_head", replace(REAL_TIME, norm="batch")),
        ("syncbn_shared_towers", SHARED),
        ("syncbn_shared_towers_bn_head", replace(SHARED, norm="batch")),
    ],
)
def test_settings_of_real_time_models_on_dla(name: str, head: FCOS):
    """Towers, their norms and the backbone, of which AdelaiDet freezes nothing."""
    backbone = Backbone("dla34", norm="train", frozen_stages=0, weights=None)
    wanted = replace(ADELAIDET.base, backbone=backbone, neck=FPN(top_levels=0), head=head)
    assert inferred(hollow(f"adet_FCOS_RT_MS_DLA_34_4x_{name}")) == wanted


def test_settings_of_a_vovnet():
    """Blocks tell which, and that each is squeezed; without the first block's it is timm's own."""
    theirs = hollow("adet_FCOS_MS_V_39_3x")
    squeezed = Backbone("ese_vovnet39b", squeeze_every_block=True, frozen_stages=0, weights=None)
    assert inferred(theirs) == replace(ADELAIDET.base, backbone=squeezed)
    ours = {name: tensor for name, tensor in theirs.items() if not re.search(r"OSA[45]_1\.ese", name)}
    assert inferred(ours).backbone == replace(squeezed, squeeze_every_block=False)


def test_other_dlas_and_vovnets_are_refused():
    dla, vovnet = hollow("adet_FCOS_RT_MS_DLA_34_4x_syncbn"), hollow("adet_FCOS_MS_V_39_3x")
    with pytest.raises(InputError, match=r"is a DLA other than DLA-34"):
        inferred(dla | {"backbone.bottom_up.level5.tree1.conv2.weight": torch.zeros(1, 1, 3, 3)})
    with pytest.raises(InputError, match=r"is not a VoVNet known here \(blocks \(1, 1, 2, 1\)\)"):
        inferred({name: tensor for name, tensor in vovnet.items() if "OSA5_2" not in name})
    with pytest.raises(InputError, match=r"a stage of 100 channels, which no dla34 has"):
        inferred(dla | {"backbone.fpn_lateral4.weight": torch.zeros(256, 100, 1, 1)})


def hollow(name: str) -> dict[str, Tensor]:
    """Names and shapes of a reference model that take no memory."""
    listed = json.loads((KEYS / f"{name}.json").read_text())["entries"]
    return {key: torch.zeros(()).expand(shape) for key, shape in listed.items()}


def inferred(theirs: dict[str, Tensor]) -> DetectorConfig:
    """Settings of an FCOS of AdelaiDet; no model is built."""
    return infer_config(ADELAIDET.base, renamed(theirs, ADELAIDET.rows(theirs))[0])[0]


def test_settings_of_condinst():
    """Depth, width, channels and the semantic branch from shapes; sampling around mass centres by convention."""
    plain = convert_checkpoint(zeros("adet_CondInst_MS_R_50_1x")[0]).config
    assert plain.instance == CondInst()
    assert isinstance(plain.head, FCOS)
    assert (plain.head.center, plain.selection.threshold_on) == ("mask", "product")
    assert convert_checkpoint(zeros("adet_CondInst_MS_R_50_3x_sem")[0]).config.instance == CondInst(semantic=True)
    assert convert_checkpoint(zeros("adet_BoxInst_MS_R_50_1x")[0]).config.instance == BoxInst()


def test_settings_of_meinst():
    """N and cells from the components, deformable convolutions of version 1 from their 18 offsets."""
    plain, deformable = (convert_checkpoint(zeros(f"adet_MEInst_R_50_1x{n}")[0]).config for n in ("_none", ""))
    assert (plain.head, plain.instance) == (FCOS(), MEInst())
    assert (deformable.head, deformable.instance) == (FCOS(deformable="v1"), MEInst(last="deformable"))
    assert plain.selection == ADELAIDET.base.selection


@pytest.mark.parametrize("channels", [8, 16])
@pytest.mark.parametrize(("depth", "width"), [(1, 8), (2, 8), (4, 8), (3, 2), (3, 4), (3, 16)])
def test_mask_networks_are_told_by_their_numbers(depth: int, width: int, channels: int):
    """Rows of tables 5.1 and 5.2; one layer has no width and needs none."""
    listed = json.loads((KEYS / "adet_CondInst_MS_R_50_1x.json").read_text())["entries"]
    count = filter_count((channels + 2, *[width] * (depth - 1), 1))
    listed["mask_branch.tower.4.weight"] = (channels, 128, 1, 1)
    listed["controller.weight"] = (count, 256, 3, 3)
    hollow = {name: torch.zeros(()).expand(shape) for name, shape in listed.items()}
    weights, _ = renamed(hollow, ADELAIDET_CONDINST.rows(hollow))
    found = infer_config(ADELAIDET_CONDINST.base, weights)[0].instance
    assert isinstance(found, CondInst)
    assert (found.mask_channels, found.depth) == (channels, depth)
    assert depth == 1 or found.width == width
    weights["instance_head.controller.weight"] = torch.zeros(7)
    with pytest.raises(InputError, match="mask networks of 7 numbers"):
        infer_config(ADELAIDET_CONDINST.base, weights)


def test_settings_of_mmdetections_condinst():
    """Its BoxInst has 16 channels in the mask network as well: 18 x 16 + 16 x 16 + 16 weights and 33 biases are 593."""
    plain, boxes = (convert_checkpoint(zeros(name)[0]).config for name in ("mm_condinst_r50", "mm_boxinst_r50"))
    assert plain.instance == CondInst()
    assert boxes.instance == BoxInst(width=16)
    assert isinstance(plain.head, FCOS)
    assert (plain.head.activation, plain.head.quality_tower, plain.head.radius) == ("relu", "box", 1.5)
    assert plain.pixels == Pixels()
    assert plain.backbone == Backbone("resnet50", weights=None)
    assert plain.neck == FPN()


def test_mmdetections_masks_land_where_they_belong():
    """A number for each weight, sent through the conversion: levels, convolutions and norms of the mask branch stay apart."""
    names = zeros("mm_condinst_r50")[0]
    table, _ = renamed({name: torch.tensor(i) for i, name in enumerate(names)}, MMDETECTION_CONDINST.rows(names))
    known = list(names)
    theirs = {ours: known[int(i)] for ours, i in table.items()}
    branch = "mask_head.mask_feature_head"
    for ours, wanted in {
        "mask_branch.refine.1.0.weight": f"{branch}.convs_all_levels.1.conv1.conv.weight",
        "mask_branch.refine.2.1.running_var": f"{branch}.convs_all_levels.2.conv2.bn.running_var",
        "mask_branch.tower.3.0.weight": f"{branch}.conv_branch.3.conv.weight",
        "mask_branch.tower.3.1.bias": f"{branch}.conv_branch.3.bn.bias",
        "mask_branch.tower.4.bias": f"{branch}.conv_pred.bias",
        "controller.weight": "bbox_head.controller.weight",
    }.items():
        assert theirs[f"instance_head.{ours}"] == wanted


def test_settings_of_a_bifpn():
    """Repeats, channels and top levels from names and shapes; five levels, so FCOS's limits stay four."""
    plain = convert_checkpoint(zeros("adet_CondInst_MS_R_50_1x")[0]).config
    assert convert_checkpoint(zeros("adet_CondInst_MS_R_50_BiFPN_1x")[0]).config == replace(plain, neck=BiFPN())
    boxes = convert_checkpoint(zeros("adet_BoxInst_MS_R_50_BiFPN_1x")[0]).config
    assert (boxes.neck, boxes.instance) == (BiFPN(), BoxInst())


def test_names_of_a_bifpn_of_three_levels():
    """FCOS-RT's pyramid: inputs 0, 1, 2; down 1 + 2 -> 3, 0 + 3 -> 4; up 1 + 3 + 4 -> 5, 2 + 5 -> 6. There is no res6."""
    head = FCOS(levels=LevelRanges((64.0, 128.0)))
    neck = BiFPN(repeats=2, top_levels=0)
    config = DetectorConfig(backbone=Backbone(weights=None, stride_in_1x1=True), neck=neck, head=head)
    sums = ["f1_1_2", "f0_0_3", "f1_1_3_4", "f2_2_5"]
    table = ADELAIDET.rows([f"backbone.repeated_bifpn.0.weights_{name}" for name in sums])
    torch.manual_seed(0)
    ours = config.build(5).state_dict()
    theirs, unknown = renamed(ours, [(b, a) for a, b in dict(table).items()])
    assert not unknown
    assert {name.rpartition("weights_")[2] for name in theirs if ".weights_" in name} == set(sums)
    conversion = convert_checkpoint(theirs)
    assert conversion.config.neck == neck
    assert conversion.config.head == head
    assert all(torch.equal(conversion.weights[name], tensor) for name, tensor in ours.items())


def test_p6_from_c5_is_told_by_its_shape():
    assert convert_checkpoint(zeros("d2_retinanet_R_50_FPN_1x")[0]).config.neck == FPN(top_from="c5")
    assert convert_checkpoint(zeros("mm_retinanet_r50")[0]).config.neck == FPN(top_from="c5", top_relu=False)


def test_mmdetections_improved_fcos_is_told_by_its_biases():
    plain, improved = (
        convert_checkpoint(zeros(n)[0]).config.head for n in ("mm_fcos_r50", "mm_fcos_r50_center_normbbox_giou")
    )
    assert isinstance(plain, FCOS)
    assert isinstance(improved, FCOS)
    assert (plain.activation, plain.quality_tower, plain.radius) == ("exp", "class", None)
    assert (improved.activation, improved.quality_tower, improved.radius) == ("relu", "box", 1.5)


def foreign(config: DetectorConfig, layout: Layout) -> dict[str, Tensor]:
    """A model of ours under another library's names."""
    theirs, unknown = renamed(config.build(5).state_dict(), backwards(layout))
    assert not unknown
    return theirs


def backwards(layout: Layout) -> list[tuple[str, str]]:
    """The layout's table from our names to theirs; of several names they have for one of ours, the last."""
    return [(theirs, ours) for ours, theirs in dict(layout.rows(())).items()]


def test_first_fcos_names():
    """Names as facts about maskrcnn-benchmark state them; wrapped in `model` and `module.`; there and back again."""
    config = DetectorConfig(backbone=Backbone(weights=None, stride_in_1x1=True))
    torch.manual_seed(0)
    theirs = foreign(config, FCOS_ORIGINAL)
    for name in (
        "backbone.body.stem.conv1.weight",
        "backbone.body.stem.bn1.running_mean",
        "backbone.body.layer1.0.downsample.0.weight",
        "backbone.fpn.fpn_inner2.weight",
        "backbone.fpn.fpn_layer4.bias",
        "backbone.fpn.top_blocks.p7.weight",
        "rpn.head.cls_tower.1.weight",
        "rpn.head.bbox_tower.9.bias",
        "rpn.head.centerness.weight",
        "rpn.head.scales.4.scale",
    ):
        assert name in theirs
    conversion = convert_checkpoint({"model": {f"module.{k}": v for k, v in theirs.items()}, "iteration": 90000})
    assert conversion.layout == "fcos_original"
    assert conversion.unused == conversion.filled == ()
    assert any("model.head.activation=exp" in note for note in conversion.notes)
    torch.manual_seed(0)
    ours = config.build(5).state_dict()
    assert all(torch.equal(conversion.weights[name], tensor) for name, tensor in ours.items())


def test_old_name_of_the_centre_ness():
    theirs = zeros("adet_FCOS_R_50_1x")[0]
    old = {name.replace("ctrness", "centerness"): tensor for name, tensor in theirs.items()}
    assert convert_checkpoint(old).unused == ()


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        (Backbone("resnet101", stride_in_1x1=True), FCOS(shared_convs=2, class_convs=0, box_convs=0)),
        (
            Backbone("resnet50", stride_in_1x1=True),
            FCOS(level_scales=False, quality="none", box_weight="none", norm="none"),
        ),
        (
            Backbone("resnet50", stride_in_1x1=True, deformable_stages=(16, 32), deformable_interval=3),
            FCOS(deformable=True),
        ),
        (Backbone("resnext101_32x8d"), FCOS()),
        (Backbone("resnext101_64x4d"), FCOS()),
    ],
)
def test_names_and_shapes_tell_the_settings(backbone: Backbone, head: FCOS, monkeypatch: pytest.MonkeyPatch):
    """Our model's names through AdelaiDet's and back; only shapes are needed, so the weights are one number each."""
    config = DetectorConfig(
        pixels=ADELAIDET.base.pixels, backbone=Backbone(**(vars(backbone) | {"weights": None})), head=head
    )
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)
    hollow = {name: torch.zeros(1).expand(tensor.shape) for name, tensor in config.build(5).state_dict().items()}
    theirs, unknown = renamed(hollow, backwards(ADELAIDET))
    assert not unknown
    weights, unknown = renamed(theirs, ADELAIDET.rows(theirs))
    assert not unknown
    assert weights.keys() == hollow.keys()
    inferred, classes = infer_config(ADELAIDET.base, weights)
    assert classes == 5
    assert inferred == config
    adapted = ADELAIDET.adapt(inferred, theirs)
    assert (adapted.pixels.std != (1.0, 1.0, 1.0)) == (backbone.name == "resnext101_32x8d")


def test_deformable_towers_of_adelaidet():
    """Their last layer wraps the convolution, which has no bias beside GroupNorm (facts 2.4: `{offset, conv.weight}`)."""
    config = DetectorConfig(backbone=Backbone(weights=None, stride_in_1x1=True), head=FCOS(deformable=True))
    theirs = {
        re.sub(r"(_tower\.9)\.(weight|bias)$", r"\1.conv.\2", name): tensor
        for name, tensor in foreign(config, ADELAIDET).items()
    }
    for tower in ("cls_tower", "bbox_tower"):
        del theirs[f"proposal_generator.fcos_head.{tower}.9.conv.bias"]
    conversion = convert_checkpoint(theirs)
    assert isinstance(conversion.config.head, FCOS)
    assert conversion.config.head.deformable
    assert conversion.unused == ()
    assert conversion.filled == ("box_head.class_tower.9.bias", "box_head.box_tower.9.bias")


def test_one_anchor_retinanet():
    names = {
        **{
            f"backbone.body.layer{s}.{i}.conv1.weight": (1,)
            for s, n in ((1, 3), (2, 4), (3, 6), (4, 3))
            for i in range(n)
        },
        "backbone.body.layer1.0.conv2.weight": (64, 64, 3, 3),
        **{f"neck.lateral.{i}.weight": (256, 512 << i, 1, 1) for i in range(3)},
        **{f"neck.output.{i}.weight": (256, 256, 3, 3) for i in range(3)},
        "box_head.class_logits.weight": (20, 256, 3, 3),
        "box_head.deltas.weight": (4, 256, 3, 3),
    }
    weights = {name: torch.zeros(1).expand(shape) for name, shape in names.items()}
    config, classes = infer_config(DetectorConfig(head=RetinaNet()), weights)
    assert classes == 20
    assert isinstance(config.head, RetinaNet)
    assert (config.head.scales, config.head.ratios) == ((4.0,), (1.0,))
    weights["box_head.deltas.weight"] = torch.zeros(12, 1)
    with pytest.raises(InputError, match="3 anchors a cell"):
        infer_config(DetectorConfig(head=RetinaNet()), weights)


def test_unused_entries_are_named():
    """A mask branch without a controller goes nowhere and is said to."""
    theirs = zeros("adet_FCOS_R_50_1x")[0] | {
        "mask_branch.tower.4.weight": torch.zeros(1),
        "pixel_mean": torch.zeros(3),
    }
    conversion = convert_checkpoint(theirs)
    assert conversion.unused == ("mask_branch.tower.4.weight",)
    assert conversion.harmless == ("pixel_mean",)


def test_missing_and_misshapen_weights_are_errors():
    theirs = zeros("adet_FCOS_R_50_1x")[0]
    name = "backbone.top_block.p7.bias"
    with pytest.raises(InputError, match=r"nothing for 1 of the model's \d+ weights, first neck\.top\.1\.bias"):
        convert_checkpoint({k: v for k, v in theirs.items() if k != name})
    with pytest.raises(InputError, match=r"neck\.top\.1\.bias of shape \(7,\), the model needs \(256,\)"):
        convert_checkpoint(theirs | {name: torch.zeros(7)})


def test_layout_by_name_and_by_names():
    theirs = zeros("tv_fcos_resnet50_fpn")[0]
    assert detect_layout(theirs).name == "torchvision"
    with pytest.raises(InputError, match="layout='mmdet' is not known: one of adelaidet"):
        detect_layout(theirs, "mmdet")
    with pytest.raises(InputError, match=r"no FCOS or RetinaNet of .* its weights are called a, b"):
        detect_layout({"a": 0, "b": 0})
    with pytest.raises(InputError, match="already has the names of perpixel"):
        detect_layout(["box_head.class_logits.weight"])
    with pytest.raises(InputError, match="a two-stage detector"):
        detect_layout(["roi_heads.box_head.fc1.weight"])
    assert {layout.name for layout in LAYOUTS} == {
        "adelaidet",
        "fcos_original",
        "nas_fcos",
        "torchvision",
        "mmdetection",
        "detectron2",
    }


class Thing:
    """An object that no reader of weights should make."""


def test_files(tmp_path: Path):
    theirs = zeros("mm_retinanet_r50")[0]
    torch.save({"state_dict": theirs, "meta": {"epoch": 12}}, tmp_path / "a.pth")
    save_file(theirs, tmp_path / "b.safetensors")
    a, b = convert_checkpoint(tmp_path / "a.pth"), convert_checkpoint(tmp_path / "b.safetensors")
    assert a.config == b.config
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"model": {}}))
    torch.save({"model": {}, "thing": Thing()}, tmp_path / "d.pth")
    (tmp_path / "e.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:1000])
    (tmp_path / "f.safetensors").write_bytes(b"nothing")
    (tmp_path / "g.onnx").write_bytes(b"")
    torch.save(torch.zeros(3), tmp_path / "h.pth")
    torch.save({"epoch": 3}, tmp_path / "i.pth")
    for name, message in {
        "c.pkl": "is a pickle, which can execute code and is never loaded: .* safetensors",
        "d.pth": "holds Python objects beside its tensors, which are never loaded",
        "e.pth": "cannot be read as a PyTorch file",
        "f.safetensors": "cannot be read as safetensors",
        "g.onnx": "has the unknown ending .onnx",
        "h.pth": "holds one Tensor, not weights by name",
        "i.pth": "holds no tensors by name",
        "none.pth": "is not a file",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            convert_checkpoint(tmp_path / name)
        assert name in str(caught.value)


def test_templates():
    """{i} is a number, {*} a rest; a sign may stand twice only where names are merely tested."""
    value = torch.zeros(1)
    out, unknown = renamed({"a.12.b.c": value, "a.x.b": value}, [("y{i}.{*}", "a.{i}.b.{*}")])
    assert list(out) == ["y12.c"]
    assert unknown == ["a.x.b"]
    assert matching(["u.3.v.3.w", "u.v"], ["{*}.{i}.{*}.{i}.{*}"]) == ["u.3.v.3.w"]


@pytest.mark.parametrize(
    "layout",
    LAYOUTS,
    ids=lambda layout: f"{layout.name} {'with masks' if layout.base.instance else type(layout.base.head).__name__}",
)
def test_overrides_in_notes_exist(layout: Layout):
    """What a note tells the user to write is accepted."""
    recipe = Recipe("converted", layout.base)
    for note in layout.notes:
        found = re.findall(r"model\.[\w.]+=[^\s;]+", note)
        assert override(recipe, found) != recipe or not found
