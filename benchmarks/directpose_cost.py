"""What keypoints cost by the number of people: DirectPose beside torchvision's Keypoint R-CNN, both of random weights.

    uv run python benchmarks/directpose_cost.py [--size 480 640] [--repetitions 3] [--threads 1] [--device cuda]

Both have a ResNet-50 and see the same photo. "network" is all that comes before people are known: of Keypoint R-CNN the
backbone, the regions and the boxes of 1000 of them. The other columns are all that follows, with so many people in the photo. Of
DirectPose ten locations a person pass the score, and NMS of rectangles takes the best 500 (`KeypointNMS`): keypoints of all these
are predicted, then compared. On a processor milliseconds are those of the process itself, not of the clock.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch
from masks import milliseconds
from torch import Tensor
from torchvision.models.detection import keypointrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import keypointrcnn_inference

from perpixel.models.detector import DetectorConfig
from perpixel.nn.backbones import without_pretrained
from perpixel.recipes import get_recipe
from perpixel.structures import Batch, DenseOutputs

PEOPLE = (1, 5, 20, 50, 100)
LOCATIONS_A_PERSON = 10
Work = Callable[[], object]


def ours(name: str, size: tuple[int, int], device: str) -> tuple[Work, Callable[[int], Work]]:
    """DirectPose's network, and what follows it for so many people."""
    config = get_recipe(name).model
    assert isinstance(config, DetectorConfig)
    model = without_pretrained(config).build(classes=1).eval().to(device)
    images = torch.rand((1, 3, *size), device=device) * 255
    batch = Batch(images, (size,), (size,))
    outputs, dense = model(model.normalized(batch))

    def after(people: int) -> Work:
        seen = with_people(outputs, people)
        return lambda: model.detections(seen, dense, batch)

    return lambda: model(model.normalized(batch)), after


def with_people(outputs: DenseOutputs, people: int) -> DenseOutputs:
    """The same, with ten times as many locations that are sure of a person."""
    count = len(outputs.locations)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[: LOCATIONS_A_PERSON * people]
    logits = torch.full_like(outputs.logits, -10.0)
    logits[:, chosen] = 3.0
    return replace(outputs, logits=logits, quality=torch.full_like(logits[..., 0], 3.0))


def torchvisions(size: tuple[int, int], device: str) -> tuple[Work, Callable[[int], Work]]:
    """The same of Keypoint R-CNN."""
    model = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval().to(device)
    images = ImageList(torch.rand((1, 3, *size), device=device), [size])
    heads = model.roi_heads
    features = model.backbone(images.tensors)

    def network() -> object:
        maps = model.backbone(images.tensors)
        proposals, _ = model.rpn(images, maps)
        described = heads.box_head(heads.box_roi_pool(maps, proposals, [size]))
        return heads.postprocess_detections(*heads.box_predictor(described), proposals, [size])

    def after(people: int) -> Work:
        boxes = [boxes_in(size, people, device)]

        def keypoints() -> object:
            regions = heads.keypoint_roi_pool(features, boxes, [size])
            return keypointrcnn_inference(heads.keypoint_predictor(heads.keypoint_head(regions)), boxes)

        return keypoints

    return network, after


def boxes_in(size: tuple[int, int], count: int, device: str) -> Tensor:
    """Boxes of upright people, 40 to 200 pixels high."""
    random = torch.Generator().manual_seed(0)
    height = 40 + 160 * torch.rand(count, generator=random)
    sides = torch.stack([height / 2, height], dim=1)
    corner = torch.rand(count, 2, generator=random) * (torch.tensor([size[1], size[0]]) - sides)
    return torch.cat([corner, corner + sides], dim=1).to(device)


def spent(work: Work, device: str, repetitions: int) -> float:
    """Milliseconds: on a processor those of this process alone, which a busy machine disturbs little."""
    if device != "cpu":
        return milliseconds(work, device, repetitions)
    times = []
    for _ in range(repetitions):
        began = time.process_time()
        work()
        times.append(1000 * (time.process_time() - began))
    return median(times)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    size, device = (asked.size[0], asked.size[1]), asked.device
    print(
        f"{size[0]}x{size[1]}, {device}, torch {torch.__version__}, {asked.threads} thread(s), medians of {asked.repetitions}\n"
    )
    print("| | network, ms |" + "".join(f" {people} people, ms |" for people in PEOPLE))
    print("| --- |" + " ---: |" * (1 + len(PEOPLE)))
    for name, (network, after) in {
        "DirectPose": ours("directpose_r50", size, device),
        "Keypoint R-CNN (torchvision)": torchvisions(size, device),
    }.items():
        columns = [network, *map(after, PEOPLE)]
        columns[1]()  # the first call of all is no measure
        times = [f"{spent(work, device, asked.repetitions):.0f}" for work in columns]
        print(f"| {name} | {' | '.join(times)} |", flush=True)


if __name__ == "__main__":
    main()
