"""Metrics equal COCOeval: its published numbers on a fixture, and pycocotools live on random boxes."""

import contextlib
import io
import json

import numpy as np
import pytest

from perpixel.engine.metrics import coco_metrics
from perpixel.errors import InputError


def random_set(seed: int, images: int = 12, classes: int = 3):
    """Truth and results with crowds, misses, false positives, tied scores and one class without truth."""
    random = np.random.default_rng(seed)
    truth = {
        "images": [{"id": 10 + i, "width": 200, "height": 160} for i in range(images)],
        "categories": [{"id": c, "name": f"c{c}"} for c in (7, 3, 5, 11)[: classes + 1]],
        "annotations": [],
    }
    results = []
    for image in truth["images"]:
        for _ in range(random.integers(0, 7)):
            box = [*random.uniform(0, 100, 2), *random.uniform(5, 110, 2)]
            category = int(random.choice([7, 3, 5]))
            identity = len(truth["annotations"]) + 1
            truth["annotations"].append(
                {"id": identity, "image_id": image["id"], "category_id": category, "bbox": box, "area": box[2] * box[3]}
                | {"iscrowd": int(random.random() < 0.1)}
            )
            for _ in range(random.integers(0, 4)):
                shifted = (np.array(box) + random.normal(0, 6, 4)).clip(1).tolist()
                wrong = random.random() < 0.2
                score = round(float(random.random()), 1)
                row = {
                    "image_id": image["id"],
                    "category_id": 11 if wrong else category,
                    "bbox": shifted,
                    "score": score,
                }
                results.append(row)
    return truth, results


def pycocotools_stats(truth, results, kind="bbox"):
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = truth | {"info": {}}
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes([dict(r) for r in results]), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(5))
def test_random_boxes_equal_pycocotools(seed):
    truth, results = random_set(seed)
    evaluation = pycocotools_stats(truth, results)
    ours = coco_metrics(truth, results)
    np.testing.assert_allclose(list(ours.summary.values()), evaluation.stats, atol=1e-9)
    assert list(ours.summary) == [
        "AP",
        "AP50",
        "AP75",
        "APs",
        "APm",
        "APl",
        "AR1",
        "AR10",
        "AR100",
        "ARs",
        "ARm",
        "ARl",
    ]
    order = sorted(c["id"] for c in truth["categories"])
    for row in ours.per_class:
        column = evaluation.eval["precision"][:, :, order.index(row.category_id), 0, -1]
        assert row.ap == pytest.approx(column[column > -1].mean() if (column > -1).any() else -1, abs=1e-9)
        np.testing.assert_allclose(row.curve, column[0])


@pytest.mark.parametrize(
    ("kind", "truth"), [("bbox", "instances"), ("segm", "instances"), ("keypoints", "person_keypoints")]
)
def test_fixture_equals_cocoeval(shared_data, kind, truth):
    folder = shared_data / "coco_eval_fixture"
    expected = json.loads((folder / "reference_stats.json").read_text())[kind]["stats"]
    metrics = coco_metrics(
        json.loads((folder / f"{truth}_gt.json").read_text()),
        json.loads((folder / f"{kind}_results.json").read_text()),
        kind,
    )
    np.testing.assert_allclose(list(metrics.summary.values()), expected, atol=1e-6)


def test_one_box_by_hand():
    """Two objects, one result with IoU 0.8 (8 of 10 columns): it counts at thresholds .50 .. .80, seven of ten.

    At each of these recall is 0.5 and precision 1, so the sampled precision is 1 at the 51 recalls 0 .. 0.5 and 0
    beyond: AP50 = 51 / 101 and AP = 7 / 10 * 51 / 101; AR = 7 / 10 * 0.5.
    """
    truth = {
        "images": [{"id": 1, "width": 50, "height": 50}],
        "categories": [{"id": 1, "name": "box"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [30, 30, 10, 10]},
        ],
    }
    results = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 10], "score": 0.9}]
    metrics = coco_metrics(truth, results)
    assert metrics.summary["AP50"] == pytest.approx(51 / 101)
    assert metrics.summary["AP"] == pytest.approx(0.7 * 51 / 101)
    assert metrics.summary["AR100"] == pytest.approx(0.35)
    assert (metrics.per_class[0].truth, metrics.per_class[0].detections) == (2, 1)
    assert sum(metrics.curve) == pytest.approx(51)


@pytest.mark.parametrize("seed", range(3))
def test_random_keypoints_equal_pycocotools(seed):
    random = np.random.default_rng(seed)
    truth = {
        "images": [{"id": i, "width": 200, "height": 160} for i in range(8)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [],
    }
    results = []
    for identity in range(1, 25):
        box = [*random.uniform(0, 60, 2), *random.uniform(20, 100, 2)]
        joints = np.concatenate([random.uniform(0, 1, (17, 2)) * box[2:] + box[:2], random.integers(0, 3, (17, 1))], 1)
        image, area = int(random.integers(0, 8)), box[2] * box[3] * 0.6
        annotation = {"id": identity, "image_id": image, "category_id": 1, "bbox": box, "area": area, "iscrowd": 0}
        visible = int((joints[:, 2] > 0).sum())
        truth["annotations"].append(annotation | {"keypoints": joints.reshape(-1).tolist(), "num_keypoints": visible})
        moved = joints + np.concatenate([random.normal(0, 4, (17, 2)), np.zeros((17, 1))], 1)
        row = {
            "image_id": image,
            "category_id": 1,
            "keypoints": moved.reshape(-1).tolist(),
            "score": float(random.random()),
        }
        results.append(row)
    ours = coco_metrics(truth, results, "keypoints")
    np.testing.assert_allclose(
        list(ours.summary.values()), pycocotools_stats(truth, results, "keypoints").stats, atol=1e-9
    )
    assert len(set(ours.summary.values())) > 6


def test_ids_need_not_be_good():
    """Repeated annotation ids, an annotation 0 and image ids in text change nothing."""
    truth, results = random_set(1)
    expected = coco_metrics(truth, results).summary
    for i, annotation in enumerate(truth["annotations"]):
        annotation["id"] = i // 2
    for row in [*truth["annotations"], *results]:
        row["image_id"] = f"photo {row['image_id']}"
    for image in truth["images"]:
        image["id"] = f"photo {image['id']}"
    assert coco_metrics(truth, results).summary == pytest.approx(expected)


def test_empty_results_are_zero():
    truth, _ = random_set(0)
    metrics = coco_metrics(truth, [])
    with_truth = {a["category_id"] for a in truth["annotations"]}
    assert metrics.summary["AP"] == metrics.summary["AR100"] == 0
    assert all(row.ap == (0 if row.category_id in with_truth else -1) for row in metrics.per_class)


def test_empty_truth_is_undefined():
    truth, results = random_set(0)
    metrics = coco_metrics(truth | {"annotations": []}, results)
    assert set(metrics.summary.values()) == {-1.0}


def test_limit_of_detections():
    """150 equal objects, all found: with 100 results an image recall is 100 / 150, with 200 it is 1."""
    boxes = [[20.0 * (i % 15), 20.0 * (i // 15), 10.0, 10.0] for i in range(150)]
    truth = {
        "images": [{"id": 1, "width": 400, "height": 400}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": i + 1, "image_id": 1, "category_id": 1, "bbox": b} for i, b in enumerate(boxes)],
    }
    results = [{"image_id": 1, "category_id": 1, "bbox": b, "score": 0.5} for b in boxes]
    assert coco_metrics(truth, results).summary["AR100"] == pytest.approx(100 / 150)
    assert coco_metrics(truth, results, max_detections=200).summary["AR200"] == 1
    assert list(coco_metrics(truth, results, max_detections=5).summary)[6:8] == ["AR1", "AR5"]


def test_unknown_image_is_named():
    truth, _ = random_set(0)
    with pytest.raises(InputError, match="image_id 999"):
        coco_metrics(truth, [{"image_id": 999, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1.0}])


def test_other_keypoints_need_sigmas():
    truth = {
        "images": [{"id": 1, "width": 50, "height": 50}],
        "categories": [{"id": 1, "name": "hand"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "area": 1600, "num_keypoints": 2}
            | {"keypoints": [5, 5, 2, 30, 30, 2]}
        ],
    }
    results = [{"image_id": 1, "category_id": 1, "keypoints": [5, 5, 1, 30, 30, 1], "score": 0.9}]
    with pytest.raises(InputError, match="2 keypoints"):
        coco_metrics(truth, results, "keypoints")
    assert coco_metrics(truth, results, "keypoints", sigmas=[0.05, 0.05]).summary["AP"] == pytest.approx(1)
