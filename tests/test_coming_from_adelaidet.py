"""docs/coming_from_adelaidet.md: each recipe and setting exists, and each complaint has a test that shows it gone."""

import ast
import json
import re
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest

from perpixel.cli.main import main
from perpixel.config import override
from perpixel.data.settings import TestSize as Size
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.engine.predict import Predictor
from perpixel.recipes import get_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "coming_from_adelaidet.md"


def rows(head: str) -> list[list[str]]:
    """The cells of the page's table of that heading."""
    lines = PAGE.read_text("utf-8").splitlines()
    table = takewhile(lambda line: line.startswith("|"), lines[lines.index(head) + 2 :])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


CONFIGS = [row for row in rows("| config | recipe | settings |") if row[1].startswith("`")]
TESTS = re.findall(r"`(tests/\S+?)::(\w+)`", PAGE.read_text("utf-8"))


@pytest.mark.parametrize("row", CONFIGS, ids=lambda row: row[0].strip("`"))
def test_every_config_has_a_recipe(row):
    _, recipe, settings = row
    (name,) = re.findall(r"`(\w+)`", recipe)
    before = get_recipe(name)
    after = override(before, re.findall(r"`([^`]+)`", settings))
    # A row without settings says that the recipe is the config; one with settings changes something.
    assert (settings == "") == (after == before)


def test_no_config_stands_twice():
    names = [row[0] for row in CONFIGS]
    assert len(names) == len(set(names)) > 45


@pytest.mark.parametrize(("file", "function"), TESTS, ids=[function for _, function in TESTS])
def test_every_named_test_exists(file, function):
    parts = ast.parse((ROOT / file).read_text("utf-8")).body
    assert function in {part.name for part in parts if isinstance(part, ast.FunctionDef)}


def test_every_complaint_names_a_test():
    complaints = rows("| complaint, issues of AdelaiDet | here | test |")
    assert len(complaints) == 8 and all("::test_" in test for _, _, test in complaints)


def trained(recipe: str, data: str, out: Path) -> Path:
    """The folder of a run of one step on a network of a few layers."""
    tiny = ["model.backbone.name=test_resnet", "model.head.class_convs=1", "model.head.box_convs=1", "data.workers=0"]
    short = ["training.steps=1", "training.warmup_steps=0", "training.batch_size=2", "training.evaluate_every=null"]
    assert main(["train", recipe, f"data.train={data}", "data.val=null", *tiny, *short, "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(("data", "classes"), [("shapes:4:0", 6), ("crowds:4:0", 1)])
def test_the_class_count_comes_from_the_data(data, classes, tmp_path):
    """No setting says it: one recipe, two data sets, two sizes of the class predictor."""
    checkpoint = load_checkpoint(trained("fcos_shapes", data, tmp_path / "run") / "last.safetensors")
    assert len(checkpoint.class_names) == classes
    model = build_model(checkpoint)
    assert [w.shape[0] for name, w in model.named_parameters() if name.endswith("logits.weight")] == [classes]


def test_blendmask_needs_no_folder_of_semantic_maps(tmp_path):
    """Its semantic loss learns from a COCO file of masks; nothing is written beside it."""
    ShapesDataset(4, seed=5).write_coco(tmp_path / "data")
    files = sorted((tmp_path / "data").rglob("*"))
    out = trained("blendmask_shapes", f"{tmp_path}/data/instances.json", tmp_path / "run")
    (step,) = (row for row in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "semantic" in str(row))
    assert "semantic" in json.dumps(step)
    assert sorted((tmp_path / "data").rglob("*")) == files


def test_photos_of_two_sizes_in_one_batch():
    """CondInst predicts them together, each mask in the pixels of its own photo."""
    settings = ["model.selection.threshold=0.0", "model.selection.keep=3", "model.backbone.name=test_resnet"]
    recipe = override(get_recipe("condinst_shapes"), settings)
    predictor = Predictor(recipe.model.build(3), ("a", "b", "c"), Size(64, 128), "cpu")
    sizes = [(70, 90), (120, 60)]
    photos = [np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8) for size in sizes]
    found = predictor.predict(photos, score=0.0, batch_size=2)
    assert [len(one) for one in found] == [3, 3]
    assert [one.masks.shape[1:] for one in found] == sizes
