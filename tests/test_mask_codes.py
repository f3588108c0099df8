"""Codes of masks: principal components equal numpy's, by hand on 2 x 2 cells, there and back, one and many classes."""

import math

import numpy as np
import pytest
import torch

from perpixel.errors import InputError
from perpixel.nn.large_kernel import LargeKernel
from perpixel.nn.mask_codes import PCA, cosine_components, logit_height, random_margin
from perpixel.nn.mask_moments import MaskMoments

ANY = torch.zeros(1, dtype=torch.long)


def blobs(count, size=6, seed=0):
    """Filled boxes of random sides, so that the components differ in strength."""
    generator = torch.Generator().manual_seed(seed)
    low = (torch.rand(count, 2, generator=generator) * size * 0.6).int()
    high = low + 1 + (torch.rand(count, 2, generator=generator) * size * 0.5).int()
    cells = torch.arange(size)
    inside = (cells >= low[:, :, None]) & (cells < high[:, :, None])
    return inside[:, 0, :, None] & inside[:, 1, None, :]


def moments_of(masks, portion=64):
    moments = MaskMoments(masks.shape[1])
    for part in masks.split(portion):
        moments.add(part)
    return moments


def fitted(config, masks):
    code = config.build(1)
    code.fit([moments_of(masks)])
    return code


def numpy_components(pixels, dim):
    """Mean, first right singular vectors of the centred rows and their variances, by numpy; signs as ours."""
    mean = pixels.mean(axis=0)
    _, strengths, rows = np.linalg.svd(pixels - mean, full_matrices=False)
    rows = rows[:dim]
    size = np.abs(rows)
    first = (size > 0.999 * size.max(axis=1, keepdims=True)).argmax(axis=1)[:, None]
    return mean, rows * np.sign(np.take_along_axis(rows, first, axis=1)), strengths[:dim] ** 2 / (len(pixels) - 1)


def test_two_masks_by_hand():
    """The upper and the lower half of 2 x 2 cells. Their mean is 1/2, they differ along (1, 1, -1, -1) / 2 by +1 and -1.

    Over n - 1 = 1 the variance is 2, so the whitened numbers are 1 / sqrt(2) = 0.7071; one number gives both masks back.
    """
    masks = torch.tensor([[[True, True], [False, False]], [[False, False], [True, True]]])
    labels = torch.zeros(2, dtype=torch.long)
    plain = fitted(PCA(1, 2, whiten=False, logit=False), masks)
    assert plain.components.tolist() == [[[0.5, 0.5, -0.5, -0.5]]]
    assert plain.means.tolist() == [[0.5] * 4] and plain.variances.tolist() == [[2.0]]
    assert plain.encode(masks, labels).tolist() == [[1.0], [-1.0]]
    assert plain.decode(torch.tensor([[1.0], [-1.0]]), labels).tolist() == masks.float().tolist()
    assert plain.logits(torch.tensor([[1.0]]), ANY).tolist() == [[[0.5, 0.5], [-0.5, -0.5]]]
    whitened = fitted(PCA(1, 2, whiten=True, logit=False), masks)
    torch.testing.assert_close(whitened.encode(masks, labels), torch.tensor([[0.7071068], [-0.7071068]]))
    torch.testing.assert_close(whitened.decode(whitened.encode(masks, labels), labels), masks.float())


def test_two_masks_as_logits_by_hand():
    """At a margin of 1/4 logits are log 3 = 1.0986 and -1.0986, their mean 0, their difference from it twice the masks' one.

    Along (1, 1, -1, -1) / 2 they are 2 log 3 = 2.1972; decoded, 3/4 and 1/4.
    """
    masks = torch.tensor([[[True, True], [False, False]], [[False, False], [True, True]]])
    labels = torch.zeros(2, dtype=torch.long)
    code = fitted(PCA(1, 2, whiten=False, margin=0.25), masks)
    torch.testing.assert_close(code.means, torch.zeros(1, 4))
    torch.testing.assert_close(code.encode(masks, labels), torch.tensor([[2.1972246], [-2.1972246]]))
    decoded = code.decode(torch.tensor([[2.1972246]]), ANY)
    torch.testing.assert_close(decoded, torch.tensor([[[0.75, 0.75], [0.25, 0.25]]]))


@pytest.mark.parametrize("margin", [None, 0.02])
def test_components_equal_numpys(margin):
    """Of masks of 0 and 1, and of their logits; the size of the portions does not matter."""
    masks = blobs(400)
    labels = torch.zeros(400, dtype=torch.long)
    plain = PCA(8, 6, whiten=False, logit=False) if margin is None else PCA(8, 6, whiten=False, margin=margin)
    code = fitted(plain, masks)
    mean, components, variances = numpy_components(code.transformed(masks).double().numpy(), 8)
    np.testing.assert_allclose(code.means[0], mean, atol=1e-5)
    np.testing.assert_allclose(code.components[0], components, atol=2e-4)
    np.testing.assert_allclose(code.variances[0], variances, rtol=1e-4)
    assert code.counts.tolist() == [400] and code.fitted
    numbers = code.encode(masks, labels)
    np.testing.assert_allclose(numbers.var(dim=0), variances, rtol=1e-3)
    whole, parts = moments_of(masks, 400), moments_of(masks.flip(0), 7)
    assert torch.equal(whole.products, parts.products) and torch.equal(whole.total, parts.total)


def test_height_of_logits_by_hand():
    """A margin of 0.02: log 49. A random one: a fifth of it is 0.01, log 99; the rest runs evenly from 0.01 to 0.05.

    The integral of log((1 - m) / m) is the binary entropy H: 0.2 log 99 + (H(0.05) - H(0.01)) / 0.05
    = 0.9190 + (0.19852 - 0.05600) * 20 = 3.7693.
    """
    assert logit_height(0.02) == (pytest.approx(math.log(49)), 0.0)
    height, spread = logit_height(None)
    assert height == pytest.approx(3.7693, abs=1e-4)
    drawn = -torch.logit(random_margin(torch.rand(200_000, generator=torch.Generator().manual_seed(0))))
    assert drawn.mean().item() == pytest.approx(height, abs=0.01)
    assert drawn.var().item() == pytest.approx(spread, rel=0.03)


def test_random_margins_add_the_same_variance_everywhere():
    """Numbers of 40,000 masks whose margins are drawn: variance 1 each once whitened, and the fit drew nothing."""
    masks = blobs(400).repeat(100, 1, 1)
    code = fitted(PCA(6, 6), masks)
    torch.manual_seed(0)
    numbers = code.encode(masks, torch.zeros(len(masks), dtype=torch.long))
    torch.testing.assert_close(numbers.var(dim=0), torch.ones(6), atol=0.03, rtol=0)
    torch.testing.assert_close(numbers.mean(dim=0), torch.zeros(6), atol=0.03, rtol=0)
    again = code.encode(masks, torch.zeros(len(masks), dtype=torch.long))
    assert not torch.equal(numbers, again)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("logit", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_there_and_back(whiten, logit, classes):
    """With as many numbers as cells nothing is lost; with fewer, more numbers lose less."""
    masks = blobs(300, size=5)
    labels = torch.arange(300) % classes
    lost = []
    for dim in (25, 10, 3):
        code = PCA(dim, 5, whiten=whiten, logit=logit, class_specific=classes > 1).build(classes)
        code.fit([moments_of(masks[labels == label]) for label in range(classes)])
        torch.manual_seed(0)
        decoded = code.decode(code.encode(masks, labels), labels)
        assert decoded.shape == (300, 5, 5) and decoded.min() >= 0 and decoded.max() <= 1
        lost.append(((decoded >= 0.5) != masks).float().mean().item())
    assert lost[0] == 0 < lost[1] < lost[2] < 0.2


def test_a_dictionary_for_each_class_is_that_classs_own():
    masks, labels = blobs(600, size=5), torch.arange(600) % 2
    both = PCA(4, 5, margin=0.1, class_specific=True).build(2)
    both.fit([moments_of(masks[labels == label]) for label in (0, 1)])
    codes = both.encode(masks, labels)
    for label in (0, 1):
        alone = fitted(PCA(4, 5, margin=0.1), masks[labels == label])
        mine, zeros = masks[labels == label], torch.zeros(300, dtype=torch.long)
        torch.testing.assert_close(codes[labels == label], alone.encode(mine, zeros), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            both.decode(codes, labels)[labels == label], alone.decode(codes[labels == label], zeros), atol=1e-4, rtol=0
        )
    assert both.encode(masks[:0], labels[:0]).shape == (0, 4) and both.decode(codes[:0], labels[:0]).shape == (0, 5, 5)


def test_few_masks_leave_numbers_that_can_be_divided():
    """Three masks have two directions; the others' variance is taken as 1 and their numbers stay 0."""
    masks = blobs(3, size=5)
    code = fitted(PCA(6, 5, logit=False), masks)
    assert (code.variances[0, 2:] == 1).all() and (code.variances[0, :2] < 10).all()
    numbers = code.encode(masks, torch.zeros(3, dtype=torch.long))
    assert torch.isfinite(numbers).all() and numbers[:, 2:].abs().max() < 1e-4


def test_before_it_is_fitted_a_code_is_the_cosine_transform():
    """Its rows are orthonormal, the first is flat, the next two vary along one axis; a code says that it is not fitted."""
    rows = cosine_components(10, 6)
    torch.testing.assert_close(rows @ rows.T, torch.eye(10), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows[0], torch.full((36,), 1 / 6))
    along_x, along_y = rows[1].view(6, 6), rows[2].view(6, 6)
    assert (along_x[0] == along_x[3]).all() and (along_y[:, 0] == along_y[:, 3]).all()
    code = PCA(10, 6).build(3)
    assert not code.fitted and torch.equal(code.components[0], rows)


def test_settings_that_do_not_fit():
    for wrong in (lambda: PCA(0), lambda: PCA(17, 4), lambda: PCA(1, 1), lambda: PCA(margin=0.5)):
        with pytest.raises(InputError, match=r"model\.instance\.code"):
            wrong()


@pytest.mark.parametrize("kernel", [3, 9])
def test_a_large_kernel_at_patches_equals_the_map(kernel):
    """At every place of a map smaller than the kernel: beyond the border both are 0."""
    torch.manual_seed(0)
    layer = LargeKernel(5, 4, kernel)
    torch.nn.init.normal_(layer.down_across.bias)
    x = torch.randn(2, 5, 6, 7)
    padded = torch.nn.functional.pad(x, (kernel // 2,) * 4)
    patches = padded.unfold(2, kernel, 1).unfold(3, kernel, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    found = layer.at(patches).unflatten(0, (2, 6, 7)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, layer(x), atol=1e-5, rtol=1e-5)
    assert layer.at(patches[:0]).shape == (0, 4)


def test_a_large_kernel_reaches_as_far_as_it_says():
    """The gradient of the middle place's result: all of 5 x 5 places and nothing beyond."""
    layer = LargeKernel(1, 1, 5)
    x = torch.zeros(1, 1, 9, 9, requires_grad=True)
    layer(x)[0, 0, 4, 4].backward()
    assert x.grad is not None
    reached = torch.zeros(9, 9, dtype=torch.bool)
    reached[2:7, 2:7] = True
    assert torch.equal(x.grad[0, 0] != 0, reached)
