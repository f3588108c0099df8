"""Focal loss, smooth L1 and centre-ness, by hand and against the obvious form."""

import math

import torch
import torch.nn.functional as F

from perpixel.ops.losses import centerness, dice_loss, focal_loss, smooth_l1


def test_focal_loss_by_hand():
    """At logit 0, p = 1/2 and -log p = log 2. One positive: .25 * .25 * log 2; one negative: .75 * .25 * log 2."""
    positive = focal_loss(torch.zeros(1, 1), torch.tensor([0]))
    negative = focal_loss(torch.zeros(1, 1), torch.tensor([-1]))
    torch.testing.assert_close(positive, torch.tensor(0.0625 * math.log(2)))
    torch.testing.assert_close(negative, torch.tensor(0.1875 * math.log(2)))


def obvious_focal_loss(logits, labels, alpha, gamma, weight):
    truth = F.one_hot(labels.clamp(min=0), logits.shape[1]).double() * (labels >= 0)[:, None]
    p = logits.sigmoid()
    p_true = torch.where(truth > 0, p, 1 - p)
    factor = torch.where(truth > 0, alpha, 1 - alpha)
    return (factor * (1 - p_true) ** gamma * -p_true.log() * weight[:, None]).sum()


def test_focal_loss_and_gradient_equal_the_obvious_form():
    logits = (torch.randn(40, 7, dtype=torch.float64) * 4).requires_grad_()
    labels = torch.randint(-1, 7, (40,))
    weight = torch.rand(40, dtype=torch.float64)
    for alpha, gamma in ((0.25, 2.0), (0.5, 1.5)):
        ours = focal_loss(logits, labels, alpha, gamma, weight)
        obvious = obvious_focal_loss(logits, labels, alpha, gamma, weight)
        torch.testing.assert_close(ours, obvious)
        torch.testing.assert_close(*(torch.autograd.grad(x, logits)[0] for x in (ours, obvious)))
    torch.testing.assert_close(
        focal_loss(logits, labels), obvious_focal_loss(logits, labels, 0.25, 2.0, torch.ones(40))
    )


def test_focal_loss_stays_finite_at_extreme_logits():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([1, -1]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_smooth_l1_by_hand():
    """beta 1: 0.5 at distance 1/... : 0.5 -> 0.125, 2 -> 1.5; beta 0 is the absolute value."""
    x = torch.tensor([0.5, -2.0])
    torch.testing.assert_close(smooth_l1(x, 1.0), torch.tensor([0.125, 1.5]))
    torch.testing.assert_close(smooth_l1(x, 0.0), torch.tensor([0.5, 2.0]))


def test_centerness_by_hand():
    """Sides 1, 2, 4, 8: sqrt(1/4 * 2/8) = 1/4; the centre gives 1, a border 0, outside 0."""
    sides = torch.tensor([[1.0, 2.0, 4.0, 8.0], [3.0, 5.0, 3.0, 5.0], [0.0, 1.0, 4.0, 1.0], [-1.0, 1.0, 4.0, 1.0]])
    torch.testing.assert_close(centerness(sides), torch.tensor([0.25, 1.0, 0.0, 0.0]))


def test_dice_by_hand():
    """p = (1/2, 1, 0), t = (1, 1, 0): 1 - 2 x 1.5 / (1.25 + 2) = 1/13; a perfect mask gives 0, two empty ones 1."""
    p = torch.tensor([[0.5, 1, 0], [1, 0, 0], [0, 0, 0]])
    t = torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(dice_loss(p, t), torch.tensor([1 / 13, 0, 1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(dice_loss(p[:1], t[:1], smoothing=0.75), torch.tensor([1 - 3 / 4]))
    assert dice_loss(torch.zeros(0, 2, 3), torch.zeros(0, 2, 3)).shape == (0,)
