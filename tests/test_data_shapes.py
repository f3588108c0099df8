import numpy as np
import pytest

from perpixel.data.coco import read_coco
from perpixel.data.masks import draw_shape
from perpixel.data.outlines import SHAPES, Piece
from perpixel.data.painting import paint_scene
from perpixel.data.shapes import ShapesDataset
from perpixel.errors import InputError

WHOLE = (slice(0, 64), slice(0, 64))


def test_the_same_seed_and_number_give_the_same_image():
    first, second = ShapesDataset(5, (64, 80), seed=2), ShapesDataset(9, (64, 80), seed=2)
    assert np.array_equal(first.image(4), second.image(4))
    assert np.array_equal(first.record(4).boxes, second.record(4).boxes)
    assert not np.array_equal(first.image(4), first.image(3))
    assert not np.array_equal(first.image(4), ShapesDataset(5, (64, 80), seed=3).image(4))


def test_masks_do_not_overlap_and_boxes_are_their_extents():
    dataset = ShapesDataset(20, (96, 112), seed=1)
    for index in range(20):
        record = dataset.record(index)
        masks = np.stack([draw_shape(shape, record.size) for shape in record.shapes])
        assert masks.sum(0).max() <= 1 and dataset.object_counts[index] == len(record) >= 1
        for mask, box in zip(masks, record.boxes, strict=True):
            ys, xs = np.nonzero(mask)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_truth_and_picture_agree():
    """Painted without its last object, a picture differs inside that object's mask, and far from it by noise alone."""
    dataset = ShapesDataset(6, (96, 112), seed=4)
    for index in range(6):
        pieces, masks = dataset._scene(index)
        paint = [
            paint_scene(part, dataset.size, np.random.default_rng(0)).astype(int) for part in (pieces, pieces[:-1])
        ]
        window = pieces[-1].window(dataset.size)
        far = np.ones(dataset.size, dtype=bool)
        far[window] = False
        change = np.abs(paint[0] - paint[1]).max(2)
        assert change[masks[-1]].mean() > 15
        assert change[far].mean() < 8  # noise of another draw


def test_areas_of_outlines():
    """Disc pi r^2; ring r^2 pi (1 - 0.52^2); square (1.6 r)^2; cross 2 x 1.9 r x 0.6 r less the middle (0.6 r)^2.

    A star of n tips at r with notches at w r has area n w r^2 sin(pi / n).
    """
    radius = 24.0
    expected = {
        "disc": np.pi,
        "ring": np.pi * (1 - 0.52**2),
        "square": 1.6**2,
        "cross": 2 * 1.9 * 0.6 - 0.6**2,
        "triangle": 3 * 0.5 * np.sin(np.pi / 3),
        "star": 5 * 0.45 * np.sin(np.pi / 5),
    }
    assert set(expected) == set(SHAPES)
    for shape, area in expected.items():
        inside = Piece(shape, (32.0, 32.0), radius, 0.3).distance(WHOLE) < 0
        assert inside.sum() == pytest.approx(area * radius**2, rel=0.02)


def test_written_as_coco_it_is_the_same_set(tmp_path):
    dataset = ShapesDataset(4, (64, 80), seed=6)
    path = dataset.write_coco(tmp_path / "set")
    read = read_coco(path)
    assert read.classes == dataset.classes and read.category_ids == dataset.category_ids
    for index in range(4):
        first, second = dataset.record(index), read.record(index)
        assert first.id == second.id and np.array_equal(dataset.image(index), read.image(index))
        assert np.array_equal(first.boxes, second.boxes) and np.array_equal(first.labels, second.labels)
        assert first.shapes == second.shapes
    assert read.coco_truth()["annotations"] == dataset.coco_truth()["annotations"]


def test_labels_follow_the_training_set():
    classes = ("extra", *reversed(SHAPES))
    plain, other = ShapesDataset(3), ShapesDataset(3, classes=classes)
    names = [plain.classes[label] for label in plain.record(2).labels]
    assert [other.classes[label] for label in other.record(2).labels] == names
    assert plain.coco_truth()["annotations"] == other.coco_truth()["annotations"]
    with pytest.raises(InputError, match="'cross' is not among the training set's disc"):
        ShapesDataset(3, classes=SHAPES[:5])
