"""One question, one answer: alone or in a batch, padded or not, whatever the threads, the order of files and the way to disk."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perpixel.data.loader import test_batches as held_out_batches
from perpixel.data.settings import DataConfig
from perpixel.data.settings import TestSize as Size
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.checkpoint import build_model, load_checkpoint, save_checkpoint
from perpixel.engine.evaluate import evaluate
from perpixel.engine.metrics import coco_metrics
from perpixel.engine.predict import Predictor, predict_to_folder
from perpixel.engine.sources import Frame
from perpixel.models.candidates import Selection
from perpixel.models.condinst import CondInst
from perpixel.nn.backbones import Backbone
from perpixel.recipes import get_recipe

SHAPES = ShapesDataset(6, seed=3)
SIZE = Size(64, 96)


@pytest.fixture(scope="module")
def recipe():
    """CondInst on a tiny network; fresh weights give scores around 0.01, so all that scores at all is compared."""
    found = get_recipe("condinst_shapes")
    model = found.model
    tiny = Backbone("test_resnet", stages=model.backbone.stages, weights=None, norm="train", frozen_stages=0)
    model = replace(model, backbone=tiny, neck=replace(model.neck, channels=32))
    assert isinstance(model.instance, CondInst) and isinstance(model.selection, Selection)
    model = replace(model, selection=replace(model.selection, threshold=0.0, keep=50))
    return replace(found, model=model)


@pytest.fixture(scope="module")
def model(recipe):
    torch.manual_seed(0)
    model = recipe.model.build(len(SHAPES.classes), 0)
    # Scores far apart, so that no tie decides the order.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model.eval()


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model, SHAPES.classes, SIZE, "cpu", category_ids=SHAPES.category_ids)


def photos(*sizes: tuple[int, int]) -> list[Frame]:
    return [Frame(np.random.default_rng(n).integers(0, 256, (*size, 3), np.uint8)) for n, size in enumerate(sizes)]


def assert_same(first, second, bound: float) -> None:
    """As many objects, scores within `bound`, boxes within as many pixels, masks that differ in no more than a pixel in 200."""
    assert len(first) == len(second) > 5
    assert np.abs(first.scores - second.scores).max() <= bound
    assert np.abs(first.boxes - second.boxes).max() <= 100 * bound
    assert np.array_equal(first.labels, second.labels)
    for row in range(0, len(first), 7):
        assert (first.mask(row) != second.mask(row)).mean() <= 0.005


def test_a_batch_equals_each_photo_alone(predictor):
    """Of one size: sums are ordered differently in larger batches, so equal to rounding."""
    frames = photos((64, 96), (64, 96), (64, 96))
    together = predictor.predict_frames(frames, 0.0)
    for frame, found in zip(frames, together, strict=True):
        assert_same(found, predictor.predict_frames([frame], 0.0)[0], 1e-5)


def test_padding_changes_little(predictor):
    """A photo beside a larger one gets a margin of zeros. Its maps are the same but near the margin, and for GroupNorm, whose
    means run over the whole map; no bound but a measured one: docs/reliability.md."""
    frame, larger = photos((64, 64), (96, 64))
    alone, padded = predictor.predict_frames([frame], 0.0)[0], predictor.predict_frames([frame, larger], 0.0)[0]
    assert abs(float(alone.scores[0] - padded.scores[0])) < 0.01
    again = predictor.predict_frames([frame, larger], 0.0)[0]
    assert np.array_equal(padded.boxes, again.boxes) and np.array_equal(padded.scores, again.scores)


def test_one_thread_equals_two(predictor):
    (frame,) = photos((64, 96))
    one = predictor.predict_frames([frame], 0.0)[0]
    torch.set_num_threads(2)
    try:
        two = predictor.predict_frames([frame], 0.0)[0]
    finally:
        torch.set_num_threads(1)
    assert_same(one, two, 1e-5)


def test_the_order_of_files_does_not_matter(predictor, tmp_path):
    names = []
    for n in range(4):
        Image.fromarray(SHAPES.image(n)).save(tmp_path / f"{n}.png")
        names.append(tmp_path / f"{n}.png")

    def found(paths: list[Path], out: Path) -> dict[str, list]:
        done = predict_to_folder(predictor, paths, out, score=0.0, gallery=0, progress=False)
        rows: dict[str, list] = {}
        for row in json.loads(done.results.read_text()):
            rows.setdefault(row["file_name"], []).append({k: v for k, v in row.items() if k != "image_id"})
        return rows

    forward, backward = found(names, tmp_path / "a"), found(names[::-1], tmp_path / "b")
    assert forward == backward and len(forward) == 4


def test_save_load_save_is_the_identity(recipe, model, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_checkpoint(
        first, model, recipe, SHAPES.classes, category_ids=SHAPES.category_ids, step=3, metrics={"bbox/AP": 1 / 3}
    )
    loaded = load_checkpoint(first)
    save_checkpoint(
        second,
        build_model(loaded),
        loaded.recipe,
        loaded.class_names,
        category_ids=loaded.category_ids,
        step=loaded.step,
        metrics=loaded.metrics,
    )
    assert first.read_bytes() == second.read_bytes()


def test_results_from_a_file_score_as_in_memory(model, tmp_path):
    data = DataConfig(workers=0, test=SIZE)
    found = evaluate(model, SHAPES, held_out_batches(SHAPES, data, batch_size=2), progress=False)
    (tmp_path / "results.json").write_text(json.dumps(found.results))
    truth = json.loads(json.dumps(SHAPES.coco_truth()))
    assert len(found.results) > 50
    for kind in ("bbox", "segm"):
        again = coco_metrics(truth, json.loads((tmp_path / "results.json").read_text()), kind)
        assert again.summary == found.metrics[kind].summary


def test_batches_of_an_evaluation_do_not_change_its_results(model):
    """One by one, or two together of the same size."""
    data = DataConfig(workers=0, test=SIZE)
    one, two = (
        evaluate(model, SHAPES, held_out_batches(SHAPES, data, batch_size=n), progress=False).results for n in (1, 2)
    )
    assert len(one) == len(two)
    np.testing.assert_allclose([r["score"] for r in one], [r["score"] for r in two], atol=1e-5)
