import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from perpixel.data.coco import read_coco
from perpixel.data.loader import prepare_image, test_batches, train_batches
from perpixel.data.order import StepOrder, shape_groups
from perpixel.data.settings import Augment, Color, DataConfig, TestSize
from perpixel.data.shapes import ShapesDataset
from perpixel.errors import InputError

AUGMENT = Augment(
    short_sides=(48, 64), max_side=96, crop=0.6, scale_jitter=(0.8, 1.2), color=Color(0.3, 0.3, 0.3, 0.05)
)
DATA = DataConfig(workers=0, masks=True, augment=AUGMENT, test=TestSize(64, 96))


@pytest.fixture(scope="module")
def shapes():
    return ShapesDataset(11, (64, 80), seed=3)


@pytest.fixture
def folder(tmp_path):
    """A COCO set of 6 images on disk, the fourth damaged."""
    dataset = ShapesDataset(6, (48, 64), seed=1)
    path = dataset.write_coco(tmp_path)
    (tmp_path / "images" / "000003.png").write_bytes(b"broken")
    return path


def _take(dataset, count, data=DATA, **options):
    batches = train_batches(dataset, data, **({"batch_size": 4, "seed": 7} | options))
    out = [next(batches) for _ in range(count)]
    batches.close()
    return out


def _same(first, second):
    assert torch.equal(first.images, second.images)
    _same_images([first], [second])
    assert first.progress == second.progress


def _same_images(first, second):
    """The same samples whatever the padding of their batches."""
    flat = []
    for batches in (first, second):
        flat.append([(b.ids[k], b.sizes[k], b.images[k], b.targets[k]) for b in batches for k in range(len(b))])
    assert [(i, s) for i, s, _, _ in flat[0]] == [(i, s) for i, s, _, _ in flat[1]]
    for (_, (h, w), image, targets), (_, _, other, others) in zip(*flat, strict=True):
        assert torch.equal(image[:, :h, :w], other[:, :h, :w])
        assert torch.equal(targets.boxes, others.boxes) and torch.equal(targets.labels, others.labels)
        assert torch.equal(targets.masks[:, :h, :w], others.masks[:, :h, :w])
        assert torch.equal(targets.centers, others.centers)


def test_workers_do_not_change_a_batch_and_warn_of_nothing(shapes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        several = _take(shapes, 3, replace(DATA, workers=2))
    for first, second in zip(_take(shapes, 3), several, strict=True):
        _same(first, second)


def test_resuming_gives_the_batches_of_an_unbroken_run(shapes):
    for first, second in zip(_take(shapes, 6)[4:], _take(shapes, 2, start_step=4), strict=True):
        _same(first, second)


def test_two_processes_share_the_batch_of_one(shapes):
    together = [_take(shapes, 3, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    for step, one in enumerate(_take(shapes, 3)):
        _same_images([one], [together[0][step], together[1][step]])


def test_another_seed_gives_other_batches(shapes):
    assert not torch.equal(_take(shapes, 1)[0].images, _take(shapes, 1, seed=8)[0].images)


def test_a_batch_says_what_it_holds(shapes):
    batch = _take(shapes, 3)[2]
    assert batch.images.dtype == torch.uint8 and batch.progress == 2
    assert batch.images.shape[2] % 32 == 0 and batch.images.shape[3] % 32 == 0
    for image, (height, width), original, targets in zip(
        batch.images, batch.sizes, batch.originals, batch.targets, strict=True
    ):
        assert original == (64, 80)
        assert not image[:, height:].any() and not image[:, :, width:].any()
        assert targets.masks.shape == (len(targets), *batch.images.shape[2:])
        for mask, box, center in zip(targets.masks, targets.boxes, targets.centers, strict=True):
            y, x = torch.nonzero(mask, as_tuple=True)
            assert center.tolist() == pytest.approx([float(x.double().mean()), float(y.double().mean())], abs=1e-3)
            # the box of a shape is its mask's extent; both went through the map, apart by less than a pixel's step
            extent = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
            assert (extent - box).abs().max() <= 1.5


@settings(max_examples=40, deadline=None)
@given(counts=st.tuples(st.integers(0, 13), st.integers(1, 13)), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_image_comes_once_an_epoch(counts, size, seed):
    """Each group's stream, cut into batches of its own, is one permutation after another, however odd the sizes."""
    groups = [np.arange(counts[0]), counts[0] + np.arange(counts[1])]
    order = StepOrder(groups, size, seed)
    steps = [order.indices(step) for step in range(4 * (sum(counts) // size + 2))]
    for group in groups:
        mine = [indices for indices in steps if np.isin(indices, group).any()]
        assert all(np.isin(indices, group).all() for indices in mine)
        seen = np.bincount(np.concatenate(mine), minlength=sum(counts))[group] if mine else np.zeros(0)
        # batches of an epoch come in random order, so two epochs may be under way at the end of what was taken
        if len(seen):
            assert seen.max() - seen.min() <= 2
    total = order._first_step(3)
    seen = np.bincount(np.concatenate([order.indices(k) for k in range(total)] or [[]]).astype(int), minlength=1)
    assert seen.sum() == total * size


@pytest.mark.parametrize(("counts", "size"), [((8, 4), 4), ((6, 3), 3), ((5, 0), 1)])
def test_an_epoch_that_fits_holds_each_image_exactly_once(counts, size):
    order = StepOrder([np.arange(counts[0]), counts[0] + np.arange(counts[1])], size, 0)
    per_epoch = sum(counts) // size
    for epoch in range(3):
        steps = [order.indices(epoch * per_epoch + step) for step in range(per_epoch)]
        assert sorted(np.concatenate(steps).tolist()) == list(range(sum(counts)))


def test_few_images_fill_a_large_batch():
    assert sorted(StepOrder([np.arange(3)], 6, 0).indices(0).tolist()) == [0, 0, 1, 1, 2, 2]


def test_portraits_and_landscapes_do_not_meet():
    sizes = np.array([[10, 20], [20, 10], [5, 5], [9, 3]])
    groups = shape_groups(sizes, np.arange(4))
    assert [group.tolist() for group in groups] == [[0, 2], [1, 3]]


def test_evaluation_goes_in_order_and_prediction_sees_the_same_pixels(shapes):
    batches = list(test_batches(shapes, DATA, batch_size=4))
    assert [i for batch in batches for i in batch.ids] == list(range(11))
    assert all(batch.targets is None for batch in batches)
    tensor, size = prepare_image(shapes.image(5), DATA.test)
    batch = batches[1]
    assert size == batch.sizes[1] == (64, 80)
    assert torch.equal(batch.images[1, :, : size[0], : size[1]], tensor)
    parts = [[i for b in test_batches(shapes, DATA, batch_size=3, rank=r, world_size=2) for i in b.ids] for r in (0, 1)]
    assert parts == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_ends_in_its_own_sentence(folder, workers):
    with pytest.raises(InputError) as caught:
        _take(read_coco(folder), 3, replace(DATA, workers=workers))
    assert str(caught.value).startswith(f"{folder.parent}/images/000003.png: cannot be read as an image")
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_replaced_and_listed_on_request(folder, workers):
    data = replace(DATA, workers=workers, skip_bad=True)
    dataset = read_coco(folder, skip_bad=True)
    batches = _take(dataset, 3, data)
    assert all(len(batch) == 4 and 4 not in batch.ids for batch in batches)
    assert len(dataset.skipped) == 1 and "000003.png" in dataset.skipped[0]
    for first, second in zip(
        batches, _take(read_coco(folder, skip_bad=True), 3, replace(data, workers=0)), strict=True
    ):
        _same(first, second)
    left = [i for batch in test_batches(read_coco(folder), data, batch_size=2) for i in batch.ids]
    assert left == [0, 1, 2, 4, 5]


def test_a_set_of_damaged_images_ends(folder):
    for path in (folder.parent / "images").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match="images in a row cannot be read"):
        _take(read_coco(folder), 1, replace(DATA, skip_bad=True))


def test_images_without_objects_are_kept_or_dropped(tmp_path):
    import json

    Pillow.new("RGB", (40, 30)).save(tmp_path / "a.png")
    Pillow.new("RGB", (40, 30)).save(tmp_path / "b.png")
    images = [{"id": i, "file_name": f"{n}.png", "height": 30, "width": 40} for i, n in ((1, "a"), (2, "b"))]
    annotations = [{"id": 1, "image_id": 2, "category_id": 1, "bbox": [2, 2, 20, 20], "iscrowd": 0}]
    annotations[0]["segmentation"] = [[2, 2, 22, 2, 22, 22]]
    annotations.append({"id": 2, "image_id": 1, "category_id": 1, "bbox": [2, 2, 20, 20], "iscrowd": 1})
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    path = tmp_path / "t.json"
    path.write_text(json.dumps(truth))
    dataset = read_coco(path)
    kept = _take(dataset, 1, replace(DATA, augment=Augment(short_sides=(30,), flip=0.0)), batch_size=2)[0]
    assert sorted(kept.ids) == [1, 2]
    crowd = kept.targets[kept.ids.index(1)]
    assert len(crowd) == 0 and crowd.masks.shape[0] == 0
    assert crowd.ignored.tolist() == [[2, 2, 22, 22]]
    assert set(_take(dataset, 1, replace(DATA, keep_empty=False), batch_size=2)[0].ids) == {2}
