"""FCOS R-50 against torchvision's in one run: network, post-processing, end to end; training steps; memory.

Interleaved repetitions on the same input, so that a busy neighbour slows both; ratios of medians are what counts. Both models
hold the same weights (torchvision's, converted), so both find the same objects.

    python benchmarks/inference.py --device cpu --threads 2
"""

import argparse
import copy
import json
import multiprocessing
import platform
import resource
import statistics
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor

import torch
from torchvision.models.detection import fcos_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

from perpixel.engine.convert import convert_checkpoint
from perpixel.structures import Batch, Targets


def models(device: str, size: tuple[int, int] = (480, 640)):
    torch.manual_seed(0)
    theirs = fcos_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        min_size=min(size),  # its own resize leaves the image alone
        max_size=max(size),
    )
    # Random weights score everything alike; spread the logits so that a real number of detections passes.
    torch.nn.init.normal_(theirs.head.classification_head.cls_logits.weight, std=0.02)
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


def their_postprocessing(theirs, normalized):
    """What torchvision does after its network, as a function of no arguments."""
    maps = list(theirs.backbone(normalized).values())
    images = ImageList(normalized, [(normalized.shape[2], normalized.shape[3])])
    counts = [m.shape[2] * m.shape[3] for m in maps]
    outputs = {name: list(value.split(counts, dim=1)) for name, value in theirs.head(maps).items()}
    anchors = [list(a.split(counts)) for a in theirs.anchor_generator(images, maps)]
    return lambda: theirs.postprocess_detections(outputs, anchors, images.image_sizes)


def inference(device: str, size: tuple[int, int], repetitions: int) -> dict[str, float]:
    ours, theirs = models(device, size)
    fast = copy.deepcopy(ours).to(memory_format=torch.channels_last)
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
            "ours channels_last": lambda: fast.predict(batch),
            "ours post-processing": lambda: ours.selection.choose(outputs, batch.sizes),
            "torchvision post-processing": their_postprocessing(theirs, normalized),
        }
        found, truth = len(ours.predict(batch)[0]), len(theirs([normalized[0]])[0]["boxes"])
        row = interleaved(functions, device, repetitions)
    return {**row, "detections": found, "torchvision detections": truth}


def training(device: str, size: tuple[int, int], images: int, repetitions: int) -> dict[str, float]:
    ours, theirs = models(device, size)
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


def peak_of_prediction(device: str, size: tuple[int, int]) -> float:
    ours, _ = models(device)
    batch = Batch(torch.randint(256, (1, 3, *size), dtype=torch.uint8, device=device), (size,))
    ours.predict(batch)
    return peak(device)


def peak_of_training(device: str, objects: int) -> float:
    ours, _ = models(device)
    corner = torch.rand(objects, 2, device=device) * 300
    boxes = torch.cat([corner, corner + 20 + torch.rand(objects, 2, device=device) * 100], dim=1)
    target = Targets(boxes, torch.ones(objects, dtype=torch.long, device=device))
    image = torch.randint(256, (1, 3, 480, 640), dtype=torch.uint8, device=device)
    sum(ours.train().loss(Batch(image, ((480, 640),), targets=(target,))).values()).backward()
    return peak(device)


def peak(device: str) -> float:
    """MiB of this process, or of the GPU."""
    if "cuda" in device:
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def memory(device: str):
    """Peak memory of a prediction against the image's size, of a training step against the objects; a fresh process each."""
    cases = [("predict", peak_of_prediction, size) for size in ((480, 640), (800, 1088), (1600, 2176))]
    cases += [("train 480x640, objects", peak_of_training, count) for count in (1, 10, 100, 500)]
    context = multiprocessing.get_context("spawn")
    for name, function, value in cases:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            yield {name: value, "peak MiB": round(pool.submit(function, device, value).result())}


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
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
