"""PointINS on Cityscapes (Qi et al., section 4.2): street scenes of 1024 x 2048 pixels, eight classes."""

from perpixel.data.settings import Augment, DataConfig, TestSize
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import Training
from perpixel.models.detector import DetectorConfig
from perpixel.models.pointins import PointINS
from perpixel.recipes.fcos import R50


def pointins_r50_cityscapes() -> Recipe:
    """PointINS on FCOS, ResNet-50, on Cityscapes, 24k steps of 8 images (table 15). Paper: 32.4 AP on val, 27.3 on test.

    The learning rate is 0.0005 for 18k steps and 0.00005 for 6k; short sides 800 and 1024 in training, 1024 in evaluation. The
    optimizer is Adam as in section 4.1, the section says no other. AP is by Cityscapes' rules, which `perpixel evaluate` prints.

    perpixel train pointins_r50_cityscapes data.train=cityscapes/gtFine/train data.val=cityscapes/gtFine/val
    """
    data = DataConfig(
        masks=True,
        augment=Augment(short_sides=(800, 1024), max_side=2048),
        test=TestSize(short_side=1024, max_side=2048),
    )
    training = Training(
        optimizer="adam", learning_rate=5e-4, weight_decay=0.0, steps=24_000, batch_size=8, milestones=(18 / 24,)
    )
    return Recipe("pointins_r50_cityscapes", DetectorConfig(backbone=R50, instance=PointINS()), data, training)
