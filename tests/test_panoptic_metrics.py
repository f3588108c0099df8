"""Panoptic quality: by hand, against the obvious loop over segments, and against hotcoco on files of COCO's form."""

import json
from dataclasses import replace
from pathlib import Path

import hotcoco.panoptic
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perpixel.data.open import open_dataset
from perpixel.data.panoptic import segments_of
from perpixel.data.panoptic_format import categories_of, to_coco
from perpixel.engine.panoptic_metrics import count_segments, panoptic_metrics
from perpixel.structures import Segments, Stuff

SAMPLE = Path(__file__).resolve().parents[2] / "shared/data/panoptic_sample"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"{SAMPLE} is not here: COCO's two panoptic examples")


def segments(rows, labels, crowd=()):
    """Segments from nested lists of rows, -1 for void."""
    groups = torch.tensor([row in crowd for row in range(len(labels))], dtype=torch.bool)
    return Segments(torch.tensor(rows), torch.tensor(labels, dtype=torch.long), torch.ones(len(labels)), groups)


def slow_quality(pairs, classes):
    """PQ, SQ, RQ of each class by loops over segments, as Kirillov et al. and panopticapi's documentation tell it."""
    found, wrong, missed, overlap = ([0] * classes for _ in range(4))
    for truth, predicted in pairs:
        masks = [truth.map == row for row in range(len(truth))]
        others = [predicted.map == row for row in range(len(predicted))]
        void = truth.map == -1
        true_found, other_found = set(), set()
        for i, mask in enumerate(masks):
            for j, other in enumerate(others):
                if truth.crowd[i] or truth.labels[i] != predicted.labels[j]:
                    continue
                both = int((mask & other).sum())
                union = int((mask | other).sum()) - int((other & void).sum())
                if both and both / union > 0.5:
                    label = int(truth.labels[i])
                    found[label] += 1
                    overlap[label] += both / union
                    true_found.add(i)
                    other_found.add(j)
        for i, mask in enumerate(masks):
            if i not in true_found and not truth.crowd[i] and mask.any():
                missed[int(truth.labels[i])] += 1
        for j, other in enumerate(others):
            label = predicted.labels[j]
            silent = void.clone()
            for i, mask in enumerate(masks):
                if truth.crowd[i] and truth.labels[i] == label:
                    silent |= mask
            if j not in other_found and other.any() and int((other & silent).sum()) / int(other.sum()) <= 0.5:
                wrong[int(label)] += 1
    quality = []
    for tp, fp, fn, iou in zip(found, wrong, missed, overlap, strict=True):
        if tp + fp + fn == 0:
            quality.append((-1.0, -1.0, -1.0))
        else:
            quality.append((iou / (tp + fp / 2 + fn / 2), iou / tp if tp else 0.0, tp / (tp + fp / 2 + fn / 2)))
    return np.array(quality)


def quality_of(pairs, things, stuff):
    names = [str(i) for i in range(things + stuff)]
    counts = [count_segments(truth, predicted, things + stuff) for truth, predicted in pairs]
    return panoptic_metrics(counts, names[:things], names[things:])


def test_by_hand():
    """A 2 x 6 photo, classes 0 (thing) and 1 (stuff).

    Truth: object A on 4 pixels, stuff on 6, 2 void. Predicted: an object on 3 of A's and 1 of stuff's pixels, stuff on 5 of
    its 6 pixels, one void pixel besides, an object on the other void pixel.
    A: intersection 3, union 4 + 4 - 3 = 5: IoU 0.6. Stuff: 5 of 6, its void pixel does not count: 5 / 6. The object on void is
    not wrong. So things: 1 found, PQ = SQ = 0.6, RQ 1; stuff PQ 5/6. One pixel of A is predicted void.
    """
    truth = segments([[0, 0, 1, 1, 1, -1], [0, 0, 1, 1, 1, -1]], [0, 1])
    predicted = segments([[0, 0, 1, 1, 1, 1], [0, -1, 0, 1, 1, 2]], [0, 1, 0])
    found = quality_of([(truth, predicted)], things=1, stuff=1)
    assert found.summary["PQ_things"] == pytest.approx(0.6, abs=1e-12)
    assert found.summary["PQ_stuff"] == pytest.approx(5 / 6, abs=1e-12)
    assert found.summary["PQ"] == pytest.approx((0.6 + 5 / 6) / 2, abs=1e-12)
    assert found.summary["RQ"] == 1 and found.summary["SQ"] == found.summary["PQ"]
    assert [(row.truth, row.predicted) for row in found.per_class] == [(1, 1), (1, 1)]


def test_half_an_overlap_is_none():
    """IoU of exactly 1/2 is no match: one wrong, one missed; a hair more is one: 3 of 5 pixels."""
    truth = segments([[0, 0, 0, -1, -1, -1]], [0])
    half = segments([[0, 0, -1, -1, -1, -1]], [0])
    assert quality_of([(truth, half)], 1, 0).summary["PQ"] == pytest.approx(2 / 3)
    truth = segments([[0, 0, 0, 0, 1, 1]], [0, 1])
    half = segments([[0, 0, -1, -1, 1, 1]], [0, 1])
    found = quality_of([(truth, half)], 2, 0)
    assert (found.per_class[0].pq, found.per_class[0].truth, found.per_class[0].predicted) == (0, 1, 1)
    assert found.per_class[1].pq == 1 and found.summary["PQ"] == 0.5


def test_groups():
    """A group is not missed; what lies on groups of its class and void is not wrong, on a group of another class it is."""
    truth = segments([[0, 0, 0, 1, 1, -1]], [0, 1], crowd={0})
    predicted = segments([[0, 0, 1, -1, 2, -1]], [0, 1, 0])
    found = quality_of([(truth, predicted)], 2, 0)
    # Class 0: its first segment lies on the group (silent), its other on an object of class 1 (wrong).
    # Class 1: its segment lies on the group of class 0 (wrong); its object is missed.
    assert [(row.truth, row.predicted, row.pq) for row in found.per_class] == [(0, 1, 0), (1, 1, 0)]


def test_nothing_and_perfection():
    empty = segments([[-1, -1]], [])
    found = quality_of([(empty, empty)], 1, 1)
    assert set(found.summary.values()) == {-1.0} and [row.pq for row in found.per_class] == [-1.0, -1.0]
    truth = segments([[0, 1], [2, -1]], [0, 0, 1])
    assert quality_of([(truth, truth)], 1, 1).summary["PQ"] == 1
    assert quality_of([(truth, segments([[-1, -1], [-1, -1]], []))], 1, 1).summary["PQ"] == 0


def random_segments(random, size, classes, count, crowds):
    """Rectangles upon each other; what is left is void. Rows without a pixel stay, as a merge may leave none."""
    rows = np.full(size, -1)
    for row in range(count):
        y, x = random.integers(size[0] - 2), random.integers(size[1] - 2)
        rows[y : y + random.integers(2, 9), x : x + random.integers(2, 9)] = row
    labels = random.integers(classes, size=count)
    groups = random.random(count) < 0.2 if crowds else np.zeros(count, dtype=bool)
    return Segments(torch.from_numpy(rows), torch.from_numpy(labels), torch.ones(count), torch.from_numpy(groups))


def disturbed(truth, random):
    """Some segments of the truth dropped, some of another class, the map moved a little."""
    rows = np.roll(truth.map.numpy(), random.integers(-1, 2, size=2), axis=(0, 1))
    rows = np.where(np.isin(rows, np.flatnonzero(random.random(len(truth)) < 0.2)), -1, rows)
    other = torch.from_numpy(random.integers(5, size=len(truth)))
    labels = torch.where(torch.from_numpy(random.random(len(truth)) < 0.8), truth.labels, other)
    return replace(truth, map=torch.from_numpy(rows), labels=labels, crowd=torch.zeros_like(truth.crowd))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_equals_the_loop(seed):
    random = np.random.default_rng(seed)
    truths = [random_segments(random, (16, 20), 5, int(random.integers(0, 12)), True) for _ in range(3)]
    pairs = [(truth, disturbed(truth, random)) for truth in truths[:2]]
    pairs.append((truths[2], random_segments(random, (16, 20), 5, 6, False)))
    slow = slow_quality(pairs, 5)
    ours = quality_of(pairs, 3, 2)
    rows = np.array([(row.pq, row.sq, row.rq) for row in ours.per_class])
    assert np.abs(rows - slow).max() < 1e-9
    occur = slow[:, 0] >= 0
    for ending, chosen in (
        ("", occur),
        ("_things", occur & (np.arange(5) < 3)),
        ("_stuff", occur & (np.arange(5) > 2)),
    ):
        expected = slow[chosen].mean(0) if chosen.any() else np.full(3, -1.0)
        assert [ours.summary[name + ending] for name in ("PQ", "SQ", "RQ")] == pytest.approx(expected, abs=1e-9)


def written(folder, name, pairs, classes, stuff):
    """A panoptic json with its pictures; without groups where they are results."""
    (folder / name).mkdir()
    annotations, images = [], []
    for number, one in enumerate(pairs, start=1):
        colors, infos = to_coco(one, (*classes.values(), *stuff.category_ids))
        Image.fromarray(colors).save(folder / name / f"{number}.png")
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": infos})
        images.append({"id": number, "file_name": f"{number}.jpg", "height": len(colors), "width": colors.shape[1]})
    categories = categories_of(tuple(classes), tuple(classes.values()), stuff)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def hotcoco_quality(folder, pairs, classes, stuff):
    truth = written(folder, "truth", [pair[0] for pair in pairs], classes, stuff)
    found = written(folder, "found", [pair[1] for pair in pairs], classes, stuff)
    return hotcoco.panoptic.pq_compute(str(truth), str(found))


def same_as_hotcoco(ours, theirs):
    for kind, ending in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        for name in ("pq", "sq", "rq"):
            assert ours.summary[name.upper() + ending] == pytest.approx(theirs[kind][name], abs=1e-9)


def test_equals_hotcoco(tmp_path):
    random = np.random.default_rng(7)
    truths = [random_segments(random, (40, 60), 5, 30, False) for _ in range(4)]
    pairs = [(truth, disturbed(truth, random)) for truth in truths]
    classes, stuff = {"a": 3, "b": 8, "c": 21}, Stuff(("d", "e"), (150, 184))
    same_as_hotcoco(quality_of(pairs, 3, 2), hotcoco_quality(tmp_path, pairs, classes, stuff))


@needs_sample
def test_coco_sample(tmp_path):
    """Both photos of COCO, their truth moved by some pixels and thinned out; with crowds and void as they are."""
    dataset = open_dataset(SAMPLE / "panoptic_examples.json", SAMPLE / "input_images")
    random = np.random.default_rng(3)
    pairs = []
    for index in range(2):
        truth = segments_of(dataset, index)
        rows = np.roll(truth.map.numpy(), (2, -3), axis=(0, 1))
        rows = np.where(np.isin(rows, np.flatnonzero(random.random(len(truth)) < 0.15)), -1, rows)
        found = replace(truth, map=torch.from_numpy(rows), crowd=torch.zeros_like(truth.crowd))
        pairs.append((truth, found))
    ours = quality_of(pairs, len(dataset.classes), len(dataset.stuff))
    slow = slow_quality(pairs, len(dataset.classes) + len(dataset.stuff))
    rows = np.array([(row.pq, row.sq, row.rq) for row in ours.per_class])
    assert np.abs(rows - slow).max() < 1e-9 and 0.3 < ours.summary["PQ"] < 0.95
    classes = dict(zip(dataset.classes, dataset.category_ids, strict=True))
    same_as_hotcoco(ours, hotcoco_quality(tmp_path, pairs, classes, dataset.stuff))
    assert quality_of([(t, replace(t, crowd=torch.zeros_like(t.crowd))) for t, _ in pairs], 80, 53).summary["PQ"] == 1
