"""Panoptic data: COCO's form read and written, two channels, Cityscapes, synthetic scenes; stuff moves with the image."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perpixel.data.geometry import Placement
from perpixel.data.loader import test_batches as evaluation_batches
from perpixel.data.loader import train_batches
from perpixel.data.masks import encode
from perpixel.data.open import open_dataset
from perpixel.data.panoptic import segments_of
from perpixel.data.panoptic_format import (
    categories_of,
    colors_of_ids,
    from_coco,
    from_two_channels,
    ids_of_colors,
    read_colors,
    to_coco,
    to_two_channels,
)
from perpixel.data.settings import Augment, DataConfig, load_data_yaml
from perpixel.data.settings import TestSize as Size
from perpixel.errors import InputError
from perpixel.structures import VOID, Segments, Stuff

SAMPLE = Path(__file__).resolve().parents[2] / "shared/data/panoptic_sample"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"{SAMPLE} is not here: COCO's two panoptic examples")
CATEGORIES = [
    {"id": 3, "name": "car", "isthing": 1},
    {"id": 9, "name": "boat", "isthing": 1},
    {"id": 150, "name": "sky", "isthing": 0},
    {"id": 184, "name": "tree", "isthing": 0},
]


def small_ids():
    """6 x 8: sky (70000) above, tree (500) below, two cars (1, 66), a group of boats (1000), two void pixels."""
    ids = np.full((6, 8), 70000, dtype=np.int32)
    ids[3:] = 500
    ids[1:3, 1:3], ids[4, 2:6], ids[2:4, 6:8] = 1, 66, 1000
    ids[5, 7], ids[0, 0] = 0, 0
    return ids


def small_document():
    """What COCO's json says of it."""
    kinds = {70000: (150, 0), 500: (184, 0), 1: (3, 0), 66: (3, 0), 1000: (9, 1)}
    infos = []
    for number, (category, crowd) in kinds.items():
        y, x = np.nonzero(small_ids() == number)
        box = [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
        infos.append({"id": number, "category_id": category, "iscrowd": crowd, "area": len(x), "bbox": box})
    return {
        "images": [{"id": 5, "file_name": "five.png", "height": 6, "width": 8}],
        "annotations": [{"image_id": 5, "file_name": "five.png", "segments_info": infos}],
        "categories": [dict(category) for category in CATEGORIES],
    }


def write(folder, document, ids=None):
    """Photo, picture and json."""
    for part in ("photos", "panoptic_val"):
        (folder / part).mkdir(exist_ok=True)
    Image.fromarray(np.zeros((6, 8, 3), dtype=np.uint8)).save(folder / "photos" / "five.png")
    Image.fromarray(colors_of_ids(small_ids() if ids is None else ids)).save(folder / "panoptic_val" / "five.png")
    path = folder / "panoptic_val.json"
    path.write_text(json.dumps(document))
    return path


def test_numbers_and_colors():
    """Red counts ones, green 256s, blue 65536s: 70000 = 112 + 17 * 256 + 1 * 65536."""
    colors = colors_of_ids(np.array([[70000, 0, 2**24 - 1]], dtype=np.int32))
    assert colors.tolist() == [[[112, 17, 1], [0, 0, 0], [255, 255, 255]]]
    assert ids_of_colors(colors).tolist() == [[70000, 0, 2**24 - 1]]


def test_coco_is_read(tmp_path):
    dataset = open_dataset(write(tmp_path, small_document()), tmp_path / "photos")
    assert dataset.classes == ("car", "boat") and dataset.category_ids == (3, 9)
    assert dataset.stuff == Stuff(("sky", "tree"), (150, 184))
    record = dataset.record(0)
    assert record.labels.tolist() == [0, 0, 1] and record.crowd.tolist() == [False, False, True]
    assert record.boxes.tolist() == [[1, 1, 3, 3], [2, 4, 6, 5], [6, 2, 8, 4]]
    expected = np.full((6, 8), 1, dtype=np.uint8)
    expected[3:] = 2
    expected[np.isin(small_ids(), [1, 66, 1000])] = 0
    expected[small_ids() == 0] = VOID
    assert np.array_equal(dataset.stuff_map(0), expected)
    truth = segments_of(dataset, 0)
    assert truth.labels.tolist() == [0, 0, 1, 2, 3] and truth.crowd.tolist() == [False, False, True, False, False]
    numbers = np.array([1, 66, 1000, 70000, 500, 0])
    assert np.array_equal(numbers[truth.map.numpy()], small_ids())
    masks = {a["id"]: a for a in dataset.coco_truth()["annotations"]}
    assert [a["iscrowd"] for a in masks.values()] == [0, 0, 1]
    assert dataset.box_only_counts.tolist() == [0] and dataset.object_counts.tolist() == [2]


def test_yaml_names_json_and_pictures(tmp_path):
    path = write(tmp_path, small_document())
    (tmp_path / "panoptic_val").rename(tmp_path / "pictures")
    (tmp_path / "my.yaml").write_text("train: panoptic_val.json\nimages: photos\nsegments: pictures\n")
    values = load_data_yaml(tmp_path / "my.yaml")
    dataset = open_dataset(values["train"], values["images"], segments=values["segments"])
    assert dataset.record(0).labels.tolist() == [0, 0, 1]
    with pytest.raises(InputError, match=r"there is no folder .*panoptic_val with its pictures .*segments="):
        open_dataset(path, tmp_path / "photos")


def test_labels_follow_the_training_set(tmp_path):
    path = write(tmp_path, small_document())
    dataset = open_dataset(path, tmp_path / "photos", classes=("boat", "car"), stuff=("water", "tree", "sky"))
    assert dataset.classes == ("boat", "car") and dataset.category_ids == (9, 3)
    assert dataset.stuff.names == ("water", "tree", "sky") and dataset.stuff.category_ids[1:] == (184, 150)
    assert dataset.stuff.category_ids[0] not in (3, 9, 150, 184)
    assert segments_of(dataset, 0).labels.tolist() == [1, 1, 0, 3, 4]
    without = open_dataset(path, tmp_path / "photos", classes=("car", "boat"), stuff=())
    assert len(without.stuff) == 0 and set(np.unique(without.stuff_map(0))) == {0, VOID}
    with pytest.raises(InputError, match="the class 'tree' is not among the training set's"):
        open_dataset(path, tmp_path / "photos", classes=("car", "boat"), stuff=("sky",))
    with pytest.raises(InputError, match="'sky' is stuff here and has objects in the training set"):
        open_dataset(path, tmp_path / "photos", classes=("car", "boat", "sky"), stuff=("tree",))
    with pytest.raises(InputError, match="its stuff is sky, grass, water, the training set's is mud"):
        open_dataset("scenes:2", stuff=("mud",))


def broken(change):
    document = small_document()
    change(document)
    return document


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda d: d["categories"][0].pop("isthing"), "isthing of 'car' is neither 0 nor 1"),
        (lambda d: d["annotations"][0].pop("file_name"), "needs image_id, the file_name of a picture"),
        (
            lambda d: d["annotations"][0]["segments_info"][0].pop("id"),
            "a segment has no whole number from 0 to 16777215 as id",
        ),
        (lambda d: d["annotations"][0]["segments_info"][0].pop("bbox"), "has no bbox"),
        (lambda d: d["annotations"][0]["segments_info"][0].update(category_id=77), "77 names no category"),
        (lambda d: d["annotations"][0].update(file_name="six.png"), "the picture .*six.png .* is missing"),
        (lambda d: d["images"].append(d["images"][0] | {"id": 6}), "image 6 has no annotation"),
    ],
)
def test_bad_json_is_refused_in_a_sentence(tmp_path, change, sentence):
    path = write(tmp_path, broken(change))
    with pytest.raises(InputError, match=sentence):
        open_dataset(path, tmp_path / "photos")


def test_bad_data_can_be_skipped(tmp_path):
    path = write(tmp_path, broken(lambda d: d["images"].append(d["images"][0] | {"id": 6})))
    dataset = open_dataset(path, tmp_path / "photos", skip_bad=True)
    assert len(dataset) == 1 and "image 6 has no annotation" in dataset.skipped[0]


@pytest.mark.parametrize(
    "ids, sentence",
    [
        (np.where(small_ids() == 66, 67, small_ids()), "a pixel has the segment number 67, which its annotation"),
        (np.where(small_ids() == 66, 1, small_ids()), "no pixel has the segment number 66"),
        (small_ids()[:, :7], "is 7x6, but its image is 8x6"),
    ],
)
def test_bad_pictures_are_refused_in_a_sentence(tmp_path, ids, sentence):
    dataset = open_dataset(write(tmp_path, small_document(), ids), tmp_path / "photos")
    with pytest.raises(InputError, match=f"five.png: {sentence}"):
        dataset.stuff_map(0)


def test_a_picture_of_another_kind_is_refused(tmp_path):
    Image.fromarray(np.zeros((6, 8), dtype=np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(InputError, match="has the mode L; a picture of segments has 3 channels"):
        read_colors(tmp_path / "grey.png")
    with pytest.raises(InputError, match=r"none\.png: cannot be read as a picture of segments"):
        read_colors(tmp_path / "none.png")


def small_segments():
    """The small picture as segments, labels 0..3."""
    numbers = [1, 66, 1000, 70000, 500]
    rows = np.select([small_ids() == n for n in numbers], range(5), -1)
    crowd = torch.tensor([False, False, True, False, False])
    return Segments(torch.from_numpy(rows.astype(np.int32)), torch.tensor([0, 0, 1, 2, 3]), torch.ones(5), crowd)


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("map", "labels", "crowd"))


def test_written_and_read_again(tmp_path):
    """Numbers are free to choose; areas, boxes and classes are the picture's, and all comes back."""
    colors, infos = to_coco(small_segments(), (3, 9, 150, 184))
    assert [(i["category_id"], i["iscrowd"], i["area"], i["bbox"]) for i in infos] == [
        (i["category_id"], i["iscrowd"], i["area"], i["bbox"])
        for i in sorted(small_document()["annotations"][0]["segments_info"], key=lambda i: i["category_id"])
    ]
    assert len({i["id"] for i in infos} | {0}) == 6
    assert same(from_coco(colors, infos, {3: 0, 9: 1, 150: 2, 184: 3}, "x"), small_segments())
    document = small_document() | {
        "categories": categories_of(("car", "boat"), (3, 9), Stuff(("sky", "tree"), (150, 184)))
    }
    assert document["categories"] == CATEGORIES
    document["annotations"][0]["segments_info"] = infos
    dataset = open_dataset(write(tmp_path, document, ids_of_colors(colors)), tmp_path / "photos")
    assert same(segments_of(dataset, 0), small_segments())
    with pytest.raises(InputError, match=r"x: segment .* has category_id 184, which names no category"):
        from_coco(colors, infos, {3: 0, 9: 1, 150: 2}, "x")


def test_many_objects_get_numbers_of_their_own():
    """300 objects of one class: far more than its hue has colours that differ."""
    rows = torch.arange(300, dtype=torch.int32).reshape(15, 20)
    many = Segments(rows, torch.zeros(300, dtype=torch.long), torch.ones(300), torch.zeros(300, dtype=torch.bool))
    colors, infos = to_coco(many, (1,))
    assert len({i["id"] for i in infos}) == 300 and same(from_coco(colors, infos, {1: 0}, "x"), many)


def test_segments_without_pixels_are_not_written():
    some = replace(small_segments(), map=small_segments().map.where(small_segments().map != 1, 3))
    _, infos = to_coco(some, (3, 9, 150, 184))
    assert [i["category_id"] for i in infos] == [3, 9, 150, 184]


def test_two_channels():
    colors = to_two_channels(small_segments(), (3, 9, 150, 184))
    assert [colors[y, x].tolist() for y, x in ((1, 1), (4, 2), (2, 6), (0, 1), (5, 0), (0, 0))] == [
        [3, 0, 0], [3, 1, 0], [9, 255, 0], [150, 0, 0], [184, 0, 0], [0, 0, 0],
    ]  # fmt: skip
    assert same(from_two_channels(colors, {3: 0, 9: 1, 150: 2, 184: 3}, "x"), small_segments())
    with pytest.raises(InputError, match=r"classes 1 to 255 .* not object 1 of class 300"):
        to_two_channels(small_segments(), (3, 9, 300, 184))


@needs_sample
@pytest.mark.parametrize("index", [0, 1])
def test_coco_sample(index):
    """COCO's own pictures: areas are those of the json, the picture comes back, and that of two channels is COCO's own."""
    document = json.loads((SAMPLE / "panoptic_examples.json").read_text())
    dataset = open_dataset(SAMPLE / "panoptic_examples.json", SAMPLE / "input_images")
    assert (len(dataset), len(dataset.classes), len(dataset.stuff)) == (2, 80, 53)
    truth = segments_of(dataset, index)
    annotation = document["annotations"][index]
    numbers = (*dataset.category_ids, *dataset.stuff.category_ids)
    colors, infos = to_coco(truth, numbers)
    key = lambda i: (i["category_id"], i["iscrowd"], i["area"], *i["bbox"])  # noqa: E731
    assert sorted(map(key, infos)) == sorted(map(key, annotation["segments_info"]))
    picture = read_colors(SAMPLE / "panoptic_examples" / annotation["file_name"])
    pairs = np.unique(np.stack([ids_of_colors(colors), ids_of_colors(picture)]).reshape(2, -1), axis=1)
    assert len(pairs.T) == len(infos) + 1 == len(set(pairs[0])) == len(set(pairs[1]))
    two = read_colors(SAMPLE / "panoptic_examples_2ch_format" / annotation["file_name"])
    assert np.array_equal(to_two_channels(truth, numbers), two)
    again = from_two_channels(two, {number: label for label, number in enumerate(numbers)}, "x")
    assert sorted(again.labels.tolist()) == sorted(truth.labels.tolist())


@pytest.mark.parametrize("mirrored", [False, True])
def test_stuff_moves_as_masks_do(mirrored):
    """A map of three kinds of stuff, resized, cropped and mirrored: pixel for pixel what happens to the mask of each kind."""
    values = np.random.default_rng(0).integers(0, 3, (7, 9)).repeat(6, 0).repeat(5, 1).astype(np.uint8)
    placement = Placement(values.shape, (61, 83), (5, 11, 40, 57), mirrored)
    moved = placement.classes(values)
    assert moved.shape == placement.size == (40, 57)
    for kind in range(3):
        mask = np.zeros((40, 57), dtype=bool)
        placement.patch(encode(values == kind)).paste(mask)
        assert np.array_equal(moved == kind, mask)


def test_a_mirror_turns_stuff_around():
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    plain = Placement((3, 4), (3, 4), (0, 0, 3, 4))
    assert np.array_equal(plain.classes(values), values)
    assert np.array_equal(replace(plain, mirrored=True).classes(values), values[:, ::-1])
    assert np.array_equal(Placement((3, 4), (6, 8), (0, 0, 6, 8)).classes(values), values.repeat(2, 0).repeat(2, 1))


def test_batches_carry_stuff():
    """Objects are 0 where the masks are, the padding is void; nothing is made unless asked for, or for data without stuff."""
    data = DataConfig(
        train="scenes:6",
        workers=0,
        masks=True,
        stuff=True,
        augment=Augment(short_sides=(72, 90), max_side=120, crop=0.6),
    )
    dataset = open_dataset("scenes:6")
    batch = next(train_batches(dataset, data, batch_size=4, seed=1))
    assert batch.images.shape[2:] != batch.sizes[0]
    for target, (height, width) in zip(batch.truth(), batch.sizes, strict=True):
        assert target.stuff.shape == batch.images.shape[2:] and target.stuff.dtype == torch.uint8
        outside = torch.ones_like(target.stuff, dtype=torch.bool)
        outside[:height, :width] = False
        assert torch.equal(target.stuff == VOID, outside)
        covered = target.masks.any(dim=0)
        # A crop may leave so little of an object that it is no target any more.
        assert covered.any() and (target.stuff[covered] == 0).all()
    plain = next(train_batches(dataset, replace(data, stuff=False), batch_size=1, seed=1))
    assert plain.truth()[0].stuff is None
    assert next(evaluation_batches(dataset, replace(data, test=Size(64, 96)), batch_size=2)).targets is None
    with pytest.raises(InputError, match="shapes:6:0: says nothing of stuff; name a COCO panoptic json"):
        next(train_batches(open_dataset("shapes:6"), data, batch_size=1, seed=1))


def test_scenes():
    """The objects of `shapes:`, before stuff that is known everywhere; the same for the same seed."""
    dataset, plain = open_dataset("scenes:5:3"), open_dataset("shapes:5:3")
    assert dataset.classes == plain.classes and len(dataset.stuff) == 3
    kinds = set()
    for index in range(5):
        record, other = dataset.record(index), plain.record(index)
        assert record.boxes.tolist() == other.boxes.tolist() and record.shapes == other.shapes
        stuff = dataset.stuff_map(index)
        assert set(np.unique(stuff)) <= {0, 1, 2, 3} and stuff.shape == dataset.image(index).shape[:2]
        truth = segments_of(dataset, index)
        assert (truth.map >= 0).all() and ((truth.map < len(record)).numpy() == (stuff == 0)).all()
        kinds |= set(np.unique(stuff).tolist())
    assert kinds == {0, 1, 2, 3}
    assert np.array_equal(open_dataset("scenes:9:3").image(1), dataset.image(1))
    assert not np.array_equal(open_dataset("scenes:9:4").image(1), dataset.image(1))
    with pytest.raises(InputError, match="written scenes:N or scenes:N:SEED"):
        open_dataset("scenes:a")


def test_cityscapes(tmp_path):
    """Road (7) is stuff 0, sky (23) stuff 10; cars with and without number are objects; the trailer (30) and 0 are void."""
    ids = np.full((8, 12), 23, dtype=np.uint16)
    ids[4:] = 7
    ids[5:7, 2:5], ids[5:7, 6:8], ids[0, :3], ids[1, :3] = 26001, 26, 30000, 0
    name = "bonn_000000_000019"
    truth = tmp_path / "gtFine/val/bonn" / f"{name}_gtFine_instanceIds.png"
    photo = tmp_path / "leftImg8bit/val/bonn" / f"{name}_leftImg8bit.png"
    for path, pixels in ((truth, ids), (photo, np.zeros((8, 12, 3), dtype=np.uint8))):
        path.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(path)
    dataset = open_dataset(tmp_path / "gtFine/val")
    assert len(dataset.stuff) == 11 and dataset.stuff.names[0] == "road" and dataset.stuff.category_ids[10] == 23
    expected = np.full((8, 12), 11, dtype=np.uint8)
    expected[4:] = 1
    expected[5:7, 2:5], expected[5:7, 6:8], expected[:2, :3] = 0, 0, VOID
    assert np.array_equal(dataset.stuff_map(0), expected)
    segments = segments_of(dataset, 0)
    car = dataset.classes.index("car")
    assert sorted(zip(segments.labels.tolist(), segments.crowd.tolist(), strict=True)) == [
        (car, False), (car, True), (8, False), (18, False),
    ]  # fmt: skip
    assert int((segments.map < 0).sum()) == 6
