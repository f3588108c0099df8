"""What a GPU would refuse, and how often the host would wait for one, found without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from perpixel.recipes import all_recipes, get_recipe

SCRIPT = Path(__file__).parent / "pretended_gpu.py"
MOST = {
    "fcos_r50_1x": (2, 8),
    "fcos_crowds": (2, 11),
    "retinanet_r50_1x": (3, 8),
    "nas_fcos_mobilenetv2": (2, 8),
    "pointins_mobilenetv2": (8, 12),
    "condinst_r50_1x": (5, 14),
    "condinst_r50_1x_mask_nms": (5, 41),
    "boxinst_r50_1x": (8, 15),
    "meinst_r50_1x": (5, 12),
    "smalmask_shapes": (6, 12),
    "smalmask2_rt_r50_3x": (6, 12),
    "blendmask_r50_1x": (5, 12),
    "blendmask_panoptic_shapes": (5, 25),
    "dr1mask_shapes": (5, 13),
    "dr1mask_panoptic_shapes": (12, 24),
    "directpose_mobilenetv2": (12, 21),
    "arch2_camvid": (0, 10),
    "dynamic_cell_camvid_end_to_end": (0, 10),
}
"""Waits of a training step and of a photo of 100 objects, from its pixels to run lengths: no method waits for each object.

MaskNMS waits for every class and every 32 of the 500 masks that it compares.
"""
LEAST = {"condinst_r50_1x_mask_nms": 10, "arch2_camvid": -1, "dynamic_cell_camvid_end_to_end": -1}
"""More objects than these are found; others find more than 90."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def lines():
    done = run()
    assert done.returncode == 0, done.stderr[-3000:]
    return {line["recipe"]: line for line in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("recipe", MOST)
def test_nothing_mixes_devices_and_the_numbers_are_the_processors(lines, recipe):
    line = lines[recipe]
    assert line["losses"] and line["found"]
    assert line["objects"] > LEAST.get(recipe, 90)


@pytest.mark.parametrize("recipe", MOST)
def test_the_host_waits_a_few_times_whatever_is_found(lines, recipe):
    of_step, of_photo = MOST[recipe]
    assert lines[recipe]["waits of a step"] <= of_step and lines[recipe]["waits of a photo"] <= of_photo


def kinds(name):
    """The classes of a recipe's parts."""
    model = get_recipe(name).model
    detector = getattr(model, "detector", model)
    parts = [model, *(getattr(detector, part, None) for part in ("head", "instance", "duplicates"))]
    return {type(part) for part in parts}


def test_every_method_is_listed(lines):
    """Every model, head, instance head and policy for duplicates that a recipe has."""
    assert lines.keys() == MOST.keys()
    assert set().union(*map(kinds, MOST)) == set().union(*map(kinds, all_recipes()))


def test_the_pretended_gpu_refuses_what_a_gpu_refuses():
    """One tensor here and one there in an operation, an index there of a tensor here, NumPy on one there.

    A single number may come from the processor, and indices may: two of three ones are left.
    """
    assert run("--refuses").stdout.split() == ["mixed", "index", "numpy", "2.0"]
