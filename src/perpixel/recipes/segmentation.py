"""Semantic segmentation: arch2 on single images (thesis 004, appendix A.1), and dynamic cells on videos (chapter 6)."""

from dataclasses import replace

from perpixel.data.settings import Augment, Color, DataConfig, TestSize
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import PartTraining, Training
from perpixel.models.segmenter import Segmenter
from perpixel.models.video_segmenter import SIMPLE_CELL, VideoSegmenter
from perpixel.nn.backbones import Backbone
from perpixel.nn.dynamic_cell import CellGenotype

CAMVID_IMAGES = 367
CITYSCAPES_IMAGES = 2975

FOUND_CELL = CellGenotype.parse([[3, 2, 4, 2, 5], [1, 1, 4, 0, 1], [3, 1, 0, 5, 0], [4, 2, 4, 1, 5], [2, 3, 4, 5, 5]])
"""Of 60 cells of a search on CamVid's training split the second best there, and the better one once trained (docs/search.md)."""


def arch2_camvid() -> Recipe:
    """arch2 on CamVid, MobileNetV2, 2000 epochs: the per-frame baseline.

    perpixel train arch2_camvid data.train=camvid/train data.val=camvid/val

    Paper (thesis 004, table 6.3, test split): mIoU 65.3, mAcc 76.1, gAcc 90.8, tIoU 41.4. Ours: docs/results.md.
    """
    # Random scales of 0.5 to 2 of frames of 480 x 360, crops of 600 x 600.
    augment = Augment(short_sides=(360,), max_side=10_000, scale_jitter=(0.5, 2.0), crop_size=600)
    data = DataConfig(augment=augment, test=TestSize(360, 10_000), stuff="all")
    return Recipe("arch2_camvid", Segmenter(), data, _static_training(2000, CAMVID_IMAGES, 32))


def arch2_cityscapes() -> Recipe:
    """arch2 on Cityscapes, MobileNetV2, 1000 epochs: the per-frame baseline.

    perpixel train arch2_cityscapes data.train=gtFine/train data.val=gtFine/val

    Paper (thesis 004, table 6.4, val split): mIoU 74.4, accuracy 82.6, tIoU 40.1. Ours: not trained.
    """
    augment = Augment(short_sides=(1024,), max_side=10_000, scale_jitter=(0.5, 2.0), crop_size=800)
    data = DataConfig(augment=augment, test=TestSize(1024, 10_000), stuff="all")
    return Recipe("arch2_cityscapes", Segmenter(), data, _static_training(1000, CITYSCAPES_IMAGES, 28))


def arch2_mobilenetv2() -> Recipe:
    """arch2 for one's own classes of pixels, MobileNetV2, images of about 512 pixels.

    perpixel train arch2_mobilenetv2 data=my.yaml
    """
    augment = Augment(
        short_sides=(384,),
        max_side=10_000,
        scale_jitter=(0.5, 2.0),
        crop_size=384,
        color=Color(brightness=0.3, contrast=0.3, saturation=0.3),
    )
    data = DataConfig(augment=augment, test=TestSize(384, 10_000), stuff="all")
    training = Training(
        steps=6000,
        batch_size=8,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=1e-2,
        warmup_steps=100,
        schedule="poly",
        clip_gradients=10.0,
        evaluate_every=1000,
        save_every=500,
    )
    return Recipe("arch2_mobilenetv2", Segmenter(), data, training)


def arch2_scenes() -> Recipe:
    """arch2 from random weights on synthetic scenes, in minutes on two processor cores.

    perpixel train arch2_scenes
    """
    recipe = arch2_mobilenetv2()
    backbone = Backbone("mobilenetv2_035", stages=(4, 8, 16, 32), norm="train", frozen_stages=0, weights=None)
    augment = Augment(short_sides=(128, 160), max_side=320, scale_jitter=(0.75, 1.5), crop_size=128)
    data = replace(
        recipe.data,
        train="scenes:2000:0",
        val="scenes:100:1",
        augment=augment,
        test=TestSize(160, 320),
    )
    training = replace(recipe.training, steps=1500, learning_rate=3e-3, evaluate_every=500)
    return replace(
        recipe, name="arch2_scenes", model=Segmenter(backbone=backbone, width=32), data=data, training=training
    )


def dynamic_cell_camvid() -> Recipe:
    """A dynamic cell on a trained arch2, CamVid: the first stage of 6.4.2, the cell alone, 10 epochs of Adam.

    perpixel train dynamic_cell_camvid data.train=camvid/train data.val=camvid/val training.init_from=arch2/best.safetensors

    The thesis does not say which cells it found: this one is chosen by hand, and `model.cell` takes any other. Windows are of 3
    frames, in batches of 16. Go on with dynamic_cell_camvid_end_to_end.
    """
    static = arch2_camvid()
    # Whole frames of 480 x 360: the thesis pads their shorter side to 400, the loader to a multiple of 32.
    augment = replace(static.data.augment, scale_jitter=(1.0, 1.0))
    training = Training(
        steps=10 * CAMVID_IMAGES // 16,
        batch_size=16,
        optimizer="adam",
        learning_rate=8e-3,
        weight_decay=0.0,
        warmup_steps=0,
        milestones=(),
        evaluate_every=None,
    )
    return Recipe(
        "dynamic_cell_camvid",
        VideoSegmenter(cell=SIMPLE_CELL, static="fixed"),
        replace(static.data, augment=augment, frames=3),
        training,
    )


def dynamic_cell_camvid_end_to_end() -> Recipe:
    """The second stage of 6.4.2 on CamVid: cell and static network together, 100 epochs.

    perpixel train dynamic_cell_camvid_end_to_end data.train=camvid/train data.val=camvid/val \\
        training.init_from=dynamic_cell_camvid/last.safetensors

    The cell by Adam at 4e-3, the static network by SGD with momentum 0.9 at 5e-4.
    Paper (thesis 004, table 6.3, test split), with cells it does not name: mIoU 66.6 and 66.9, mAcc 77.6 and 78.5, gAcc 91.1 and
    90.1, tIoU 42.6 and 42.4. Ours: docs/results.md.
    """
    first = dynamic_cell_camvid()
    return replace(
        first,
        name="dynamic_cell_camvid_end_to_end",
        model=replace(first.model, static="trained"),
        training=_end_to_end(100 * CAMVID_IMAGES // 16),
    )


def dynamic_cell_camvid_found() -> Recipe:
    """The first stage on CamVid with a cell that a search of ours found among 60.

    perpixel train dynamic_cell_camvid_found data.train=camvid/train data.val=camvid/val training.init_from=arch2/best.safetensors

    Not the thesis's cells, which are not known; what ours reached: docs/results.md.
    """
    return _with_found_cell("dynamic_cell_camvid_found", dynamic_cell_camvid())


def dynamic_cell_camvid_found_end_to_end() -> Recipe:
    """The second stage on CamVid with that cell.

    perpixel train dynamic_cell_camvid_found_end_to_end data.train=camvid/train data.val=camvid/val \\
        training.init_from=dynamic_cell_camvid_found/last.safetensors
    """
    return _with_found_cell("dynamic_cell_camvid_found_end_to_end", dynamic_cell_camvid_end_to_end())


def dynamic_cell_cityscapes() -> Recipe:
    """A dynamic cell on a trained arch2, Cityscapes: the cell alone, 200 epochs.

    perpixel train dynamic_cell_cityscapes data.train=gtFine/train data.val=gtFine/val training.init_from=arch2/best.safetensors

    Windows are of 2 frames, the second labelled: unpack leftImg8bit_sequence beside leftImg8bit.
    """
    first = dynamic_cell_camvid()
    data = arch2_cityscapes().data
    augment = replace(data.augment, scale_jitter=(1.0, 1.0), crop_size=769)
    return replace(
        first,
        name="dynamic_cell_cityscapes",
        data=replace(data, augment=augment, frames=2),
        training=replace(first.training, steps=200 * CITYSCAPES_IMAGES // 16),
    )


def dynamic_cell_cityscapes_end_to_end() -> Recipe:
    """The second stage on Cityscapes: cell and static network together, 200 epochs.

    perpixel train dynamic_cell_cityscapes_end_to_end data.train=gtFine/train data.val=gtFine/val \\
        training.init_from=dynamic_cell_cityscapes/last.safetensors

    Paper (thesis 004, table 6.4, val split), with cells it does not name: mIoU 75.6 and 75.6, accuracy 84.4 and 83.7, tIoU 41.5
    and 41.5. Ours: not trained.
    """
    first = dynamic_cell_cityscapes()
    return replace(
        first,
        name="dynamic_cell_cityscapes_end_to_end",
        model=replace(first.model, static="trained"),
        training=_end_to_end(200 * CITYSCAPES_IMAGES // 16),
    )


def _with_found_cell(name: str, recipe: Recipe) -> Recipe:
    assert isinstance(recipe.model, VideoSegmenter)
    return replace(recipe, name=name, model=replace(recipe.model, cell=FOUND_CELL))


def _static_training(epochs: int, images: int, batch_size: int) -> Training:
    """Appendix A.1: poly, 5e-2 for the encoder and 1e-2 for the decoder."""
    return Training(
        steps=epochs * images // batch_size,
        batch_size=batch_size,
        learning_rate=1e-2,
        parts=(PartTraining("backbone", learning_rate_factor=5.0),),
        weight_decay=1e-5,
        warmup_steps=0,
        schedule="poly",
        evaluate_every=2000,
    )


def _end_to_end(steps: int) -> Training:
    static = ("backbone", "decoder", "classifier", "auxiliary")
    return Training(
        steps=steps,
        batch_size=16,
        optimizer="adam",
        learning_rate=4e-3,
        parts=tuple(PartTraining(name, learning_rate_factor=5e-4 / 4e-3, optimizer="sgd") for name in static),
        weight_decay=0.0,
        warmup_steps=0,
        milestones=(),
        evaluate_every=1000,
    )
