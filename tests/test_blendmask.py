"""BlendMask: the head at candidates equals the dense one, losses by hand, every bottom module, P2 and C3; it learns."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from outlines import overlaps, taught, triangle_and_disc
from perpixel.errors import InputError
from perpixel.models import blendmask
from perpixel.models.blendmask import BlendMask, Maps
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.mask_losses import semantic_cross_entropy
from perpixel.models.mask_truth import masks_in_boxes, masks_of_objects
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.backbones import Backbone
from perpixel.nn.bases import DeepLabV3Plus, ProtoFPN, ProtoNet
from perpixel.nn.fpn import FPN
from perpixel.ops.blend import blend, cut_bases, enlarge
from perpixel.recipes import get_table
from perpixel.structures import Batch, Candidates, Targets
from tiny_batches import triangles

TINY_FCOS = FCOS(class_convs=1, box_convs=1, initial_distance=1.0)
SMALL = BlendMask(ProtoFPN(width=8, convs=1), region=14, attention=4, semantic_width=8)
BOTTOMS = {
    "C3, C5": DeepLabV3Plus(reads="backbone", width=8),
    "P3, P5": DeepLabV3Plus(width=8),
    "P2, P5": DeepLabV3Plus(width=8, fine=4),
    "ProtoNet": ProtoNet(width=8),
    "Proto-FPN": ProtoFPN(width=8, convs=0),
}


def tiny(instance, box_head=TINY_FCOS, finest=8, channels=32):
    stages = tuple(stride for stride in (4, 8, 16, 32) if stride >= finest)
    return DetectorConfig(
        backbone=Backbone("test_resnet", stages=stages, weights=None, norm="train", frozen_stages=0),
        neck=FPN(channels=channels),
        head=box_head,
        instance=instance,
        selection=Selection(threshold=0.001, keep=7),
        box_stride=8,
    )


def with_some_attention(model):
    """Attentions that differ from cell to cell: those of fresh weights hardly do."""
    torch.nn.init.normal_(model.instance_head.top.weight, std=0.3)
    return model


def test_attentions_at_candidates_equal_the_dense_top_layer():
    """The whole head the slow way, a candidate at a time; the map of K M^2 channels is never made."""
    torch.manual_seed(0)
    model = with_some_attention(tiny(SMALL).build(3).eval())
    head, batch = model.instance_head, triangles((3, 2))
    head.top.register_forward_hook(lambda *_: pytest.fail("the top layer ran densely"))
    with torch.no_grad():
        outputs, dense = model(model.normalized(batch))
        found = head.choose(outputs, model.box_head.assign(outputs.locations, batch.truth()), batch)
        assert len(found) > 5 and found.image.unique().tolist() == [0, 1]
        assert dense.bases.shape == (2, 4, 16, 24) and head.bottom.stride == 4
        logits = head.logits(dense, found)
        for row in range(len(found)):
            tower = dense.towers[int(found.level[row])][found.image[row], None]
            everywhere = F.conv2d(tower, head.top.weight, head.top.bias, padding=1).flatten(2)
            attention = everywhere[0, :, int(found.cell[row])].reshape(1, 4, 4, 4)
            of_image = dense.bases[found.image[row], None]
            cut = cut_bases(of_image, found.boxes[row, None], torch.tensor([0]), 4, 14)
            alone = blend(cut, enlarge(attention, 14))[0]
            assert (alone - logits[row]).abs().max() < 1e-4 * logits.abs().max()
            assert alone.std() > 0.01


def test_masks_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    model = with_some_attention(tiny(SMALL).build(3).eval())
    batch = replace(triangles((1, 1)), targets=None)
    together = model.predict(batch)
    monkeypatch.setattr(blendmask, "AT_ONCE", 2)
    for one, other in zip(model.predict(batch), together, strict=True):
        assert one.masks.values.shape == (7, 14, 14)
        torch.testing.assert_close(one.masks.values, other.masks.values)
    model.selection = Selection(threshold=1.0)
    assert [found.masks.values.shape for found in model.predict(batch)] == [(0, 14, 14)] * 2


@pytest.mark.parametrize("objects", [(3, 2), (0, 2), (0, 0)])
@pytest.mark.parametrize("box_head", [TINY_FCOS, RetinaNet(convs=1)], ids=["FCOS", "RetinaNet"])
def test_on_every_detector(box_head, objects):
    torch.manual_seed(0)
    model = tiny(SMALL, box_head).build(3).train()
    losses = model.loss(triangles(objects))
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert (losses["mask"] > 0.1) == (objects != (0, 0))
    assert losses["semantic"] > 0.1


@pytest.mark.parametrize("name", BOTTOMS)
@pytest.mark.parametrize(
    "change", [{}, {"bases": 1}, {"bases": 16, "merging": "fixed"}, {"cutting": "nearest", "enlarging": "nearest"}]
)
def test_every_bottom_module_and_every_merging_learns(name, change):
    """On a pyramid whose finest level, P2, only the bottom module may read, and which is there only where it does."""
    torch.manual_seed(0)
    bottom = BOTTOMS[name]
    finest = 4 if name == "P2, P5" else 8
    model = tiny(replace(SMALL, bottom=bottom, **change), finest=finest).build(3).train()
    losses = model.loss(triangles((3, 2)))
    losses["mask"].backward()
    parts = [*model.instance_head.bottom.named_parameters()]
    assert [n for n, p in parts if p.grad is None or not torch.isfinite(p.grad).all() or not p.grad.any()] == []
    assert (model.instance_head.top is None) == ("merging" in change)
    found = model.eval().predict(replace(triangles((3, 2)), targets=None))
    assert all(torch.isfinite(one.masks.values).all() for one in found)


def test_strides_of_bases():
    """The decoder's are those of its fine map, a ProtoNet's half of its level's; sides need not be multiples of 32."""
    backbone, pyramid = {4: 3, 8: 4, 16: 5, 32: 6}, {4: 7, 8: 7, 16: 7, 32: 7}

    def maps(widths):
        return {s: torch.rand(2, c, -(-72 // s), -(-104 // s)) for s, c in widths.items()}

    for name, stride in (("C3, C5", 8), ("P3, P5", 8), ("P2, P5", 4), ("ProtoNet", 4), ("Proto-FPN", 4)):
        module = BOTTOMS[name].build(backbone, pyramid, 5)
        assert module.stride == stride
        assert module(maps(backbone), maps(pyramid)).shape == (2, 5, 72 // stride, 104 // stride)
        # A batch of one image trains: no norm stands on a single value.
        one = [{s: x[:1] for s, x in maps(widths).items()} for widths in (backbone, pyramid)]
        assert torch.isfinite(module.train()(*one)).all()


def test_the_box_head_does_not_read_p2():
    """The same locations and the same number of weights in the box head with P2 and without; P2 is there in `finer`."""
    plain, finer = (tiny(None, finest=stride).build(3).eval() for stride in (8, 4))
    images = torch.rand(2, 3, 64, 96)
    without, _ = plain(images)
    outputs, _ = finer(images)
    assert torch.equal(without.locations.points, outputs.locations.points)
    assert without.locations.shapes == outputs.locations.shapes == ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1))
    with pytest.raises(InputError, match=r"model\.box_stride=5 is no level"):
        replace(tiny(None), box_stride=5).build(3)
    with pytest.raises(InputError, match=r"stride 4.*model\.box_stride"):
        tiny(replace(SMALL, bottom=BOTTOMS["P2, P5"])).build(3)


def test_loss_by_hand(monkeypatch):
    """Two candidates of one object, a box of 16 x 16 that is all mask.

    The point (8, 8) has centre-ness 1, (4, 8) has sqrt(4/12) = 0.57735. At logits of 0 a cell costs log 2 = 0.693147, at 2 it
    costs log(1 + exp(-2)) = 0.126928. Weighted: (0.693147 + 0.57735 x 0.126928) / 1.57735 = 0.485897.
    """
    head = replace(SMALL, semantic_weight=0.0).build(8, 8, (8, 16, 32), 3)
    zero = torch.zeros(2, dtype=torch.long)
    box = torch.tensor([[0.0, 0, 16, 16]])
    points = torch.tensor([[8.0, 8], [4.0, 8]])
    candidates = Candidates(
        zero, zero, zero, zero, points, torch.full((2,), 8.0), *[box.expand(2, 4)] * 2, None, zero, target=zero
    )
    target = Targets(box, torch.tensor([0]), torch.ones(1, 16, 16).bool())
    batch = Batch(torch.zeros(1, 3, 16, 16), ((16, 16),), targets=(target,))
    logits = torch.tensor([0.0, 2.0])[:, None, None].expand(2, 14, 14)
    monkeypatch.setattr(head, "logits", lambda dense, found: logits[: len(found)])
    dense = Maps(torch.zeros(1, 4, 4, 4), (), torch.zeros(1, 8, 2, 2))
    assert head.loss(dense, candidates, batch)["mask"].item() == pytest.approx(0.485897, abs=1e-6)
    assert head.loss(dense, candidates.rows(zero[:0]), batch)["mask"].item() == 0


def test_class_loss_by_hand():
    """Two cells of 2 x 2 pixels in a row: the first's first pixel is of class 1's object, the second's is background.

    Logits of three classes and background, (0, 0, log 5, 0) in both cells: -log(5/8) for class 1, which is channel 2, and
    -log(1/8) for background, 0.470004 and 2.079442; their mean is 1.274723. Over an object that is not drawn nothing is asked.
    """
    masks = torch.zeros(1, 2, 4, dtype=torch.bool)
    masks[0, 0, 0] = True
    target = Targets(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1]), masks)
    logits = torch.tensor([0.0, 0, 1.6094379, 0])[None, :, None, None].expand(1, 4, 1, 2)
    assert semantic_cross_entropy(logits, (target,), 2).item() == pytest.approx(1.274723, abs=1e-6)
    unknown = replace(target, boxes=torch.tensor([[0.0, 0, 4, 2]]), drawn=torch.tensor([False]))
    assert semantic_cross_entropy(logits, (unknown,), 2).item() == 0


def test_each_object_is_cut_out_once_and_that_is_the_same():
    model, batch = tiny(SMALL).build(3), triangles((3, 2))
    with torch.no_grad():
        outputs, _ = model(model.normalized(batch))
    found = model.instance_head.choose(outputs, model.box_head.assign(outputs.locations, batch.truth()), batch)
    once = masks_of_objects(found, batch.truth(), 14)
    assert once.any() and torch.equal(once, masks_in_boxes(found, batch.truth(), 14))


def test_objects_without_a_drawn_mask_train_no_mask():
    """Of three objects the first is not drawn: no candidate is its own, and its box asks for no class."""
    model, batch = tiny(SMALL).build(3), triangles((3, 2))
    first = replace(batch.truth()[0], drawn=torch.tensor([False, True, True]))
    batch = replace(batch, targets=(first, batch.truth()[1]))
    with torch.no_grad():
        outputs, _ = model(model.normalized(batch))
    found = model.instance_head.choose(outputs, model.box_head.assign(outputs.locations, batch.truth()), batch)
    assert 0 not in found.target[found.image == 0] and 0 in found.target[found.image == 1]
    assert torch.isfinite(sum(model.loss(batch).values()))


def test_half_precision_towers():
    """Under autocast maps are bfloat16; bases, attentions and losses are float32."""
    model = tiny(SMALL).build(3).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(triangles((3, 2)))
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


def test_settings_that_do_not_fit_are_said_in_a_sentence():
    for change in ({"merging": "fixed"}, {"bases": 0}, {"attention": 0}, {"region": 0}):
        with pytest.raises(InputError, match=r"model\.instance\."):
            replace(SMALL, **({"bases": 9} | change))


def test_every_row_is_there():
    """As many as tables 4.1 to 4.7 have: 3, 6, 4, 4, 4, 4, 6."""
    assert [len(get_table(f"blendmask_4.{number}").rows) for number in range(1, 8)] == [3, 6, 4, 4, 4, 4, 6]


def test_it_learns_outlines():
    """A triangle and a disc, until each mask overlaps its own by more than 0.85; their boxes filled would by 0.5 and 0.785."""
    torch.manual_seed(0)
    batch = triangle_and_disc()
    found = taught(tiny(replace(SMALL, region=28, attention=7), channels=64).build(2), batch, steps=110)
    assert overlaps(found, batch).min() > 0.85
