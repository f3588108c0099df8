"""The choice of detections for a whole batch at once equals the choice image by image, and its parts by hand."""

from itertools import product

import pytest
import torch

from parity.whole_masks import paste_box_masks
from perpixel.cli.export import source_of
from perpixel.engine.checkpoint import build_model
from perpixel.models.candidates import Selection
from perpixel.models.detector import Detector
from perpixel.models.duplicates import BoxNMS
from perpixel.models.static import StaticDetector, apart, best_pairs, enter, first_of_images, surviving
from perpixel.ops.boxes import clip_boxes
from perpixel.ops.keypoints import enclosing_boxes
from perpixel.ops.locations import grid_points
from perpixel.ops.masks import probabilities_in_input
from perpixel.structures import Batch, BoxMasks, DenseOutputs, ImageMasks, Locations


def random_outputs(images=3, shapes=((8, 12), (4, 6), (1, 2)), classes=5, quality=True, per_cell=1):
    """Boxes around their points, many of them overlapping, some across the border."""
    points, strides, levels = (x.repeat_interleave(per_cell, 0) for x in grid_points(shapes, (8, 16, 32)))
    boxes = points.repeat(1, 2) + torch.randn(images, len(points), 4) * strides[:, None]
    half = strides[:, None] * (1 + 2 * torch.rand(images, len(points), 2))
    boxes = torch.cat([boxes[..., :2] - half, boxes[..., 2:] + half], dim=-1)
    logits = 2 * torch.randn(images, len(points), classes) - 2
    quality = torch.randn(images, len(points)) if quality else None
    anchors = boxes[0] if per_cell > 1 else None
    return DenseOutputs(
        logits, boxes, quality, boxes, (), (), Locations(points, strides, levels, anchors, shapes, per_cell)
    )


def choose(selection, outputs, score):
    """What is left of images of 64 x 96."""
    entering = enter(selection, outputs, 64, 96, torch.tensor([score]))
    images, _, classes = outputs.logits.shape
    return entering.rows(surviving(selection, entering, (images, 64, 96), classes))


@pytest.mark.parametrize(
    ("on", "quality", "clip", "per_cell"),
    [*product(["class", "product", "score"], [True], [False, True], [1]), ("class", False, True, 3)],
)
def test_the_choice_is_that_of_image_by_image(on, quality, clip, per_cell):
    outputs = random_outputs(quality=quality, per_cell=per_cell)
    selection = Selection(0.1, on, per_level=60, iou=0.5, keep=25, clip_first=clip)
    wanted, _ = BoxNMS().find(selection, outputs, ((64, 96),) * 3, lambda candidates: None)
    found = choose(selection, outputs, 0.0)
    assert len(wanted) > 40 and wanted.image.unique().tolist() == [0, 1, 2]
    for name in ("image", "location", "level", "cell", "labels"):
        assert torch.equal(getattr(wanted, name), getattr(found, name)), name
    torch.testing.assert_close(found.boxes, wanted.boxes, rtol=0, atol=0)
    torch.testing.assert_close(found.scores, wanted.scores)


def test_a_score_leaves_out_what_is_below_it():
    outputs, selection = random_outputs(), Selection(0.05, keep=1000)
    everything = choose(selection, outputs, 0.0)
    some = choose(selection, outputs, 0.5)
    rows = everything.scores >= 0.5
    assert 0 < rows.sum() < len(everything)
    assert torch.equal(some.location, everything.location[rows]) and torch.equal(some.boxes, everything.boxes[rows])
    assert len(choose(selection, outputs, 1.0)) == 0


def test_best_pairs_by_hand():
    """One image, levels of 2 and 1 locations, 2 classes, 3 pairs a level.

    Probabilities .9 .2 | .6 .4 || .7 .05, threshold .1. Level 0: .9 (pair 0), .6 (pair 2), .4 (pair 3). Level 1: .7 (pair 4),
    then nothing above the threshold: -1.
    """
    probability = torch.tensor([[[0.9, 0.2], [0.6, 0.4], [0.7, 0.05]]])
    locations = Locations(torch.zeros(3, 2), torch.ones(3), torch.tensor([0, 0, 1]), None, ((1, 2), (1, 1)))
    boxes = torch.zeros(1, 3, 4)
    outputs = DenseOutputs(probability.logit(), boxes, None, boxes, (), (), locations)
    image, pair, scores = best_pairs(Selection(0.1, per_level=3), outputs)
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.6, 0.4, 0.7, -1, -1]))
    assert pair[:4].tolist() == [0, 2, 3, 4] and image.tolist() == [0] * 6
    assert (pair < 6).all(), "what fills up points at locations that exist"


def test_apart_by_hand():
    """3 classes in 2 columns, images of 10 x 20: places are 31 high and 61 wide; an image takes 2 rows of places.

    Class 2 of image 1: column 0, row 2 + 1, so 0 right and 3 * 31 = 93 down. A box beyond one image's side is cut there.
    """
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], [-50.0, 0.0, 500.0, 5.0]])
    moved = apart(boxes, torch.tensor([0, 1, 0]), torch.tensor([1, 2, 0]), 3, 10, 20)
    assert moved.tolist() == [[62.0, 2.0, 64.0, 4.0], [1.0, 95.0, 3.0, 97.0], [-20.0, 0.0, 40.0, 5.0]]


def test_first_of_images_by_hand():
    """Rows best first; two of each image are kept, image by image: image 0 has rows 1 and 3, image 2 rows 0 and 2."""
    assert first_of_images(torch.tensor([2, 0, 2, 0, 2, 0]), 3, 2).tolist() == [1, 3, 0, 2]
    assert first_of_images(torch.tensor([3, 0, 3]), 3, 2).tolist() == [1], "image 3 is none of three"
    assert first_of_images(torch.tensor([], dtype=torch.long), 3, 2).tolist() == []


def test_probabilities_of_the_input():
    """Box masks: at least a half where `paste_box_masks` has the mask. Image masks, stride 2: value (i, j) stands at 2i + 1."""
    boxes = torch.tensor([[2.0, 3.0, 17.0, 12.0], [-4.0, 1.0, 6.0, 30.0]])
    values = torch.rand(2, 7, 7)
    spread = probabilities_in_input(BoxMasks(values), boxes, (15, 21))
    assert torch.equal(spread >= 0.5, paste_box_masks(values, boxes, (15, 21))) and (spread >= 0.5).any()
    values = torch.rand(2, 8, 11)
    found = probabilities_in_input(ImageMasks(values, 2), boxes, (15, 21))
    assert found.shape == (2, 15, 21)
    torch.testing.assert_close(found[:, 1::2, 1::2], values[:, :7, :10])


def test_settings_of_a_recipe_shape_its_fresh_weights():
    """Another width of the pyramid: weights of the plain recipe would not fit."""
    checkpoint = source_of("fcos_shapes", ["model.neck.channels=32"])
    assert build_model(checkpoint).neck.channels == 32


def test_rectangles_around_keypoints_tell_duplicates_in_a_whole_batch():
    """Three pictures at once give what `KeypointNMS` finds in each, places of keypoints included; at most 40 enter."""
    settings = ["model.backbone.name=test_resnet", "model.neck.channels=32", "model.duplicates.enter=40"]
    chosen = ["model.selection.threshold=0.001", "model.selection.keep=10", "model.selection.iou=0.3"]
    torch.manual_seed(0)
    model = build_model(source_of("directpose_figures", [*settings, *chosen]))
    assert isinstance(model, Detector) and model.instance_head is not None
    torch.nn.init.normal_(model.instance_head.locator.bias, std=2.0)
    images = torch.rand(3, 3, 64, 96) * 255
    wanted = model.predict(Batch(images, ((64, 96),) * 3, ((64, 96),) * 3))
    with torch.no_grad():
        found = StaticDetector(model)(images, torch.zeros(1))
    assert found["image"].tolist() == [image for image, one in enumerate(wanted) for _ in range(len(one))]
    assert min(len(one) for one in wanted) > 1 and found["keypoints"].shape[1:] == (17, 3)
    for name, values in (
        ("scores", [one.scores for one in wanted]),
        ("keypoints", [one.keypoints.values for one in wanted]),
    ):
        torch.testing.assert_close(found[name], torch.cat(values), rtol=1e-4, atol=1e-3)
    around = enclosing_boxes(found["keypoints"][..., :2])
    torch.testing.assert_close(found["boxes"], clip_boxes(around, (64, 96)))
