"""DR1Mask: dynamic convolutions and factored attention equal the loops they stand for, the head at candidates; it learns."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from outlines import overlaps, taught, triangle_and_disc
from perpixel.errors import InputError
from perpixel.models import dr1mask
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.dr1mask import DR1Mask
from perpixel.models.fcos import FCOS
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.attention import Factored, Full, Vector
from perpixel.nn.backbones import Backbone
from perpixel.nn.dr1 import DR1Basis
from perpixel.nn.fpn import FPN
from perpixel.ops.blend import blend, cut_bases, enlarge
from perpixel.ops.dr1 import doubled, dr1_conv, enlarged_to, factored_attention, project, weighted_sum
from perpixel.structures import Batch
from tiny_batches import batch_of

TINY_FCOS = FCOS(class_convs=1, box_convs=1, initial_distance=1.0)
SMALL = DR1Mask(width=8, region=14, semantic_width=8)
ATTENTIONS = [Vector(), Full(bases=3, cells=5), Factored(bases=3, cells=5, rank=2), Factored(weighing="plain")]


def tiny(instance, box_head=TINY_FCOS, channels=32):
    return DetectorConfig(
        backbone=Backbone("test_resnet", weights=None, norm="train", frozen_stages=0),
        neck=FPN(channels=channels),
        head=box_head,
        instance=instance,
        selection=Selection(threshold=0.001, keep=7),
    )


def with_strong_top(model, std=0.3):
    """Numbers that differ from candidate to candidate, factors from place to place: those of fresh weights hardly do."""
    torch.nn.init.normal_(model.instance_head.top.weight, std=std)
    torch.nn.init.normal_(model.instance_head.context.weight, std=std)
    return model


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("factors", ["", "a", "b", "ab"])
def test_dr1_conv_has_a_matrix_of_its_own_at_every_place(size, factors):
    """Eq. 5.1 and 5.2 in a loop: W' = W * (b a^T), a of the place that is read, b of the place that is written."""
    x, a, b = torch.randn(3, 2, 3, 4, 5, dtype=torch.float64)
    weight = torch.randn(3, 3, size, size, dtype=torch.float64)
    found = dr1_conv(x, weight, a if "a" in factors else None, b if "b" in factors else None)
    reach = size // 2
    expected = torch.zeros_like(x)
    for image in range(2):
        for y in range(4):
            for column in range(5):
                for dy in range(size):
                    for dx in range(size):
                        yy, xx = y + dy - reach, column + dx - reach
                        if not (0 <= yy < 4 and 0 <= xx < 5):
                            continue
                        read = a[image, :, yy, xx] if "a" in factors else torch.ones(3).double()
                        written = b[image, :, y, column] if "b" in factors else torch.ones(3).double()
                        matrix = weight[:, :, dy, dx] * written[:, None] * read[None]
                        expected[image, :, y, column] += matrix @ x[image, :, yy, xx]
    torch.testing.assert_close(found, expected)


def test_enlarging_by_hand():
    """Values 0, 2 in a row: aligned puts them on cells 0 and 2 and repeats the last; a row of 3 cells keeps the first three.

    Bilinear centres them on the pairs of cells: 0.25 and 0.75 of the way between; squeezed to 3 cells the middle one is 1.
    """
    x = torch.tensor([0.0, 2.0]).expand(1, 1, 1, 2)
    assert doubled(x).shape == (1, 1, 2, 4) and doubled(x)[0, 0, 1].tolist() == [0, 1, 2, 2]
    assert doubled(x, "bilinear")[0, 0, 0].tolist() == [0, 0.5, 1.5, 2]
    finer = torch.zeros(1, 5, 1, 3)
    assert enlarged_to(x, finer, "aligned")[0, 0].tolist() == [[0, 1, 2]]
    assert enlarged_to(x, finer, "bilinear")[0, 0].tolist() == [[0, 1, 2]]
    assert enlarged_to(doubled(x), torch.zeros(1, 5, 3, 7), "aligned").shape == (1, 1, 3, 7)


def test_aligned_enlarging_undoes_strided_convolutions():
    """A ramp seen by 3x3 convolutions of stride 2 (centre weight 1) on sides that are no power of 2 comes back unmoved.

    Bilinear enlarging moves it by half a cell and squeezes it.
    """
    ramp = torch.arange(27.0).expand(1, 1, 27, 27)
    middle = torch.zeros(1, 1, 3, 3)
    middle[0, 0, 1, 1] = 1
    coarse = F.conv2d(ramp, middle, stride=2, padding=1)
    coarser = F.conv2d(coarse, middle, stride=2, padding=1)
    assert coarse.shape[-1] == 14 and coarser.shape[-1] == 7
    back = enlarged_to(enlarged_to(coarser, coarse, "aligned"), ramp, "aligned")
    # The last cells have nothing beyond them and repeat.
    assert torch.equal(back[..., :25], ramp[..., :25])
    moved = enlarged_to(enlarged_to(coarser, coarse, "bilinear"), ramp, "bilinear")
    assert (moved - ramp)[..., 4:23].abs().min() > 0.3


def test_factored_attention_equals_the_full_tensor():
    """Eq. 5.7 and 5.8 by sums: Q[n, k, i, j] = sum_d s[n, k, d] U[k, d, i] V[k, d, j]; R[n, k] = sum_c t[n, k, c] F[n, c]."""
    module = Factored(bases=3, cells=5, rank=2).build(4).double()
    numbers = torch.randn(6, module.numbers, dtype=torch.float64)
    assert module.numbers == 3 * 4 + 3 * 2 and Factored().build(32).numbers == 32 * 4 + 16
    regions = torch.randn(6, 4, 10, 10, dtype=torch.float64)
    t, s = numbers[:, :12].reshape(6, 3, 4), numbers[:, 12:].reshape(6, 3, 2)
    attention = torch.zeros(6, 3, 5, 5, dtype=torch.float64)
    bases = torch.zeros(6, 3, 10, 10, dtype=torch.float64)
    for n in range(6):
        for k in range(3):
            for d in range(2):
                attention[n, k] += s[n, k, d] * torch.outer(module.u[k, d], module.v[k, d])
            for c in range(4):
                bases[n, k] += t[n, k, c] * regions[n, c]
    torch.testing.assert_close(factored_attention(s, module.u, module.v), attention)
    torch.testing.assert_close(project(regions, t), bases)
    torch.testing.assert_close(module(regions, numbers), blend(bases, enlarge(attention, 10)))
    plain = Factored(bases=3, cells=5, rank=2, weighing="plain").build(4).double()
    plain.load_state_dict(module.state_dict())
    torch.testing.assert_close(plain(regions, numbers), (bases * enlarge(attention, 10)).sum(dim=1))


def test_one_basis_of_even_attention_is_the_vector():
    """K = 1: the softmax of one is 1, so the weighted sum by t is left, whatever s; and for K = 2 at s = 0, of two halves."""
    regions, t = torch.randn(4, 8, 6, 6), torch.randn(4, 8)
    expected = weighted_sum(regions, t)
    torch.testing.assert_close(expected, torch.einsum("nd,ndyx->nyx", t, regions))
    one = Factored(bases=1, cells=3, rank=2).build(8)
    torch.testing.assert_close(one(regions, torch.cat([t, torch.randn(4, 2)], dim=1)), expected)
    two = Factored(bases=2, cells=3, rank=2).build(8)
    torch.testing.assert_close(two(regions, torch.cat([t, t, torch.zeros(4, 4)], dim=1)), expected)


def test_basis_from_coarse_to_fine():
    """Eq. 5.6 written out, on sides that are no power of 2: P4 of 5 x 7 below P3 of 9 x 13; the result has stride 4."""
    basis = DR1Basis(6, 2, 8, "aligned").eval()
    pyramid = (torch.randn(2, 6, 9, 13), torch.randn(2, 6, 5, 7))
    factors = tuple((torch.randn(2, 8, *p.shape[2:]), torch.randn(2, 8, *p.shape[2:])) for p in pyramid)
    (a3, b3), (a4, b4) = factors
    f4 = F.conv2d(basis.reduce[1](pyramid[1]) * a4, basis.merge[1], padding=1) * b4
    f3 = basis.reduce[0](pyramid[0]) + doubled(f4)[:, :, :9, :13]
    f3 = F.conv2d(f3 * a3, basis.merge[0], padding=1) * b3
    torch.testing.assert_close(basis(pyramid, factors), doubled(f3))
    assert basis(pyramid, ((None, None),) * 2).shape == (2, 8, 18, 26)
    with pytest.raises(InputError, match=r"model\.instance\.width=10 does not divide"):
        DR1Basis(6, 2, 10, "aligned")


@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
def test_numbers_at_candidates_equal_the_dense_top_layer(attention):
    """The whole head the slow way, a candidate at a time; the map of embeddings is never made."""
    model = with_strong_top(tiny(replace(SMALL, attention=attention)).build(3).eval())
    head, batch = model.instance_head, batch_of((3, 2))
    head.top.register_forward_hook(lambda *_: pytest.fail("the top layer ran densely"))
    with torch.no_grad():
        outputs, dense = model(model.normalized(batch))
        found = head.choose(outputs, model.box_head.assign(outputs.locations, batch.truth()), batch)
        assert len(found) > 5 and found.image.unique().tolist() == [0, 1]
        assert dense.features.shape == (2, 8, 24, 24) and head.stride == 4
        logits = head.logits(dense, found, head.embeddings(dense, found))
        for row in range(len(found)):
            tower = dense.towers[int(found.level[row])][found.image[row], None]
            everywhere = F.conv2d(tower, head.top.weight, head.top.bias, padding=1).flatten(2)
            numbers = everywhere[:, :, int(found.cell[row])]
            cut = cut_bases(dense.bases[found.image[row], None], found.boxes[row, None], torch.tensor([0]), 4, 14)
            alone = head.attention(cut, numbers)[0]
            assert (alone - logits[row]).abs().max() < 1e-4 * logits.abs().max()
            assert alone.std() > 1e-4


def test_factors_are_read_where_the_position_says():
    """Factors of the box tower, the class tower or the pyramid, A before B; a level's have its size; those left out are None."""
    images = torch.rand(2, 3, 96, 96)
    for position in ("fpn", "class_tower", "box_tower"):
        model = with_strong_top(tiny(replace(SMALL, position=position)).build(3).eval())
        pyramid = model.neck(model.backbone(images))
        outputs = model.box_head(pyramid)
        source = {"fpn": pyramid, "class_tower": outputs.class_towers, "box_tower": outputs.towers}[position]
        for level, (a, b) in zip(source, model.instance_head.factors(pyramid, outputs), strict=True):
            torch.testing.assert_close(torch.cat([a, b], dim=1), model.instance_head.context(level))
            assert a.shape == (2, 8, *level.shape[2:])
        assert model.instance_head.factors(pyramid, outputs)[0][0].std() > 0.01
    for factors in ("none", "a", "b"):
        head = tiny(replace(SMALL, factors=factors)).build(3).instance_head
        assert [tuple(name for name, x in zip("ab", pair, strict=True) if x is not None) for pair in
                head.factors(pyramid, outputs)] == [tuple(factors.replace("none", ""))] * 5  # fmt: skip
        # Fresh factors are 1 but for the noise of the top layer: training starts from the plain pyramid.
        assert all(
            (x - 1).std() < 0.2 and (x - 1).mean().abs() < 0.1
            for pair in head.factors(pyramid, outputs)
            for x in pair
            if x is not None
        )


@pytest.mark.parametrize("objects", [(3, 2), (0, 2), (0, 0)])
@pytest.mark.parametrize("box_head", [TINY_FCOS, RetinaNet(convs=1)], ids=["FCOS", "RetinaNet"])
@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
def test_on_every_detector(box_head, attention, objects):
    model = with_strong_top(tiny(replace(SMALL, attention=attention), box_head).build(3)).train()
    losses = model.loss(batch_of(objects))
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert (losses["mask"] > 0.1) == (objects != (0, 0))
    if objects == (3, 2):
        head = model.instance_head
        assert [name for name, p in head.named_parameters() if not p.grad.any()] == []


def test_masks_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    model = with_strong_top(tiny(SMALL).build(3).eval(), std=0.03)
    batch = replace(batch_of((1, 1)), targets=None)
    together = model.predict(batch)
    monkeypatch.setattr(dr1mask, "AT_ONCE", 2)
    for one, other in zip(model.predict(batch), together, strict=True):
        assert one.masks.values.shape == (7, 14, 14)
        torch.testing.assert_close(one.masks.values, other.masks.values)
    model.selection = Selection(threshold=1.0)
    assert [found.masks.values.shape for found in model.predict(batch)] == [(0, 14, 14)] * 2


def test_one_small_image_trains():
    """P7 of 64 x 64 is one cell, in a batch of one image: no norm stands on a single value."""
    batch = batch_of((2, 1))
    target = batch.truth()[0]
    target = replace(target, masks=target.masks[:, :64, :64], stuff=None)
    one = Batch(batch.images[:1, :, :64, :64], ((64, 64),), ((64, 64),), (target,))
    assert torch.isfinite(sum(tiny(SMALL, channels=64).build(3).train().loss(one).values()))


def test_half_precision_towers():
    """Under autocast maps are bfloat16; embeddings and losses are float32."""
    model = tiny(SMALL).build(3).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(batch_of((3, 2)))
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


def test_settings_that_do_not_fit_are_said_in_a_sentence():
    with pytest.raises(InputError, match=r"model\.instance\.region=0"):
        DR1Mask(region=0)
    with pytest.raises(InputError, match=r"model\.instance\.attention\.rank=0"):
        Factored(rank=0)
    with pytest.raises(InputError, match=r"model\.instance\.attention\.cells=0"):
        Full(cells=0)


def test_it_learns_outlines():
    """A triangle and a disc, until each mask overlaps its own by more than 0.85; their boxes filled would by 0.5 and 0.785."""
    torch.manual_seed(0)
    batch = triangle_and_disc()
    found = taught(tiny(DR1Mask(region=28, semantic_width=8), channels=64).build(2), batch, steps=110)
    assert overlaps(found, batch).min() > 0.85
