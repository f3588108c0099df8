"""Cityscapes: a made-up miniature of its layout is read and trained on; AP by its rules, by hand and by a slow obvious loop."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from perpixel.cli.main import main
from perpixel.data.cityscapes import CityscapesDataset, objects_of
from perpixel.data.masks import draw_shape, encode
from perpixel.data.open import open_dataset
from perpixel.engine.cityscapes_metrics import (
    OVERLAPS,
    ClassInImage,
    Prediction,
    average_precision,
    cityscapes_metrics,
    class_precisions,
    judge,
    lay_out,
)
from perpixel.errors import InputError
from perpixel.structures import VOID


def picture(seed=0, size=(64, 96)):
    """Road (7) below, sky (23) above, void (0) at the right; two cars, a person, a group of cars in two parts, a trailer."""
    ids = np.full(size, 23, dtype=np.uint16)
    ids[32:] = 7
    ids[:, 90:] = 0
    ids[34 + seed : 50 + seed, 4:24] = 26000
    ids[36:52, 30:50] = 26001
    ids[20:44, 54:60] = 24000
    ids[40:46, 64:72], ids[50:56, 74:80] = 26, 26
    ids[2:6, 2:6] = 30000
    return ids


@pytest.fixture
def root(tmp_path):
    for split, count in (("train", 2), ("val", 2)):
        for number in range(count):
            city = ("aachen", "bonn")[number % 2]
            name = f"{city}_{number:06d}_000019"
            truth = tmp_path / "gtFine" / split / city / f"{name}_gtFine_instanceIds.png"
            photo = tmp_path / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
            for path in (truth, photo):
                path.parent.mkdir(parents=True, exist_ok=True)
            ids = picture(number)
            Image.fromarray(ids).save(truth)
            Image.fromarray((ids[:, :, None] * np.array([7, 11, 3]) % 255).astype(np.uint8)).save(photo)
    return tmp_path


def test_the_layout_is_read(root):
    """Per image two cars, one person, and a group of cars in two parts; road, sky, void and the trailer are no objects."""
    dataset = open_dataset(root / "gtFine" / "val")
    assert isinstance(dataset, CityscapesDataset) and len(dataset) == 2
    assert dataset.classes[:3] == ("person", "rider", "car") and dataset.category_ids[:3] == (24, 25, 26)
    record = dataset.record(0)
    assert record.id == "aachen_000000_000019" and record.size == (64, 96)
    found = sorted(
        (dataset.classes[label], crowd, tuple(box))
        for label, crowd, box in zip(record.labels, record.crowd.tolist(), record.boxes.tolist(), strict=True)
    )
    assert found == [
        ("car", False, (4.0, 34.0, 24.0, 50.0)),
        ("car", False, (30.0, 36.0, 50.0, 52.0)),
        ("car", True, (64.0, 40.0, 72.0, 46.0)),
        ("car", True, (74.0, 50.0, 80.0, 56.0)),
        ("person", False, (54.0, 20.0, 60.0, 44.0)),
    ]
    row = record.labels.tolist().index(0)
    assert np.array_equal(draw_shape(record.shapes[row], record.size), picture() == 24000)
    assert np.array_equal(dataset.instance_ids(1), picture(1))
    assert dataset.image(0).shape == (64, 96, 3) and dataset.object_counts.tolist() == [3, 3]


def test_parts_of_a_group_touch_at_sides():
    """A U is one part although its arms meet only below; a pixel at a corner is another."""
    ids = np.zeros((4, 5), dtype=np.int32)
    ids[0:3, 0], ids[0:3, 2], ids[2, 1], ids[3, 3] = 26, 26, 26, 26
    parts = [mask for _, mask, crowd in objects_of(ids) if crowd]
    assert sorted(int(part.sum()) for part in parts) == [1, 7]


def test_bad_layouts_are_one_sentence(root, tmp_path):
    photos = root / "leftImg8bit" / "val"
    (photos / "bonn").rename(photos / "cologne")
    with pytest.raises(InputError, match=r"bonn.*there is no photo"):
        open_dataset(root / "gtFine" / "val")
    assert len(open_dataset(root / "gtFine" / "val", skip_bad=True)) == 1
    truth = next((root / "gtFine" / "train").glob("*/*.png"))
    truth.write_bytes(b"not a picture")
    with pytest.raises(InputError, match="picture of object numbers"):
        open_dataset(root / "gtFine" / "train")
    photos.rename(root / "elsewhere")
    with pytest.raises(InputError, match="no such folder of photos"):
        open_dataset(root / "gtFine" / "val")


def test_judged_by_hand():
    """At overlap .5, one class: object 1000 of 400 pixels, 1001 of 200, 1002 of 50 (too small), a group (26) of 100.

    a shares 300 of its 350 with 1000 (IoU 300 / 450): right. b, lower scored, shares 250 of 300 with it too (250 / 450): wrong, a
    second one. c is 40 of 50 pixels on the small object (40 / 60): explained by no object to be found, not counted. d has 60 of
    100 pixels on the group (60 / 140): more than half tells nothing, not counted. e has 50 of 100 on void: not more than half,
    wrong. 1001 is missed: 2 objects, three judged.
    """
    one = ClassInImage(
        {26000: 400, 26001: 200, 26002: 50, 26: 100},
        (
            Prediction(0.9, 350, {26000: 300}, 0),
            Prediction(0.8, 300, {26000: 250}, 0),
            Prediction(0.7, 50, {26002: 40}, 0),
            Prediction(0.6, 100, {26: 60}, 0),
            Prediction(0.5, 100, {}, 50),
        ),
    )
    judged, objects = judge(one, 0.5)
    assert objects == 2 and sorted(judged) == [(0.5, False), (0.8, False), (0.9, True)]
    judged, _ = judge(one, 0.65)  # 300 / 450 still is more, b's 250 / 450 and d's 60 of 100 are not
    assert sorted(judged) == [(0.5, False), (0.6, False), (0.8, False), (0.9, True)]


def test_area_by_hand():
    """Right, wrong, right of 4 objects: recall 0, 1/4, 1/4, 1/2 at precision 1, 1, 1/2, 2/3.

    Trapezoids: 1/4 * 1 + 0 + 1/4 * (1/2 + 2/3) / 2 = 0.25 + 7/48. Two of one score enter together.
    """
    assert average_precision([(0.9, True), (0.5, False), (0.4, True)], 4) == pytest.approx(0.25 + 7 / 48)
    assert average_precision([(0.5, True), (0.5, False)], 1) == pytest.approx((1 + 0.5) / 2)
    assert average_precision([], 3) == 0.0 and math.isnan(average_precision([(0.5, False)], 0))


def slow_precision(images, name, number, overlap):
    """One class by the rules as they are told, pixel by pixel: images are (numbers, [(name, score, mask)])."""
    stuff = {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33}
    entries, total = [], 0
    for ids, found in images:
        mine = [(score, mask) for found_name, score, mask in found if found_name == name and mask.any()]
        numbers = [n for n in np.unique(ids).tolist() if n == number or n // 1000 == number]
        real = [n for n in numbers if n >= 1000 and (ids == n).sum() >= 100]
        total += len(real)
        explained = set()
        for n in numbers:
            over = [i for i, (_, m) in enumerate(mine) if (m & (ids == n)).sum() / (m | (ids == n)).sum() > overlap]
            explained |= set(over)
            if n in real and over:
                best = max(over, key=lambda i: mine[i][0])
                entries += [(mine[i][0], i == best) for i in over]
        for i, (score, mask) in enumerate(mine):
            if i in explained:
                continue
            silent = 0
            for y, x in zip(*np.nonzero(mask), strict=True):
                here = int(ids[y, x])
                label = here // 1000 if here >= 1000 else here
                silent += label not in stuff or (label == number and here not in real)
            if silent / mask.sum() <= overlap:
                entries.append((score, False))
    if not total:
        return float("nan")
    points = [(0.0, 1.0)]
    for threshold in sorted({score for score, _ in entries}, reverse=True):
        kept = [hit for score, hit in entries if score >= threshold]
        points.append((sum(kept) / total, sum(kept) / len(kept)))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))


def random_images():
    random = np.random.default_rng(7)
    for seed in range(3):
        ids = picture(seed).astype(np.int32)
        found = []
        for name, number in (("car", 26000), ("car", 26001), ("person", 24000), ("car", 26), ("car", 24000)) * 3:
            mask = np.roll(ids == number, random.integers(-5, 6, 2), (0, 1))
            found.append((name, round(float(random.random()), 1), mask))
        found.append(("bus", 0.3, ids == 0))
        yield ids, found


def test_precision_equals_the_slow_loop():
    images = list(random_images())
    table = class_precisions(lay_out(ids, found) for ids, found in images)
    for name, number in (("car", 26), ("person", 24), ("bus", 28)):
        slow = [slow_precision(images, name, number, overlap) for overlap in OVERLAPS]
        assert table[name]["AP50"] == pytest.approx(slow[0], nan_ok=True)
        assert table[name]["AP"] == pytest.approx(float(np.mean(slow)), nan_ok=True)
    assert 0.1 < table["car"]["AP50"] < 0.9 and math.isnan(table["bus"]["AP"])


def test_the_truth_scores_one_and_nothing_zero(root):
    dataset = open_dataset(root / "gtFine" / "val")
    results = []
    for index in range(len(dataset)):
        ids = dataset.instance_ids(index)
        for number, mask, crowd in objects_of(ids):
            if not crowd:
                code = {"size": list(ids.shape), "counts": encode(mask).counts.decode()}
                entry = {
                    "image_id": dataset.record(index).id,
                    "category_id": number,
                    "score": 0.5,
                    "segmentation": code,
                }
                results.append(entry)
    summary, table = cityscapes_metrics(dataset, results)
    assert summary == {"AP": 1.0, "AP50": 1.0} and table["car"]["AP"] == 1.0 and math.isnan(table["train"]["AP"])
    assert cityscapes_metrics(dataset, [])[0] == {"AP": 0.0, "AP50": 0.0}


def test_train_and_evaluate(root, tmp_path, capsys):
    """A tiny PointINS on the miniature; evaluation prints and writes AP by Cityscapes' rules."""
    settings = [
        f"data.train={root}/gtFine/train",
        f"data.val={root}/gtFine/val",
        "data.augment.short_sides=[64]",
        "data.test.short_side=64",
        "data.workers=0",
        "model.backbone.name=test_resnet",
        "model.backbone.weights=null",
        "model.head.class_convs=1",
        "model.head.box_convs=1",
        "model.neck.channels=64",
        "model.instance.width=64",
        "model.instance.size=8",
        "model.selection.threshold=0.0",
        "model.selection.keep=2",
        "model.instance.points.limit=8",
        "training.steps=2",
        "training.warmup_steps=1",
        "training.batch_size=2",
    ]
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["train", "pointins_r50_cityscapes", *settings, "--out", str(run), "--device", "cpu"]) == 0
    assert main(["evaluate", str(run / "last.safetensors"), "--out", str(out), "--device", "cpu"]) == 0
    assert "by Cityscapes' rules: AP" in capsys.readouterr().out
    assert set(json.loads((out / "cityscapes.json").read_text())["summary"]) == {"AP", "AP50"}


def test_every_class_as_stuff_has_the_train_ids(root):
    """road 0, sky 10, person 11, car 13 as Cityscapes numbers them for training; groups are of their class, the trailer void."""
    dataset = open_dataset(root / "gtFine" / "val", all_stuff=True)
    assert len(dataset.stuff) == 19 and dataset.stuff.names[10:14] == ("sky", "person", "rider", "car")
    ids, stuff = picture(), dataset.stuff_map(0)
    for number, train_id in ((7, 0), (23, 10), (24000, 11), (26000, 13), (26001, 13), (26, 13)):
        assert (stuff[ids == number] == train_id + 1).all()
    assert (stuff[(ids == 0) | (ids == 30000)] == VOID).all()


def test_frames_before_come_from_the_sequences(root):
    dataset = open_dataset(root / "gtFine" / "val")
    with pytest.raises(InputError, match="unpack leftImg8bit_sequence"):
        dataset.before(0, 2)
    folder = root / "leftImg8bit_sequence" / "val" / "aachen"
    folder.mkdir(parents=True)
    for number in (17, 18):
        Image.new("RGB", (96, 64), (number,) * 3).save(folder / f"aachen_000000_{number:06d}_leftImg8bit.png")
    frames = dataset.before(0, 2)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [17, 18] and frames[0].stuff is None
