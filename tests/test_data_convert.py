"""Data sets written in another form and read again: by hand, with examples of annotation programs, and for any objects."""

import base64
import io
import json
import math
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from perpixel.data.document import Document, Losses
from perpixel.data.extras import from_text, to_text
from perpixel.data.masks import draw_shape, encode
from perpixel.data.one_outline import one_outline
from perpixel.data.open import open_dataset
from perpixel.data.write import WRITERS
from perpixel.engine.convert_data import Converted, convert, split
from perpixel.errors import InputError

SIZE = (24, 32)
CARRYING_ALL = ("coco", "voc", "labelme", "cvat")


def read_back(out: Path, form: str) -> Document:
    """What a conversion wrote, as anybody reads it."""
    return Document.read({"coco": out / "annotations.json", "cvat": out / "annotations.xml"}.get(form, out))


def write_coco(folder: Path, annotations: list[dict], images: int = 2, **more) -> Path:
    """A COCO file of black pictures a.png, b.png …; its categories are 3 ant and 7 bee."""
    (folder / "images").mkdir(parents=True)
    entries = []
    for number in range(images):
        name = f"{chr(ord('a') + number)}.png"
        Pillow.new("RGB", SIZE[::-1]).save(folder / "images" / name)
        entries.append({"id": 10 + number, "file_name": name, "height": SIZE[0], "width": SIZE[1], "camera": "left"})
    categories = [{"id": 3, "name": "ant", "supercategory": "insect"}, {"id": 7, "name": "bee"}]
    path = folder / "annotations.json"
    content = {"images": entries, "annotations": annotations, "categories": categories, "info": {"year": 2020}, **more}
    path.write_text(json.dumps(content))
    return path


def annotation(number: int, box: list[float], category: int = 3, image: int = 10, **fields) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **fields}


SQUARE = [[4, 4, 12, 4, 12, 12, 4, 12]]
TWO = [[2, 2, 6, 2, 6, 6, 2, 6], [10, 2, 14, 2, 14, 6, 10, 6]]


@pytest.fixture
def source(tmp_path) -> Path:
    mask = np.zeros(SIZE, bool)
    mask[14:20, 4:9] = True
    code = {"size": list(SIZE), "counts": encode(mask).counts.decode()}
    return write_coco(
        tmp_path / "in",
        [
            annotation(1, [4, 4, 8, 8], segmentation=SQUARE, color="red", seen=[1, 2]),
            annotation(2, [2, 2, 12, 4], 7, 11, segmentation=TWO),
            annotation(5, [4, 14, 5, 6], segmentation=code, note="7"),
            annotation(6, [20, 1, 8, 9], iscrowd=1),
        ],
        licenses=[{"id": 1}],
        custom=4,
    )


@pytest.mark.parametrize("form", WRITERS)
def test_by_hand(source, tmp_path, form):
    """Boxes, masks, crowds and fields of four objects; what a form cannot carry is counted, and nothing else is missing."""
    out = tmp_path / "out"
    done = convert(source, out, form, progress=False)
    back = read_back(out, form)
    assert done.images == len(back.images) == 2 and done.objects == 4
    assert len(back.annotations) == done.written == 4 - sum(done.losses.objects.values())
    boxes = sorted(tuple(round(value, 6) for value in entry["bbox"]) for entry in back.annotations)
    crowds = [] if form == "yolo" else [(20, 1, 8, 9)]
    assert boxes == sorted([(4, 4, 8, 8), (2, 2, 12, 4), (4, 14, 5, 6), *crowds])
    assert [entry["bbox"] for entry in back.annotations if entry["iscrowd"]] == [list(box) for box in crowds]
    masks = {
        round(draw_shape(shape, SIZE).sum()) for row in (0, 1) for shape in back.dataset.record(row).shapes if shape
    }
    assert masks == {64, 32, 30}
    assert done.losses.objects == ({"a crowd would be an object in YOLO": 1} if form == "yolo" else {})
    if form == "yolo":
        assert done.losses.fields["'color' of an object"] == 1 and done.losses.fields["'camera' of an image"] == 2
        return
    fields = [{k: v for k, v in entry.items() if k in ("color", "seen", "note")} for entry in back.annotations]
    assert sorted(map(str, fields)) == sorted(map(str, [{"color": "red", "seen": [1, 2]}, {"note": "7"}, {}, {}]))
    assert [entry["camera"] for entry in back.images] == ["left", "left"]
    lost = {
        "'info' of the data set",
        "'licenses' of the data set",
        "'custom' of the data set",
        "'supercategory' of a class",
    }
    assert done.losses.fields.keys() == (set() if form == "coco" else lost)


def test_coco_to_coco_keeps_everything(source, tmp_path):
    """Numbers, fields, members: the file is the same but for the form of numbers."""
    convert(source, tmp_path / "out", "coco", progress=False)
    before, after = json.loads(source.read_text()), json.loads((tmp_path / "out/annotations.json").read_text())
    assert after["custom"] == 4 and after["licenses"] == [{"id": 1}] and after["info"] == {"year": 2020}
    assert after["categories"] == before["categories"] and after["images"] == before["images"]
    for old, new in zip(sorted(before["annotations"], key=lambda e: e["image_id"]), after["annotations"], strict=True):
        assert old.items() <= new.items()
        assert new.keys() - old.keys() == {"area"}


FIELDS = st.dictionaries(
    st.text("abcxyz_", min_size=1, max_size=4),
    st.one_of(
        st.text(max_size=5),
        st.integers(-9, 9),
        st.booleans(),
        st.none(),
        st.lists(st.floats(0, 1, width=32), max_size=2),
    ),
    max_size=2,
)


@st.composite
def objects(draw):
    """An annotation inside the image: a box, a polygon or two, or a mask; its box may differ from the mask's extent."""
    x, y = draw(st.floats(0, 20)), draw(st.floats(0, 14))
    width, height = draw(st.floats(1.5, 10)), draw(st.floats(1.5, 8))
    entry = {"bbox": [x, y, width, height], "category_id": draw(st.sampled_from([3, 7])), **draw(FIELDS)}
    kind = draw(st.sampled_from(["box", "polygon", "two", "mask", "other box"]))
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    if kind in ("polygon", "two"):
        entry["segmentation"] = [corners]
    if kind == "two":
        entry["segmentation"] = [[x, y, x + 1, y, x, y + 1], corners]
    if kind == "other box":
        entry["segmentation"] = [[x + width / 4, y, x + width / 2, y, x, y + height / 2]]
    if kind == "mask":
        mask = np.zeros(SIZE, bool)
        mask[int(y) : int(y) + 3, int(x) : int(x) + 4] = True
        mask[int(y), int(x)] = draw(st.booleans())
        entry["segmentation"] = {"size": list(SIZE), "counts": encode(mask).counts.decode()}
    entry["iscrowd"] = draw(st.integers(0, 1))
    return entry


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(objects(), min_size=1, max_size=4), st.sampled_from(list(WRITERS)), st.sampled_from(list(WRITERS)))
def test_there_and_back(entries, form, second):
    """Any objects through two forms: each arrives, in place, with its mask and fields, or is counted."""
    folder = Path(tempfile.mkdtemp())
    try:
        entries[0]["iscrowd"] = 0  # a class must be left in every form
        numbered = [entry | {"id": n, "image_id": 10 + n % 2} for n, entry in enumerate(entries, start=1)]
        path = write_coco(folder / "in", numbered)
        one = convert(path, folder / "one", form, progress=False)
        between = {"coco": folder / "one/annotations.json"}.get(form, folder / "one")
        two = convert(between, folder / "two", second, progress=False)
        _compare(Document.read(path), read_back(folder / "two", second), [one, two])
    finally:
        shutil.rmtree(folder)


def _compare(before: Document, after: Document, steps: list[Converted]) -> None:
    lost = sum(sum(step.losses.objects.values()) for step in steps)
    assert len(after.images) == len(before.images) and len(after.annotations) == len(before.annotations) - lost
    forms_of_text = [step for step in steps if any("of an object" in name for name in step.losses.fields)]
    changed = {what for step in steps for what in step.losses.changed}
    yolo = any(step.out.joinpath("data.yaml").exists() for step in steps)
    left = list(after.objects(Losses()))
    for (image, found), (_, entries) in zip(left, before.objects(Losses()), strict=True):
        size = image["height"], image["width"]
        for entry in found:
            wanted = [e for e in entries if _same(e, entry, yolo)]
            assert wanted, entry
            if not forms_of_text:
                assert any(e.extra == {k: v for k, v in entry.extra.items() if k != "group_id"} for e in wanted)
            if not changed & {"objects of which the box alone is left: their mask is hidden or far smaller"}:
                assert any((e.shape is None) == (entry.shape is None) for e in wanted)
            whole = not any("pixels" in what or "cut" in what or "box alone" in what for what in changed)
            if whole and entry.shape is not None:
                drawn = draw_shape(entry.shape, size)
                differing = [(draw_shape(e.shape, size) != drawn).sum() for e in wanted if e.shape is not None]
                assert min(differing) == 0


def _same(one, other, yolo: bool) -> bool:
    """Whether two objects have the same class, crowd and box; through YOLO an object with a mask has the mask's extent."""
    if (one.name, one.crowd) != (other.name, other.crowd):
        return False
    boxes = [one.box]
    if yolo and one.shape is not None:
        if isinstance(one.shape, tuple):
            points = np.concatenate(one.shape)
            boxes.append((*points.min(0), *points.max(0)))
        rows, columns = np.nonzero(draw_shape(one.shape, SIZE))
        if len(rows):
            boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    return any(np.abs(np.subtract(box, other.box)).max() < 0.11 for box in boxes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_values_survive_as_text(value):
    text = to_text(value)
    assert from_text(text) == value and type(from_text(text)) is type(value)
    assert all(ord(sign) >= 32 for sign in text)


def test_texts_stay_readable():
    assert [to_text(value) for value in ("red", "two words", "1", 1, True)] == ["red", "two words", '"1"', "1", "true"]
    assert from_text(" front left ") == "front left" and from_text("0") == 0 and from_text(None) == ""


def test_one_outline_by_hand():
    """A ring of pixels and a pixel beside it become one line; drawn, it is the mask again."""
    mask = np.zeros((8, 12), bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    mask[2, 9] = True
    outline = one_outline(encode(mask), mask)
    assert len(outline) == 4 + 4 + 4 + 2 * 2  # the corners of three rings, and for two joins two points more
    np.testing.assert_array_equal(draw_shape((outline,), (8, 12)), mask)


def _shape(label, kind, points, **fields) -> dict:
    return {"label": label, "shape_type": kind, "points": points, "group_id": None, "flags": {}, **fields}


def test_labelme_by_hand(tmp_path):
    """A rectangle drawn from below, a polygon of two parts with a box, a circle of radius 3, and a mask whose rectangle
    [5, 6] to [7, 7] has 3 x 2 pixels, both ends included."""
    buffer = io.BytesIO()
    Pillow.fromarray(np.array([[255, 0, 255], [255, 255, 255]], np.uint8)).save(buffer, "PNG")
    mask = base64.b64encode(buffer.getvalue()).decode()
    shapes = [
        _shape("dog", "rectangle", [[9, 8], [2, 3]], description="asleep"),
        _shape("cat", "polygon", [[1, 1], [5, 1], [5, 5], [1, 5]], group_id=4),
        _shape("cat", "polygon", [[11, 1], [15, 1], [15, 5], [11, 5]], group_id=4),
        _shape("cat", "rectangle", [[0, 0], [16, 6]], group_id=4),
        _shape("dog", "circle", [[20, 10], [23, 10]]),
        _shape("dog", "mask", [[5, 6], [7, 7]], mask=mask, difficult=True),
    ]
    content = {"version": "5.4.1", "flags": {"night": True}, "shapes": shapes, "imagePath": "..\\photos\\a.png"}
    (tmp_path / "photos").mkdir()
    (tmp_path / "json").mkdir()
    Pillow.new("RGB", (32, 24)).save(tmp_path / "photos/a.png")
    (tmp_path / "json/a.json").write_text(
        json.dumps(content | {"imageHeight": 24, "imageWidth": 32, "imageData": None})
    )
    dataset = open_dataset(tmp_path / "json")
    record = dataset.record(0)
    assert dataset.classes == ("cat", "dog") and record.id == "a" and dataset.image(0).shape == (24, 32, 3)
    found = {tuple(np.round(box, 4).tolist()): row for row, box in enumerate(record.boxes)}
    assert set(found) == {(2, 3, 9, 8), (0, 0, 16, 6), (17, 7, 23, 13), (5, 6, 8, 8)}
    parts = record.shapes[found[0, 0, 16, 6]]
    assert len(parts) == 2 and draw_shape(parts, (24, 32)).sum() == 32
    circle = draw_shape(record.shapes[found[17, 7, 23, 13]], (24, 32)).sum()
    assert abs(circle - math.pi * 9) < 3
    inside = draw_shape(record.shapes[found[5, 6, 8, 8]], (24, 32))
    assert inside[6:8, 5:8].tolist() == [[True, False, True], [True, True, True]] and inside.sum() == 5
    assert record.crowd.tolist().count(True) == 1 and record.crowd[found[5, 6, 8, 8]]
    document = Document.read(tmp_path / "json")
    assert document.images[0]["flags"] == {"night": True}
    assert [entry.get("description") for entry in document.annotations].count("asleep") == 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (_shape("a", "line", [[1, 1], [2, 2]]), r"shape 1 \(a\): is a line, which bounds no area"),
        (_shape("a", "polygon", [[1, 1], [2, 2]]), "a polygon of 2 points is not 3 or more"),
        (_shape("a", "rectangle", [[40, 1], [50, 9]]), r"lies outside the image \(32x24\)"),
        (_shape("a", "mask", [[1, 1], [2, 2]], mask="%%"), "mask is no PNG picture in base64"),
        (_shape("a", "heart", [[1, 1], [2, 2]]), "shape_type 'heart' with 2 points is not known"),
        (_shape("a", "polygon", [[1, 1], [2, 2], [10**400, 3]]), "points are not pairs of numbers"),
        ({"points": []}, "has no label"),
    ],
)
def test_bad_labelme_is_named(tmp_path, shape, message):
    Pillow.new("RGB", (32, 24)).save(tmp_path / "a.png")
    good = _shape("b", "rectangle", [[1, 1], [9, 9]])
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [shape, good], "imagePath": "a.png"}))
    with pytest.raises(InputError, match=message) as error:
        open_dataset(tmp_path)
    assert "a.json" in str(error.value)
    left = open_dataset(tmp_path, skip_bad=True)
    assert len(left.skipped) == 1 and left.object_counts.tolist() == [1]


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><name>t</name><labels>
<label><name>zebra</name><color>#ff0000</color></label><label><name>ape</name></label></labels></task></meta>
<image id="0" name="sub/a.png" width="32" height="24" subset="train">
<box label="ape" source="manual" occluded="1" xtl="1.50" ytl="2.00" xbr="9.00" ybr="8.00" z_order="3">
<attribute name="mood">calm</attribute><attribute name="age">4</attribute></box>
<polygon label="zebra" source="auto" occluded="0" points="1,1;5,1;5,5;1,5" z_order="0" group_id="2"></polygon>
<polygon label="zebra" source="auto" occluded="0" points="11,1;15,1;15,5;11,5" z_order="0" group_id="2"></polygon>
<mask label="ape" source="manual" occluded="0" rle="1, 1, 2, 2" left="20" top="10" width="3" height="2" z_order="0">
<attribute name="is_crowd">true</attribute></mask>
<box label="ape" occluded="0" xtl="10" ytl="10" xbr="14" ybr="16" rotation="90.0" z_order="0"></box>
<ellipse label="ape" occluded="0" cx="25.0" cy="5.0" rx="4.0" ry="2.0" z_order="0"></ellipse>
<tag label="dusk" source="manual"></tag>
</image></annotations>
"""


def write_cvat(folder: Path, text: str = CVAT) -> Path:
    (folder / "images/sub").mkdir(parents=True)
    Pillow.new("RGB", (32, 24)).save(folder / "images/sub/a.png")
    (folder / "annotations.xml").write_text(text)
    return folder


def test_cvat_by_hand(tmp_path):
    """Runs 1, 2, 1, 2 over 3 x 2 pixels: .## / #.. would be 1, 2; here 1, 1, 2, 2 is .#. / .##. A box of 4 x 6 around
    (12, 13), turned by a quarter, is 6 wide and 4 high."""
    dataset = open_dataset(write_cvat(tmp_path))
    record = dataset.record(0)
    assert dataset.classes == ("zebra", "ape") and record.id == "sub/a.png"
    boxes = {tuple(np.round(box, 4).tolist()): row for row, box in enumerate(record.boxes)}
    assert set(boxes) == {(1.5, 2, 9, 8), (1, 1, 15, 5), (21, 10, 23, 12), (9, 11, 15, 15), (21, 3, 29, 7)}
    inside = draw_shape(record.shapes[boxes[21, 10, 23, 12]], (24, 32))
    assert inside[10:12, 20:23].tolist() == [[False, True, False], [False, True, True]]
    assert record.crowd[boxes[21, 10, 23, 12]] and record.crowd.sum() == 1
    assert draw_shape(record.shapes[boxes[1, 1, 15, 5]], (24, 32)).sum() == 32
    document = Document.read(tmp_path / "annotations.xml")
    assert document.images[0]["subset"] == "train" and document.images[0]["tags"] == ["dusk"]
    ape = next(entry for entry in document.annotations if "mood" in entry)
    fields = {key: ape[key] for key in ("mood", "age", "occluded", "z_order", "source")}
    assert fields == {"mood": "calm", "age": 4, "occluded": 1, "z_order": 3, "source": "manual"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1, 1, 2, 2", "1, 1, 2, 9", "the runs of rle cover 13 pixels, not the 3x2"),
        ('xtl="1.50"', 'xtl="wide"', "xtl='wide' are not numbers"),
        (
            "<ellipse",
            '<polyline label="l" points="1,1;2,2"></polyline><ellipse',
            "is of kind polyline, of which no box is known",
        ),
        ("</annotations>", "<track id='0'></track></annotations>", "holds tracks of a video; export the task again"),
        ("</annotations>", "", "is not valid xml"),
        ('width="32"', 'width="0"', "needs a name, and width and height above 0"),
        ('width="32"', 'width="99999999999"', "million pixels an image may have"),
        ("1,1;5,1;5,5;1,5", "1,1;5;5,5", "points are not pairs of numbers"),
        ("utf-8", "x", "is not valid xml"),
    ],
)
def test_bad_cvat_is_named(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message) as error:
        open_dataset(write_cvat(tmp_path, CVAT.replace(old, new)))
    assert "annotations.xml" in str(error.value)


def test_groups_do_not_join_by_chance(tmp_path):
    """Two ants with a mask and the same group_id of their own stay two; a multi-part ant takes a number that is free."""
    other = [[20, 4, 28, 4, 28, 12, 20, 12]]
    entries = [
        annotation(1, [4, 4, 8, 8], segmentation=SQUARE, group_id=1),
        annotation(2, [20, 4, 8, 8], segmentation=other, group_id=1),
        annotation(3, [2, 2, 12, 4], segmentation=TWO),
    ]
    path = write_coco(tmp_path / "in", entries, 1)
    for form in ("labelme", "cvat"):
        done = convert(path, tmp_path / form, form, progress=False)
        assert sorted(entry["bbox"][0] for entry in read_back(tmp_path / form, form).annotations) == [2, 4, 20]
        assert any("'group_id' of an object" in name for name in done.losses.fields)


def test_overlapping_masks_in_voc_are_counted(tmp_path):
    """The small square keeps its 16 pixels of the big one's 144, which comes back with 128."""
    entries = [
        annotation(1, [2, 2, 12, 12], segmentation=[[2, 2, 14, 2, 14, 14, 2, 14]]),
        annotation(2, [4, 4, 4, 4], segmentation=[[4, 4, 8, 4, 8, 8, 4, 8]]),
        annotation(3, [20, 20, 1, 3]),
    ]
    done = convert(write_coco(tmp_path / "in", entries, 1), tmp_path / "out", "voc", progress=False)
    assert done.losses.changed == {
        "masks that lost pixels to a smaller one on top of them": 1,
        "polygons drawn as pixels": 1,
    }
    assert sum(done.losses.objects.values()) == 1 and done.written == 2
    shapes = read_back(tmp_path / "out", "voc").dataset.record(0).shapes
    assert [int(draw_shape(shape, SIZE).sum()) for shape in shapes] == [128, 16]


def test_keypoints_survive_in_yolo(tmp_path):
    done = convert("figures:3:0", tmp_path / "yolo", "yolo", progress=False)
    before, after = open_dataset("figures:3:0"), open_dataset(tmp_path / "yolo")
    assert after.keypoint_names == before.keypoint_names and set(after.flip_pairs) == set(before.flip_pairs)
    for row in range(3):
        np.testing.assert_allclose(after.record(row).keypoints, before.record(row).keypoints, atol=1e-3)
    assert done.losses.changed.keys() == {"masks left out, as YOLO has no place for them beside keypoints"}


def test_boxes_alone(source, tmp_path):
    done = convert(source, tmp_path / "out", "yolo", boxes=True, progress=False)
    assert {
        len(line.split()) for file in (tmp_path / "out/labels").iterdir() for line in file.read_text().splitlines()
    } == {5}
    assert done.losses.changed == {"masks left out, as asked for": 3}


def test_nothing_is_overwritten_or_half_written(source, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("keep")
    with pytest.raises(InputError, match="holds something already"):
        convert(source, tmp_path / "full", "voc", progress=False)
    with pytest.raises(InputError, match="is the folder you are in"):
        convert(source, Path("."), "voc", progress=False)
    (tmp_path / "in/images/b.png").unlink()
    with pytest.raises(InputError, match=r"b\.png"):
        convert(source, tmp_path / "out", "voc", progress=False)
    done = convert(source, tmp_path / "out", "voc", skip_bad=True, link=True, progress=False)
    assert done.images == 1 and len(done.skipped) == 1 and "with its 1 annotations" in done.skipped[0]
    assert (tmp_path / "out/JPEGImages/a.png").stat().st_nlink == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "in", "out"]


def test_names_cannot_leave_the_folder(tmp_path):
    path = write_coco(tmp_path / "in", [], 1)
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = "../images/a.png"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="leaves the folder of the images"):
        convert(path, tmp_path / "out", "coco", images=tmp_path / "in/images", progress=False)


def test_names_that_clash_are_told_apart(tmp_path):
    """x/a.png and y/a.png in one flat folder, a.png and a.jpg with one label file."""
    for name in ("x/a.png", "y/a.png", "y/a.jpg"):
        (tmp_path / "in/images" / name).parent.mkdir(parents=True, exist_ok=True)
        Pillow.new("RGB", SIZE[::-1]).save(tmp_path / "in/images" / name)
    entries = [
        {"id": n, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
        for n, name in enumerate(("x/a.png", "y/a.png", "y/a.jpg"))
    ]
    annotations = [annotation(n, [n + 1, 1, 5, 5], image=n) for n in range(3)]
    path = tmp_path / "in/annotations.json"
    path.write_text(
        json.dumps({"images": entries, "annotations": annotations, "categories": [{"id": 3, "name": "ant"}]})
    )
    for form in WRITERS:
        convert(path, tmp_path / form, form, progress=False)
        back = read_back(tmp_path / form, form)
        assert sorted(entry["bbox"][0] for entry in back.annotations) == pytest.approx([1, 2, 3])
        assert len({entry["image_id"] for entry in back.annotations}) == 3


def test_real_data(shared_data, tmp_path):
    """COCO's 80 classes through LabelMe and CVAT lose no pixel; blood cells through four forms no box."""
    source = shared_data / "coco80_mini/annotations/instances_val.json"
    whole = Document.read(source)
    few = random.Random(0).sample([entry["id"] for entry in whole.images], 12)
    small = whole.only(few)
    (tmp_path / "few").mkdir()
    path = tmp_path / "few/instances.json"
    path.write_text(json.dumps(small.content))
    images = shared_data / "coco80_mini/images/val"
    images = images if images.is_dir() else whole.dataset.folder
    first = convert(path, tmp_path / "labelme", "labelme", images, progress=False)
    second = convert(tmp_path / "labelme", tmp_path / "cvat", "cvat", progress=False)
    back = read_back(tmp_path / "cvat", "cvat")
    assert first.written == second.written == len(small.annotations) == len(back.annotations)
    before = {Path(image["file_name"]).stem: objects for image, objects in small.objects(Losses())}
    for image, objects in back.objects(Losses()):
        size = image["height"], image["width"]
        wanted = before[Path(image["file_name"]).stem]
        key = lambda entry: (entry.name, entry.crowd, *np.round(entry.box, 1))  # noqa: E731
        for one, other in zip(sorted(wanted, key=key), sorted(objects, key=key), strict=True):
            np.testing.assert_allclose(one.box, other.box, atol=0.11)
            np.testing.assert_array_equal(draw_shape(one.shape, size), draw_shape(other.shape, size))


def _colored(path: Path, seed: int, light: int = 0) -> None:
    noise = np.random.default_rng(seed).integers(0, 200, (6, 8, 3), dtype=np.uint8) + light
    Pillow.fromarray(noise.astype(np.uint8)).resize((64, 48), Pillow.Resampling.BILINEAR).save(path)


def test_split_keeps_duplicates_together_and_classes_apart(tmp_path):
    """20 different images and 4 lighter copies of the first: 24 in all; class bee in just two images, one a part."""
    folder = tmp_path / "in/images"
    folder.mkdir(parents=True)
    entries, annotations = [], []
    for number in range(24):
        _colored(
            folder / f"{number:02}.png", seed=number if number < 20 else 0, light=0 if number < 20 else number - 19
        )
        entries.append({"id": number, "file_name": f"{number:02}.png", "height": 48, "width": 64})
        annotations.append(annotation(number, [1, 1, 9, 9], 7 if number in (5, 9) else 3, number))
    path = tmp_path / "in/annotations.json"
    categories = [{"id": 3, "name": "ant"}, {"id": 7, "name": "bee"}]
    path.write_text(json.dumps({"images": entries, "annotations": annotations, "categories": categories}))
    done = split(path, tmp_path / "out", "voc", {"train": 0.75, "val": 0.25}, progress=False)
    parts = {part: (tmp_path / f"out/ImageSets/Main/{part}.txt").read_text().split() for part in ("train", "val")}
    assert sorted(parts["train"] + parts["val"]) == [f"{number:02}" for number in range(24)]
    assert abs(len(parts["train"]) - 18) <= 2
    copies = {"00", *(f"{number}" for number in range(20, 24))}
    assert copies <= set(parts["train"]) or copies <= set(parts["val"])
    assert done.together == 5
    assert [counts["bee"] for _, counts in done.parts.values()] == [1, 1]
    again = split(path, tmp_path / "again", "voc", {"train": 0.75, "val": 0.25}, progress=False)
    other = split(path, tmp_path / "other", "voc", {"train": 0.75, "val": 0.25}, seed=1, progress=False)
    lists = [(tmp_path / name / "ImageSets/Main/val.txt").read_text() for name in ("out", "again", "other")]
    assert lists[0] == lists[1] != lists[2] and again.parts == done.parts and other.images == 24


@pytest.mark.parametrize("form", WRITERS)
def test_parts_can_be_opened(tmp_path, form):
    split("shapes:8:0", tmp_path / "out", form, {"train": 0.5, "val": 0.25, "test": 0.25}, progress=False)
    for part, count in (("train", 4), ("val", 2), ("test", 2)):
        places = {
            "coco": f"annotations/instances_{part}.json",
            "voc": f"ImageSets/Main/{part}.txt",
            "yolo": f"data.yaml:{part}",
            "labelme": part,
            "cvat": f"{part}.xml",
        }
        dataset = open_dataset(f"{tmp_path / 'out'}/{places[form]}")
        assert len(dataset) == count and dataset.image(0).shape == (*dataset.record(0).size, 3)
