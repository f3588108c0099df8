"""CondInst after the network: time and peak memory of masks, from candidates to run lengths in pixels of the photo.

The fastest of 7 rounds, so that a busy neighbour counts little; one process a case, so that peaks do not mix.

    python benchmarks/after_network.py [--photos 480x640 1080x1920 2160x3840] [--instances 1 10 100 500]
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from masks import STRIDES, blobs, maps_of, some_candidates

from perpixel.engine.allocator import keep_freed_memory
from perpixel.models.condinst import CondInst
from perpixel.ops.mask_windows import encoded
from perpixel.structures import ImageMasks


def status(field: str) -> float:
    """MiB of a field of the process's status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {field}")


@torch.inference_mode()
def case(photo: tuple[int, int], count: int, threads: int, keep: bool) -> tuple[float, float, float]:
    """Milliseconds of both parts and MiB; `keep` freed memory, as the command line does, or give it back, to see the peak."""
    torch.set_num_threads(threads)
    if keep:
        keep_freed_memory()
    scale = min(800 / min(photo), 1333 / max(photo))
    size = (round(photo[0] * scale), round(photo[1] * scale))
    padded = (-(-size[0] // 32) * 32, -(-size[1] // 32) * 32)
    head = CondInst().build(256, 256, STRIDES, 80).eval()
    dense, shapes = maps_of(padded, "cpu")
    found = some_candidates(shapes, count, "cpu")
    # The head's masks are of random weights: their own shapes would be noise, so round objects are encoded.
    values, boxes = blobs(count, padded[0] // 4, padded[1] // 4, "cpu"), torch.zeros(count, 4)
    # One object before the peak is watched: what the first call loads of the libraries is no memory of masks.
    head.predict(dense, found.rows(torch.tensor([0])))
    list(encoded(ImageMasks(values[:1], 4), boxes[:1], size, photo))
    Path("/proc/self/clear_refs").write_text("5")
    before, head_times, run_times = status("VmRSS"), [], []
    for _ in range(7):
        began = time.perf_counter()
        head.predict(dense, found)
        predicted = time.perf_counter()
        list(encoded(ImageMasks(values, 4), boxes, size, photo))
        head_times.append(predicted - began)
        run_times.append(time.perf_counter() - predicted)
    peak = status("VmHWM") - before
    return 1000 * min(head_times), 1000 * min(run_times), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", nargs="+", default=["480x640", "1080x1920", "2160x3840"], metavar="HEIGHTxWIDTH")
    parser.add_argument("--instances", nargs="+", type=int, default=[1, 10, 100, 500])
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    print(
        "| photo | instances | masks at stride 4, ms | to run lengths of the photo, ms | peak above the network's maps, MiB |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    context = multiprocessing.get_context("spawn")
    for photo in asked.photos:
        height, width = (int(side) for side in photo.split("x"))
        for count in asked.instances:
            found = []
            for keep in (True, False):
                with ProcessPoolExecutor(1, mp_context=context) as pool:
                    found.append(pool.submit(case, (height, width), count, asked.threads, keep).result())
            (head, runs, _), (_, _, peak) = found
            print(f"| {photo} | {count} | {head:.0f} | {runs:.0f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
