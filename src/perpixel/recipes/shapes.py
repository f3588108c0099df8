"""Small enough for a processor and no download: what `perpixel demo` trains."""

from perpixel.data.settings import Augment, DataConfig, TestSize
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import Training
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.ops.assign import LevelRanges

SHAPES_FCOS = FCOS(class_convs=2, box_convs=2, initial_distance=1.0, levels=LevelRanges((32.0, 64.0)))


def fcos_shapes() -> Recipe:
    """FCOS from random weights on synthetic shapes, in about two minutes on two processor cores.

    perpixel train fcos_shapes
    """
    model = DetectorConfig(
        backbone=Backbone("regnetx_002", weights=None, norm="train", frozen_stages=0),
        neck=FPN(channels=64, top_levels=0),
        head=SHAPES_FCOS,
    )
    data = DataConfig(
        train="shapes:2000:0",
        val="shapes:100:1",
        augment=Augment(short_sides=(128,), max_side=192),
        test=TestSize(short_side=128, max_side=192),
    )
    training = Training(
        steps=400,
        batch_size=12,
        optimizer="adamw",
        learning_rate=0.003,
        weight_decay=0.01,
        warmup_steps=20,
        schedule="cosine",
        clip_gradients=5.0,
        evaluate_every=None,
        save_every=200,
        log_every=20,
    )
    return Recipe("fcos_shapes", model, data, training)
