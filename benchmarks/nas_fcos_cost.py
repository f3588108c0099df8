"""Table 7.2 of thesis 004: what NAS-FCOS and its rivals cost, ours beside the paper's, and what the paper's counter has besides.

    uv run python benchmarks/nas_fcos_cost.py

Ours counts convolutions and matrix products of what is used. The paper's count has, besides:
- C2: the first code brings C2 to the pyramid's width, although no block of the found pyramid takes it;
- rest: one for every number that a bias is added to or that a ReLU gives, two for every number that a batch norm gives; but
  nothing of a ResNet's frozen norms and ReLUs, which are functions there.
"""

from dataclasses import dataclass

import torch
from torch import nn

from perpixel.config import override
from perpixel.engine.cost import CLASSES, cost_of
from perpixel.models.detector import DetectorConfig
from perpixel.nn.backbones import without_pretrained
from perpixel.nn.cells import SearchedFPN
from perpixel.recipes import get_recipe

SIZE = (800, 1088)

# As the references have them: MobileNetV2's norms are trained, a ResNet's stride is in its 1x1 convolution, P6 reads P5.
_MOBILE = "model.backbone.name=mobilenetv2_100 model.backbone.norm=train model.backbone.frozen_stages=1"
_CAFFE = "model.backbone.stride_in_1x1=true"
_P5 = "model.neck.top_from=p5"
_R101 = f"model.backbone.name=resnet101 {_CAFFE}"

C2_CHANNELS = {"MobileNetV2": 24, "R-50": 256, "R-101": 256, "X-64x4d-101": 256}

ROWS = (
    ("FPN-RetinaNet @256", "MobileNetV2", "retinanet_r50_1x", f"{_P5} {_MOBILE}", 133.4, 11.3),
    ("FPN-FCOS @256", "MobileNetV2", "fcos_r50_1x", _MOBILE, 105.4, 9.8),
    ("NAS-FCOS @128", "MobileNetV2", "nas_fcos_mnv2_128_1x", "", 39.3, 5.9),
    ("NAS-FCOS @128-256", "MobileNetV2", "nas_fcos_mnv2_128_256_1x", "", 95.6, 9.9),
    ("NAS-FCOS @256", "MobileNetV2", "nas_fcos_mnv2_256_1x", "", 121.8, 16.1),
    ("FPN-RetinaNet @256", "R-50", "retinanet_r50_1x", f"{_P5} {_CAFFE}", 198.0, 33.6),
    ("FPN-FCOS @256", "R-50", "fcos_r50_1x", _CAFFE, 169.9, 32.0),
    ("NAS-FCOS @128", "R-50", "nas_fcos_r50_128_1x", _CAFFE, 104.0, 27.8),
    ("NAS-FCOS @128-256", "R-50", "nas_fcos_r50_128_256_1x", _CAFFE, 160.4, 31.8),
    ("NAS-FCOS @256", "R-50", "nas_fcos_r50_256_1x", _CAFFE, 189.6, 38.4),
    ("FPN-RetinaNet @256", "R-101", "retinanet_r50_1x", f"{_P5} {_R101}", 262.4, 52.5),
    ("FPN-FCOS @256", "R-101", "fcos_r50_1x", _R101, 234.3, 50.9),
    ("NAS-FCOS @256", "R-101", "nas_fcos_r101_256_1x", _CAFFE, 254.0, 57.3),
    ("FPN-FCOS @256", "X-64x4d-101", "fcos_x101_64x4d_2x", "", 371.2, 89.6),
    ("NAS-FCOS @128-256", "X-64x4d-101", "nas_fcos_x101_128_256_1x", "", 361.6, 89.4),
)
"""Decoder, backbone, our recipe and its settings, the paper's multiply-adds in G and trained parameters in M. The rows "with
improvements" have the same network as those without."""


@dataclass(frozen=True)
class Measured:
    """Of one row: ours, and what the paper's counter has besides, in multiply-adds; trained parameters."""

    ours: int
    c2: int
    rest: int
    trained: int

    @property
    def theirs(self) -> int:
        """What the paper's counter says of the network."""
        return self.ours + self.c2 + self.rest


def measure(backbone: str, recipe: str, settings: str) -> Measured:
    """A row of the table."""
    config = override(get_recipe(recipe), settings.split()).model
    assert isinstance(config, DetectorConfig)
    total = cost_of(config, SIZE)[-1]
    c2 = c2_norm = 0
    if isinstance(config.neck, SearchedFPN):
        pixels, width = SIZE[0] * SIZE[1] // 16, config.neck.channels // config.neck.widen
        c2, c2_norm = pixels * C2_CHANNELS[backbone] * width, 3 * pixels * width
    return Measured(total.multiply_adds, c2, rest(config) + c2_norm, total.trained)


def rest(config: DetectorConfig) -> int:
    """Biases, batch norms and ReLUs, but those of a backbone with frozen norms."""
    model = without_pretrained(config).build(CLASSES).eval().to("meta")
    count = 0

    def add(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal count
        times = 2 if isinstance(module, nn.BatchNorm2d) else 1
        count += times * output.numel()

    for name, module in model.named_modules():
        biased = isinstance(module, nn.Conv2d) and module.bias is not None
        function = name.startswith("backbone.") and config.backbone.norm == "frozen"
        if not function and (biased or isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.ReLU6)):
            module.register_forward_hook(add)
    with torch.no_grad():
        model(torch.empty((1, 3, *SIZE), device="meta"))
    return count


def main() -> None:
    """Prints the table."""
    print(
        "| decoder | backbone | paper (G) | ours (G) | C2 (G) | rest (G) | sum (G) | off | paper (M) | ours (M) | off |"
    )
    print(f"| --- | --- |{' ---: |' * 9}")
    for decoder, backbone, recipe, settings, flops, parameters in ROWS:
        m = measure(backbone, recipe, settings)
        total, trained = m.theirs / 1e9, m.trained / 1e6
        print(
            f"| {decoder} | {backbone} | {flops} | {m.ours / 1e9:.2f} | {m.c2 / 1e9:.2f} | {m.rest / 1e9:.2f} | {total:.2f} | "
            f"{total / flops - 1:+.1%} | {parameters} | {trained:.2f} | {trained / parameters - 1:+.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
