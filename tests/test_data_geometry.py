import numpy as np
import pycocotools.mask as reference
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from perpixel.data.dataset import Rle, flip_pairs
from perpixel.data.geometry import Placement, draw_placement, place_objects, resized_size, whole
from perpixel.data.masks import encode, patch_code, patch_polygons
from perpixel.data.settings import Augment
from perpixel.errors import InputError

RICH = Augment(short_sides=(40, 57, 90), max_side=130, scale_jitter=(0.6, 1.5), crop=0.5, crop_size=70)


def _box(*values):
    return np.array([values], dtype=np.float32)


def test_resized_size_by_hand():
    """480x640 to short 800: scale 5/3, 800x1066.67 -> 1067. 100x400 to short 800 max 1333: 1333/400 -> 333x1333."""
    assert resized_size((480, 640), 800, 1333) == (800, 1067)
    assert resized_size((100, 400), 800, 1333) == (333, 1333)


def test_matrix_by_hand():
    """10x20 resized to 20x60 (x by 3, y by 2), window from top 4, left 6, 10x30, mirrored.

    x = 5 -> 15 in the resize -> 9 in the window -> 30 - 9 = 21; y = 7 -> 14 -> 10.
    """
    placement = Placement((10, 20), (20, 60), (4, 6, 10, 30), mirrored=True)
    assert placement.points(np.array([[5.0, 7.0]])).tolist() == [[21.0, 10.0]]
    assert placement.boxes(_box(5, 3, 9, 7)).tolist() == [[9.0, 2.0, 21.0, 10.0]]


@given(seed=st.integers(0, 10**6))
def test_pixels_and_boxes_go_the_same_way(seed):
    """A white box drawn in the image lies, after the map, where its coordinates say: edges within half a pixel.

    The count of white on the row (column) through the middle gives each side; the mean position gives the place.
    """
    random = np.random.default_rng(seed)
    height, width = int(random.integers(40, 120)), int(random.integers(40, 120))
    x1, y1 = int(random.integers(5, width - 25)), int(random.integers(5, height - 25))
    x2, y2 = x1 + int(random.integers(12, 20)), y1 + int(random.integers(12, 20))
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[y1:y2, x1:x2] = 255
    placement = draw_placement((height, width), RICH, random)
    out = placement.image(image)
    assert out.shape[:2] == placement.size
    box = np.clip(placement.boxes(_box(x1, y1, x2, y2))[0], 0, [*placement.size[::-1]] * 2)
    if (box[2:] - box[:2] < 6).any():
        return  # cut off
    white = out[..., 0] / 255
    middle_x, middle_y = ((box[:2] + box[2:]) / 2).astype(int)
    for line, low, high in ((white[middle_y], box[0], box[2]), (white[:, middle_x], box[1], box[3])):
        assert line.sum() == pytest.approx(high - low, abs=0.5)
        center = (line * (np.arange(len(line)) + 0.5)).sum() / line.sum()
        assert center == pytest.approx((low + high) / 2, abs=0.5)


def test_shrinking_does_not_alias():
    """Stripes one pixel wide, shrunk four times, become even grey and not stripes again."""
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:, ::2] = 255
    out = whole((64, 64), (16, 16)).image(image)
    assert np.abs(out[:, 2:-2].astype(int) - 127).max() <= 12


def test_the_same_size_is_the_same_image():
    image = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    assert np.array_equal(whole((9, 7), (9, 7)).image(image), image)


@pytest.mark.parametrize("resized", [(75, 90), (50, 90), (23, 31), (120, 20)])
def test_pixels_equal_the_antialiased_bilinear_resize_in_double_precision(resized):
    """torch's float64 interpolation is the reference; PIL rounds to 8 bits after each of its two passes: at most 1 off.

    A crop is a part of the same resize, and a mirror is that part turned round.
    """
    image = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    exact = functional.interpolate(planes, size=resized, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    assert np.abs(whole((50, 60), resized).image(image) - exact).max() <= 1 + 1e-6
    window = (4, 7, 15, 11)
    part = exact[4:19, 7:18]
    assert np.abs(Placement((50, 60), resized, window).image(image) - part).max() <= 1 + 1e-6
    mirrored = Placement((50, 60), resized, window, mirrored=True).image(image)
    assert np.abs(mirrored - part[:, ::-1]).max() <= 1 + 1e-6


def test_mirrored_keypoints_exchange_left_and_right():
    """In 20 pixels of width x = 3.5 goes to 16.5; the left eye becomes the right one; an absent one stays zero."""
    pairs = flip_pairs(("nose", "left_eye", "right_eye"))
    assert pairs == ((1, 2),)
    keypoints = np.array([[[10, 5, 2], [3.5, 4.5, 2], [0, 0, 0]]], dtype=np.float32)
    out = Placement((10, 20), (10, 20), (0, 0, 10, 20), mirrored=True).keypoints(keypoints, pairs)
    assert out.tolist() == [[[10, 5, 2], [0, 0, 0], [16.5, 4.5, 2]]]


def test_a_mirror_twice_is_nothing():
    mirror = Placement((10, 20), (10, 20), (0, 0, 10, 20), mirrored=True)
    keypoints = np.array([[[10, 5, 2], [3.5, 4.5, 1], [7, 8, 2]]], dtype=np.float32)
    assert np.array_equal(mirror.keypoints(mirror.keypoints(keypoints, ((1, 2),)), ((1, 2),)), keypoints)
    boxes = _box(1, 2, 6, 7)
    assert np.array_equal(mirror.boxes(mirror.boxes(boxes).astype(np.float32)), boxes)


def test_keypoints_outside_the_crop_are_absent():
    keypoints = np.array([[[2, 2, 2], [15, 5, 2]]], dtype=np.float32)
    out = Placement((10, 20), (10, 20), (0, 10, 10, 10)).keypoints(keypoints, ())
    assert out.tolist() == [[[0, 0, 0], [5, 5, 2]]]


def test_flip_pairs_by_name():
    assert flip_pairs(("l_hand", "r_hand", "tail", "eye_l", "eye_r", "LeftFoot", "RightFoot")) == (
        (0, 1),
        (3, 4),
        (5, 6),
    )


def test_polygons_are_drawn_as_coco_draws_them():
    random = np.random.default_rng(0)
    for _ in range(50):
        polygons = tuple(random.uniform(-5, 40, (int(random.integers(3, 8)), 2)) for _ in range(2))
        placement = draw_placement((30, 35), RICH, random)
        moved = [placement.points(polygon).ravel().tolist() for polygon in polygons]
        expected = reference.decode(reference.merge(reference.frPyObjects(moved, *placement.size))).astype(bool)
        mask = np.zeros(placement.size, dtype=bool)
        placement.patch(polygons).paste(mask)
        assert np.array_equal(mask, expected)


def test_codes_move_to_the_nearest_pixel():
    """Ours equals the loop: each pixel's centre goes back through the matrix and takes the value it lands on."""
    random = np.random.default_rng(1)
    for _ in range(20):
        mask = random.random((12, 17)) < 0.3
        placement = draw_placement((12, 17), RICH, random)
        (a, _, tx), (_, d, ty) = placement.matrix
        expected = np.zeros(placement.size, dtype=bool)
        for y in range(placement.size[0]):
            for x in range(placement.size[1]):
                expected[y, x] = mask[int((y + 0.5 - ty) / d), int((x + 0.5 - tx) / a)]
        drawn = np.zeros(placement.size, dtype=bool)
        patch = placement.patch(encode(mask))
        patch.paste(drawn)
        assert np.array_equal(drawn, expected)
        if expected.any():
            assert patch.pixels.any(1)[[0, -1]].all() and patch.pixels.any(0)[[0, -1]].all()


def test_center_of_mass_by_hand():
    """Pixels (x, y) = (2, 1), (3, 1), (3, 2): mean (8/3, 4/3), no half added; an empty mask has none."""
    mask = np.zeros((5, 6), dtype=bool)
    mask[1, 2:4] = mask[2, 3] = True
    assert patch_code(encode(mask)).center == pytest.approx((8 / 3, 4 / 3))
    assert np.isnan(patch_code(encode(np.zeros((5, 6), dtype=bool))).center).all()


def test_a_code_of_another_size_is_refused():
    with pytest.raises(InputError, match="does not fit its image"):
        patch_code(Rle((2, 2), encode(np.ones((9, 9), dtype=bool)).counts))


def test_a_cut_box_shrinks_to_what_is_left_of_its_mask():
    """An L: upright x 0..4, y 0..20, foot x 0..20, y 16..20. A crop of the upper 10 rows leaves the upright: box 0..4."""
    ell = (np.array([[0, 0], [4, 0], [4, 16], [20, 16], [20, 20], [0, 20.0]]),)
    placement = Placement((20, 20), (20, 20), (0, 0, 10, 20))
    boxes = _box(0, 0, 20, 20)
    with_mask = place_objects(placement, boxes, (ell,), masks=False)
    assert with_mask.boxes.tolist() == [[0, 0, 4, 10]]
    box_only = place_objects(placement, boxes, (None,), masks=True)
    assert box_only.boxes.tolist() == [[0, 0, 20, 10]]
    assert not box_only.masks[0].pixels.any()


def test_an_uncut_box_is_not_touched():
    """The annotated box stays, even where it is looser than the mask."""
    triangle = (np.array([[2.3, 2.3], [8, 3], [5, 7.0]]),)
    placed = place_objects(whole((20, 20), (20, 20)), _box(2, 2, 9, 9), (triangle,), masks=True)
    assert placed.boxes.tolist() == [[2, 2, 9, 9]]


def test_what_the_crop_leaves_too_little_of_is_dropped():
    """Window x 10..20. Box 0..11 keeps 1/11 of itself: dropped at 0.1. Box 5..15 keeps half. Box 0..5 is gone."""
    placement = Placement((10, 20), (10, 20), (0, 10, 10, 10))
    boxes = np.array([[0, 0, 11, 10], [5, 0, 15, 10], [0, 0, 5, 10], [12, 2, 12.5, 8]], dtype=np.float32)
    placed = place_objects(placement, boxes, (None,) * 4, masks=False, min_visible=0.1, min_side=1.0)
    assert placed.rows.tolist() == [1]
    assert placed.boxes.tolist() == [[0, 0, 5, 10]]


@given(seed=st.integers(0, 10**6))
def test_the_window_lies_inside_the_resized_image(seed):
    random = np.random.default_rng(seed)
    size = (int(random.integers(1, 200)), int(random.integers(1, 200)))
    placement = draw_placement(size, RICH, random)
    top, left, height, width = placement.window
    assert top >= 0 and left >= 0 and height >= 1 and width >= 1
    assert top + height <= placement.resized[0] and left + width <= placement.resized[1]
    assert max(height, width) <= 70
    placement.image(np.zeros((*size, 3), dtype=np.uint8))


def test_a_polygon_covers_the_pixels_of_its_coordinates():
    """The rectangle [2, 5] x [3, 7] covers columns 2..4 and rows 3..6: continuous coordinates, pixel i is [i, i + 1)."""
    patch = patch_polygons((np.array([[2, 3], [5, 3], [5, 7], [2, 7.0]]),), (10, 10))
    assert patch.box == (2, 3, 5, 7) and patch.pixels.all()
