r"""Tables 4.1 to 4.3 of DirectPose on real photos, at the scale of a processor: each row from the same trained detector.

    uv run python benchmarks/directpose_people.py --data DATA --start runs/real/person_fcos_0/last.safetensors --out runs/people
    uv run python benchmarks/keypoint_error.py runs/people/*/last.safetensors \
        data.val=DATA/coco_person/annotations/person_val.json

`--start` is an FCOS of people on MobileNetV2 (benchmarks/real_data.py trains it), whose box predictor is taken off. Every row
learns keypoints with the same batches and schedule, the backbone stays as it was. There is no evaluation: so short a training
gives no AP worth a name.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from perpixel.config import override
from perpixel.data.settings import DataConfig, TestSize
from perpixel.engine.ablation import Table, choose_rows, row_folder
from perpixel.engine.files import load_tensors, save_tensors
from perpixel.engine.train import train
from perpixel.recipes import get_recipe
from perpixel.recipes.directpose_tables import ALIGNMENT, DESIGN, HEAT_MAPS

RECIPE = "directpose_mobilenetv2"
PEOPLE = Table(
    "directpose_people",
    "thesis 002, tables 4.1 to 4.3, on photos of people",
    RECIPE,
    (ALIGNMENT.rows[0], *DESIGN.rows, replace(HEAT_MAPS.rows[2], name="heat maps")),
)
BOX_PREDICTOR = ("box_head.distances.", "box_head.scales.")


def without_box_predictor(detector: Path, start: Path) -> None:
    """The detector's weights without those that only boxes need."""
    tensors, document = load_tensors(detector)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(BOX_PREDICTOR)}
    save_tensors(start, kept, document)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=(), help="by name or number; all by default")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--short-side", type=int, default=144)
    parser.add_argument("--device")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    start, side = asked.out / "start.safetensors", asked.short_side
    without_box_predictor(asked.start, start)
    recipe = get_recipe(RECIPE)
    data = DataConfig(
        train=str(asked.data / "coco_person/annotations/person_train_masks.json"),
        workers=0,
        augment=replace(recipe.data.augment, short_sides=(side * 3 // 4, side * 7 // 8, side), max_side=side * 3 // 2),
        test=TestSize(side, side * 3 // 2),
    )
    settings = [
        f"training.steps={asked.steps}",
        f"training.batch_size={asked.batch_size}",
        f"training.warmup_steps={asked.steps // 10}",
        f"training.init_from={start}",
        f"training.save_every={asked.steps}",
        "model.backbone.frozen_stages=5",
        "model.pixels.mean=[127.5,127.5,127.5]",
        "model.pixels.std=[127.5,127.5,127.5]",
    ]
    recipe = override(replace(recipe, data=data), settings)
    for row in choose_rows(PEOPLE, asked.rows):
        print(row.name, flush=True)
        train(override(recipe, row.settings), row_folder(PEOPLE, row, asked.out), device=asked.device)


if __name__ == "__main__":
    main()
