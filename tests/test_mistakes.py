"""Kinds of mistakes: by hand, and against a slow loop over TIDE's rules."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.engine.mistakes import MISTAKES, Tally, find_mistakes

Box = list[float]


def truth_of(*objects: tuple[int, int, Box, bool], images: int = 1) -> dict[str, Any]:
    """COCO truth of (image, category, xywh, crowd)."""
    annotations = [
        {
            "id": i,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(crowd),
        }
        for i, (image, category, box, crowd) in enumerate(objects)
    ]
    categories = [{"id": k, "name": name} for k, name in ((1, "cat"), (2, "dog"), (3, "owl"))]
    sizes = [{"id": i, "width": 100, "height": 100} for i in range(images)]
    return {"images": sizes, "annotations": annotations, "categories": categories}


def result(category: int, box: Box, score: float, image: int = 0) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


TRUTH = truth_of(
    (0, 1, [0, 0, 10, 10], False),
    (0, 2, [30, 0, 10, 10], False),
    (0, 1, [60, 60, 10, 10], False),
    (0, 3, [0, 60, 10, 10], False),
    (0, 3, [80, 80, 20, 20], True),
)
FOUND = [
    result(1, [0, 0, 10, 10], 0.99),  # right
    result(1, [0, 0, 10, 9], 0.98),  # IoU .9 with a cat that is taken: duplicate
    result(1, [30, 0, 10, 9], 0.97),  # IoU .9 with a dog, called a cat: class
    result(3, [2, 60, 16, 10], 0.96),  # 80 / (100 + 160 - 80) = .44 with its owl: localisation
    result(2, [64, 60, 10, 10], 0.95),  # 60 / 140 = .43 with a cat, called a dog: both
    result(2, [50, 30, 10, 10], 0.94),  # nothing there: background
    result(3, [85, 85, 5, 5], 0.93),  # inside the crowd: no mistake
]


def test_by_hand():
    """One of each kind. The cat at (60, 60) is missed: neither a localisation nor a class mistake stands for it. The detection on
    the crowd is not judged. Of 4 objects 1 is found, 5 detections are wrong; F1 = 2 / (2 + 5 + 3) at any score up to .93, and
    2 / (2 + 0 + 3) from .99 on, where nothing is wrong: the best."""
    mistakes = find_mistakes(TRUTH, FOUND, "bbox")
    assert (mistakes.score, mistakes.tally, mistakes.tally.f1) == (0.99, Tally(1, 0, 3), 0.4)
    assert mistakes.counts == dict.fromkeys(MISTAKES, 0) | {"missed": 3}
    assert mistakes.precision[50] == pytest.approx(1 / 6) and mistakes.recall[50] == 0.25
    assert mistakes.precision[97] == pytest.approx(1 / 3) and mistakes.precision[99] == 1

    # With the right one's score the lowest, and ten more right ones above it, the best F1 takes them all in.
    more = [(i, 1, [0.0, 0.0, 10.0, 10.0], False) for i in range(1, 11)]
    truth = truth_of(
        *((0, a["category_id"], a["bbox"], bool(a["iscrowd"])) for a in TRUTH["annotations"]), *more, images=11
    )
    found = [one | {"score": one["score"] - 0.5} for one in FOUND] + [
        result(1, [0, 0, 10, 10], 0.4, i) for i in range(1, 11)
    ]
    mistakes = find_mistakes(truth, found, "bbox")
    assert mistakes.counts == dict.fromkeys(MISTAKES, 1)
    assert mistakes.tally == Tally(11, 5, 3) and mistakes.images == (Tally(1, 5, 3), *[Tally(1, 0, 0)] * 10)
    assert mistakes.score == 0.4


def test_the_gain_of_mending():
    """One class, two objects. Found in this order: background, right, and a loose box (localisation). Precision at recalls up to
    .5 is 1/2, and recall 1 is never reached: AP = .5 * 51/101. Without the background it is 51/101. With the loose box mended,
    precision is 2/3 up to recall 1: AP = 2/3. Nothing else can be mended."""
    truth = truth_of((0, 1, [0, 0, 10, 10], False), (0, 1, [40, 40, 10, 10], False))
    truth["categories"] = truth["categories"][:1]
    found = [result(1, [80, 80, 9, 9], 0.9), result(1, [0, 0, 10, 10], 0.8), result(1, [44, 40, 10, 10], 0.7)]
    gains = find_mistakes(truth, found, "bbox").gains
    before = 0.5 * 51 / 101
    assert gains["background"] == pytest.approx(51 / 101 - before)
    assert gains["localisation"] == pytest.approx(2 / 3 - before)
    assert [gains[name] for name in ("class", "both", "duplicate", "missed")] == [0, 0, 0, 0]


def test_masks_are_judged_by_masks():
    """The box is perfect, the mask covers its left 40 %: IoU .4, a localisation mistake in masks and none in boxes."""
    whole, left = [[0, 0, 10, 0, 10, 10, 0, 10]], [[0, 0, 4, 0, 4, 10, 0, 10]]
    truth = truth_of((0, 1, [0, 0, 10, 10], False))
    truth["annotations"][0]["segmentation"] = whole
    from hotcoco import mask as codec

    run = codec.merge(codec.frPyObjects(left, 100, 100))
    found = [result(1, [0, 0, 10, 10], 0.6) | {"segmentation": {"size": run["size"], "counts": run["counts"].decode()}}]
    assert find_mistakes(truth, found, "bbox").tally == Tally(1, 0, 0)
    masks = find_mistakes(truth, found, "segm")
    assert masks.score == 0.5 and masks.counts["localisation"] == 1 and masks.counts["missed"] == 0
    assert masks.tally == Tally(0, 1, 1)


def test_nothing_found_and_nothing_there():
    empty = find_mistakes(TRUTH, [], "bbox")
    assert empty.score == 0.5 and empty.tally == Tally(0, 0, 4) and empty.counts["missed"] == 4
    assert set(empty.precision) == {-1.0} and set(empty.recall) == {0.0}
    nothing = find_mistakes(truth_of(), [], "bbox")
    assert nothing.tally == Tally(0, 0, 0) and nothing.tally.f1 == 1
    assert "images" not in json.loads(json.dumps(empty.to_dict()))


def iou(a: Box, b: Box, crowd: bool) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    return shared / (a[2] * a[3] if crowd else a[2] * a[3] + b[2] * b[3] - shared)


def slow_counts(truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[dict[str, int], Tally]:
    """The rules of the module's docstring, one detection after the other."""
    counts: dict[str, int] = dict.fromkeys(MISTAKES, 0)
    right = wrong = missed = 0
    for image in truth["images"]:
        objects = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        taken, stood_for = set(), set()
        for one in sorted((r for r in results if r["image_id"] == image["id"]), key=lambda r: -r["score"]):
            overlaps = {a["id"]: iou(one["bbox"], a["bbox"], bool(a["iscrowd"])) for a in objects}
            mine = [a for a in objects if a["category_id"] == one["category_id"]]
            free = [a["id"] for a in mine if not a["iscrowd"] and a["id"] not in taken and overlaps[a["id"]] >= 0.5]
            if free:
                taken.add(max(free, key=lambda identity: overlaps[identity]))
                right += 1
                continue
            if any(a["iscrowd"] and overlaps[a["id"]] >= 0.5 for a in mine):
                continue
            wrong += 1
            others = [a["id"] for a in objects if a["category_id"] != one["category_id"] and not a["iscrowd"]]
            same = max((a["id"] for a in mine), key=lambda i: overlaps[i], default=None)
            other = max(others, key=lambda i: overlaps[i], default=None)
            best_same, best_other = overlaps.get(same, 0.0), overlaps.get(other, 0.0)
            if 0.1 <= best_same < 0.5:
                counts["localisation"] += 1
                stood_for.add(same)
            elif best_other >= 0.5:
                counts["class"] += 1
                stood_for.add(other)
            elif best_same >= 0.5:
                counts["duplicate"] += 1
            elif max(best_same, best_other) <= 0.1:
                counts["background"] += 1
            else:
                counts["both"] += 1
        left = [a["id"] for a in objects if not a["iscrowd"] and a["id"] not in taken]
        missed += len(left)
        counts["missed"] += sum(identity not in stood_for for identity in left)
    return counts, Tally(right, wrong, missed)


def scene(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Three images with objects of three classes, some of them crowds, and detections around and beside them."""
    draw = random.Random(seed)
    objects, results = [], []
    for image in range(3):
        of_image = []
        for _ in range(draw.randint(0, 6)):
            box = [draw.uniform(0, 40), draw.uniform(0, 40), draw.uniform(10, 30), draw.uniform(10, 30)]
            of_image.append((image, draw.randint(1, 3), box, draw.random() < 0.15))
        for _ in range(draw.randint(0, 12)):
            category, box = draw.randint(1, 3), [draw.uniform(0, 60), draw.uniform(0, 60), 12.0, 12.0]
            if of_image and draw.random() < 0.7:
                _, known, near, _ = draw.choice(of_image)
                box = [max(v + draw.uniform(-7, 7), 2.0) for v in near]
                category = known if draw.random() < 0.6 else category
            results.append(result(category, box, draw.random(), image))
        objects += of_image
    return truth_of(*objects, images=3), results


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_as_the_slow_loop_counts(seed):
    truth, results = scene(seed)
    mistakes = find_mistakes(truth, results, "bbox")
    kept = [one for one in results if one["score"] >= mistakes.score]
    counts, tally = slow_counts(truth, kept)
    assert mistakes.counts == counts
    assert mistakes.tally == tally
    # No other score gives a better F1.
    for least in (0.0, 0.25, 0.5, 0.75):
        assert slow_counts(truth, [one for one in results if one["score"] >= least])[1].f1 <= tally.f1 + 1e-12
