"""DirectPose: equations 4.1 and 4.2 by hand, candidates only against dense maps, groups, visibility, heat maps, duplicates."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perpixel.config import override
from perpixel.data.figures import FiguresDataset
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.augmented import Augmented, Views
from perpixel.engine.train import check_learned_keypoints, open_training_data
from perpixel.errors import InputError
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.directpose import DirectPose, DirectPoseHead, HeatMapTask, KPAlign
from perpixel.models.duplicates import KeypointNMS
from perpixel.models.fcos import FCOS
from perpixel.models.heads import Model
from perpixel.models.keypoint_truth import heat_map_truth, with_pseudo_boxes
from perpixel.models.skeleton import BODY, groups_of
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.ops.box_sampling import sample_maps
from perpixel.ops.boxes import pairwise_iou
from perpixel.ops.keypoints import enclosing_boxes, keypoint_cells, keypoint_similarity
from perpixel.ops.map_samples import conv_samples
from perpixel.recipes import get_recipe
from perpixel.structures import COCO_KEYPOINTS, Batch, Candidates, Detections, Keypoints, Targets
from tiny_batches import batch_of

STRIDES = (8, 16)


def candidates_on(level, cells, width, image=None):
    """Candidates at cells of levels whose maps are `width` cells wide."""
    level, cell = torch.tensor(level), torch.tensor(cells)
    stride = torch.tensor(STRIDES)[level].float()
    across = torch.tensor(width)[level]
    points = (torch.stack([cell % across, cell // across], dim=1) + 0.5) * stride[:, None]
    count = len(cell)
    boxes = torch.cat([points - 20, points + 20], dim=1)
    image = torch.zeros(count, dtype=torch.long) if image is None else torch.tensor(image)
    target = torch.zeros(count, dtype=torch.long)
    scores = torch.linspace(0.9, 0.2, count)
    return Candidates(image, cell, level, cell, points, stride, boxes, boxes, None, target, scores, target)


def head_of(config, channels=4):
    torch.manual_seed(0)
    return DirectPoseHead(config, channels, channels, STRIDES)


def detector(instance, **changes):
    config = DetectorConfig(
        backbone=Backbone("test_resnet", weights=None, norm="train", frozen_stages=0),
        neck=FPN(channels=64),
        head=FCOS(class_convs=1, box_convs=1, box_loss="none"),
        instance=instance,
        duplicates=KeypointNMS(),
        selection=Selection(threshold=0.001, iou=0.5, keep=5),
    )
    return replace(config, **changes)


SMALL = DirectPose(align=KPAlign(width=8), heat_map=HeatMapTask(width=8))


def test_eq_4_2_by_hand():
    """The tower's one channel is its column plus 10 times its row, on the finer level; the location: cell (2, 1) of the coarser.

    Its point is (2.5 * 16, 1.5 * 16) = (40, 24). The locator says (-1, 0.5) strides: o = (40 - 16, 24 + 8) = (24, 32). On
    the finer level that is index (24 / 8 - 0.5, 32 / 8 - 0.5) = (2.5, 3.5), where the ramp is 2.5 + 35 = 37.5. The
    predictor of the first keypoint is (0.1, -0.02) v + (0, 1): (3.75, 0.25) strides of 16, so x = (24 + 60, 32 + 4) = (84, 36).
    """
    config = DirectPose(keypoints=("head", "tail"), align=KPAlign(groups="none", width=None), heat_map=None)
    head = head_of(config, channels=1)
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(10.0), indexing="ij")
    towers = ((x + 10 * y)[None, None], torch.zeros(1, 1, 4, 5))
    nn.init.zeros_(head.locator.weight)
    head.locator.bias.data = torch.tensor([-1.0, 0.5, 0, 0])
    head.predictor_weight.data = torch.tensor([[[0.1], [-0.02]], [[0.0], [0.0]]])
    head.predictor_bias.data = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    candidates = candidates_on([1], [5 + 2], [10, 5])
    places = head.places((towers, None), candidates)
    torch.testing.assert_close(places, torch.tensor([[[24.0, 32.0], [40.0, 24.0]]]))
    torch.testing.assert_close(head.features((towers, None), candidates, places)[0, 0], torch.tensor([37.5]))
    found = head.coordinates((towers, None), candidates)
    torch.testing.assert_close(found, torch.tensor([[[84.0, 36.0], [40.0, 24.0]]]))


@pytest.mark.parametrize("level, read", [("own", [0, 1]), ("below", [0, 0])])
def test_the_finest_level_has_none_below(level, read):
    """Where P_L is the finest the sampler stays on it (4.2.2): each level's tower holds its own number."""
    head = head_of(DirectPose(align=KPAlign(groups="none", width=None, level=level), heat_map=None))
    towers = (torch.zeros(1, 4, 8, 10), torch.ones(1, 4, 4, 5))
    candidates = candidates_on([0, 1], [33, 7], [10, 5])
    features = head.features((towers, None), candidates, head.places((towers, None), candidates))
    assert features[:, 0, 0].tolist() == read


@pytest.mark.parametrize(
    "align",
    [
        None,
        KPAlign(groups="none", width=None, level="own"),
        KPAlign(aligner=False, groups="none", width=None, level="own"),
        KPAlign(width=None),
        KPAlign(width=3),
    ],
    ids=["naive", "KPAlign", "disabled", "below", "separate"],
)
def test_candidates_only_equals_dense(align):
    """The locator, the groups' maps and the predictors slid over whole maps, then read at the candidates."""
    head = head_of(DirectPose(align=align, heat_map=None))
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.2)
    towers = (torch.randn(2, 4, 8, 10), torch.randn(2, 4, 4, 5))
    candidates = candidates_on([0, 0, 1, 1], [0, 57, 7, 19], [10, 5], [0, 1, 1, 0])
    found = head.coordinates((towers, None), candidates)
    for row in range(len(candidates)):
        image, level, cell = (int(v[row]) for v in (candidates.image, candidates.level, candidates.cell))
        point, stride = candidates.points[row], float(candidates.strides[row])
        offsets = torch.zeros(head.places_count, 2)
        if head.locator is not None:
            offsets = head.locator(towers[level])[image].flatten(1)[:, cell].reshape(-1, 2)
        places = point + offsets * stride
        for keypoint, group in enumerate(head.group_of):
            expected = places[group]
            if align is not None:
                at = level if align.level == "own" or level == 0 else level - 1
                map_of_group = towers[at][image]
                if align.width is not None:
                    rows = slice(align.width * group, align.width * (group + 1))
                    weight, bias = head.group_maps.weight[rows], head.group_maps.bias[rows]
                    map_of_group = F.conv2d(towers[at], weight, bias, padding=1).relu()[image]
                height, width = map_of_group.shape[1:]
                # grid_sample's -1..1 are the map's borders.
                grid = expected / STRIDES[at] / torch.tensor([width, height]) * 2 - 1
                feature = F.grid_sample(map_of_group[None], grid[None, None, None], align_corners=False).flatten()
                shift = head.predictor_weight[keypoint] @ feature + head.predictor_bias[keypoint]
                expected = expected + shift * stride
            torch.testing.assert_close(found[row, keypoint], expected, atol=1e-4, rtol=1e-4)


def test_samples_of_a_convolution_equal_a_dense_one():
    """Inside, at a border and outside the map; the gradient with respect to places, through which the locator learns, too."""
    torch.manual_seed(0)
    maps = (torch.randn(2, 3, 5, 6), torch.randn(2, 3, 3, 3))
    weight, bias = torch.randn(2, 4, 3, 3, 3), torch.randn(2, 4)
    image, level = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])
    places = torch.tensor([[[20.0, 17], [1.0, 39]], [[47.0, 9], [90.0, 90]], [[33.3, 21.7], [-3.0, 5]]])
    ours = places.clone().requires_grad_()
    slow = places.clone().requires_grad_()
    found = conv_samples(maps, STRIDES, image, level, ours, weight, bias)
    groups = []
    for group in range(2):
        dense = [F.conv2d(x, weight[group], bias[group], padding=1).relu() for x in maps]
        groups.append(sample_maps(dense, STRIDES, image, level, slow[:, group, None, None])[:, :, 0, 0])
    expected = torch.stack(groups, dim=1)
    torch.testing.assert_close(found, expected)
    assert (found[1, 1] == 0).all()
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, slow.grad)
    assert (ours.grad[0, 0] != 0).all()


def test_groups():
    """Footnote 3 in COCO's numbers; an unknown skeleton keeps what it shares with it, every other keypoint is alone."""
    assert groups_of(COCO_KEYPOINTS, "body") == (
        *((0, 1, 2, 3, 4), (5,), (7, 9), (6,), (8, 10), (11,), (13, 15), (12,), (14, 16)),
    )
    assert len(BODY) == 9 and groups_of(("a", "b"), "none") == ((0,), (1,))
    assert groups_of(("tail", "left_ankle", "nose", "left_knee"), "body") == ((2,), (3, 1), (0,))
    assert groups_of(("a", "b", "c"), (("c", "a"), ("b",))) == ((2, 0), (1,))
    for wrong, named in (
        ((("a",),), "b"),
        ((("a", "b"), ("a",)), "a"),
        ((("a", "b", "x"),), "x"),
        ((("a", "b"), ()), ""),
    ):
        with pytest.raises(InputError, match=f"align.groups.*{named}"):
            groups_of(("a", "b"), wrong)


def test_groups_and_names_are_settings():
    recipe = get_recipe("directpose_figures")
    keypoints = "model.instance.keypoints=[head,tail,fin]"
    made = override(recipe, [keypoints, "model.instance.align.groups=[[head],[tail,fin]]"])
    head = made.model.instance.build(8, 8, STRIDES, 1)
    assert head.group_of == [0, 1, 1] and head.predictor_weight.shape == (3, 2, 16)
    assert override(recipe, ["model.instance.align=null"]).model.instance.align is None
    for settings, message in (
        ([keypoints, "model.instance.align.groups=[[head]]"], "tail"),
        (["model.instance.keypoints=[a,a]"], "once"),
        ([keypoints, "model.instance.loss=oks"], "model.instance.sigmas"),
        (["model.instance.align.width=0"], "align.width"),
        (["model.instance.convs=-1"], "convs"),
    ):
        with pytest.raises(InputError, match=message):
            override(recipe, settings)
    with pytest.raises(InputError, match=r"heat_map\.stride=32"):
        DirectPose(heat_map=HeatMapTask(stride=32)).build(8, 8, STRIDES, 1)


def test_data_must_have_the_model_s_keypoints():
    model = get_recipe("directpose_figures").model
    figures = FiguresDataset(1)
    check_learned_keypoints(model, figures)
    check_learned_keypoints(get_recipe("fcos_shapes").model, figures)
    with pytest.raises(InputError, match="shapes:1:0: has no keypoints"):
        check_learned_keypoints(model, ShapesDataset(1))
    other = replace(model, instance=DirectPose(keypoints=("head", "tail")))
    with pytest.raises(InputError, match=r"set model.instance.keypoints=\[nose,left_eye"):
        check_learned_keypoints(other, figures)


def test_pseudo_boxes_by_hand():
    """Known keypoints (10, 20), (50, 30), (30, 90) give (10, 20, 50, 90); the absent one at (0, 0) does not count.

    One keypoint (40, 60) gives a square of 8 pixels around it; without any the annotated box stays.
    """
    keypoints = torch.zeros(3, 4, 3)
    keypoints[0, :3] = torch.tensor([[10.0, 20, 2], [50.0, 30, 1], [30.0, 90, 2]])
    keypoints[1, 2] = torch.tensor([40.0, 60, 1])
    annotated = torch.tensor([[0.0, 0, 99, 99], [1.0, 1, 98, 98], [5.0, 6, 7, 8]])
    targets = Targets(annotated, torch.zeros(3, dtype=torch.long), keypoints=keypoints)
    (found,) = with_pseudo_boxes((targets,), 4)
    expected = torch.tensor([[10.0, 20, 50, 90], [36.0, 56, 44, 64], [5.0, 6, 7, 8]])
    torch.testing.assert_close(found.boxes, expected)
    assert targets.boxes is annotated
    assert enclosing_boxes(torch.zeros(0, 4, 2)).shape == (0, 4)
    for wrong, message in (
        (replace(targets, keypoints=None), "data have none"),
        (targets, "4 keypoints an object, not 5"),
    ):
        with pytest.raises(InputError, match=message):
            with_pseudo_boxes((wrong,), 5)


def people(visibility):
    """One person of 60 x 80 pixels with four keypoints of these visibilities in a picture of 96 x 96."""
    keypoints = torch.tensor([[20.0, 12], [70.0, 20], [24.0, 88], [66.0, 90]])
    keypoints = torch.cat([keypoints, torch.tensor(visibility)[:, None].float()], dim=1)[None]
    target = Targets(torch.tensor([[18.0, 10, 78, 92]]), torch.tensor([0]), keypoints=keypoints)
    return Batch(torch.zeros(1, 3, 96, 96, dtype=torch.uint8), ((96, 96),), ((96, 96),), (target,))


NAMED = replace(SMALL, keypoints=("a", "b", "c", "d"))


def test_visibility():
    """Hidden keypoints teach, absent ones do not: their coordinates change nothing. Without any the head gets no candidate."""
    torch.manual_seed(0)
    model = detector(NAMED).build(classes=1).eval()
    with torch.no_grad():
        hidden, seen = (model.loss(people(v))["keypoints"] for v in ([1, 1, 1, 0], [2, 2, 2, 0]))
        assert hidden == seen > 0
        moved = people([2, 2, 2, 0])
        moved.targets[0].keypoints[0, 3, :2] = torch.tensor([5.0, 5.0])
        assert model.loss(moved)["keypoints"] == seen
        moved.targets[0].keypoints[0, 2, 0] += 9
        assert model.loss(moved)["keypoints"] != seen


@pytest.mark.parametrize("loss", ["l1", "smooth_l1", "oks"])
def test_a_person_without_known_keypoints_trains_the_classifier_only(loss):
    torch.manual_seed(0)
    model = detector(replace(NAMED, loss=loss, sigmas=(0.1,) * 4)).build(classes=1).train()
    losses = model.loss(people([0, 0, 0, 0]))
    assert losses["keypoints"] == 0 and losses["class"] > 0.5
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert model.instance_head.predictor_weight.grad.abs().sum() == 0
    assert model.box_head.class_logits.weight.grad.abs().sum() > 0


def test_losses_by_hand():
    """Differences (16, -4) and (0, 2) pixels at stride 8, so (2, -0.5) and (0, 0.25) strides.

    L1: 2.5 and 0.25. Smooth L1, quadratic below 1: 1.5 + 0.125 and 0.03125. OKS with box 40 x 40 and sigma 0.1: d^2 = 272 and 4
    over 8 * 1600 * 0.01 = 128: 1 - exp(-2.125) and 1 - exp(-0.03125).
    """
    difference = torch.tensor([[[16.0, -4], [0.0, 2]]])
    candidates = candidates_on([0], [33], [10, 5])
    expected = {"l1": (2.5, 0.25), "smooth_l1": (1.625, 0.03125), "oks": (0.88057, 0.030767)}
    for loss, values in expected.items():
        head = head_of(DirectPose(keypoints=("a", "b"), align=None, heat_map=None, loss=loss, sigmas=(0.1, 0.1)))
        torch.testing.assert_close(head.distance(difference, candidates)[0], torch.tensor(values), atol=1e-5, rtol=1e-4)


def test_similarity_equals_cocos():
    """COCOeval: e = (dx^2 + dy^2) / (2 sigma)^2 / area / 2, similarity exp(-e)."""
    difference, area, sigmas = torch.tensor([[[3.0, 4.0]]]), torch.tensor([100.0]), torch.tensor([0.25])
    expected = torch.exp(torch.tensor([[-25.0 / 0.25 / 100 / 2]]))
    torch.testing.assert_close(keypoint_similarity(difference, area, sigmas), expected)


def test_heat_map_truth_by_hand():
    """Stride 8: keypoint 0 at (20, 12) is in cell (2, 1), keypoint 1 at (23, 9) in the same, which is positive for both.

    The absent third is nowhere; the crowd and the person without known keypoints are not counted, but for cells with keypoints.
    """
    keypoints = torch.tensor([[[20.0, 12, 2], [23.0, 9, 1], [0.0, 0, 0]], [[0.0, 0, 0]] * 3])
    boxes = torch.tensor([[16.0, 8, 24, 16], [8.0, 8, 31, 15]])
    ignored = torch.tensor([[0.0, 32, 7, 39]])
    target = Targets(boxes, torch.zeros(2, dtype=torch.long), keypoints=keypoints, ignored=ignored)
    cells, unknown = heat_map_truth(target, 3, 8, 6, 5)
    assert cells.nonzero().tolist() == [[1, 2, 0], [1, 2, 1]]
    assert unknown.nonzero().tolist() == [[1, 1], [1, 3], [4, 0]]
    far = torch.tensor([[[200.0, 3.0], [3.0, -1.0], [39.9, 47.9]]])
    assert keypoint_cells(far, torch.ones(1, 3, dtype=torch.bool), 8, 6, 5).nonzero().tolist() == [[5, 4, 2]]


@pytest.mark.parametrize("counts", [(4, 3), (0, 3), (0, 0)])
def test_every_parameter_learns(counts):
    for instance in (SMALL, replace(SMALL, convs=1, boxes="annotated", loss="smooth_l1", heat_map=HeatMapTask(16, 8))):
        model = detector(instance).build(classes=3).train()
        losses = model.loss(batch_of(counts))
        sum(losses.values()).backward()
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
        locator = model.instance_head.locator.weight.grad.abs().sum()
        assert (locator > 0) == (counts != (0, 0))


def test_keypoint_nms():
    """Rectangles of predicted keypoints overlap by at most the selection's IoU, and are the detections' boxes."""
    torch.manual_seed(1)
    model = detector(NAMED, selection=Selection(threshold=0.001, iou=0.2, keep=20)).build(classes=1).eval()
    nn.init.normal_(model.instance_head.locator.bias, std=1.5)
    found = model.predict(replace(people([2, 2, 2, 2]), targets=None))[0]
    assert len(found) > 1 and found.keypoints.values.shape[1:] == (4, 3)
    torch.testing.assert_close(found.boxes, enclosing_boxes(found.keypoints.values[..., :2]))
    assert (found.scores[:-1] >= found.scores[1:]).all()
    torch.testing.assert_close(found.keypoints.values[:, 0, 2], found.scores)
    assert pairwise_iou(found.boxes, found.boxes).triu(1).max() <= 0.2
    boxes_alone = detector(None, head=FCOS(class_convs=1, box_convs=1)).build(classes=1).eval()
    with pytest.raises(InputError, match="predicts none"):
        boxes_alone.predict(replace(people([2, 2, 2, 2]), targets=None))


def test_figures_have_exact_joints():
    """The same for the same seed; visibility says what the masks say; left is on the right; COCO's form is half a pixel less."""
    figures, again = FiguresDataset(8, seed=3), FiguresDataset(8, seed=3)
    assert (figures.image(2) == again.image(2)).all() and figures.keypoint_names == COCO_KEYPOINTS
    truth = figures.coco_truth()["annotations"]
    rows, hidden = 0, 0
    for index in range(8):
        record = figures.record(index)
        assert len(record) == figures.object_counts[index] >= 1
        for row in range(len(record)):
            joints = record.keypoints[row]
            known = joints[:, 2] > 0
            assert truth[rows]["num_keypoints"] == known.sum()
            if known.any():
                first = int(known.argmax())
                assert truth[rows]["keypoints"][3 * first] == pytest.approx(joints[first, 0] - 0.5)
            assert (joints[~known] == 0).all()
            if known[[1, 2]].all():
                assert joints[1, 0] > joints[2, 0]
            hidden += int((joints[:, 2] == 1).sum())
            rows += 1
    assert rows == len(truth) and hidden > 0
    with pytest.raises(InputError, match="figures:0:0"):
        FiguresDataset(0)
    with pytest.raises(InputError, match="too small"):
        FiguresDataset(1, (32, 32))


def test_it_learns():
    """A stick figure, upright and lying, until its joints are found within 6 % of the picture (chance: half of it).

    Turned by a quarter, pixel (x, y) comes to (y, 96 - x): the head is left of the feet, and each joint keeps its name.
    """
    torch.manual_seed(0)
    data = FiguresDataset(12, size=(96, 96), seed=5)
    index = next(i for i in range(12) if (data.record(i).keypoints[0, :, 2] > 0).all() and len(data.record(i)) == 1)
    record = data.record(index)
    truth = torch.from_numpy(record.keypoints)
    lying = torch.stack([truth[..., 1], 96 - truth[..., 0], truth[..., 2]], dim=-1)
    assert lying[0, 0, 0] < lying[0, 15, 0], "the head is left of the feet"
    image = torch.from_numpy(data.image(index)).permute(2, 0, 1)
    images = torch.stack([image, image.rot90(1, (1, 2))])
    both = torch.stack([truth, lying])
    person = torch.zeros(1, dtype=torch.long)
    targets = tuple(Targets(enclosing_boxes(one[..., :2]), person, keypoints=one) for one in both)
    batch = Batch(images, ((96, 96),) * 2, ((96, 96),) * 2, targets)
    model = detector(SMALL, selection=Selection(iou=0.5)).build(classes=1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        sum(model.loss(batch).values()).backward()
        optimizer.step()
    for found, wanted in zip(model.eval().predict(replace(batch, targets=None)), both, strict=True):
        away = (found.keypoints.values[0, :, :2] - wanted[0, :, :2]).norm(dim=1)
        assert found.scores[0] > 0.3 and away.max() < 0.06 * 96


def test_training_data_opens():
    recipe = get_recipe("directpose_figures")
    recipe = replace(recipe, data=replace(recipe.data, train="figures:8:0", val=None, workers=0))
    data = open_training_data(recipe)
    assert data.class_names == ("person",)


class OneJoint(Model):
    """Finds two joints by colour: joint 0 on the reddest pixel, joint 1 on the bluest; in a mirror it takes one for the other."""

    def loss(self, batch):
        return {}

    def predict(self, batch):
        found = []
        for image, size in zip(batch.images, batch.sizes, strict=True):
            places = []
            for channel in (0, 2):
                y, x = divmod(int(image[channel].argmax()), image.shape[2])
                places.append((x + 0.5, y + 0.5, 0.9))
            # The left joint is the one on the right, as of a person that faces the viewer.
            places.sort(key=lambda place: -place[0])
            values = torch.tensor([places])
            boxes = enclosing_boxes(values[..., :2], least_side=8.0)
            one = torch.tensor([0.9]), torch.zeros(1, dtype=torch.long)
            found.append(Detections(boxes, *one, size, keypoints=Keypoints(values)))
        return found


@pytest.mark.parametrize("short_side", [64, 128])
def test_a_mirror_exchanges_left_and_right(short_side):
    """Joints at x = 16.5 and 47.5 of 64: whichever view wins, the left joint is at 47.5; without pairs the mirror's is wrong."""
    image = torch.zeros(1, 3, 64, 64)
    image[0, 0, 20, 16], image[0, 2, 30, 47] = 255, 255
    batch = Batch(image, ((64, 64),), ((64, 64),))
    views = Views((short_side,), flip=True, threshold=1.0)
    for pairs, wanted in ((((0, 1),), [(47.5, 16.5)] * 2), ((), [(47.5, 16.5), (16.5, 47.5)])):
        found = Augmented(OneJoint(), views, flip_pairs=pairs).predict(batch)[0]
        assert len(found) == 2
        wanted_x = torch.tensor(wanted)
        torch.testing.assert_close(found.keypoints.values[:, :, 0], wanted_x, atol=0.6, rtol=0)
