"""AP, MR^-2 and JI of crowds: by hand, and against slow obvious loops."""

import json
import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.cli.main import main
from perpixel.engine.ablation import Outcome
from perpixel.engine.ablation_report import Report, metric_of
from perpixel.engine.crowd_metrics import (
    FALSE_POSITIVES,
    CrowdImage,
    average_precision,
    crowd_images,
    crowd_metrics,
    explained,
    jaccard_index,
    log_average_miss_rate,
    matching,
    metrics_of,
)
from perpixel.recipes import get_recipe, get_table

NONE = np.zeros((0, 4))


def image(truth=(), ignored=(), found=()):
    """Boxes as (x1, y1, x2, y2); of what was found with the score first."""
    scores = np.array([row[0] for row in found], dtype=float)
    truth, ignored, found = (np.array(b, dtype=float).reshape(-1, 4) for b in (truth, ignored, [r[1:] for r in found]))
    return CrowdImage(truth, ignored, found, scores)


FIRST = image(
    truth=[(0, 0, 10, 10), (20, 0, 30, 10)],
    ignored=[(50, 0, 70, 20)],
    found=[(0.9, 0, 0, 10, 10), (0.8, 0, 0, 10, 9), (0.7, 52, 2, 60, 10), (0.82, 20, 0, 30, 8)],
)
SECOND = image(truth=[(0, 0, 10, 10)], found=[(0.85, 40, 40, 50, 50)])


def test_by_hand():
    """First image: .9 finds the first object, .82 the second (IoU .8); .8 overlaps the first, which is taken: wrong; .7 lies on a
    region that nobody judges: dropped. Second image: .85 finds nothing. So of 3 objects: right, wrong, right, wrong.

    AP: precision 1, 1/2, 2/3, 1/2 at recall 1/3, 1/3, 2/3, 2/3: 1/3 * 1 + 1/3 * (1/2 + 2/3) / 2 = 19/36.
    MR^-2: false positives an image 0, .5, .5, 1, miss rates 2/3, 2/3, 1/3, 1/3. Up to .3162 (7 places) the first detection that
    has as many is the second: 2/3; for .5623 and 1 it is the last: 1/3. (2/3)^(7/9) (1/3)^(2/9).
    JI: up to score .8 the first image has 2 pairs of 3 detections that count and 2 objects, 2 / 3; the second 0 / 2. From .9 on
    1 / 2 and 0 / 1. So 1/3 up to .8, the best, then 1/4. All four detections bring one false positive an image: 2 of 3 objects
    are found there. No object overlaps another.
    """
    found = metrics_of([FIRST, SECOND])
    assert found.ap == pytest.approx(19 / 36)
    assert found.miss_rate == pytest.approx((2 / 3) ** (7 / 9) * (1 / 3) ** (2 / 9))
    assert found.jaccard == pytest.approx({k / 10: 1 / 3 if k < 9 else 1 / 4 for k in range(10)})
    assert (found.score, found.recall, found.crowded, found.crowded_recall) == (0.0, pytest.approx(2 / 3), 0, -1.0)
    assert found.summary["JI"] == pytest.approx(1 / 3)


def test_an_image_without_anything_counts_for_false_positives_alone():
    """With a third, empty image the false positives an image are 1/3 and 2/3: 1 is never reached, the last detection counts.

    .5623 is reached by the fourth detection too, .3162 by the second: the miss rates stay; JI is still the mean over two.
    """
    with_empty = metrics_of([FIRST, SECOND, image()])
    assert with_empty.miss_rate == metrics_of([FIRST, SECOND]).miss_rate
    assert with_empty.jaccard == metrics_of([FIRST, SECOND]).jaccard
    assert jaccard_index(image()) is None
    # Only a detection on a region that nobody judges: nothing counts either.
    assert jaccard_index(image(ignored=[(0, 0, 9, 9)], found=[(0.5, 1, 1, 5, 5)])) is None


def test_the_matching_of_ji_is_not_greedy():
    """A = 0..10, B = 4..14 across, both 10 high. The better detection, 1.9..11.9, overlaps A by 81 / 119 and B by 79 / 121, the
    other one only A, by 9 / 10. In order of scores it takes A, and the other has nothing; the best sum is B for it and A for the
    other.
    """
    crowd = image([(0, 0, 10, 10), (4, 0, 14, 10)], found=[(0.9, 1.9, 0, 11.9, 10), (0.8, 0, 0, 10, 9)])
    assert explained(crowd)[1].tolist() == [True, False]
    assert matching(crowd)[0].tolist() == [True, True] and jaccard_index(crowd) == 1.0


def test_half_is_not_enough_and_crowded_objects_are_told():
    """IoU exactly 1/2 explains nothing; of three objects, two of which overlap by 2/3, one crowded object of two is found."""
    half = image([(0, 0, 10, 10)], found=[(0.9, 0, 0, 10, 5)])
    assert explained(half)[1].tolist() == [False] and jaccard_index(half) == 0
    crowd = image([(0, 0, 10, 10), (2, 0, 12, 10), (50, 0, 60, 10)], found=[(0.5, 0, 0, 10, 10), (0.4, 50, 0, 60, 10)])
    found = metrics_of([crowd])
    assert (found.crowded, found.crowded_recall, found.recall, found.score) == (2, 0.5, pytest.approx(2 / 3), 0.0)


def test_recall_at_one_false_positive_an_image():
    """One image of two objects, detections right, wrong, wrong, right: the second wrong one is too many, the last is not seen."""
    apart = image(
        [(0, 0, 9, 9), (20, 0, 29, 9)],
        found=[(0.9, 0, 0, 9, 9), (0.8, 50, 50, 59, 59), (0.7, 60, 60, 69, 69), (0.6, 20, 0, 29, 9)],
    )
    assert metrics_of([apart]).recall == 0.5 and metrics_of([apart, image()]).recall == 1.0


def test_nothing_found_and_nothing_to_find():
    nothing_found, nothing_there = metrics_of([image([(0, 0, 9, 9)])]), metrics_of([image(found=[(0.9, 0, 0, 5, 5)])])
    assert (nothing_found.ap, nothing_found.miss_rate, nothing_found.summary["JI"]) == (0.0, 1.0, 0.0)
    assert (nothing_there.ap, nothing_there.miss_rate, nothing_there.recall) == (-1.0, -1.0, -1.0)
    perfect = metrics_of([image([(0, 0, 9, 9)], found=[(0.9, 0, 0, 9, 9)])])
    assert (perfect.ap, perfect.summary["JI"]) == (1.0, 1.0) and perfect.miss_rate == pytest.approx(0, abs=1e-9)


def slow_iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def slow_silent(box, regions):
    area = (box[2] - box[0]) * (box[3] - box[1])
    for r in regions:
        width, height = min(box[2], r[2]) - max(box[0], r[0]), min(box[3], r[3]) - max(box[1], r[1])
        if width > 0 and height > 0 and width * height / area > 0.5:
            return True
    return False


def slow_figures(images):
    """AP and MR^-2, counted detection by detection."""
    judged = []
    for one in images:
        taken = set()
        for row in sorted(range(len(one.found)), key=lambda row, one=one: -one.scores[row]):
            box = one.found[row]
            free = [n for n in range(len(one.truth)) if n not in taken]
            best = max(free, key=lambda n, box=box, one=one: slow_iou(one.truth[n], box), default=None)
            if best is not None and slow_iou(one.truth[best], box) > 0.5:
                taken.add(best)
                judged.append((one.scores[row], True))
            elif not slow_silent(box, one.ignored):
                judged.append((one.scores[row], False))
    judged.sort(key=lambda pair: -pair[0])
    objects = sum(len(one.truth) for one in images)
    points, wrongs, right, wrong = [], [], 0, 0
    for _, hit in judged:
        right, wrong = right + hit, wrong + (not hit)
        points.append((right / objects, right / (right + wrong)))
        wrongs.append((wrong / len(images), 1 - right / objects))
    area = points[0][0] * points[0][1] if points else 0.0
    for (r0, p0), (r1, p1) in pairwise(points):
        area += (r1 - r0) * (p0 + p1) / 2
    logarithms = []
    for wanted in FALSE_POSITIVES:
        reached = [miss for false, miss in wrongs if false >= wanted]
        miss = reached[0] if reached else wrongs[-1][1] if wrongs else 1.0
        logarithms.append(math.log(max(miss, 1e-10)))
    return area, math.exp(sum(logarithms) / 9)


def slow_jaccard(one):
    """Every way to give objects a detection each, or none; the largest sum of overlaps counts."""
    count, best = len(one.truth), (0.0, ())
    places = [*range(len(one.found)), *[None] * count]
    for way in set(permutations(places, count)):
        pairs = [(n, d) for n, d in enumerate(way) if d is not None]
        overlaps = [slow_iou(one.truth[n], one.found[d]) for n, d in pairs]
        if all(value > 0.5 for value in overlaps) and sum(overlaps) > best[0]:
            best = (sum(overlaps), tuple(pairs))
    used = {d for _, d in best[1]}
    counted = [d for d in range(len(one.found)) if d in used or not slow_silent(one.found[d], one.ignored)]
    together = len(counted) + count - len(used)
    return len(used) / together if together else None


def random_image(random, objects, found):
    def boxes(count):
        low = random.uniform(0, 6, (count, 2))
        return np.concatenate([low, low + random.uniform(5, 9, (count, 2))], axis=1)

    truth = boxes(objects)
    near = truth[random.integers(objects, size=found)] + random.normal(0, 0.8, (found, 4)) if objects else boxes(found)
    return CrowdImage(truth, boxes(random.integers(0, 2)), near, random.permutation(found) / max(found, 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=3), st.integers(0, 10**6))
def test_figures_equal_slow_loops(counts, seed):
    random = np.random.default_rng(seed)
    images = [random_image(random, *count) for count in counts]
    found = metrics_of(images)
    if any(objects for objects, _ in counts):
        assert (found.ap, found.miss_rate) == pytest.approx(slow_figures(images))
    for score, value in found.jaccard.items():
        indices = [slow_jaccard(one.above(score)) for one in images]
        known = [index for index in indices if index is not None]
        assert value == pytest.approx(sum(known) / len(known) if known else -1.0)


def test_curves_by_hand():
    """Right, right, wrong of 4 objects in 2 images: area 2 / 4 * 1, then straight down; the miss rate is 1/2 from the third on.

    No detection reaches more than 1/2 false positives an image: for .5623 and 1 the last one counts.
    """
    right = np.array([True, True, False])
    assert average_precision(right, 4) == 0.5
    assert log_average_miss_rate(right, 4, 2) == pytest.approx(0.5)


def coco(name="person"):
    box = {"image_id": "a", "category_id": 3}
    return {
        "images": [{"id": "a", "width": 20, "height": 20}],
        "annotations": [
            box | {"bbox": [-10, 0, 20, 10]},
            box | {"bbox": [12, 12, 8, 8], "iscrowd": 1},
            box | {"bbox": [0, 0, 9, 9], "category_id": 1},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": name}],
    }


def test_boxes_of_a_class_are_cut_at_the_border():
    """The truth, x from -10 to 10, is 0..10 inside; a detection 0..12 by 10 has IoU 10/12 with it, 10/22 with the uncut one."""
    results = [
        {"image_id": "a", "category_id": 3, "score": 0.5, "bbox": [0, 0, 12, 10]},
        {"image_id": "a", "category_id": 1, "score": 0.9, "bbox": [0, 0, 9, 9]},
    ]
    (one,) = crowd_images(coco(), results, "person")
    assert one.truth.tolist() == [[0, 0, 10, 10]] and one.ignored.tolist() == [[12, 12, 20, 20]]
    assert one.found.tolist() == [[0, 0, 12, 10]] and one.scores.tolist() == [0.5]
    assert crowd_metrics(coco(), results).summary["JI"] == 1.0


def test_the_command_prints_and_writes_them(tmp_path, capsys):
    settings = ["data.train=crowds:6:0", "data.val=crowds:3:1", "data.workers=0", "data.augment.short_sides=[64]"]
    settings += ["model.backbone.name=test_resnet", "model.head.class_convs=1", "model.head.box_convs=1"]
    settings += ["training.steps=2", "training.warmup_steps=1", "training.batch_size=2", "data.test.short_side=64"]
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["train", "fcos_crowds", *settings, "--out", str(run), "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run / "last.safetensors"), "--out", str(out), "--device", "cpu"]) == 0
    assert "by CrowdHuman's rules: AP" in capsys.readouterr().out
    numbers = json.loads((out / "metrics.json").read_text())
    assert {"crowd/AP", "crowd/MR-2", "crowd/JI"} < set(numbers["summary"])
    assert numbers["crowd"]["crowded"] > 0 and metric_of("crowd MR-2") == "crowd/MR-2"


def test_the_least_miss_rate_is_the_best_of_a_table(tmp_path):
    table = get_table("crowds_3.10")
    found = [Outcome(row, {"crowd/AP": k / 10, "crowd/MR-2": k / 10}) for k, row in enumerate(table.rows, start=3)]
    Report(table, get_recipe(table.recipe), tmp_path)(found)
    best = [part.partition("<")[0] for part in (tmp_path / "table.html").read_text().split('class="good">')[1:]]
    assert best == ["30.0", "70.0"]
