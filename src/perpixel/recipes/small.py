"""What the recipes for one's own data share: MobileNetV2, a pyramid of 128 channels, images of about 512 pixels, 6000 steps."""

from perpixel.data.settings import Augment, Color, DataConfig, TestSize
from perpixel.engine.settings import Training
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.heads import BoxHeadConfig
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN

SMALL_DATA = DataConfig(
    augment=Augment(
        short_sides=(320, 352, 384, 416, 448, 480, 512),
        max_side=800,
        scale_jitter=(0.8, 1.25),
        crop=0.6,
        color=Color(brightness=0.3, contrast=0.3, saturation=0.3),
    ),
    test=TestSize(short_side=416, max_side=704),
)

SMALL_TRAINING = Training(
    steps=6000,
    batch_size=8,
    learning_rate=0.01,
    warmup_steps=100,
    milestones=(0.7, 0.9),
    clip_gradients=10.0,
    evaluate_every=1000,
    save_every=500,
)

SMALL_FCOS = FCOS(initial_distance=1.0)
"""Boxes start at a size: at the references' 0, short training may never leave boxes without one (docs/methods/fcos.md)."""


def small_detector(head: BoxHeadConfig) -> DetectorConfig:
    """A detector of a few million parameters around any box head."""
    return DetectorConfig(backbone=Backbone("mobilenetv2_100.ra_in1k"), neck=FPN(channels=128), head=head)
