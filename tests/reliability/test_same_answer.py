"""One question, one answer: alone or in a batch, padded or not, whatever the threads, the order of files and the way to disk."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perpixel.cli.main import main
from perpixel.data.loader import test_batches as held_out_batches
from perpixel.data.settings import DataConfig
from perpixel.data.settings import TestSize as Size
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.checkpoint import build_model, load_checkpoint, save_checkpoint
from perpixel.engine.evaluate import evaluate
from perpixel.engine.files import load_tensors
from perpixel.engine.logs import read_log
from perpixel.engine.metrics import coco_metrics
from perpixel.engine.predict import Predictor
from perpixel.engine.prediction_folder import predict_to_folder
from perpixel.engine.sources import Frame
from perpixel.models.candidates import Selection
from perpixel.models.condinst import CondInst
from perpixel.nn.backbones import Backbone
from perpixel.recipes import get_recipe

SHAPES = ShapesDataset(6, seed=3)
SIZE = Size(64, 96)
TINY = [
    *("model.backbone.name=test_resnet", "model.backbone.weights=null", "model.backbone.norm=train"),
    *("model.backbone.frozen_stages=0", "model.neck.channels=32", "data.train=shapes:4", "data.val=null"),
    *("data.workers=0", "data.augment.short_sides=[64]", "data.augment.max_side=96"),
    *("training.steps=2", "training.batch_size=2", "training.warmup_steps=1", "training.log_every=1"),
]


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


def test_what_a_neighbour_shows_does_not_matter(predictor):
    """Beside a larger photo a smaller one gets a margin of zeros, which its maps see (docs/reliability.md says how much); but
    only the margin's size counts, whatever the larger photo shows and wherever in the batch it stands."""
    frame, one = photos((64, 64), (96, 64))
    other = Frame(255 - one.image)
    padded = predictor.predict_frames([frame, one], 0.0)[0]
    assert_same(padded, predictor.predict_frames([frame, other], 0.0)[0], 1e-5)
    assert_same(padded, predictor.predict_frames([other, frame], 0.0)[1], 1e-5)
    assert_same(padded, predictor.predict_frames([frame, one, other], 0.0)[0], 1e-5)
    # The test can fail: a change of one pixel of the photo itself shows.
    changed = frame.image.copy()
    changed[30:34, 30:34] = 0
    apart = predictor.predict_frames([Frame(changed), one], 0.0)[0]
    assert np.abs(apart.scores - padded.scores).max() > 1e-5


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


def test_the_same_seed_gives_the_same_run(tmp_path):
    """Two steps with augmentation: with or without processes that load the data the same weights bit for bit; not so with
    another seed."""

    def weights(name: str, *settings: str) -> dict[str, torch.Tensor]:
        out = tmp_path / name
        assert main(["train", "condinst_shapes", *TINY, *settings, "--out", str(out), "--device", "cpu"]) == 0
        return load_tensors(out / "last.safetensors")[0]

    first, again, other = weights("a"), weights("b", "data.workers=1"), weights("c", "training.seed=1")
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    losses = [[row["loss"] for row in read_log(tmp_path / name / "log.jsonl")] for name in "abc"]
    assert losses[0] == losses[1] != losses[2] and len(losses[0]) == 2


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
