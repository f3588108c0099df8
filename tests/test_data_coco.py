import copy
import json

import numpy as np
import pycocotools.mask as reference
import pytest
from PIL import Image as Pillow

from perpixel.data.coco import read_coco
from perpixel.data.dataset import Rle
from perpixel.data.json_stream import members
from perpixel.data.masks import draw_shape
from perpixel.data.open import open_dataset
from perpixel.errors import InputError

TRIANGLE = [2.5, 1, 8, 1, 5, 7.25]
CROWD = np.zeros((20, 30), dtype=np.uint8, order="F")
CROWD[5:9, 10:20] = 1


def _truth():
    code = reference.encode(CROWD)
    runs = {"size": [20, 30], "counts": [205, 4, 391]}  # one column of 4 pixels: x = 10, y = 5..8
    return {
        "info": {"nested": [{"a": 1}, {"b": [1, 2]}]},
        "images": [
            {"id": 7, "file_name": "a.png", "height": 20, "width": 30},
            {"id": 3, "file_name": "b.png", "height": 20, "width": 30},
        ],
        "annotations": [
            {
                "id": 11,
                "image_id": 3,
                "category_id": 5,
                "bbox": [2.5, 1, 5.5, 6.25],
                "area": 17.2,
                "iscrowd": 0,
                "segmentation": [TRIANGLE],
                "keypoints": [4, 3, 2, 0, 0, 0],
                "num_keypoints": 1,
            },
            {
                "id": 12,
                "image_id": 7,
                "category_id": 9,
                "bbox": [10, 5, 10, 4],
                "area": 40,
                "iscrowd": 1,
                "segmentation": {"size": [20, 30], "counts": code["counts"].decode()},
            },
            {"id": 13, "image_id": 3, "category_id": 9, "bbox": [-4, 15, 10, 50], "iscrowd": 0, "segmentation": runs},
            {"id": 14, "image_id": 3, "category_id": 9, "bbox": [1, 1, 2, 3], "iscrowd": 0, "segmentation": []},
        ],
        "categories": [
            {"id": 9, "name": "box"},
            {"id": 5, "name": "person", "keypoints": ["left_eye", "right_eye"]},
        ],
    }


@pytest.fixture
def write(tmp_path):
    for name in ("a.png", "b.png"):
        Pillow.new("RGB", (30, 20)).save(tmp_path / name)

    def write(truth, name="t.json"):
        path = tmp_path / name
        path.write_text(truth if isinstance(truth, str) else json.dumps(truth))
        return path

    return write


def test_records_by_hand(write):
    """Boxes x, y, w, h become corners, clipped to 30x20: [-4, 15, 10, 50] -> [0, 15, 6, 20]. Category 5 comes before 9."""
    dataset = read_coco(write(_truth()))
    assert dataset.classes == ("person", "box") and dataset.category_ids == (5, 9)
    assert dataset.keypoint_names == ("left_eye", "right_eye") and dataset.flip_pairs == ((0, 1),)
    assert dataset.sizes.tolist() == [[20, 30]] * 2 and dataset.object_counts.tolist() == [0, 3]
    first, second = dataset.record(0), dataset.record(1)
    assert (first.id, first.labels.tolist(), first.crowd.tolist()) == (7, [1], [True])
    assert isinstance(first.shapes[0], Rle)
    assert np.array_equal(draw_shape(first.shapes[0], first.size), CROWD)
    assert second.annotation_ids.tolist() == [11, 13, 14] and second.labels.tolist() == [0, 1, 1]
    assert second.boxes.tolist() == [[2.5, 1, 8, 7.25], [0, 15, 6, 20], [1, 1, 3, 4]]
    assert second.shapes[0][0].ravel().tolist() == TRIANGLE
    ys, xs = np.nonzero(draw_shape(second.shapes[1], second.size))
    assert xs.tolist() == [10] * 4 and ys.tolist() == [5, 6, 7, 8]
    assert second.shapes[2] is None


def test_keypoints_stand_at_pixel_centres_and_return_to_indices(write):
    dataset = read_coco(write(_truth()))
    assert dataset.record(1).keypoints[0].tolist() == [[4.5, 3.5, 2], [0, 0, 0]]
    assert not dataset.record(1).keypoints[1:].any()
    truth = {entry["id"]: entry for entry in dataset.coco_truth()["annotations"]}
    assert truth[11]["keypoints"] == [4, 3, 2, 0, 0, 0] and truth[11]["num_keypoints"] == 1


def test_the_truth_is_that_of_the_file(write):
    """Numbers, boxes and polygons unchanged; where the file has no area: the mask's 4 pixels, or the box's 2 x 3."""
    given, made = _truth(), read_coco(write(_truth())).coco_truth()
    made_by_id = {entry["id"]: entry for entry in made["annotations"]}
    for entry in given["annotations"]:
        other = made_by_id[entry["id"]]
        for field in ("image_id", "category_id", "bbox", "iscrowd"):
            assert other[field] == entry[field]
    assert made_by_id[11]["segmentation"] == [TRIANGLE] and made_by_id[11]["area"] == 17.2
    assert made_by_id[12]["segmentation"] == given["annotations"][1]["segmentation"]
    assert made_by_id[13]["area"] == 4 and made_by_id[14]["area"] == 6 and "segmentation" not in made_by_id[14]
    assert {c["id"]: c["name"] for c in made["categories"]} == {5: "person", 9: "box"}


def test_an_evaluation_set_takes_the_labels_of_training(write):
    """Class box is label 2 there; the file has no cat, so cat gets a number the file does not use."""
    dataset = read_coco(write(_truth()), classes=("cat", "person", "box"))
    assert dataset.classes == ("cat", "person", "box") and dataset.category_ids == (10, 5, 9)
    assert dataset.record(1).labels.tolist() == [1, 2, 2]
    with pytest.raises(InputError, match=r"t\.json: the class 'person' is not among the training set's box, cat"):
        read_coco(write(_truth()), classes=("box", "cat"))


def _damage(**fields):
    def change(truth):
        truth["annotations"][0].update(fields)

    return change


def _image(**fields):
    def change(truth):
        truth["images"][1].update(fields)

    return change


def _drop(field):
    def change(truth):
        del truth["annotations"][0][field]

    return change


BAD_OBJECTS = {
    "negative width": (_damage(bbox=[5, 5, -3, 4]), "annotation 11 of image 3: bbox .* has no width"),
    "zero height": (_damage(bbox=[5, 5, 3, 0]), "annotation 11 of image 3: bbox .* has no height"),
    "not a number": (_damage(bbox=[float("nan"), 5, 3, 4]), "annotation 11 of image 3: bbox .* is not a number"),
    "infinite": (_damage(bbox=[1, 5, float("inf"), 4]), "annotation 11 of image 3: bbox .* is not a number"),
    "outside": (_damage(bbox=[30, 5, 3, 4]), r"bbox .* lies outside the image \(30x20\)"),
    "three numbers": (_damage(bbox=[1, 2, 3]), r"annotations\[0\] \(id 11\): bbox=\[1, 2, 3\] is not"),
    "text": (_damage(bbox=[1, "2", 3, 4]), r"annotations\[0\] \(id 11\): bbox=.* in numbers"),
    "no box": (_drop("bbox"), r"annotations\[0\] \(id 11\): has no bbox"),
    "no id": (_drop("id"), r"annotations\[0\] .*: has no id"),
    "no image": (_damage(image_id=99), "annotation 11 of image 99: image_id names no image"),
    "huge id": (_damage(id=2**70), r"annotations\[0\] .*: id=.* are not whole numbers"),
    "no category": (_damage(category_id=1), "annotation 11 of image 3: category_id 1 names no category"),
    "same id": (_damage(id=12), "annotation 12 of image .*: the id occurs twice"),
    "two points": (_damage(segmentation=[[1, 1, 2, 2]]), "segmentation: a polygon is not 3 or more points"),
    "odd numbers": (_damage(segmentation=[[1, 1, 2, 2, 3, 3, 4]]), "segmentation: a polygon is not 3 or more points"),
    "polygon of text": (_damage(segmentation=[["a"] * 6]), "segmentation: a polygon is not a list of numbers"),
    "code size": (
        _damage(segmentation={"size": [20, 31], "counts": "a"}),
        r"segmentation size \[20, 31\] is not the image's \[20, 30\]",
    ),
    "short runs": (_damage(segmentation={"size": [20, 30], "counts": [5, 5]}), "the runs cover 10 pixels, not the 600"),
    "keypoints": (_damage(keypoints=[1, 2, 2]), "keypoints has 3 numbers, not 3 for each of 2 names"),
}


@pytest.mark.parametrize("name", BAD_OBJECTS)
def test_a_bad_object_ends_in_a_sentence_or_is_left_out(write, name):
    change, message = BAD_OBJECTS[name]
    truth = _truth()
    change(truth)
    path = write(truth)
    with pytest.raises(InputError, match=message) as caught:
        read_coco(path)
    assert "t.json" in str(caught.value) and "\n" not in str(caught.value)
    dataset = read_coco(path, skip_bad=True)
    assert len(dataset.skipped) == 1
    assert sum(len(dataset.record(i)) for i in range(len(dataset))) + len(dataset.skipped) == 4


BAD_IMAGES = {
    "missing file": (
        _image(file_name="none.png"),
        r"the image .*none\.png \(id 3\) is missing, with its 3 annotations",
    ),
    "no size": (_image(height=None), r"images\[1\] \(id 3\): .*height.* whole numbers above 0, with its 3 annotations"),
    "negative size": (_image(width=-4), r"images\[1\] \(id 3\): .* with its 3 annotations"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_image_goes_with_its_objects(write, name):
    change, message = BAD_IMAGES[name]
    truth = _truth()
    change(truth)
    path = write(truth)
    with pytest.raises(InputError, match=message):
        read_coco(path)
    dataset = read_coco(path, skip_bad=True)
    assert len(dataset) == 1 and len(dataset.skipped) == 1 and len(dataset.record(0)) == 1


def test_categories_that_cannot_be_told_apart(write):
    for field, value, message in (
        ("id", 5, "the id 5 occurs twice"),
        ("name", "person", "the name 'person' occurs twice"),
        ("name", None, "needs a whole number as id and a name"),
        ("keypoints", 3, "keypoints=3 of 'box' are not names"),
        ("keypoints", ["nose", "tail"], "their keypoints differ"),
    ):
        truth = _truth()
        truth["categories"][0][field] = value
        with pytest.raises(InputError, match=rf"t\.json: categories: .*{message}"):
            read_coco(write(truth), skip_bad=True)


def test_images_are_found_near_the_file_or_where_they_are_named(write, tmp_path):
    path = write(_truth())
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / name).rename(moved / name)
    with pytest.raises(InputError, match=r"its first image a\.png is not in .*; name its folder with images="):
        open_dataset(path)
    assert open_dataset(path, moved).image(0).shape == (20, 30, 3)
    with pytest.raises(InputError, match="no such folder of images"):
        open_dataset(path, tmp_path / "nowhere")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    moved.rename(tmp_path / "images/val")
    path.rename(tmp_path / "annotations/instances_val.json")
    assert len(open_dataset(tmp_path / "annotations/instances_val.json")) == 2


def test_an_image_id_that_occurs_twice(write):
    truth = _truth()
    truth["images"].append(copy.deepcopy(truth["images"][0]))
    with pytest.raises(InputError, match=r"images\[2\]: the id 7 occurs twice"):
        read_coco(write(truth))
    assert len(read_coco(write(truth), skip_bad=True)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [], "annotations": [', "is not valid json"),
        ('{"info": [1,, 2]}', "is not valid json"),
        ("[]", "holds no COCO ground truth"),
        ("", "holds no COCO ground truth"),
        ('{"images": [], "annotations": []}', "has no 'categories'"),
        ('{"images": [], "annotations": [], "categories": []}', "images is empty"),
    ],
)
def test_a_file_that_is_no_ground_truth(write, text, message):
    with pytest.raises(InputError, match=rf"t\.json: {message}"):
        read_coco(write(text))


@pytest.mark.parametrize("indent", [None, 2])
def test_the_stream_reads_what_json_reads(tmp_path, monkeypatch, indent):
    """With blocks of a few letters every border falls somewhere: between items, inside text, behind the list's end."""
    monkeypatch.setattr("perpixel.data.json_stream._BLOCK", 7)
    value = {
        "a": [{"x": "}, {"}, {"y": [{"z": 1}, {"z": 2}]}, {"w": 1.5e-3}, {"q": None}] * 3,
        "empty": [],
        "word": "text",
        "after": [{"last": '\u00e9\\"'}],
        "mixed": [1, "two", {"three": 3}, [4]],
    }
    path = tmp_path / "t.json"
    path.write_text(json.dumps(value, indent=indent))
    read = {name: list(items) for name, items in members(path)}
    assert read == value | {"word": ["text"]}


def test_real_files_agree_with_plain_json(shared_data):
    for file in (
        "coco80_mini/annotations/instances_val.json",
        "coco_person/annotations/person_val.json",
        "dsb2018_nuclei/annotations/instances_val.json",
    ):
        path = shared_data / file
        given, dataset = json.loads(path.read_text()), read_coco(path)
        made = {entry["id"]: entry for entry in dataset.coco_truth()["annotations"]}
        assert not dataset.skipped and len(dataset) == len(given["images"]) and len(made) == len(given["annotations"])
        for entry in given["annotations"]:
            other = made[entry["id"]]
            same = ("image_id", "category_id", "bbox", "area", "iscrowd", "num_keypoints")
            assert {f: entry[f] for f in same if f in entry and f in other} == {
                f: other[f] for f in same if f in entry and f in other
            }
            if isinstance(entry["segmentation"], list):
                assert other["segmentation"] == entry["segmentation"]
            else:
                size = entry["segmentation"]["size"]
                code = entry["segmentation"]
                code = reference.frPyObjects(code, *size) if isinstance(code["counts"], list) else code
                assert np.array_equal(reference.decode(code), reference.decode(other["segmentation"]))
