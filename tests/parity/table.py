"""Prints the table of docs/parity.md: `python -m tests.parity.table`."""

import platform
import subprocess
import sys
from collections.abc import Iterable

import torch
import torchvision

from .runs import MODELS, Measured, case

# Titles of the rows, and how the stages they gather begin, after the case.
GROUPS = {
    "normalised input": ("image_normalized_padded",),
    "backbone res3-res5, of BiFPN res6, res7 too, of DLA all levels": ("bottom_up/",),
    "pyramid": ("feat/",),
    "class logits": ("head/logits", "head/cls_logits"),
    "regression": ("head/reg", "head/bbox_regression"),
    "centre-ness": ("head/ctr", "head/bbox_ctrness"),
    "mask features": ("mask_feats",),
    "bases": ("bases",),
    "filters, attentions": ("head/top", "prop/top_feat"),
    "codes": ("head/mask_coef",),
    "masks over boxes": ("prop/pred_masks",),
    "mask logits, at stride 4 or over boxes": ("mask_logits_stride4", "mask_logits_roi"),
    "boxes in the network's frame (px)": ("prop/boxes",),
    "scores in the network's frame": ("prop/scores",),
    "final boxes (px)": ("det/boxes",),
    "final scores": ("det/scores",),
    "detections without a partner": ("prop unpaired", "det unpaired", "prop/locations"),
    "masks of the photo (share of its pixels)": ("det/masks",),
    "training labels that differ": ("labels",),
    "box targets": ("box targets",),
    "losses": ("loss ",),
    "gradients (sum, absolute sum, norm; of the largest norm)": ("gradients",),
    "batch norm statistics after the step": ("statistics",),
}


def main() -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    measured = {name: [*case(name).measure_inference(), *case(name).measure_training()] for name in MODELS}
    print(f"Commit {_output('git', 'rev-parse', '--short', 'HEAD')}, {_processor()}, torch {torch.__version__},")
    print(f"torchvision {torchvision.__version__}, Python {platform.python_version()}, one thread, {_when()}.\n")
    print(f"| stage | may differ by | {' | '.join(f'`{name}`' for name in MODELS)} |")
    print(f"| --- | --- |{' ---: |' * len(MODELS)}")
    for title, starts in GROUPS.items():
        rows = [_of(measured[name], starts) for name in MODELS]
        tolerance = max(m.tolerance for row in rows for m in row)
        cells = [_number(row) for row in rows]
        print(f"| {title} | {tolerance:g} | {' | '.join(cells)} |")
    wrong = [m for row in measured.values() for m in row if not m.difference <= m.tolerance]
    for m in wrong:
        print(f"\nOUT OF TOLERANCE: {m}", file=sys.stderr)
    sys.exit(bool(wrong))


def _of(measured: Iterable[Measured], starts: tuple[str, ...]) -> list[Measured]:
    return [m for m in measured if m.stage.removeprefix("A/").removeprefix("B/").startswith(starts)]


def _number(row: list[Measured]) -> str:
    if not row:
        return "not stored"
    largest = max(m.difference for m in row)
    return f"{largest:g}" if row[0].unit == "count" or largest == 0 else f"{largest:.1e}"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _when() -> str:
    return _output("date", "-I")


if __name__ == "__main__":
    main()
