"""Metrics of pixels: by hand, and against slow obvious loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.engine.semantic_metrics import count_pixels, semantic_metrics, trimap
from perpixel.structures import VOID


def test_by_hand():
    """Ten known pixels: truth 0 0 0 0 | 1 1 1 | 2 2 2, told 0 0 0 1 | 1 1 2 | 2 2 none; void is not counted.

    IoU: class 0: 3/4; class 1: 2 of union 3 + 3 - 2 = 4: 1/2; class 2: 2 of 3 + 3 - 2 = 4: 1/2. mIoU 7/12.
    Accuracy by class 3/4, 2/3, 2/3: mean 25/36. All: 7/10. Weighted: 0.4 * 3/4 + 0.3 / 2 + 0.3 / 2 = 0.6.
    """
    truth = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 2, 2, 2, VOID]])
    told = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2, 2, -1, 1]])
    found = semantic_metrics([count_pixels(truth, told, 3)], ("a", "b", "c"))
    assert found.summary == pytest.approx(
        {"mIoU": 7 / 12, "mAcc": 25 / 36, "gAcc": 0.7, "fwIoU": 0.6, "tIoU": found.trimap_iou}
    )
    assert [row.pixels for row in found.per_class] == [4, 3, 3]


def test_trimap_by_hand():
    """A border between columns 4 and 5: three columns to each side count. Void makes no border and does not count."""
    truth = torch.zeros(2, 12, dtype=torch.int32)
    truth[:, 5:] = 1
    truth[:, 10:] = VOID
    expected = torch.zeros(2, 12, dtype=torch.bool)
    expected[:, 2:8] = True
    assert torch.equal(trimap(truth, 3), expected)


def test_trimap_iou_by_hand():
    """Of columns 2..7 (truth 0 0 0 1 1 1) column 4 is told 1: IoU 2/3 and 3/4. Far away all is told wrong: tIoU does not care."""
    truth = torch.zeros(1, 12, dtype=torch.int32)
    truth[:, 5:] = 1
    told = truth.clone()
    told[:, 4], told[:, 0], told[:, 11] = 1, 1, 0
    found = semantic_metrics([count_pixels(truth, told, 2)], ("a", "b"))
    assert found.trimap_iou == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert found.mean_iou == pytest.approx((3 / 6 + 6 / 9) / 2)


def test_a_class_that_does_not_occur_counts_nowhere_and_one_only_told_lowers_the_mean():
    """Class 2 occurs nowhere. Class 1 is told, not true: IoU 0 in the mean of IoUs, absent from the mean of accuracies."""
    truth, told = torch.zeros(1, 4, dtype=torch.int32), torch.tensor([[0, 0, 0, 1]])
    found = semantic_metrics([count_pixels(truth, told, 3)], ("a", "b", "c"))
    assert found.mean_iou == pytest.approx((3 / 4 + 0) / 2) and found.mean_accuracy == pytest.approx(3 / 4)
    assert found.per_class[2].iou == -1 and found.trimap_iou == -1


def test_a_void_image_adds_nothing():
    void, any_classes = torch.full((3, 4), VOID), torch.zeros(3, 4, dtype=torch.int64)
    found = semantic_metrics([count_pixels(void, any_classes, 2)], ("a", "b"))
    assert found.mean_iou == -1 and found.accuracy == 0


def slow_trimap(truth, width):
    out = np.zeros(truth.shape, dtype=bool)
    height, breadth = truth.shape
    for y in range(height):
        for x in range(breadth):
            if truth[y, x] == VOID:
                continue
            for v in range(max(0, y - width), min(height, y + width + 1)):
                for u in range(max(0, x - width), min(breadth, x + width + 1)):
                    out[y, x] |= truth[v, u] not in (VOID, truth[y, x])
    return out


def slow_iou(pairs, classes):
    values = []
    for k in range(classes):
        hit = sum(t == k and p == k for t, p in pairs)
        union = sum(t == k or p == k for t, p in pairs)
        if union:
            values.append(hit / union)
    return sum(values) / len(values) if values else -1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_equals_the_slow_loop(seed):
    random = np.random.default_rng(seed)
    classes, pairs, near, counts = 3, [], [], []
    for _ in range(2):
        size = tuple(random.integers(3, 9, 2))
        truth = random.choice([0, 1, 2, VOID], size, p=[0.5, 0.2, 0.1, 0.2]).astype(np.int32)
        told = random.integers(-1, classes, size).astype(np.int32)
        band = slow_trimap(truth, 3)
        assert np.array_equal(trimap(torch.from_numpy(truth)).numpy(), band)
        here = [(t, p) for t, p in zip(truth.ravel().tolist(), told.ravel().tolist(), strict=True)]
        pairs += [(t, p) for t, p in here if t != VOID]
        near += [pair for pair, inside in zip(here, band.ravel(), strict=True) if inside]
        counts.append(count_pixels(torch.from_numpy(truth), torch.from_numpy(told), classes))
    found = semantic_metrics(counts, ("a", "b", "c"))
    true = [sum(t == k for t, _ in pairs) for k in range(classes)]
    hits = [sum(t == p == k for t, p in pairs) for k in range(classes)]
    assert found.mean_iou == pytest.approx(slow_iou(pairs, classes))
    assert found.trimap_iou == pytest.approx(slow_iou(near, classes))
    rates = [hit / n for hit, n in zip(hits, true, strict=True) if n]
    assert found.mean_accuracy == pytest.approx(sum(rates) / len(rates) if rates else -1)
    assert found.accuracy == pytest.approx(sum(hits) / max(len(pairs), 1))
    unions = [sum(t == k or p == k for t, p in pairs) for k in range(classes)]
    weighted = sum(n / max(len(pairs), 1) * h / max(u, 1) for n, h, u in zip(true, hits, unions, strict=True))
    assert found.weighted_iou == pytest.approx(weighted)
