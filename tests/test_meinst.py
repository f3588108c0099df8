"""MEInst: losses by hand, predictors at candidates only, every setting on every detector, training fits the codes; it learns."""

import math
from dataclasses import replace

import pytest
import torch

from outlines import overlaps, taught, triangle_and_disc
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.codes import fit_code
from perpixel.errors import InputError
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.meinst import MEInst, distance
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.nn.mask_codes import PCA
from perpixel.nn.mask_moments import MaskMoments
from perpixel.ops.assign import LevelRanges
from perpixel.ops.masks import crop_masks
from perpixel.recipes import get_table
from perpixel.structures import Batch, Candidates, Targets
from tiny_batches import batch_of

SMALL = MEInst(code=PCA(6, 8), convs=1)
HEADS = [FCOS(class_convs=1, box_convs=1, initial_distance=1.0), RetinaNet(convs=1)]
SETTINGS = {
    "explicit": SMALL,
    "implicit": replace(SMALL, encoding="implicit"),
    "none": replace(SMALL, encoding="none"),
    "l1": replace(SMALL, nearness="l1"),
    "smooth l1": replace(SMALL, nearness="smooth_l1"),
    "cosine": replace(SMALL, nearness="cosine"),
    "large kernel": replace(SMALL, last="large_kernel"),
    "deformable": replace(SMALL, last="deformable"),
    "plain code": replace(SMALL, code=PCA(6, 8, whiten=False, logit=False)),
    "classes": replace(SMALL, code=PCA(6, 8, class_specific=True)),
    "plain code, implicit": replace(SMALL, code=PCA(6, 8, logit=False, class_specific=True), encoding="implicit"),
}


def tiny(box_head, instance, channels=32):
    backbone = Backbone("test_resnet", weights=None, norm="train", frozen_stages=0)
    selection = Selection(threshold=0.001, keep=7)
    return DetectorConfig(
        backbone=backbone, neck=FPN(channels=channels), head=box_head, instance=instance, selection=selection
    )


def candidates_of(points, boxes, targets):
    """Candidates of the first image at cell 0 of the first level."""
    zeros = torch.zeros(len(points), dtype=torch.long)
    strides = torch.full((len(points),), 8.0)
    return Candidates(zeros, zeros, zeros, zeros, points, strides, boxes, boxes, None, zeros, target=targets)


def test_distances_by_hand():
    """(0, 2, 0.5, 0) against (0, 0, 0, 3): differences 0, 2, 0.5, -3.

    Squares 0 + 4 + 0.25 + 9 = 13.25, over 4: 3.3125. Sizes 5.5 / 4 = 1.375. Smooth: 0 + 1.5 + 0.125 + 2.5 = 4.125, over 4.
    The two are at right angles: 1 - 0.
    """
    said, wanted = torch.tensor([[0.0, 2.0, 0.5, 0.0]]), torch.tensor([[0.0, 0.0, 0.0, 3.0]])
    assert distance("l2", said, wanted).tolist() == [3.3125]
    assert distance("l1", said, wanted).tolist() == [1.375]
    assert distance("smooth_l1", said, wanted).tolist() == [1.03125]
    assert distance("cosine", said, wanted).tolist() == [1.0]
    assert distance("cosine", said, 3 * said).item() == pytest.approx(0, abs=1e-6)


def test_loss_by_hand():
    """Two candidates of an object whose left half is mask: cells (1, 0) in both rows.

    The code is fitted to that mask and its mirror image: mean 1/2, component (1, -1, 1, -1) / 2, so the number is 1. The
    predictor says 0: a squared distance of 1 for both, and the weighted mean is 1, times the weight 3. The first candidate
    stands in the middle: centre-ness 1; the second 4 from the left and 12 from the right: sqrt(4 / 12) = 0.57735. If the second
    says 3, its squared distance is 4: (1 + 4 * 0.57735) / 1.57735 = 2.0981, times 3.
    """
    head = replace(SMALL, code=PCA(1, 2, whiten=False, logit=False), weight=3.0).build(32, 32, (8,), 3)
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, :, :8] = True
    seen = MaskMoments(2)
    seen.add(torch.tensor([[[True, False], [True, False]], [[False, True], [False, True]]]))
    head.code.fit([seen])
    target = Targets(torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([0]), masks)
    batch = Batch(torch.zeros(1, 3, 16, 16), ((16, 16),), targets=(target,))
    found = candidates_of(torch.tensor([[8.0, 8], [4, 8]]), torch.tensor([[0.0, 0, 16, 16]] * 2), torch.tensor([0, 0]))
    assert head.truth(found, batch).tolist() == [[[True, False], [True, False]]] * 2
    number = head.code.encode(head.truth(found, batch), found.labels)
    torch.testing.assert_close(number.abs(), torch.ones(2, 1))
    torch.nn.init.zeros_(head.predictor.weight)
    maps = (torch.rand(1, 32, 2, 2),)
    assert head.loss(maps, found, batch)["mask"].item() == pytest.approx(3.0, rel=1e-5)
    said = torch.tensor([[0.0], [number[1].item() * 3]])
    head.numbers = lambda dense, candidates: said
    assert head.loss(maps, found, batch)["mask"].item() == pytest.approx(6.2942, abs=1e-3)
    nothing = found.rows(torch.zeros(0, dtype=torch.long))
    head.numbers = lambda dense, candidates: said[:0]
    assert head.loss(maps, nothing, batch)["mask"].item() == 0


@pytest.mark.parametrize("encoding", ["implicit", "none"])
def test_pixels_by_hand(encoding):
    """Logits of 0 cost log 2 a pixel, whatever the mask; of the implicit code 0 decodes to its mean, here 0 too."""
    head = replace(SMALL, encoding=encoding).build(32, 32, (8,), 3)
    batch = batch_of((1, 0))
    found = candidates_of(
        batch.truth()[0].boxes.mean(0).view(2, 2).mean(0)[None], batch.truth()[0].boxes, torch.tensor([0])
    )
    torch.nn.init.zeros_(head.predictor.weight)
    loss = head.loss((torch.rand(1, 32, 2, 2),), found, batch)["mask"]
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)


@pytest.mark.parametrize("last", ["plain", "large_kernel", "deformable"])
def test_numbers_at_candidates_equal_the_dense_predictor(last):
    """And the rest of a prediction the slow way: codes gathered from the dense map, decoded one at a time."""
    torch.manual_seed(0)
    head = replace(HEADS[0], levels=LevelRanges((24.0, 128.0, 256.0, 512.0)))
    model = tiny(head, replace(SMALL, last=last, kernel=5)).build(3).eval()
    head, batch = model.instance_head, batch_of((3, 2))
    for part in (*head.mask_tower.modules(), *head.predictor.modules()):
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.normal_(part.weight, std=0.1)
    with torch.no_grad():
        outputs, dense = model(model.normalized(batch))
        found = head.choose(outputs, model.box_head.assign(outputs.locations, batch.truth()), batch)
        assert len(found) > 10 and found.image.unique().tolist() == [0, 1] and len(found.level.unique()) > 1
        numbers, masks = head.numbers(dense, found), head.predict(dense, found).values
        maps = [head.predictor(level).flatten(2) for level in dense]
        for row in range(len(found)):
            slow = maps[int(found.level[row])][int(found.image[row]), :, int(found.cell[row])]
            torch.testing.assert_close(numbers[row], slow, atol=1e-5 * slow.abs().max().item(), rtol=1e-4)
            flat = slow * head.code.variances[0].sqrt() @ head.code.components[0] + head.code.means[0]
            torch.testing.assert_close(masks[row].flatten(), flat.sigmoid(), atol=1e-4, rtol=1e-4)


def test_each_object_is_cut_once_and_right():
    batch = batch_of((3, 2))
    head = SMALL.build(32, 32, (8,), 3)
    image, target = torch.tensor([1, 0, 0, 1, 0]), torch.tensor([1, 2, 0, 0, 2])
    boxes = torch.stack([batch.truth()[i].boxes[t] for i, t in zip(image.tolist(), target.tolist(), strict=True)])
    found = replace(candidates_of(boxes[:, :2], boxes, target), image=image)
    for row, mask in enumerate(head.truth(found, batch)):
        own = batch.truth()[int(image[row])].masks
        assert torch.equal(mask, crop_masks(own, target[row : row + 1], boxes[row : row + 1], 8)[0])


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("head", HEADS, ids=["FCOS", "RetinaNet"])
def test_on_every_detector(head, name):
    """Objects in both images, in one, in none; every parameter learns; masks from 0 to 1 over boxes, none where none is found."""
    torch.manual_seed(0)
    model = tiny(head, SETTINGS[name]).build(3).train()
    for objects in ((3, 2), (0, 2), (0, 0)):
        model.zero_grad(set_to_none=True)
        losses = model.loss(batch_of(objects))
        sum(losses.values()).backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []
        assert (losses["mask"] > 0.01) == (objects != (0, 0)) and torch.isfinite(losses["mask"])
    found = model.eval().predict(replace(batch_of((3, 2)), targets=None))
    assert all(f.masks.values.shape == (len(f), 8, 8) for f in found) and len(found[0]) > 0
    assert all(f.masks.values.min() >= 0 and f.masks.values.max() <= 1 for f in found)
    model.selection = Selection(threshold=1.0)
    assert [len(found.masks.values) for found in model.eval().predict(batch_of((3, 2)))] == [0, 0]


def test_the_box_towers_feel_no_mask():
    """The mask branch reads the pyramid: the mask loss reaches the neck and no tower of the detector."""
    model = tiny(HEADS[0], SMALL).build(3).train()
    model.loss(batch_of((3, 2)))["mask"].backward()
    assert all(p.grad is None for p in model.box_head.parameters())
    assert all(p.grad is not None for p in model.neck.output.parameters())


def test_objects_without_a_drawn_mask_train_no_mask():
    model, batch = tiny(HEADS[0], SMALL).build(3), batch_of((3, 0))
    target = replace(batch.truth()[0], drawn=torch.tensor([False, True, False]))
    batch = replace(batch, targets=(target, batch.truth()[1]))
    outputs, _ = model(model.normalized(batch))
    found = model.instance_head.choose(outputs, model.box_head.assign(outputs.locations, batch.truth()), batch)
    assert found.target.unique().tolist() == [1]
    with pytest.raises(InputError, match=r"set data\.masks"):
        model.loss(replace(batch, targets=tuple(replace(t, masks=None, centers=None) for t in batch.truth())))


def test_half_precision_towers():
    for instance in (SMALL, replace(SMALL, last="large_kernel", encoding="implicit")):
        model = tiny(HEADS[0], instance).build(3).train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = model.loss(batch_of((3, 2)))
        assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


def test_settings_that_do_not_fit_are_said_in_a_sentence():
    for wrong in (lambda: MEInst(kernel=4), lambda: MEInst(last="deformable", convs=0)):
        with pytest.raises(InputError, match=r"model\.instance\."):
            wrong()


def test_every_row_is_there():
    """As many as the paper's tables have of MEInst: 4, 3, 4, 3, 2, 3."""
    assert [len(get_table(f"meinst_{number}").rows) for number in range(2, 8)] == [4, 3, 4, 3, 2, 3]


def test_it_learns_outlines():
    """A triangle and a disc, until each mask overlaps its own by more than 0.85; their boxes filled would by 0.5 and 0.785."""
    torch.manual_seed(0)
    batch = triangle_and_disc()
    model = tiny(HEADS[0], replace(SMALL, code=PCA(48, 16)), channels=64).build(3)
    fit_code(model.instance_head.code, ShapesDataset(30, seed=0))
    constants = model.instance_head.code.means.clone()
    assert overlaps(taught(model, batch, steps=100), batch).min() > 0.85
    assert torch.equal(model.instance_head.code.means, constants)
