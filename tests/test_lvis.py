"""LVIS: the file is read, classes are found by name or sense, and the federated rule gives what one counts by hand."""

import json

import pytest
from PIL import Image

from perpixel.data.json_kind import json_kind
from perpixel.data.lvis import LvisDataset, read_lvis, synset_of
from perpixel.data.open import open_dataset
from perpixel.engine import report
from perpixel.engine.evaluate import Evaluation
from perpixel.engine.lvis_metrics import lvis_metrics
from perpixel.engine.metrics import coco_metrics
from perpixel.errors import InputError


def square(number, image, category, x, y):
    """An annotation of 10 x 10 pixels."""
    corners = [x, y, x + 10, y, x + 10, y + 10, x, y + 10]
    box = {"bbox": [x, y, 10, 10], "area": 100, "segmentation": [corners]}
    return {"id": number, "image_id": image, "category_id": category} | box


@pytest.fixture
def file(tmp_path):
    """Two photos. A sofa in each, not all of the second's are annotated; a zebra in the second, surely none in the first."""
    (tmp_path / "val2017").mkdir()
    for number in (1, 2):
        Image.new("RGB", (64, 48)).save(tmp_path / "val2017" / f"{number}.jpg")
    address = "http://images.example.org/val2017/{}.jpg"
    content = {
        "images": [
            {"id": 1, "coco_url": address.format(1), "width": 64, "height": 48}
            | {"neg_category_ids": [2], "not_exhaustive_category_ids": []},
            {"id": 2, "coco_url": address.format(2), "width": 64, "height": 48}
            | {"neg_category_ids": [], "not_exhaustive_category_ids": [1]},
        ],
        "annotations": [square(1, 1, 1, 0, 0), square(2, 2, 1, 0, 0), square(3, 2, 2, 20, 20), square(4, 2, 3, 40, 20)],
        "categories": [
            {"id": 1, "name": "sofa", "synset": "sofa.n.01", "frequency": "f"},
            {"id": 2, "name": "zebra", "synset": "zebra.n.01", "frequency": "r"},
            {"id": 3, "name": "wok", "synset": "wok.n.01", "frequency": "c"},
        ],
    }
    path = tmp_path / "lvis_val.json"
    path.write_text(json.dumps(content))
    return path


def test_reading(file):
    """Files from addresses, the lists of each image, the frequency of each class."""
    assert json_kind(file) == "lvis"
    data = read_lvis(file)
    assert data.classes == ("sofa", "zebra", "wok") and data.category_ids == (1, 2, 3)
    assert [data.path(i).name for i in range(2)] == ["1.jpg", "2.jpg"] and data.record(1).labels.tolist() == [0, 1, 2]
    truth = data.coco_truth()
    assert [c["frequency"] for c in truth["categories"]] == ["f", "r", "c"]
    assert truth["images"][0]["neg_category_ids"] == [2]
    assert truth["images"][1]["not_exhaustive_category_ids"] == [1]


@pytest.mark.parametrize("first", ["images", "annotations"])
@pytest.mark.parametrize(
    ("image", "annotation", "kind"),
    [
        ({"id": 1}, {"bbox": []}, "instances"),
        ({"id": 1}, None, "instances"),
        ({"id": 1}, {"segments_info": []}, "panoptic"),
        ({"id": 1, "neg_category_ids": []}, {"bbox": []}, "lvis"),
    ],
)
def test_the_form_of_a_json_is_told_whatever_comes_first(tmp_path, first, image, annotation, kind):
    content = {"images": [image, image], "annotations": [] if annotation is None else [annotation]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({first: content.pop(first), **content, "categories": []}))
    assert json_kind(path) == kind


def test_classes_of_coco_are_found_by_their_sense(file):
    """COCO's couch is LVIS's sofa, its zebra has the same name; it has no wok, whose annotation goes; nobody is a person here."""
    data = read_lvis(file, classes=("person", "couch", "zebra"))
    assert data.classes == ("person", "couch", "zebra") and data.category_ids[1:] == (1, 2)
    assert data.category_ids[0] not in (1, 2) and data.record(1).labels.tolist() == [1, 2]
    truth = data.coco_truth()
    assert [a["category_id"] for a in truth["annotations"]] == [1, 1, 2]
    assert truth["images"][0]["neg_category_ids"] == [2]
    with pytest.raises(InputError, match="none of the model's classes"):
        read_lvis(file, classes=("cup",))


def test_senses():
    """Most are the first of the name; eight that are not, from LVIS's table."""
    found = [synset_of(name) for name in ("person", "traffic light", "cow", "tv", "banana", "mouse", "hot dog", "kite")]
    assert found == [
        "person.n.01",
        "traffic_light.n.01",
        "beef.n.01",
        "television_receiver.n.01",
        "banana.n.02",
        "mouse.n.04",
        "frank.n.02",
        "kite.n.03",
    ]


def result(image, category, score, x, y):
    corners = [[x, y, x + 10, y, x + 10, y + 10, x, y + 10]]
    return {"image_id": image, "category_id": category, "score": score, "bbox": [x, y, 10, 10]} | {
        "segmentation": corners
    }


RESULTS = [
    result(1, 3, 0.99, 30, 30),
    result(1, 1, 0.9, 0, 0),
    result(1, 2, 0.8, 10, 10),
    result(2, 1, 0.95, 40, 0),
    result(2, 1, 0.7, 0, 0),
    result(2, 2, 0.5, 20, 20),
]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_federated_rule_by_hand(file, kind):
    """Sofas: both found; the wrong one of the second photo, where not all are annotated, counts neither way: AP 1.

    Zebras: the one in the first photo (0.8), where there surely is none, is wrong; the right one (0.5) comes after it: precision
    is 1/2 at every recall, AP 0.5. Woks: the one in the first photo, where nobody looked for woks, does not count; the one of the
    second is missed: AP 0. Frequent 1, rare 0.5, common 0; the mean 0.5.
    """
    found = lvis_metrics(read_lvis(file).coco_truth(), RESULTS, kind)
    assert [found[name] for name in ("APf", "APr", "APc", "AP")] == pytest.approx([1, 0.5, 0, 0.5], abs=1e-6)


def test_an_image_has_so_many_results(file):
    """With 2 an image the first keeps the wok and its sofa, the second both its sofas: zebras are missed, AP 0; sofas stay 1."""
    found = lvis_metrics(read_lvis(file).coco_truth(), RESULTS, "bbox", max_detections=2)
    assert [found[name] for name in ("APf", "APr")] == pytest.approx([1, 0], abs=1e-6)


def test_an_evaluation_prints_them_beside_cocos(file, capsys):
    """COCO knows no federated rule: it calls the sofa at 0.95 and the wok at 0.99 wrong, so its AP is lower."""
    data = open_dataset(file)
    assert isinstance(data, LvisDataset)
    metrics = coco_metrics(data.coco_truth(), RESULTS)
    found = report._by_lvis(data, Evaluation({"bbox": metrics}, RESULTS, (), 2, 0.0), None)
    assert found["bbox"]["AP"] == pytest.approx(0.5, abs=1e-6) and metrics.summary["AP"] < 0.45
    assert "bbox by LVIS's rules: AP 0.5000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["categories"][0].pop("frequency"), "frequency of 'sofa' is not r, c or f"),
        (lambda content: content["images"][1].pop("neg_category_ids"), r"images\[1\]: neg_category_ids is not a list"),
    ],
)
def test_bad_files_are_said_in_a_sentence(file, change, message):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_lvis(file)
