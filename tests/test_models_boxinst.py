"""BoxInst's loss by hand and by the slow loop over candidates, pixels and neighbours; its settings; boxes alone teach it."""

import math
from dataclasses import replace

import pytest
import torch

from outlines import diamond_and_disc, overlaps, taught
from perpixel.errors import InputError
from perpixel.models import boxinst
from perpixel.models.boxinst import BoxInst, filled_boxes, projection_loss
from perpixel.models.candidates import BestPositives
from perpixel.models.condinst import CondInst
from perpixel.ops.color import lab
from perpixel.structures import Batch, Targets
from test_models_condinst import BOX_HEADS, batch_of, build, candidates_at

SMALL = BoxInst(mask_width=16, mask_convs=1, mask_channels=8, policy=BestPositives(per_image=16))
HEAD = SMALL.build(64, 64, (8, 16, 32), 3)


def without_masks(batch):
    return replace(batch, targets=tuple(replace(target, masks=None, centers=None) for target in batch.targets))


def test_defaults_are_the_released_models():
    config = BoxInst()
    assert config.mask_channels == 16 and config.policy == BestPositives(per_image=64)
    assert (config.tau, config.theta, config.size, config.dilation) == (0.3, 2.0, 3, 2)
    assert config.build(64, 64, (8, 16, 32), 3).controller.out_channels == 233
    assert issubclass(BoxInst, CondInst)


def test_pixels_of_a_box():
    """(5.2, 2, 10.9, 6): columns int(5.2) = 5 to int(11.9) - 1 = 10 hold the cells' middles 6 and 10; rows 2 to 6: 2 and 6."""
    found = filled_boxes(torch.tensor([[5.2, 2.0, 10.9, 6.0], [0, 0, 1.9, 1.9]]), 4, 3, 4)
    assert found[0].nonzero().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    # Pixels 0 and 1 lie between two middles: nothing of so small a box is seen.
    assert not found[1].any()


def test_projection_by_hand():
    """Columns' maxima (1/2, 1), rows' (1, 1/2); the box is the top left pixel: each 1 - 2 x best / (1.25 + 1).

    Columns: 2 x 0.5 / 2.25, rows: 2 x 1 / 2.25; together 2 - 3 / 2.25 = 2/3.
    """
    mask = torch.tensor([[[0.5, 1.0], [0.25, 0.5]]])
    box = torch.tensor([[[True, False], [False, False]]])
    assert projection_loss(mask, box).tolist() == pytest.approx([2 / 3], abs=1e-5)


def scene_batch(height=24, width=32, objects=2):
    """Patches of few colours, so that neighbours are often alike; the second image has padding and a border at its bottom."""
    generator = torch.Generator().manual_seed(1)
    colors = torch.tensor([[200, 30, 30], [198, 32, 30], [20, 20, 180], [90, 160, 60]])
    cells = torch.randint(4, (2, height // 8, width // 8), generator=generator)
    images = colors[cells].permute(0, 3, 1, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    images = (images + torch.randint(4, images.shape, generator=generator)).to(torch.uint8)
    sizes = ((height, width), (height - 3, width - 6))
    images[1, :, height - 3 :] = 0
    images[1, :, :, width - 6 :] = 0
    return Batch(images, sizes, ((height * 2, width * 2), (height - 3, width - 6)))


def slow_pairwise(config, logits, boxes, image, batch, labels=None):
    """Eq. 6.8 (or 6.5 with labels): every candidate, every cell of its box, every neighbour around it."""
    stride, total, count = 4, 0.0, 0
    small = lab((torch.nn.functional.avg_pool2d(batch.images.float(), stride)).floor() / 255).double()
    height, width = logits.shape[1:]
    reach = [d * config.dilation for d in range(-(config.size // 2), config.size // 2 + 1)]
    for n, i in enumerate(image):
        inside_height, inside_width = batch.sizes[i]
        last = inside_height - int(config.bottom_pixels * inside_height / batch.originals[i][0])
        x1, y1, x2, y2 = boxes[n].tolist()
        for y in range(height):
            for x in range(width):
                pixel_y, pixel_x = 4 * y + 2, 4 * x + 2
                if not (int(y1) <= pixel_y < int(y2 + 1) and int(x1) <= pixel_x < int(x2 + 1)):
                    continue
                for down in reach:
                    for right in reach:
                        v, u = y + down, x + right
                        if (down, right) == (0, 0) or not (0 <= v < height and 0 <= u < width):
                            continue
                        if 4 * v + 2 >= last or 4 * u + 2 >= inside_width:
                            continue
                        similarity = math.exp(-(small[i, :, y, x] - small[i, :, v, u]).norm().item() / config.theta)
                        if labels is None and similarity < config.tau:
                            continue
                        p, q = logits[n, y, x].sigmoid().item(), logits[n, v, u].sigmoid().item()
                        same = p * q + (1 - p) * (1 - q)
                        agree = labels is None or labels[n, y, x] == labels[n, v, u]
                        total -= math.log(same if agree else 1 - same)
                        count += 1
    return total / max(count, 1), count


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tau": 0.0},
        {"tau": 0.1, "dilation": 1},
        {"size": 5, "dilation": 1, "bottom_pixels": 0},
        {"theta": 20.0, "bottom_pixels": 4},
        {"supervision": "mask"},
    ],
    ids=str,
)
def test_pairwise_equals_the_slow_loop(change):
    """Tables 6.1 to 6.3, in double precision, with three candidates of two images."""
    config = replace(SMALL, **{"bottom_pixels": 6, **change})
    batch = scene_batch()
    masks = torch.rand(2, 1, 24, 32) > 0.4
    target = tuple(Targets(torch.zeros(1, 4), torch.zeros(1).long(), mask) for mask in masks)
    boxes = torch.tensor([[3.0, 1, 20, 17], [9.0, 5, 31, 22], [0.0, 0, 14.5, 23]])
    image = [1, 0, 1]
    found = replace(candidates_at([[4.0, 4.0]] * 3, [8.0] * 3, image), boxes=boxes)
    logits = torch.randn(3, 6, 8, dtype=torch.float64) * 2
    head = config.build(64, 64, (8, 16, 32), 3)
    labels = torch.cat([m[:, 2::4, 2::4] for m in masks])[image] if config.supervision == "mask" else None
    expected, count = slow_pairwise(config, logits, boxes, image, batch, labels)
    assert count > 30
    filled = filled_boxes(boxes, 4, 6, 8)
    ours = head.pairwise(logits, filled, found, replace(batch, targets=target))
    assert ours.item() == pytest.approx(expected, rel=1e-9)


def test_colors_are_made_once_an_image(monkeypatch):
    """However many candidates an image has: one conversion of two images."""
    seen = []
    monkeypatch.setattr(boxinst, "lab", lambda rgb: seen.append(tuple(rgb.shape)) or lab(rgb))
    build(BOX_HEADS[0], SMALL).loss(without_masks(batch_of((3, 2))))
    assert seen == [(2, 3, 16, 24)]


def test_warm_up():
    """Step 0 of 10,000 counts 1/10,000, step 9,999 and later ones all; the projection does not change."""
    batch, logits = scene_batch(), torch.randn(2, 6, 8)
    found = replace(candidates_at([[4.0, 4.0]] * 2, [8.0] * 2), boxes=torch.tensor([[3.0, 1, 20, 17]] * 2))
    first, half, last, later = (
        HEAD.mask_losses(logits, found, replace(batch, progress=p)) for p in (0, 4_999, 9_999, 50_000)
    )
    assert last["pairwise"] > 0.1 and later == last
    assert (first["pairwise"] / last["pairwise"]).item() == pytest.approx(1e-4)
    assert (half["pairwise"] / last["pairwise"]).item() == pytest.approx(0.5)
    assert first["projection"] == last["projection"]


def test_rows_at_the_bottom_are_not_trusted():
    """10 pixels of an original of 48 rows at half size are 5: of 24 rows 19 are left, whose cells' middles are 2 .. 18."""
    batch = scene_batch()
    valid = HEAD.scene(batch, 6, 8).valid
    assert valid[0].all(dim=1).tolist() == [True] * 5 + [False]
    # The second image: 21 rows less 10, 26 columns.
    assert valid[1].nonzero().amax(dim=0).tolist() == [2, 5]
    trusting = replace(SMALL, bottom_pixels=0).build(64, 64, (8, 16, 32), 3)
    assert trusting.scene(batch, 6, 8).valid[0].all()


@pytest.mark.parametrize(
    ("supervision", "names"),
    [
        ("color", {"projection", "pairwise"}),
        ("projection", {"projection"}),
        ("box", {"mask"}),
        ("mask", {"projection", "pairwise"}),
    ],
)
@pytest.mark.parametrize("box_head", BOX_HEADS, ids=lambda c: type(c).__name__)
def test_every_supervision_learns(box_head, supervision, names):
    """Tables 6.1 and 6.4: a gradient for every parameter, from boxes alone but where masks are asked for."""
    model = build(box_head, replace(SMALL, supervision=supervision)).train()
    for objects in ((3, 2), (0, 2), (0, 0)):
        model.zero_grad(set_to_none=True)
        batch = batch_of(objects) if supervision == "mask" else without_masks(batch_of(objects))
        losses = model.loss(batch)
        assert losses.keys() - {"class", "box", "centerness"} == names
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(losses[name] == 0 for name in names)
    if supervision == "mask":
        with pytest.raises(InputError, match=r"set data\.masks=true"):
            model.loss(without_masks(batch_of((1, 1))))


@pytest.mark.parametrize("change", [{"size": 4}, {"size": 1}, {"warmup_steps": 0}, {"theta": 0.0}])
def test_settings_that_make_no_sense(change):
    with pytest.raises(InputError, match=r"model\.instance\."):
        replace(BoxInst(), **change)


def test_boxes_teach_outlines():
    """A diamond and a disc, each in its colour, and not one mask: the diamond's overlap with what is found passes 0.7, the
    disc's 0.85, where their boxes filled would reach 0.5 and 0.785."""
    torch.manual_seed(0)
    batch = diamond_and_disc()
    model = build(BOX_HEADS[0], replace(SMALL, warmup_steps=100, bottom_pixels=0))
    found = taught(model, without_masks(batch), steps=100, rate=5e-4, last=1.0)
    assert (overlaps(found, batch) > torch.tensor([0.7, 0.85])).all()
