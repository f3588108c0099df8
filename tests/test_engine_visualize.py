"""Drawing: what must show shows, nothing leaves the picture, colours are told apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.engine import lettering
from perpixel.engine.lettering import label_font
from perpixel.engine.palette import color, hexadecimal, readable_on
from perpixel.engine.visualize import Style, draw, place_label
from perpixel.errors import InputError

GREY = np.full((400, 600, 3), 120, np.uint8)
BOX = np.array([[100.0, 150.0, 300.0, 350.0]], np.float32)
PLAIN = Style(labels=False, line=2)


def test_a_box_is_drawn_on_its_edge_and_nowhere_else():
    picture = np.asarray(draw(GREY, BOX, ["x"], [(255, 0, 0)], style=PLAIN))
    red = (picture == (255, 0, 0)).all(2)
    # Line width 2 inside the box [100, 300) x [150, 350): the frame's pixels and no others.
    frame = np.zeros((400, 600), dtype=bool)
    frame[150:350, 100:300] = True
    frame[152:348, 102:298] = False
    np.testing.assert_array_equal(red, frame)
    assert (GREY == 120).all()


def test_a_mask_is_translucent_with_a_full_contour():
    """Inside 0.4 of the colour on 0.6 of the photo: 0.6 * 120 + 0.4 * 255 = 174; the outermost pixel is the colour."""
    mask = np.zeros((400, 600), dtype=bool)
    mask[200:300, 150:250] = True
    picture = np.asarray(draw(GREY, BOX, [""], [(255, 0, 0)], masks=iter([mask]), style=PLAIN))
    assert picture[250, 200].tolist() == [174, 72, 72]
    assert picture[200, 200].tolist() == picture[299, 249].tolist() == [255, 0, 0]
    assert picture[190, 200].tolist() == [120, 120, 120]


def test_keypoints_below_the_score_are_left_out():
    joints = np.zeros((1, 2, 3), np.float32)
    joints[0, 0], joints[0, 1] = (180, 250, 0.9), (220, 250, 0.1)
    picture = np.asarray(draw(GREY, BOX, [""], [(255, 0, 0)], keypoints=joints, skeleton=((0, 1),), style=PLAIN))
    assert picture[250, 180].tolist() == [255, 0, 0]
    assert picture[250, 200].tolist() == picture[250, 220].tolist() == [120, 120, 120]
    joints[0, 1, 2] = 0.9
    picture = np.asarray(draw(GREY, BOX, [""], [(255, 0, 0)], keypoints=joints, skeleton=((0, 1),), style=PLAIN))
    assert picture[250, 200].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("height", "width", "factor"), [(32, 48, 10), (96, 96, 4), (320, 400, 1), (1200, 1600, 1)])
def test_small_photos_are_enlarged(height, width, factor):
    image = np.zeros((height, width, 3), np.uint8)
    box = np.array([[0, 0, width, height]], np.float32)
    assert draw(image, box, ["cat 0.99"], [(255, 0, 0)]).size == (width * factor, height * factor)
    assert draw(image, box, ["cat"], [(255, 0, 0)], style=Style(scale=1)).size == (width, height)


def test_a_label_can_be_read():
    """The label above the box (13 + 2 * 2 high, so y = 133..150) has dark letters on its ground, more in a longer text."""
    count = []
    for text in ("i", "bicycle 0.87"):
        picture = np.asarray(draw(GREY, BOX, [text], [(255, 202, 40)]))
        label = picture[133:149, 101:320]
        assert (label == (255, 202, 40)).all(2).sum() > 50
        count.append(int((label.max(2) < 60).sum()))
    assert count[1] > 3 * count[0] > 0


def test_letters_beyond_english(monkeypatch):
    """The built-in font has English letters; others come from a system font if one has them, never from a worse one."""
    from PIL import ImageFont

    built_in = label_font(14, ["cat 0.9"])
    assert built_in.getname() == ImageFont.load_default(14).getname()
    asked = []

    def truetype(name, size):
        asked.append(name)
        raise OSError("no such font")

    lettering._widest.cache_clear()
    lettering._system_font.cache_clear()
    monkeypatch.setattr(ImageFont, "truetype", truetype)
    assert label_font(14, ["Füchse 日本"]).getname() == built_in.getname()
    assert asked == list(lettering.SYSTEM_FONTS)
    with pytest.raises(InputError, match=r"absent\.ttf"):
        label_font(14, ["x"], "absent.ttf")
    lettering._widest.cache_clear()
    lettering._system_font.cache_clear()


def test_a_system_font_is_taken_where_it_has_the_letters():
    from PIL import ImageFont

    try:
        ImageFont.truetype("DejaVuSans.ttf", 14)
    except OSError:
        pytest.skip("DejaVuSans is not installed")
    font = label_font(14, ["Füchse"])
    assert font.getname() != label_font(14, ["cat"]).getname()
    assert bytes(font.getmask("ü")) != bytes(font.getmask("\uffff"))


def test_a_text_wider_than_the_picture_is_cut():
    picture = draw(GREY, BOX, ["long " * 60], [(255, 0, 0)])
    assert picture.size == (600, 400)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-50, 650)] * 4), st.integers(5, 700), st.integers(5, 60))
def test_labels_stay_inside_the_picture(box, width, height):
    x1, y1, x2, y2 = place_label(box, (width, height), (600, 400), [], 2)
    assert x1 >= 0 and y1 >= 0 and (x2, y2) == (x1 + width, y1 + height)
    assert x2 <= max(600, width) and y2 <= max(400, height)


def test_labels_avoid_each_other():
    first = place_label((100.0, 100.0, 200.0, 200.0), (60, 20), (600, 400), [], 2)
    second = place_label((100.0, 100.0, 200.0, 200.0), (60, 20), (600, 400), [first], 2)
    assert first == (100.0, 80.0, 160.0, 100.0)
    assert second[1] >= first[3] or second[0] >= first[2]


def test_nothing_to_draw_leaves_the_photo():
    empty = np.zeros((0, 4), np.float32)
    np.testing.assert_array_equal(np.asarray(draw(GREY, empty, [], [])), GREY)
    np.testing.assert_array_equal(np.asarray(draw(GREY, empty, [], [], masks=[])), GREY)


def test_colours_are_stable_and_told_apart():
    colors = [color(i) for i in range(80)]
    assert colors == [color(i) for i in range(80)] and len(set(colors)) == 80
    first = np.array(colors[:12], float)
    distance = np.linalg.norm(first[:, None] - first[None], axis=2) + 1000 * np.eye(12)
    assert distance.min() > 50
    assert hexadecimal((255, 0, 16)) == "#ff0010"


def test_letters_stand_out():
    """WCAG contrast: black on yellow (L = .93), white on navy (L = .02)."""
    assert readable_on((255, 255, 0)) == (0, 0, 0)
    assert readable_on((0, 0, 128)) == (255, 255, 255)
