"""Instances: from the network's input to the photo, chosen, drawn and exported."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from perpixel.engine.instances import Instances
from perpixel.errors import InputError
from perpixel.structures import BoxMasks, Detections, Keypoints

NAMES = ("cat", "dog")


def detections(**more) -> Detections:
    """Three boxes in an input of 40x80: one inside, one across the right edge, one wholly outside."""
    boxes = torch.tensor([[8.0, 4.0, 24.0, 20.0], [70.0, 10.0, 100.0, 30.0], [90.0, 10.0, 99.0, 30.0]])
    return Detections(boxes, torch.tensor([0.9, 0.6, 0.5]), torch.tensor([1, 0, 1]), (40, 80), **more)


def test_boxes_come_to_the_photo_by_hand():
    """Input 40x80 (h, w), photo 20x160: x doubles, y halves. The second box is cut at x = 160; the third lies outside and
    is dropped."""
    found = Instances.from_detections(detections(), (20, 160), NAMES)
    np.testing.assert_allclose(found.boxes, [[16, 2, 48, 10], [140, 5, 160, 15]])
    assert found.names == ["dog", "cat"]
    assert len(Instances.from_detections(detections(), (20, 160), NAMES, score=0.7)) == 1


def test_masks_and_keypoints_go_with_their_boxes():
    """The masks are all, top half, none; keypoints scale like boxes; the dropped row takes its own along.

    First box, 32x8 with 4x4 cells of 8x2 pixels: a corner pixel's centre lies 0.4375 and 0.25 cells outside the outermost
    cell centres, so its value is 0.5625 * 0.75 = 0.42: out; along the edges one factor is 1: in. Second box, 60x10
    of which 20x10 lie in the photo, cells of 15x2.5: row 0 has 0.7, rows 1 to 3 have 1, row 4 has 0.7, row 5 0.3; the
    columns at 140 to 142 have 0.53 to 0.67 of that, the one at 143 has 0.73: 0.7 x 0.73 = 0.51 is in.
    """
    values = torch.zeros(3, 4, 4)
    values[0], values[1, :2] = 1, 1
    joints = torch.tensor([[[10.0, 20.0, 0.5]], [[80.0, 40.0, 0.7]], [[1.0, 1.0, 0.1]]])
    found = Instances.from_detections(detections(masks=BoxMasks(values), keypoints=Keypoints(joints)), (20, 160), NAMES)
    assert found.masks.shape == (2, 20, 160)
    whole = np.zeros((20, 160), dtype=bool)
    whole[2:10, 16:48] = True
    whole[[2, 2, 9, 9], [16, 47, 16, 47]] = False
    np.testing.assert_array_equal(found.masks[0], whole)
    half = np.zeros((20, 160), dtype=bool)
    half[5:10, 140:160] = True
    half[[5, 9], 140:143] = False
    np.testing.assert_array_equal(found.mask(1), half)
    np.testing.assert_allclose(found.keypoints, [[[20, 10, 0.5]], [[160, 20, 0.7]]])


def test_coco_results_by_hand():
    """xyxy becomes xywh; a keypoint at the centre of pixel 19 (x = 19.5) gets COCO's index 19."""
    joints = torch.tensor([[[9.75, 21.0, 0.5]]] * 3)
    found = Instances.from_detections(detections(keypoints=Keypoints(joints)), (20, 160), NAMES)
    first = found.to_coco(7, category_ids=[17, 18])[0]
    assert (first["image_id"], first["category_id"], first["bbox"]) == (7, 18, [16.0, 2.0, 32.0, 8.0])
    assert first["score"] == pytest.approx(0.9)
    assert first["keypoints"] == [19.0, 10.0, 0.5]
    assert [r["category_id"] for r in found.to_coco(7)] == [2, 1]
    assert "segmentation" not in first


def test_choosing():
    found = Instances.from_detections(detections(masks=BoxMasks(torch.ones(3, 2, 2))), (20, 160), NAMES)
    assert found[1].names == ["cat"]
    assert found[[1, 0]].names == ["cat", "dog"]
    assert found[found.scores > 0.7].names == ["dog"]
    assert [one.names for one in found] == [["dog"], ["cat"]]
    assert found[1].masks.shape == (1, 20, 160)
    assert found.keep(score=0.8).names == ["dog"]
    assert found.keep(classes=["cat"]).names == ["cat"]
    assert found.keep(classes="dog").names == ["dog"]
    with pytest.raises(InputError, match="did you mean 'cat'"):
        found.keep(classes=["cats"])
    with pytest.raises(IndexError):
        found[2]


def test_readable():
    found = Instances.from_detections(detections(), (20, 160), NAMES)
    assert repr(found) == "Instances(1 dog, 1 cat in a photo, 160x20; best 0.90)"
    assert repr(found.keep(score=1.0)) == "Instances(nothing in a photo, 160x20)"


def test_nothing_found():
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), (40, 80))
    found = Instances.from_detections(empty, (20, 160), NAMES, image=np.zeros((20, 160, 3), np.uint8))
    assert len(found) == 0 and found.to_coco(1) == []
    assert np.asarray(found.plot()).max() == 0


def test_plot_and_save(tmp_path):
    image = np.full((200, 300, 3), 90, np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    from_memory = Instances.from_detections(detections(), (200, 300), NAMES, image=image)
    from_file = Instances.from_detections(detections(), (200, 300), NAMES, path=tmp_path / "photo.png")
    np.testing.assert_array_equal(np.asarray(from_memory.plot()), np.asarray(from_file.plot()))
    written = from_file.save(tmp_path / "deep" / "drawn.png")
    assert Image.open(written).size == from_file.plot().size
    with pytest.raises(InputError, match="picture format"):
        from_file.save(tmp_path / "drawn.txt")
    with pytest.raises(InputError, match="do not hold their photo"):
        Instances.from_detections(detections(), (200, 300), NAMES).plot()


def test_supervision_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match=r"perpixel\[supervision\]"):
        Instances.from_detections(detections(), (20, 160), NAMES).to_supervision()


def test_supervision_gets_all_fields(monkeypatch):
    stand_in = types.SimpleNamespace(Detections=lambda **fields: fields)
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    found = Instances.from_detections(detections(masks=BoxMasks(torch.ones(3, 2, 2))), (20, 160), NAMES)
    fields = found.to_supervision()
    assert fields["xyxy"].shape == (2, 4) and fields["mask"].shape == (2, 20, 160)
    assert fields["class_id"].tolist() == [1, 0] and fields["data"]["class_name"].tolist() == ["dog", "cat"]
    np.testing.assert_allclose(fields["confidence"], [0.9, 0.6])
    assert fields["tracker_id"] is None
    # Track 5, and one that is not followed yet.
    assert replace(found, tracks=np.array([5, 0])).to_supervision()["tracker_id"].tolist() == [5, -1]


def test_supervision_itself_takes_them():
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    found = Instances.from_detections(detections(masks=BoxMasks(torch.ones(3, 2, 2))), (20, 160), NAMES)
    taken = replace(found, tracks=np.array([5, 0])).to_supervision()
    assert isinstance(taken, supervision.Detections) and len(taken) == 2
    assert len(taken[taken.tracker_id != -1]) == 1 and taken.tracker_id.dtype.kind == "i"
    assert len(found[[]].to_supervision()) == 0
