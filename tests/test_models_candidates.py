"""Candidates: positives, policies among them, and selection by thresholds and NMS; by hand and against a slow loop."""

from dataclasses import replace

import pytest
import torch
from torchvision.ops import box_iou

from perpixel.models.candidates import BestPositives, RandomPositives, Selection, positives, to_detections
from perpixel.models.fcos import FCOS
from perpixel.structures import Matches, Targets

STRIDES = (8, 16, 32, 64, 128)


def some_outputs(quality="centerness", classes=3, images=2):
    head = FCOS(quality=quality, class_convs=0, box_convs=0).build(32, STRIDES, classes)
    torch.nn.init.normal_(head.class_logits.weight, std=0.3)
    torch.nn.init.normal_(head.distances.weight, std=0.03)
    torch.nn.init.constant_(head.distances.bias, 3.0)  # a box without area has no IoU to speak of
    pyramid = tuple(torch.randn(images, 32, -(-64 // s), -(-96 // s)) for s in STRIDES)
    with torch.no_grad():
        return head(pyramid)


def test_positives_carry_their_targets():
    outputs = some_outputs()
    target = torch.full((2, len(outputs.locations)), -1)
    target[0, 5], target[1, 3], target[1, 100] = 1, 0, -2
    boxes = [torch.tensor([[0.0, 0, 1, 1], [2.0, 2, 3, 3]]), torch.tensor([[4.0, 4, 5, 5]])]
    targets = [Targets(boxes[0], torch.tensor([7, 8])), Targets(boxes[1], torch.tensor([9]))]
    found = positives(outputs, Matches(target), targets)
    assert found.image.tolist() == [0, 1] and found.location.tolist() == [5, 3] and found.target.tolist() == [1, 0]
    assert found.labels.tolist() == [8, 9] and found.boxes.tolist() == [[2, 2, 3, 3], [4, 4, 5, 5]]
    assert torch.equal(found.points, outputs.locations.points[[5, 3]])
    assert torch.equal(found.predicted, outputs.boxes[[0, 1], [5, 3]])


def positives_of(image, target, scores):
    outputs = some_outputs()
    matched = torch.full((2, len(outputs.locations)), -1)
    location = torch.arange(len(image))
    matched[torch.tensor(image), location] = torch.tensor(target)
    targets = [Targets(torch.zeros(9, 4), torch.zeros(9, dtype=torch.long))] * 2
    found = positives(outputs, Matches(matched), targets)
    order = torch.argsort(torch.tensor(image), stable=True)
    return replace(found, scores=torch.tensor(scores)[order])


def test_best_positives_share_an_images_places():
    """Image 0 has two objects and 5 places: 2 each; image 1 has one object: all its three fit in 5."""
    found = positives_of([0] * 6 + [1] * 3, [0, 0, 0, 4, 4, 4, 2, 2, 2], [0.1, 0.3, 0.2, 0.9, 0.7, 0.8, 0.5, 0.6, 0.4])
    kept = BestPositives(per_image=5).choose(found)
    assert kept.location.tolist() == [1, 2, 3, 5, 6, 7, 8]
    # One place for two objects is still one each.
    assert BestPositives(per_image=1).choose(found).location.tolist() == [1, 3, 7]
    assert len(BestPositives(per_image=1).choose(found.rows(torch.zeros(9, dtype=torch.bool)))) == 0


def test_random_positives_are_a_subset_in_order():
    found = positives_of([0] * 8, [0] * 8, [0.0] * 8)
    kept = RandomPositives(limit=3).choose(found)
    assert len(kept) == 3 and kept.location.tolist() == sorted(kept.location.tolist())
    assert len(RandomPositives(limit=100).choose(found)) == 8
    draws = {tuple(RandomPositives(limit=3).choose(found).location.tolist()) for _ in range(30)}
    assert len(draws) > 5


def slow_selection(outputs, selection, image):
    """Every pair of location and class, in plain loops."""
    kept = []
    for level in range(len(STRIDES)):
        passed = []
        for location in torch.nonzero(outputs.locations.levels == level).squeeze(1).tolist():
            for label in range(outputs.logits.shape[2]):
                p = outputs.logits[image, location, label].sigmoid().item()
                q = 1.0 if outputs.quality is None else outputs.quality[image, location].sigmoid().item()
                score = p if outputs.quality is None else (p * q) ** 0.5
                measured = (
                    p
                    if outputs.quality is None
                    else {"class": p, "product": p * q, "score": score}[selection.threshold_on]
                )
                if measured > selection.threshold:
                    passed.append((score, location, label))
        kept += sorted(passed, reverse=True)[: selection.per_level]
    survivors = []
    for score, location, label in sorted(kept, reverse=True):
        box = outputs.boxes[image, location][None]
        if all(
            other != label or box_iou(box, outputs.boxes[image, place][None]).item() <= selection.iou
            for _, place, other in survivors
        ):
            survivors.append((score, location, label))
    return survivors[: selection.keep]


@pytest.mark.parametrize("quality", ["centerness", "none"])
@pytest.mark.parametrize("threshold_on", ["class", "product", "score"])
def test_selection_is_the_slow_loop(quality, threshold_on):
    outputs = some_outputs(quality)
    selection = Selection(threshold=0.3, threshold_on=threshold_on, per_level=20, iou=0.5, keep=30)
    found = selection.choose(outputs, [(64, 96)] * 2)
    for image in range(2):
        rows = found.image == image
        expected = slow_selection(outputs, selection, image)
        assert len(expected) > 5
        assert found.location[rows].tolist() == [e[1] for e in expected]
        assert found.labels[rows].tolist() == [e[2] for e in expected]
        torch.testing.assert_close(found.scores[rows], torch.tensor([e[0] for e in expected]))


def test_clip_first_cuts_boxes_at_each_image_border():
    outputs = some_outputs()
    found = Selection(threshold=0.1, clip_first=True).choose(outputs, [(40, 50), (64, 96)])
    for image, (height, width) in enumerate([(40, 50), (64, 96)]):
        boxes = found.boxes[found.image == image]
        assert boxes.min() >= 0 and boxes[:, 2].max() == width and boxes[:, 3].max() == height
    free = Selection(threshold=0.1).choose(outputs, [(40, 50), (64, 96)])
    assert free.boxes.min() < 0


def test_nothing_above_the_threshold():
    outputs = some_outputs()
    found = Selection(threshold=1.0).choose(outputs, [(64, 96)] * 2)
    assert len(found) == 0
    parts = to_detections(found, None, [(64, 96)] * 2)
    assert [len(d) for d in parts] == [0, 0]
