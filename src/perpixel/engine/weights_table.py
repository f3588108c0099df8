"""Weights that others published, by the name under which `perpixel.load` takes them. Nothing here is ours to hand on.

A name is that of the recipe that trains such a model, where there is one. All figures are those of the publisher, on COCO val2017
unless they say test-dev; none was measured by us. Addresses and figures: AdelaiDet's model zoo, torchvision's `weights`.
AdelaiDet's links of panoptic models lead to files of instance models; they are left out.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from perpixel.errors import InputError


@dataclass(frozen=True)
class Publisher:
    """Who published weights, and on which terms.

    Attributes:
        name: short.
        licence: short, for a table.
        terms: a sentence, shown when weights of theirs are first used.
    """

    name: str
    licence: str
    terms: str


@dataclass(frozen=True)
class Published:
    """One file of weights.

    Attributes:
        name: what users call it.
        publisher: whose it is.
        address: where it lies.
        reported: the publisher's figures by name, in percent.
        settings: of a recipe that the file does not tell, such as the size of its images.
        sha256: its SHA-256, or as many leading digits as are published; empty where none is.
    """

    name: str
    publisher: Publisher
    address: str
    reported: Mapping[str, float]
    settings: tuple[str, ...] = ()
    sha256: str = field(default="")

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.address.rpartition("/")[2]


ADELAIDET = Publisher(
    "AdelaiDet",
    "non-commercial",
    "these weights are AdelaiDet's and for NON-COMMERCIAL use only; for any other use ask its authors "
    "(https://github.com/aim-uofa/AdelaiDet, LICENSE)",
)
TORCHVISION = Publisher(
    "torchvision",
    "BSD-3-Clause",
    "these weights come with torchvision (BSD-3-Clause) and were trained on COCO, whose terms may bind what you do with them "
    "(https://cocodataset.org/#termsofuse)",
)

HUB = "https://huggingface.co/"
FCOS, CONDINST = f"{HUB}tianzhi/AdelaiDet-FCOS/resolve/main/", f"{HUB}tianzhi/AdelaiDet-CondInst/resolve/main/"
BOXINST, OTHERS = f"{HUB}tianzhi/AdelaiDet-BoxInst/resolve/main/", f"{HUB}ZjuCv/AdelaiDet/resolve/main/"
PYTORCH = "https://download.pytorch.org/models/"

BOXES, BOXES_TWICE = ("box AP",), ("box AP", "test-dev box AP")
MASKS, MASKS_TWICE = ("box AP", "mask AP"), ("box AP", "mask AP", "test-dev mask AP")

IOU_BRANCH = ("model.head.quality=iou", "model.head.box_weight=none")
REAL_TIME = ("data.test.short_side=512", "data.test.max_side=736")
SIDE_550 = ("data.test.short_side=550", "data.test.max_side=916")
SIDE_512 = ("data.test.short_side=512", "data.test.max_side=853")


def _adelaidet(
    folder: str, figures: tuple[str, ...], *rows: tuple[str, str, str, tuple[str, ...]]
) -> Iterator[Published]:
    """Rows of name, file, figures in the order of `figures`, settings."""
    for name, file, numbers, settings in rows:
        reported = dict(zip(figures, map(float, numbers.split()), strict=True))
        yield Published(name, ADELAIDET, folder + file, reported, settings)


ALL = (
    *_adelaidet(
        FCOS,
        BOXES_TWICE,
        ("fcos_r50_1x", "FCOS_R_50_1x.pth", "38.7 38.8", ()),
        ("fcos_r50_2x", "FCOS_MS_R_50_2x.pth", "41.0 41.4", ()),
        ("fcos_r101_2x", "FCOS_MS_R_101_2x.pth", "43.1 43.2", ()),
        ("fcos_x101_32x8d_2x", "FCOS_MS_X_101_32x8d_2x.pth", "43.9 44.1", ()),
        ("fcos_x101_64x4d_2x", "FCOS_MS_X_101_64x4d_2x.pth", "44.7 44.8", ()),
        ("fcos_x101_32x8d_deformable_2x", "FCOS_MS_X_101_32x8d_dcnv2_2x.pth", "46.6 46.6", ()),
        ("fcos_rt_r50_4x", "FCOS_RT_MS_R_50_4x_syncbn.pth", "40.2 40.2", REAL_TIME),
        ("fcos_rt_r50_bn_head_4x", "FCOS_RT_MS_R_50_4x_syncbn_bn_head.pth", "39.3 39.7", REAL_TIME),
        ("fcos_rt_dla34_4x", "FCOS_RT_MS_DLA_34_4x_syncbn.pth", "40.3 40.3", REAL_TIME),
        ("fcos_rt_dla34_bn_head_4x", "FCOS_RT_MS_DLA_34_4x_syncbn_bn_head.pth", "39.4 39.9", REAL_TIME),
        ("fcos_rt_dla34_shared_4x", "FCOS_RT_MS_DLA_34_4x_syncbn_shared_towers.pth", "39.1 39.2", REAL_TIME),
        (
            "fcos_rt_dla34_shared_bn_head_4x",
            "FCOS_RT_MS_DLA_34_4x_syncbn_shared_towers_bn_head.pth",
            "38.9 39.1",
            REAL_TIME,
        ),
    ),
    *_adelaidet(
        FCOS,
        BOXES,
        ("fcos_r50_1x_iou", "FCOS_R_50_1x_iou.pth", "39.4", IOU_BRANCH),
        ("fcos_r50_2x_iou", "FCOS_MS_R_50_2x_iou.pth", "41.5", IOU_BRANCH),
        ("fcos_r101_2x_iou", "FCOS_MS_R_101_2x_iou.pth", "43.5", IOU_BRANCH),
        ("fcos_x101_32x8d_2x_iou", "FCOS_MS_X_101_32x8d_2x_iou.pth", "44.5", IOU_BRANCH),
        ("fcos_x101_32x8d_deformable_2x_iou", "FCOS_MS_X_101_32x8d_2x_dcnv2_iou.pth", "47.4", IOU_BRANCH),
    ),
    *_adelaidet(
        CONDINST,
        MASKS,
        ("condinst_r50_1x", "CondInst_MS_R_50_1x.pth", "39.7 35.7", ()),
        ("condinst_r50_3x", "CondInst_MS_R_50_3x.pth", "41.9 37.5", ()),
        ("condinst_r101_3x", "CondInst_MS_R_101_3x.pth", "43.3 38.6", ()),
        ("condinst_r50_bifpn_1x", "CondInst_MS_R_50_BiFPN_1x.pth", "42.5 37.3", ()),
        ("condinst_r50_bifpn_3x", "CondInst_MS_R_50_BiFPN_3x.pth", "44.3 38.9", ()),
        ("condinst_r50_bifpn_3x_sem", "CondInst_MS_R_50_BiFPN_3x_sem.pth", "44.7 39.4", ()),
        ("condinst_r101_bifpn_3x", "CondInst_MS_R_101_BiFPN_3x.pth", "45.3 39.6", ()),
        ("condinst_r101_bifpn_3x_sem", "CondInst_R_101_BiFPN_3x_sem.pth", "45.7 40.2", ()),
    ),
    *_adelaidet(
        CONDINST,
        MASKS_TWICE,
        ("condinst_r50_3x_sem", "CondInst_MS_R_50_3x_sem.pth", "42.6 38.2 38.7", ()),
        ("condinst_r101_3x_sem", "CondInst_MS_R_101_3x_sem.pth", "44.6 39.8 40.1", ()),
    ),
    *_adelaidet(BOXINST, MASKS, ("boxinst_r50_1x", "BoxInst_MS_R_50_1x.pth", "39.4 30.7", ())),
    *_adelaidet(
        BOXINST,
        MASKS_TWICE,
        ("boxinst_r50_3x", "BoxInst_MS_R_50_3x.pth", "41.5 31.8 32.1", ()),
        ("boxinst_r101_1x", "BoxInst_MS_R_101_1x.pth", "41.4 32.2 32.5", ()),
        ("boxinst_r101_3x", "BoxInst_MS_R_101_3x.pth", "43.3 33.0 33.2", ()),
        ("boxinst_r101_bifpn_3x", "BoxInst_MS_R_101_BiFPN_3x.pth", "45.4 34.1 33.9", ()),
        ("boxinst_r101_bifpn_dcni3_3x", "BoxInst_MS_R_101_BiFPN_dcni3_3x.pth", "46.4 34.8 35.0", ()),
    ),
    *_adelaidet(
        OTHERS,
        MASKS,
        ("blendmask_r50_1x", "R_50_1x.pth", "39.9 35.8", ()),
        ("blendmask_r50_3x", "R_50_3x.pth", "42.7 37.8", ()),
        ("blendmask_r101_3x", "R_101_3x.pth", "44.8 39.5", ()),
        ("blendmask_r101_dcni3_5x", "R_101_dcni3_5x.pth", "46.8 41.1", ()),
        ("blendmask_550_r50_3x", "550_R_50_3x.pth", "38.7 34.5", SIDE_550),
        ("blendmask_rt_r50_4x", "RT_R_50_4x_syncbn_shtw.pth", "39.3 35.1", REAL_TIME),
        ("blendmask_rt_r50_bn_head_4x", "RT_R_50_4x_bn-head_syncbn_shtw.pth", "39.3 35.1", REAL_TIME),
        ("blendmask_dla34_4x", "DLA_34_syncbn_4x.pth", "40.8 36.3", REAL_TIME),
        ("meinst_r50_1x_none", "MEInst_R_50_1x_none.pth", "39.5 30.7", ()),
        ("meinst_r50_1x", "MEInst_R_50_1x.pth", "40.1 31.7", ()),
        ("meinst_r50_3x", "MEInst_R_50_3x.pth", "43.6 34.5", ()),
        ("meinst_r50_3x_512", "MEInst_R_50_3x_512.pth", "40.8 32.2", SIDE_512),
    ),
    # Not our recipes: the settings are torchvision's own. Its names end in the first digits of the files' SHA-256.
    Published(
        "torchvision_fcos_r50",
        TORCHVISION,
        f"{PYTORCH}fcos_resnet50_fpn_coco-99b0c9b7.pth",
        {"box AP": 39.2},
        sha256="99b0c9b7",
    ),
    Published(
        "torchvision_retinanet_r50",
        TORCHVISION,
        f"{PYTORCH}retinanet_resnet50_fpn_coco-eeacb38b.pth",
        {"box AP": 36.4},
        sha256="eeacb38b",
    ),
    Published(
        "torchvision_retinanet_r50_v2",
        TORCHVISION,
        f"{PYTORCH}retinanet_resnet50_fpn_v2_coco-5905b1c5.pth",
        {"box AP": 41.5},
        sha256="5905b1c5",
    ),
)

PUBLISHED: dict[str, Published] = {one.name: one for one in ALL}
"""All of them by name."""


def no_such_weights(name: str) -> InputError:
    """What to say of a name that is neither a file nor in the table."""
    close = difflib.get_close_matches(name, PUBLISHED, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else "`perpixel list --weights` shows the names"
    return InputError(f"{name} is no file, and no weights are published under that name; {hint}")
