"""Pascal VOC and YOLO folders, and the one door to all kinds of data."""

import numpy as np
import pytest
from PIL import Image as Pillow

from perpixel.data.masks import draw_shape
from perpixel.data.open import open_dataset
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.metrics import coco_metrics
from perpixel.errors import InputError

OBJECT = "<object><name>{}</name><difficult>{}</difficult><bndbox>{}</bndbox></object>"


def _bounds(x1, y1, x2, y2):
    return f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"


@pytest.fixture
def voc(tmp_path):
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    size = "<size><width>30</width><height>20</height></size>"
    objects = {
        "a": OBJECT.format("dog", 0, _bounds(1, 1, 10, 20)) + OBJECT.format("cat", 1, _bounds(5, 6, 7, 8)),
        "b": OBJECT.format("ant", 0, _bounds(3, 3, 40, 9)),
        "c": "",
    }
    for stem, text in objects.items():
        sizes = size if stem != "b" else "<size><width>0</width><height>0</height></size>"
        (tmp_path / f"Annotations/{stem}.xml").write_text(f"<annotation>{sizes}{text}</annotation>")
        Pillow.new("RGB", (30, 20)).save(tmp_path / f"JPEGImages/{stem}.jpg")
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nc\n")
    (tmp_path / "ImageSets/Main/dog_val.txt").write_text("b  1\n\nc -1\n")
    return tmp_path


def test_voc_by_hand(voc):
    """Pixels 1..10 inclusive cover [0, 10]; a difficult object is a crowd; classes are sorted; a stated size of 0 is read
    from the image; xmax 40 is clipped to 30."""
    dataset = open_dataset(voc)
    assert dataset.classes == ("ant", "cat", "dog") and dataset.category_ids == (1, 2, 3)
    first = dataset.record(0)
    assert first.id == "a" and first.size == (20, 30)
    assert first.boxes.tolist() == [[0, 0, 10, 20], [4, 5, 7, 8]]
    assert first.labels.tolist() == [2, 1] and first.crowd.tolist() == [False, True]
    assert dataset.record(1).boxes.tolist() == [[2, 2, 30, 9]]
    assert len(dataset.record(2)) == 0 and dataset.object_counts.tolist() == [1, 1, 0]
    assert dataset.image(0).shape == (20, 30, 3)
    truth = dataset.coco_truth()
    assert truth["annotations"][1]["bbox"] == [4, 5, 3, 3] and truth["annotations"][1]["iscrowd"] == 1
    assert truth["annotations"][1]["category_id"] == 2


def test_voc_splits(voc):
    train = open_dataset(voc / "ImageSets/Main/train.txt")
    assert [train.record(i).id for i in range(len(train))] == ["a", "c"] and train.classes == ("cat", "dog")
    with pytest.raises(InputError, match=r"dog_val\.txt: the class 'ant' is not among the training set's cat, dog"):
        open_dataset(voc / "ImageSets/Main/dog_val.txt", classes=train.classes)
    assert len(open_dataset(voc / "ImageSets/Main/dog_val.txt")) == 2


def _picture(path, *patches):
    """A palette picture of 30 x 20 pixels: (number, x1, y1, x2, y2) painted one after the other."""
    numbers = np.zeros((20, 30), np.uint8)
    for number, x1, y1, x2, y2 in patches:
        numbers[y1:y2, x1:x2] = number
    picture = Pillow.fromarray(numbers, "P")
    picture.putpalette([channel for level in range(256) for channel in (level, 255 - level, level)])
    path.parent.mkdir(exist_ok=True)
    picture.save(path)


def test_voc_masks(voc):
    """Numbers need not be in the order of the xml: mask 1 lies in the second object's box, mask 2 in the first one's, 7 in none.

    The border (255) belongs to nobody, so of the dog's 10 x 20 pixels 8 x 18 are its own. An image without a picture has boxes.
    """
    _picture(
        voc / "SegmentationObject/a.png", (255, 0, 0, 10, 20), (2, 1, 1, 9, 19), (1, 4, 5, 7, 8), (7, 20, 10, 25, 15)
    )
    dataset = open_dataset(voc)
    dog, cat = (draw_shape(shape, (20, 30)) for shape in dataset.record(0).shapes)
    assert dog.sum() == 8 * 18 - 9 and cat.sum() == 9 and cat[5:8, 4:7].all() and not (dog & cat).any()
    assert dataset.record(1).shapes == (None,)
    # The cat is marked difficult: not counted.
    assert dataset.box_only_counts.tolist() == [0, 1, 0] and dataset.object_counts.tolist() == [1, 1, 0]
    assert [bool(a.get("segmentation")) for a in dataset.coco_truth()["annotations"]] == [True, True, False]


def test_voc_masks_are_scored(voc):
    """The masks themselves as results, on the split of the only image that has any: AP 1."""
    _picture(voc / "SegmentationObject/a.png", (1, 0, 0, 10, 20), (2, 4, 5, 7, 8))
    truth = open_dataset(voc / "ImageSets/Main/train.txt").coco_truth()
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": 0.9, "bbox": a["bbox"]}
        | {"segmentation": a["segmentation"]}
        for a in truth["annotations"]
    ]
    assert coco_metrics(truth, results, "segm").summary["AP"] == pytest.approx(1)


def test_voc_mask_pictures_that_cannot_be_used(voc):
    path = voc / "SegmentationObject/a.png"
    path.parent.mkdir()
    for picture, message in (
        (Pillow.new("RGB", (30, 20)), "is of mode RGB, not a palette picture"),
        (Pillow.new("P", (20, 30)), "has 20x30 pixels, its image 30x20"),
    ):
        picture.save(path)
        with pytest.raises(InputError, match=rf"a\.png: {message}"):
            open_dataset(voc)
    path.write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.png: cannot be read as a picture"):
        open_dataset(voc)
    dataset = open_dataset(voc, skip_bad=True)
    assert len(dataset.skipped) == 1 and dataset.record(0).shapes == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OBJECT.format("dog", 0, _bounds(5, 5, 5, 9)), r"object 1 \(dog\): bndbox xmin=5 .* has no width"),
        (OBJECT.format("dog", 0, _bounds(5, 9, 8, 5)), r"object 1 \(dog\): .* has no height"),
        (OBJECT.format("dog", 0, _bounds(50, 5, 60, 9)), r"object 1 \(dog\): .* lies outside the image"),
        (OBJECT.format("dog", 0, _bounds("x", 5, 60, 9)), "xmin='x' is not a number"),
        (OBJECT.format("dog", 0, _bounds("nan", 5, 60, 9)), "is not a number"),
        (OBJECT.format("", 0, _bounds(1, 5, 60, 9)), "has no name"),
        ("<object>", "is not valid xml"),
    ],
)
def test_voc_faults(voc, text, message):
    (voc / "Annotations/c.xml").write_text(f"<annotation>{text}</annotation>")
    with pytest.raises(InputError, match=rf"c\.xml: .*{message}"):
        open_dataset(voc)
    dataset = open_dataset(voc, skip_bad=True)
    assert len(dataset.skipped) == 1 and int(dataset.object_counts.sum()) == 2


def test_voc_missing_files(voc):
    (voc / "JPEGImages/a.jpg").unlink()
    (voc / "ImageSets/Main/train.txt").write_text("a\nc\nnone\nc\n")
    with pytest.raises(InputError, match=r"a\.xml: there is no image a in .*, with its 2 objects"):
        open_dataset(voc / "ImageSets/Main/train.txt")
    with pytest.raises(InputError, match="there is no class"):
        open_dataset(voc / "ImageSets/Main/train.txt", skip_bad=True)
    dataset = open_dataset(voc / "ImageSets/Main/train.txt", skip_bad=True, classes=("dog",))
    assert len(dataset) == 1 and len(dataset.skipped) == 3
    assert "no such annotation file" in dataset.skipped[1] and "listed twice" in dataset.skipped[2]


@pytest.fixture
def yolo(tmp_path):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        Pillow.new("RGB", (40, 20)).save(tmp_path / f"images/{split}/a.png")
    Pillow.new("RGB", (40, 20)).save(tmp_path / "images/train/b.png")
    (tmp_path / "labels/train/a.txt").write_text("1 0.5 0.5 0.25 0.5\n0 0.1 0.1 0.5 0.1 0.5 0.9\n\n")
    (tmp_path / "labels/val/a.txt").write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: {0: dog, 1: cat}\n")
    return tmp_path


def test_yolo_by_hand(yolo):
    """40x20: centre (20, 10), 10x10 -> [15, 5, 25, 15]; the polygon's box is [4, 2, 20, 18]; b.png has no labels."""
    dataset = open_dataset(f"{yolo}/data.yaml:train")
    assert dataset.classes == ("dog", "cat") and dataset.category_ids == (0, 1) and len(dataset) == 2
    record = dataset.record(0)
    assert record.boxes.tolist() == [[15, 5, 25, 15], [4, 2, 20, 18]] and record.labels.tolist() == [1, 0]
    assert record.shapes[0] is None
    assert np.allclose(record.shapes[1][0], [[4, 2], [20, 2], [20, 18]])
    assert len(dataset.record(1)) == 0 and dataset.image(0).shape == (20, 40, 3)
    folder = open_dataset(yolo)
    assert len(folder) == 3 and folder.classes == dataset.classes
    assert len({record.id for record in map(folder.record, range(3))}) == 3


def test_yolo_keypoints(yolo):
    """kpt_shape [2, 3]: the second keypoint has visibility 0 and is absent."""
    text = "path: .\ntrain: images/train\nnames: [dog, cat]\nkpt_shape: [2, 3]\nkpt_names: {0: [left_ear, right_ear]}\n"
    (yolo / "data.yaml").write_text(text)
    (yolo / "labels/train/a.txt").write_text("0 0.5 0.5 0.5 0.5 0.25 0.5 2 0.5 0.5 0\n")
    dataset = open_dataset(f"{yolo}/data.yaml:train")
    assert dataset.flip_pairs == ((0, 1),)
    assert dataset.record(0).keypoints.tolist() == [[[10, 10, 2], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5 0.5 0.5 0.1 0.1", "class 5 is not among the 2 names"),
        ("0 0.5 0.5 0 0.1", "the box has no width"),
        ("0 1.5 0.5 0.1 0.1", "the box lies outside the image"),
        ("0 nan 0.5 0.1 0.1", "has a value that is not a number"),
        ("0 0.5 0.5 0.1", "has 3 numbers after the class"),
        ("dog 0.5 0.5 0.1 0.1", "is not a row of numbers"),
    ],
)
def test_yolo_faults(yolo, line, message):
    (yolo / "labels/train/b.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(InputError, match=rf"b\.txt: line 2: .*{message}"):
        open_dataset(f"{yolo}/data.yaml:train")
    dataset = open_dataset(f"{yolo}/data.yaml:train", skip_bad=True)
    assert len(dataset.skipped) == 1 and int(dataset.object_counts.sum()) == 3


def test_yolo_damaged_image(yolo):
    (yolo / "images/train/a.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.png: cannot be read as an image .* with its 2 objects"):
        open_dataset(f"{yolo}/data.yaml:train")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.json", "no such file or folder"),
        ("data.yaml", "say which split is meant, as in .*data.yaml:train"),
        ("data.yaml:test", "has no split 'test'; it has train, val"),
        ("none.yaml:train", "cannot be read"),
        ("images", "not a data set that is known here"),
    ],
)
def test_sources_that_cannot_be_opened(yolo, source, message):
    with pytest.raises(InputError, match=message):
        open_dataset(yolo / source)


@pytest.mark.parametrize("source", ["shapes:", "shapes:x", "shapes:3:4:5", "shapes:0", "shapes:-3"])
def test_shapes_are_written_with_numbers(source):
    with pytest.raises(InputError, match="shapes"):
        open_dataset(source)


def test_shapes_by_name():
    dataset = open_dataset("shapes:3:5")
    assert isinstance(dataset, ShapesDataset) and (len(dataset), dataset.seed) == (3, 5)


def test_blood_cells(shared_data):
    """The two points among the boxes are named; 361 platelets, 372 white cells as the source counts them."""
    folder = shared_data / "bccd"
    with pytest.raises(InputError, match=r"BloodImage_00338\.xml: object 13 \(RBC\): .* has no width"):
        open_dataset(folder)
    dataset = open_dataset(folder, skip_bad=True)
    labels = np.concatenate([dataset.record(i).labels for i in range(len(dataset))])
    assert dataset.classes == ("Platelets", "RBC", "WBC") and len(dataset.skipped) == 2
    assert np.bincount(labels).tolist() == [361, 4155 - 2, 372]
    parts = [len(open_dataset(folder / f"splits/{s}.txt", skip_bad=True)) for s in ("train", "val", "test")]
    assert parts == [205, 87, 72]
