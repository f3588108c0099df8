"""Evaluation: from a model and a data set to numbers, alone and in two processes; test-time augmentation."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from engine_fakes import BrightSquare, Silent, Squares, photo
from perpixel.config import ConfigError
from perpixel.data.loader import test_batches as batches_of
from perpixel.data.settings import DataConfig
from perpixel.data.settings import TestSize as Size
from perpixel.engine.augmented import Augmented, Views
from perpixel.engine.evaluate import evaluate
from perpixel.errors import InputError
from perpixel.structures import Batch

DATA = DataConfig(workers=0, test=Size(120, 200))


def test_a_model_that_sees_everything():
    """Every square is found where it is, up to the blur of the resize: AP50 = 1, and the last image gives nothing."""
    dataset, model = Squares(), BrightSquare()
    model.train()
    found = evaluate(model, dataset, batches_of(dataset, DATA, batch_size=2), progress=False)
    assert model.training
    assert found.images == 5
    assert found.summary["bbox/AP50"] == pytest.approx(1)
    assert list(found.metrics) == ["bbox"]
    assert [r["image_id"] for r in found.results] == [100, 101, 102, 103]
    assert {r["category_id"] for r in found.results} == {7}
    assert found.results[2]["bbox"] == pytest.approx([18, 8, 20, 32], abs=1)
    assert found.examples == () and found.mistakes == {}


def test_masks_are_scored_where_both_have_them():
    """The mask over the whole box lacks its four corner pixels and little else: IoU > 0.9 with the square."""
    dataset = Squares(masks=True)
    both = evaluate(BrightSquare(masks=True), dataset, batches_of(dataset, DATA, batch_size=2), progress=False)
    assert list(both.metrics) == ["bbox", "segm"]
    assert both.summary["segm/AP75"] == pytest.approx(1)
    only_model = Squares()
    found = evaluate(BrightSquare(masks=True), only_model, batches_of(only_model, DATA, batch_size=2), progress=False)
    assert list(found.metrics) == ["bbox"]


def test_nothing_found_is_zero():
    dataset = Squares()
    found = evaluate(Silent(), dataset, batches_of(dataset, DATA, batch_size=2), progress=False)
    assert found.summary["bbox/AP"] == 0 and found.results == [] and found.images == 5
    assert list(found.metrics) == ["bbox"]
    drawn = Squares(masks=True)
    masks = evaluate(Silent(masks=True), drawn, batches_of(drawn, DATA, batch_size=2), progress=False)
    assert masks.summary["segm/AP"] == 0


def test_examples_are_the_worst_the_best_and_some_between():
    """All squares are found: with room for all images the empty one comes first, as nothing in it is right."""
    dataset = Squares(9)
    every = evaluate(BrightSquare(), dataset, batches_of(dataset, DATA, batch_size=4), examples=9, progress=False)
    assert [example.index for example in every.examples] == [8, *range(8)]
    assert {example.group for example in every.examples} == {"all"}
    assert every.examples[1].found.names == ["square"] and every.examples[1].note == "F1 1.00"
    few = evaluate(BrightSquare(), dataset, batches_of(dataset, DATA, batch_size=4), examples=4, progress=False)
    # Two worst, one best, and the first of the set, which is among the worst already.
    assert [(example.index, example.group) for example in few.examples] == [(8, "worst"), (0, "worst"), (7, "best")]
    assert few.mistakes["bbox"].tally.right == 8 and list(few.mistakes) == ["bbox"]


def test_images_left_out_are_not_missed_objects():
    dataset = Squares()
    batches = [b for b in batches_of(dataset, DATA, batch_size=1) if b.ids != (1,)]
    found = evaluate(BrightSquare(), dataset, batches, progress=False)
    assert found.images == 4 and found.summary["bbox/AR100"] > 0.8 and found.metrics["bbox"].per_class[0].truth == 3


def test_the_mode_returns_when_the_model_fails():
    class Broken(BrightSquare):
        def predict(self, batch):
            raise RuntimeError("out of order")

    model, dataset = Broken(), Squares()
    model.train()
    with pytest.raises(RuntimeError):
        evaluate(model, dataset, batches_of(dataset, DATA, batch_size=1), progress=False)
    assert model.training


def _one_of_two(rank: int, file: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    dataset = Squares()
    batches = batches_of(dataset, DATA, batch_size=2, rank=rank, world_size=2)
    found = evaluate(BrightSquare(), dataset, batches, examples=2, progress=False)
    summary = {
        "summary": found.summary,
        "results": found.results,
        "examples": [example.index for example in found.examples],
        "images": found.images,
    }
    Path(f"{out}.{rank}").write_text(json.dumps(summary))
    dist.destroy_process_group()


@pytest.mark.skipif(os.name == "nt", reason="the gloo file store needs POSIX paths")
def test_two_processes_give_what_one_gives(tmp_path):
    multiprocessing.spawn(_one_of_two, (str(tmp_path / "store"), str(tmp_path / "out")), nprocs=2)
    dataset = Squares()
    alone = evaluate(BrightSquare(), dataset, batches_of(dataset, DATA, batch_size=2), examples=2, progress=False)
    for rank in (0, 1):
        found = json.loads((tmp_path / f"out.{rank}").read_text())
        assert found["summary"] == alone.summary
        assert found["results"] == alone.results
        assert (found["examples"], found["images"]) == ([e.index for e in alone.examples], alone.images)


def _batch(box=(10, 8, 30, 40)) -> Batch:
    image = torch.from_numpy(photo((60, 80), box)).permute(2, 0, 1)
    padded = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
    padded[0, :, :60, :80] = image
    padded[1, :, :60, :80] = torch.from_numpy(photo((60, 80), None)).permute(2, 0, 1)
    return Batch(padded, ((60, 80),) * 2, ((60, 80),) * 2, ids=(0, 1))


def test_views_are_mapped_back_and_merged():
    """Whatever the size and the mirror, the square lies where it is; all views merge into one box."""
    model = BrightSquare().eval()
    augmented = Augmented(model, Views(short_sides=(60, 90, 240))).eval()
    first, second = augmented.predict(_batch())
    assert first.boxes[0].tolist() == pytest.approx([10, 8, 30, 40], abs=0.75)
    assert len(first) == 1 and len(second) == 0
    assert model.seen[:3] == [((60, 80),) * 2, ((90, 120),) * 2, ((240, 320),) * 2]


def test_the_mirror_view_alone_is_right():
    """At the image's own size without resampling the mirrored view's box must come back exactly."""

    class Second(BrightSquare):
        """Only what the mirrored image shows."""

        def predict(self, batch):
            found = super().predict(batch)
            return [dataclasses.replace(found[0], boxes=found[0].boxes + 500), found[1]]

    augmented = Augmented(Second().eval(), Views(short_sides=(60,))).eval()
    boxes = augmented.predict(_batch())[0].boxes.tolist()
    assert [10.0, 8.0, 30.0, 40.0] in boxes


def test_the_long_side_is_limited():
    model = BrightSquare().eval()
    Augmented(model, Views(short_sides=(600,), max_side=160, flip=False)).eval().predict(_batch())
    assert model.seen[0] == ((120, 160),)


def test_augmentation_in_an_evaluation():
    dataset = Squares()
    model = Augmented(BrightSquare(), Views(short_sides=(100, 120)))
    found = evaluate(model, dataset, batches_of(dataset, DATA, batch_size=2), progress=False)
    assert found.summary["bbox/AP50"] == pytest.approx(1)


def test_augmentation_refuses_masks():
    with pytest.raises(InputError, match="boxes or keypoints"):
        Augmented(BrightSquare(masks=True), Views(short_sides=(60,))).eval().predict(_batch())


def test_views_refuse_nonsense():
    for wrong in ({"short_sides": ()}, {"short_sides": (0,)}, {"threshold": 0.0}):
        with pytest.raises(ConfigError):
            Views(**wrong)
