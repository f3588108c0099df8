"""Real photos, small models: detectors beside torchvision's FCOS, and mask methods beside each other, on one MobileNetV2.

Every model starts from the same ImageNet weights and sees the same batches (same seed, same augmentation) under the same
schedule; all are scored by the same evaluation. One line of JSON a run goes to OUT/results.jsonl.

    python benchmarks/real_data.py --data DATA --out runs/real --sets bccd person --models fcos retinanet torchvision
    python benchmarks/real_data.py --data DATA --out runs/real --sets nuclei person --models condinst boxinst pointins
"""

import argparse
import json
import subprocess
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torchvision.models.detection import FCOS as TorchvisionFCOSModule
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from perpixel.data.settings import DataConfig, TestSize
from perpixel.engine.recipe import Recipe
from perpixel.engine.report import evaluate_checkpoint
from perpixel.engine.train import train
from perpixel.models.detector import DetectorConfig
from perpixel.models.heads import Losses, Model, ModelConfig
from perpixel.nn.backbones import Backbone
from perpixel.nn.layers import Pixels
from perpixel.recipes import get_recipe
from perpixel.structures import Batch, Detections

PIXELS = Pixels(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))

OWN = {
    "retinanet": "retinanet_mobilenetv2",
    "condinst": "condinst_mobilenetv2",
    "boxinst": "boxinst_mobilenetv2",
    "pointins": "pointins_mobilenetv2",
    "pointins_retinanet": "pointins_retinanet_mobilenetv2",
    "meinst": "meinst_mobilenetv2",
    "smalmask": "smalmask_mobilenetv2",
    "smalmask2": "smalmask2_mobilenetv2",
    "blendmask": "blendmask_mobilenetv2",
}
"""Our recipe of each model; the others take FCOS's."""

MASKS_GIVEN = ("condinst", "pointins", "pointins_retinanet", "meinst", "smalmask", "smalmask2", "blendmask")
MANY = 500
"""Detections of an image of nuclei, which has up to 375."""


@dataclass(frozen=True)
class TorchvisionFCOS(ModelConfig):
    """torchvision's FCOS, head and losses untouched, on our backbone with torchvision's own pyramid.

    Its regressor starts at boxes of almost no size behind a ReLU, whose IoU has almost no gradient; in a short run it may never
    leave them (box loss 1.000). `bias` starts every side at that many strides, so that the comparison is one of detectors.
    """

    backbone: Backbone
    channels: int = 128
    bias: float = 0.0

    def build(self, classes: int) -> Model:
        return TorchvisionModel(self, classes)


class Pyramid(nn.Module):
    def __init__(self, config: TorchvisionFCOS):
        super().__init__()
        self.body = config.backbone.build()
        top = LastLevelP6P7(config.channels, config.channels)
        self.fpn = FeaturePyramidNetwork(list(self.body.channels), config.channels, top)
        self.out_channels = config.channels

    def forward(self, x):
        return self.fpn(OrderedDict((str(i), m) for i, m in enumerate(self.body(x))))


class TorchvisionModel(Model):
    def __init__(self, config: TorchvisionFCOS, classes: int):
        super().__init__()
        # Images come normalised; its own resize is told, image by image, to leave the size alone.
        self.net = TorchvisionFCOSModule(
            Pyramid(config), classes, image_mean=[0.0] * 3, image_std=[1.0] * 3, score_thresh=0.05, _skip_resize=True
        )
        nn.init.constant_(self.net.head.regression_head.bbox_reg.bias, config.bias)

    def images(self, batch: Batch) -> list[torch.Tensor]:
        normalized = PIXELS.normalize(batch.images, batch.sizes)
        return [image[:, :h, :w] for image, (h, w) in zip(normalized, batch.sizes, strict=True)]

    def loss(self, batch: Batch) -> Losses:
        targets = [{"boxes": t.boxes, "labels": t.labels} for t in batch.truth()]
        return self.net(self.images(batch), targets)

    @torch.inference_mode()
    def predict(self, batch: Batch) -> list[Detections]:
        found = []
        for image, size in zip(self.images(batch), batch.sizes, strict=True):
            self.net.transform.min_size, self.net.transform.max_size = (min(size),), max(size)
            (one,) = self.net([image])
            found.append(Detections(one["boxes"], one["scores"], one["labels"], size))
        return found


def recipe_of(model: str, data: DataConfig, weights: Path, steps: int, batch_size: int) -> Recipe:
    backbone = Backbone("mobilenetv2_100", weights=str(weights), frozen_stages=0)
    own = get_recipe(OWN.get(model, "fcos_mobilenetv2"))
    config = replace(own.model, backbone=backbone, pixels=PIXELS)
    if model == "boxinst":  # the recipe's 1000 of 6000 steps
        config = replace(config, instance=replace(config.instance, warmup_steps=steps // 6))
    if model in MASKS_GIVEN:
        data = replace(data, masks=True)
    if model == "fcos_plain_box_loss":  # torchvision's: GIoU unsmoothed, every positive weighs the same
        config = replace(config, head=replace(config.head, iou_smoothing=0.0, box_weight="none"))
    if model.startswith("torchvision"):
        config = TorchvisionFCOS(backbone, bias=1.0 if model == "torchvision_bias1" else 0.0)
    training = replace(own.training, steps=steps, batch_size=batch_size, evaluate_every=None, save_every=steps)
    return Recipe(f"{model}_mobilenetv2", config, data, training)


def sets(root: Path, workers: int, short_side: int) -> dict[str, DataConfig]:
    """All sets at training short sides of 3/4, 7/8 and all of `short_side`, tested at `short_side`."""
    base = get_recipe("fcos_mobilenetv2").data
    sides = (short_side * 3 // 4, short_side * 7 // 8, short_side)
    size = {
        "workers": workers,
        "augment": replace(base.augment, short_sides=sides, max_side=short_side * 3 // 2),
        "test": TestSize(short_side, short_side * 3 // 2),
    }
    cells, people = root / "bccd/splits", root / "coco_person/annotations"
    nuclei, photos = root / "dsb2018_nuclei/annotations", root / "coco80_mini/annotations"
    return {
        "bccd": DataConfig(train=str(cells / "trainval.txt"), val=str(cells / "test.txt"), skip_bad=True, **size),
        "person": DataConfig(
            train=str(people / "person_train_masks.json"), val=str(people / "person_val.json"), **size
        ),
        "nuclei": DataConfig(
            train=str(nuclei / "instances_train.json"), val=str(nuclei / "instances_val.json"), skip_bad=True, **size
        ),
        "coco80": DataConfig(
            train=str(photos / "instances_train.json"), val=str(photos / "instances_val.json"), skip_bad=True, **size
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["bccd", "person"])
    parser.add_argument("--models", nargs="+", default=["fcos", "retinanet", "torchvision", "torchvision_bias1"])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--short-side", type=int, default=416)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    weights = arguments.data / "weights/mobilenet_v2_google_qat_dequant_bnfolded.npz"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    for name in arguments.sets:
        for model in arguments.models:
            data = sets(arguments.data, arguments.workers, arguments.short_side)[name]
            recipe = recipe_of(model, data, weights, arguments.steps, arguments.batch_size)
            recipe = replace(recipe, training=replace(recipe.training, seed=arguments.seed))
            many = MANY if name == "nuclei" else None
            if many is not None and isinstance(recipe.model, DetectorConfig):
                selection = replace(recipe.model.selection, keep=many)
                recipe = replace(recipe, model=replace(recipe.model, selection=selection))
            out = arguments.out / f"{name}_{model}_{arguments.seed}"
            began = time.perf_counter()
            train(recipe, out, device=arguments.device)
            minutes = (time.perf_counter() - began) / 60
            found = evaluate_checkpoint(
                out / "last.safetensors",
                lambda r: r,
                out=out / "evaluation",
                device=arguments.device,
                batch_size=4,
                max_detections=many,
            )
            row = {
                "set": name,
                "model": model,
                "seed": arguments.seed,
                "steps": arguments.steps,
                "batch_size": arguments.batch_size,
                "short_side": arguments.short_side,
                "minutes": round(minutes, 2),
                **{
                    name: round(100 * value, 2) for name, value in found.summary.items() if "/AP" in name and value >= 0
                },
                "commit": commit,
                "device": torch.cuda.get_device_name() if "cuda" in arguments.device else "cpu",
                "torch": torch.__version__,
            }
            print(json.dumps(row), flush=True)
            with (arguments.out / "results.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
