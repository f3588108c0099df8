"""FCOS R-50 against torchvision's in one run: network, post-processing, end to end; training steps; memory.

Interleaved repetitions on the same input, so that a busy neighbour slows both; ratios of medians are what counts. Both models
hold the same weights (torchvision's, converted), so both find the same objects.

    python benchmarks/inference.py --device cpu --threads 2
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import time

import torch
from torchvision.models.detection import fcos_resnet50_fpn

from perpixel.engine.convert import convert_checkpoint
from perpixel.structures import Batch, Targets


def models(device: str):
    torch.manual_seed(0)
    theirs = fcos_resnet50_fpn(
        weights=None, weights_backbone=None, _skip_resize=True, image_mean=[0.0] * 3, image_std=[1.0] * 3
    )
    # Random weights score everything alike; spread the logits so that a real number of detections passes.
    torch.nn.init.normal_(theirs.head.classification_head.cls_logits.weight, std=0.05)
    torch.nn.init.constant_(theirs.head.regression_head.bbox_reg.bias, 2.0)
    ours = convert_checkpoint(theirs.state_dict()).build()
    return ours.to(device).eval(), theirs.to(device).eval()


def timed(function, device: str) -> float:
    if "cuda" in device:
        torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    if "cuda" in device:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) * 1000


def interleaved(functions: dict, device: str, repetitions: int) -> dict[str, float]:
    times = {name: [] for name in functions}
    for _ in range(3):
        for function in functions.values():
            timed(function, device)
    for _ in range(repetitions):
        for name, function in functions.items():
            times[name].append(timed(function, device))
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def inference(device: str, size: tuple[int, int], repetitions: int) -> dict[str, float]:
    ours, theirs = models(device)
    image = torch.randint(256, (3, *size), dtype=torch.uint8, device=device)
    batch = Batch(image[None], (size,))
    with torch.inference_mode():
        normalized = ours.normalized(batch)
        outputs, _ = ours(normalized)
        functions = {
            "ours": lambda: ours.predict(batch),
            "torchvision": lambda: theirs([normalized[0]]),
            "ours network": lambda: ours(normalized),
            "torchvision network": lambda: theirs.head(list(theirs.backbone(normalized).values())),
            "ours post-processing": lambda: ours.selection.choose(outputs, batch.sizes),
        }
        found, truth = len(ours.predict(batch)[0]), len(theirs([normalized[0]])[0]["boxes"])
        row = interleaved(functions, device, repetitions)
    row["torchvision post-processing"] = round(row["torchvision"] - row["torchvision network"], 2)
    return {**row, "detections": found, "torchvision detections": truth}


def training(device: str, size: tuple[int, int], images: int, repetitions: int) -> dict[str, float]:
    ours, theirs = models(device)
    ours.train(), theirs.train()
    boxes = torch.tensor([[20.0, 30.0, 200.0, 180.0], [250.0, 100.0, 400.0, 300.0]], device=device)
    labels = torch.tensor([1, 2], device=device)
    batch = Batch(
        torch.randint(256, (images, 3, *size), dtype=torch.uint8, device=device),
        (size,) * images,
        targets=(Targets(boxes, labels),) * images,
    )
    normalized = ours.normalized(batch)

    def step(model, losses):
        model.zero_grad(set_to_none=True)
        sum(losses().values()).backward()

    targets = [{"boxes": boxes, "labels": labels}] * images
    functions = {
        "ours": lambda: step(ours, lambda: ours.loss(batch)),
        "torchvision": lambda: step(theirs, lambda: theirs(list(normalized), targets)),
    }
    times = interleaved(functions, device, repetitions)
    return {f"{name} images/s": round(1000 * images / value, 2) for name, value in times.items()}


def memory(device: str) -> list[dict[str, float]]:
    """Peak memory of a prediction against the image's size, and of a training step against the number of objects."""
    ours, _ = models(device)
    rows = []

    def peak(function) -> float:
        if "cuda" in device:
            torch.cuda.reset_peak_memory_stats()
            function()
            return torch.cuda.max_memory_allocated() / 2**20
        function()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    for size in ((480, 640), (800, 1088), (1600, 2176)):
        batch = Batch(torch.randint(256, (1, 3, *size), dtype=torch.uint8, device=device), (size,))
        rows.append({"predict": f"{size[0]}x{size[1]}", "peak MiB": round(peak(lambda b=batch: ours.predict(b)))})
    ours.train()
    for count in (1, 10, 100, 500):
        corner = torch.rand(count, 2, device=device) * 300
        boxes = torch.cat([corner, corner + 20 + torch.rand(count, 2, device=device) * 100], dim=1)
        target = Targets(boxes, torch.ones(count, dtype=torch.long, device=device))
        image = torch.randint(256, (1, 3, 480, 640), dtype=torch.uint8, device=device)
        batch = Batch(image, ((480, 640),), targets=(target,))
        rows.append(
            {"train, objects": count, "peak MiB": round(peak(lambda b=batch: sum(ours.loss(b).values()).backward()))}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    name = (
        torch.cuda.get_device_name()
        if "cuda" in arguments.device
        else f"{platform.processor()} {arguments.threads} threads"
    )
    print(json.dumps({"device": name, "torch": torch.__version__, "commit": commit}))
    for size in ((480, 640), (800, 1088)):
        print(
            json.dumps(
                {"inference": f"{size[0]}x{size[1]}", **inference(arguments.device, size, arguments.repetitions)}
            ),
            flush=True,
        )
    images = 8 if "cuda" in arguments.device else 2
    size = (800, 1088) if "cuda" in arguments.device else (320, 416)
    print(
        json.dumps(
            {"training": f"{images} x {size}", **training(arguments.device, size, images, arguments.repetitions)}
        ),
        flush=True,
    )
    for row in memory(arguments.device):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
