"""How long BlendMask's blender takes for 1 to 500 instances (thesis 004, 4.4.2: 0.6 ms whatever their number, on a 1080Ti).

    uv run python benchmarks/blender.py [--size 800 1333] [--repetitions 20] [--threads 1] [--device cuda]

The bases and the box tower's maps are made up. "Attentions" is the top layer at candidates; "blender" is what the thesis times:
bases cut out, attentions enlarged, softmax, weighted sum. Memory is what the prediction of so many masks adds at its highest,
their 56 x 56 probabilities included (GPU only).
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from masks import STRIDES, maps_of, milliseconds, some_candidates
from pointins_cost import boxes_at

from perpixel.models.blendmask import BlendMask, Maps
from perpixel.ops.blend import blend, cut_bases, enlarge

COUNTS = (1, 10, 100, 500)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1333), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device, config = asked.device, BlendMask(semantic_weight=0.0)
    head = config.build(256, 256, STRIDES, 80).eval().to(device)
    towers, shapes = maps_of((asked.size[0], asked.size[1]), device)
    height, width = shapes[0]
    bases = torch.randn(1, config.bases, 2 * height, 2 * width, device=device)
    dense = Maps(bases, towers.towers, towers.towers[0])
    print(
        f"{asked.size[0]}x{asked.size[1]}, {device}, torch {torch.__version__}, {asked.threads} thread(s), medians of "
        f"{asked.repetitions}\n"
    )
    print(
        "| instances | attentions, ms | blender, ms | all masks, ms | memory, MB |\n| ---: | ---: | ---: | ---: | ---: |"
    )
    for count in COUNTS:
        found = some_candidates(shapes, count, device)
        boxes = boxes_at(found)
        found = replace(found, boxes=boxes)
        attention = head.attentions(dense, found)

        def merged(found=found, boxes=boxes, attention=attention) -> torch.Tensor:
            cut = cut_bases(bases, boxes, found.image, head.bottom.stride, config.region, config.cutting)
            return blend(cut, enlarge(attention, config.region, config.enlarging))

        works = (
            lambda found=found: head.attentions(dense, found),
            merged,
            lambda found=found: head.predict(dense, found).values,
        )
        spent = [f"{milliseconds(work, device, asked.repetitions):.2f}" for work in works]
        print(f"| {count} | {' | '.join(spent)} | {memory(works[-1], device)} |", flush=True)


def memory(work: Callable[[], object], device: str) -> str:
    """What the work adds to the GPU's memory at its highest."""
    if not device.startswith("cuda"):
        return "not measured"
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return f"{(torch.cuda.max_memory_allocated() - before) / 1e6:.0f}"


if __name__ == "__main__":
    main()
