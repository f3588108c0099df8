"""Some masks, mostly boxes (thesis 002, 6.3.6): what is known of each annotation, from the file to the loss and the metrics."""

import json
import math
from dataclasses import replace
from pathlib import Path

import hotcoco.mask
import pytest
import torch
from PIL import Image as Pillow

from perpixel.cli.main import main
from perpixel.config import ConfigError
from perpixel.data.coco import read_coco
from perpixel.data.loader import train_batches
from perpixel.data.settings import Augment, DataConfig
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.metrics import coco_metrics
from perpixel.errors import InputError
from perpixel.models.boxinst import BoxInst
from perpixel.models.candidates import BestPositives, RandomPositives, positives
from perpixel.models.condinst import CondInst, semantic_labels
from perpixel.models.fcos import FCOS
from perpixel.models.mask_truth import drawn_masks
from perpixel.recipes.boxinst_some_masks import NOT_OF_VOC, OF_VOC
from perpixel.structures import Batch, Targets
from test_models_condinst import BOX_HEADS, batch_of, build, candidates_at

AS_IS = DataConfig(workers=0, masks="some", augment=Augment(short_sides=(40,), max_side=60, flip=0.0))
MIXED = BoxInst(mask_width=16, mask_convs=1, mask_channels=8, known_masks="dice", policy=BestPositives(per_image=16))
HEAD = replace(MIXED, dilation=1, warmup_steps=1, bottom_pixels=0).build(64, 64, (8, 16, 32), 3)


@pytest.fixture
def mixed(tmp_path):
    """60 x 40 pixels: an L of class x that is drawn, two x of which only the box is known, a drawn rectangle of class y."""
    ell = [[0, 0, 20, 0, 20, 10, 10, 10, 10, 20, 0, 20]]
    objects = [
        (1, [0, 0, 20, 20], {"segmentation": ell}),
        (1, [30, 0, 21, 10], {}),
        (1, [5, 25, 4, 4], {"segmentation": []}),
    ]
    objects.append((2, [40, 20, 10, 10], {"segmentation": [[40, 20, 50, 20, 50, 30, 40, 30]]}))
    annotations = [
        {"id": i, "image_id": 7, "category_id": category, "bbox": box, "iscrowd": 0} | more
        for i, (category, box, more) in enumerate(objects, start=1)
    ]
    annotations.append({"id": 9, "image_id": 7, "category_id": 2, "bbox": [1, 1, 5, 5], "iscrowd": 1})
    Pillow.new("RGB", (60, 40)).save(tmp_path / "a.png")
    truth = {
        "images": [{"id": 7, "file_name": "a.png", "height": 40, "width": 60}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}],
    }
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps(truth))
    return read_coco(path)


def only(dataset, data):
    return next(train_batches(dataset, data, batch_size=1, seed=0)).truth()[0]


def test_what_the_file_says_of_each_object(mixed):
    """The L has 300 pixels: 200 in rows 0..9 around x = 9.5, 100 in rows 10..19 around x = 4.5: its mass is at
    (9.5 * 2 + 4.5) / 3 = 7.83 in both directions. Where only the box is known the centre is the box's: (40.5, 5), (7, 27)."""
    assert mixed.box_only_counts.tolist() == [2] and mixed.object_counts.tolist() == [4]
    target = only(mixed, AS_IS)
    assert target.drawn.tolist() == [True, False, False, True]
    assert target.masks.sum(dim=(1, 2)).tolist() == [300, 0, 0, 100]
    mass = 23.5 / 3
    expected = [[mass, mass], [40.5, 5], [7, 27], [44.5, 24.5]]
    torch.testing.assert_close(target.centers, torch.tensor(expected))


def test_the_centre_of_a_box_attracts_as_with_sampling_by_boxes(mixed):
    """Mass-centre sampling treats an object without a mask as box-centre sampling treats it, and the L otherwise."""
    target = only(mixed, AS_IS)
    by_mass, by_box = (FCOS(center=center, radius=0.5).build(32, (8, 16, 32, 64, 128), 2) for center in ("mask", "box"))
    locations = by_mass.locate(((8, 8), (4, 4), (2, 2), (1, 1), (1, 1)))
    mass, box = by_mass.allowed(locations, target), by_box.allowed(locations, target)
    assert torch.equal(mass[:, 1:3], box[:, 1:3]) and mass[:, 1].any()
    assert not torch.equal(mass[:, 0], box[:, 0])


def test_masks_of_some_classes(mixed):
    target = only(mixed, replace(AS_IS, masks_of=("y",)))
    assert target.drawn.tolist() == [False, False, False, True]
    assert target.centers[0].tolist() == [10, 10] and not target.masks[0].any()
    with pytest.raises(InputError, match=r"data\.masks_of: 'z' is no class of .*mixed\.json: x, y"):
        only(mixed, replace(AS_IS, masks_of=("z",)))
    with pytest.raises(ConfigError, match=r"needs data\.masks=some"):
        replace(AS_IS, masks=True, masks_of=("y",))


def test_a_withheld_mask_does_not_shrink_a_cut_box(mixed):
    """A crop of 60 x 40 to at most 15 x 15: the L's box is cut to the crop, not to the pixels that are left of the L."""
    data = replace(AS_IS, augment=replace(AS_IS.augment, crop_size=15, min_visible=0.0, min_side=0.0))
    shrunk = 0
    for seed in range(12):
        first, second = (
            next(train_batches(mixed, d, batch_size=1, seed=seed)).truth()[0]
            for d in (data, replace(data, masks_of=("y",)))
        )
        ells = [t.boxes[t.labels == 0] for t in (first, second)]
        shrunk += len(ells[0]) == len(ells[1]) and not torch.equal(*ells)
        assert not second.drawn[second.labels == 0].any()
    assert shrunk > 0


def test_masks_that_are_asked_for_must_be_there(mixed):
    with pytest.raises(
        InputError, match=r"mixed\.json: 2 objects have a box but no mask, the first in image 7; .* data\.masks=some"
    ):
        only(mixed, replace(AS_IS, masks=True))
    assert only(mixed, replace(AS_IS, masks=False)).drawn is None


def test_no_mask_at_all(mixed, tmp_path):
    truth = json.loads((tmp_path / "mixed.json").read_text())
    for annotation in truth["annotations"]:
        annotation.pop("segmentation", None)
    (tmp_path / "boxes.json").write_text(json.dumps(truth))
    with pytest.raises(InputError, match=r"boxes\.json: no object has a mask: set data\.masks=false"):
        only(read_coco(tmp_path / "boxes.json"), AS_IS)


def two_objects(drawn):
    """An 8 x 8 image of one colour. Object 0: the top left quarter is its mask; object 1: a box over the whole image."""
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :4, :4] = True
    boxes = torch.tensor([[0.0, 0, 8, 8]] * 2)
    target = Targets(boxes, torch.tensor([0, 1]), masks, torch.zeros(2, 2), drawn=torch.tensor(drawn))
    found = replace(candidates_at([[4.0, 4.0]] * 2, [8.0] * 2), boxes=boxes, target=torch.tensor([0, 1]))
    images = torch.full((1, 3, 8, 8), 90, dtype=torch.uint8)
    return found, Batch(images, ((8, 8),), ((8, 8),), (target,), progress=5)


def test_each_annotation_by_hand():
    """Two candidates, 2 x 2 cells of probability 1/2.

    The first has a mask of one cell: Dice 1 - 2 (1/2) / (4 / 4 + 1) = 1/2. The second a box of all cells: each side's maxima are
    (1/2, 1/2), their Dice 1 - 2 (1) / (1/2 + 2) = 1/5, both sides 2/5; of its neighbours all are alike and each pair costs
    -log(1/2 * 1/2 + 1/2 * 1/2) = log 2. Each candidate weighs one half: 1/4, 1/5, log(2) / 2.
    """
    found, batch = two_objects([True, False])
    losses = HEAD.mask_losses(torch.zeros(2, 2, 2), found, batch)
    values = {name: loss.item() for name, loss in losses.items()}
    assert values == pytest.approx({"mask": 1 / 4, "projection": 1 / 5, "pairwise": math.log(2) / 2}, abs=1e-4)


def test_one_mask_among_many_boxes_weighs_one_share():
    """Three candidates of the box, one of the mask: the mask's Dice of 1/2 counts a quarter."""
    found, batch = two_objects([True, False])
    found = found.rows(torch.tensor([1, 0, 1, 1]))
    losses = HEAD.mask_losses(torch.zeros(4, 2, 2), found, batch)
    assert losses["mask"].item() == pytest.approx(1 / 8, abs=1e-4)
    assert losses["projection"].item() == pytest.approx(3 / 10, abs=1e-4)


@pytest.mark.parametrize("supervision", ["color", "projection", "box"])
def test_without_a_known_mask_it_is_boxinst(supervision):
    """The same losses to the last bit as of a model that is not told of masks, the Dice of no masks being 0."""
    found, batch = two_objects([False, False])
    head = replace(HEAD.config, supervision=supervision).build(64, 64, (8, 16, 32), 3)
    plain = replace(head.config, known_masks="unused").build(64, 64, (8, 16, 32), 3)
    logits = torch.randn(2, 2, 2)
    ours, expected = head.mask_losses(logits, found, batch), plain.mask_losses(logits, found, batch)
    assert {name: ours[name] for name in expected} == expected
    assert ours.keys() - expected.keys() <= {"mask"} and ours["mask"] == expected.get("mask", 0)


def test_with_all_masks_known_it_is_condinst():
    found, batch = two_objects([True, True])
    logits = torch.randn(2, 2, 2)
    expected = CondInst().build(64, 64, (8, 16, 32), 3).mask_losses(logits, found, batch)
    ours = HEAD.mask_losses(logits, found, batch)
    assert ours["mask"] == expected["mask"] > 0
    assert ours["projection"] == ours["pairwise"] == 0
    # And the same where the data say nothing of single masks.
    whole = replace(batch, targets=(replace(batch.truth()[0], drawn=None),))
    assert HEAD.mask_losses(logits, found, whole) == ours


def half_drawn(batch):
    """Every second object's mask withheld, as the data layer gives it."""
    targets = []
    for target in batch.truth():
        drawn = torch.arange(len(target)) % 2 == 0
        middle = (target.boxes[:, :2] + target.boxes[:, 2:]) / 2
        centers = torch.where(drawn[:, None], target.centers, middle)
        targets.append(replace(target, masks=target.masks & drawn[:, None, None], centers=centers, drawn=drawn))
    return replace(batch, targets=tuple(targets))


SMALL_CONDINST = CondInst(mask_width=16, mask_convs=1, semantic=True)
FROM_KNOWN_PAIRS = replace(MIXED, supervision="mask", known_masks="unused")


@pytest.mark.parametrize(
    ("instance", "names"),
    [
        (MIXED, {"mask", "projection", "pairwise"}),
        (replace(MIXED, supervision="projection"), {"mask", "projection"}),
        (replace(MIXED, supervision="box"), {"mask"}),
        (FROM_KNOWN_PAIRS, {"projection", "pairwise"}),
        (SMALL_CONDINST, {"mask", "semantic"}),
    ],
    ids=["all terms", "projection", "box", "known pairs", "masks alone"],
)
@pytest.mark.parametrize("box_head", BOX_HEADS, ids=lambda c: type(c).__name__)
def test_every_parameter_learns(box_head, instance, names):
    """Objects in both images, in one, in none, half of them drawn."""
    model = build(box_head, instance).train()
    for objects in ((3, 2), (0, 3), (0, 0)):
        model.zero_grad(set_to_none=True)
        losses = model.loss(half_drawn(batch_of(objects)))
        assert losses.keys() - {"class", "box", "centerness"} == names
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("instance", [SMALL_CONDINST, FROM_KNOWN_PAIRS], ids=["CondInst", "BoxInst of known pairs"])
def test_methods_of_masks_discard_objects_without(instance):
    """Row 1 of table 6.7: their candidates are those of drawn objects, all of them."""
    model = build(BOX_HEADS[0], replace(instance, policy=RandomPositives(limit=10_000)))
    batch = half_drawn(batch_of((3, 2)))
    outputs = model.box_head(model.neck(model.backbone(model.normalized(batch))))
    matches = model.box_head.assign(outputs.locations, batch.truth())
    chosen = model.instance_head.choose(outputs, matches, batch)
    every = positives(outputs, matches, batch.truth())
    kept = every.rows(every.target % 2 == 0)
    assert 0 < len(kept) < len(every)
    assert torch.equal(chosen.image, kept.image) and torch.equal(chosen.location, kept.location)
    mixed = build(BOX_HEADS[0], replace(MIXED, policy=RandomPositives(limit=10_000)))
    assert len(mixed.instance_head.choose(outputs, matches, batch)) == len(every)


def test_methods_that_need_every_mask_say_so():
    with pytest.raises(InputError, match=r"set data\.masks=true, not data\.masks=some"):
        drawn_masks(half_drawn(batch_of((2, 2))).truth()[0])
    with pytest.raises(InputError, match=r"known_masks=dice leaves the others their boxes"):
        replace(MIXED, supervision="mask")
    batch = batch_of((1, 1))
    without = replace(batch, targets=tuple(replace(t, masks=None, centers=None) for t in batch.truth()))
    with pytest.raises(InputError, match=r"set data\.masks=true \(or some"):
        build(BOX_HEADS[0], MIXED).loss(without)


def test_what_a_box_hides_has_no_semantic_label():
    """8 x 16 pixels, cells of 4: a drawn object of class 2 in the first column, a box over the last one, nothing between."""
    masks = torch.zeros(2, 8, 16, dtype=torch.bool)
    masks[0, :, :4] = True
    boxes = torch.tensor([[0.0, 0, 4, 8], [12, 0, 16, 8]])
    target = Targets(boxes, torch.tensor([2, 1]), masks, drawn=torch.tensor([True, False]))
    assert semantic_labels(target, 4).tolist() == [[2, -1, -1, -2]] * 2


def test_an_object_without_a_mask_counts_neither_way_among_masks():
    """Of two objects one is drawn. Found are a box's content where no mask is known, which is ignored, and the drawn object."""
    square = lambda x: [[x, 5, x + 10, 5, x + 10, 15, x, 15]]  # noqa: E731
    truth = {
        "images": [{"id": 1, "height": 40, "width": 40}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 10, 10], "area": 100, "segmentation": square(5)},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [25, 5, 10, 10], "area": 100},
        ],
    }
    code = lambda x: hotcoco.mask.merge(hotcoco.mask.frPyObjects(square(x), 40, 40))  # noqa: E731
    results = [
        {"image_id": 1, "category_id": 1, "score": score, "bbox": [x + 2, 5, 10, 10], "segmentation": code(x)}
        for score, x in ((0.9, 25), (0.8, 5))
    ]
    masks, boxes = (coco_metrics(truth, results, kind) for kind in ("segm", "bbox"))
    assert masks.summary["AP"] == pytest.approx(1) and masks.per_class[0].truth == 1
    assert boxes.summary["AR100"] < 1 and boxes.per_class[0].truth == 2


def test_mean_over_classes():
    """Two classes, of which one is found: its AP is 1, the other's 0, a class without truth counts in no mean."""
    truth = {
        "images": [{"id": 1, "height": 40, "width": 40}],
        "categories": [{"id": i, "name": name} for i, name in enumerate("abc", start=1)],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": i, "bbox": [5, 5, 10, 10], "area": 100} for i in (1, 2)
        ],
    }
    results = [{"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [5, 5, 10, 10]}]
    metrics = coco_metrics(truth, results)
    for names, expected in (("a", 1), ("b", 0), ("ab", 0.5), ("bc", 0), ("c", -1)):
        assert metrics.mean_over(set(names))["AP"] == pytest.approx(expected)


def test_the_papers_split():
    assert len(OF_VOC) == 20 and len(NOT_OF_VOC) == 60 and not set(OF_VOC) & set(NOT_OF_VOC)


TINY = [
    "model.backbone.name=test_resnet",
    "model.head.class_convs=1",
    "model.head.box_convs=1",
    "model.instance.mask_width=16",
    "data.workers=0",
    "training.steps=3",
    "training.warmup_steps=1",
    "training.batch_size=2",
]


def test_a_mixed_file_from_the_command_line(tmp_path, capsys):
    """Trained and evaluated; refused by CondInst with all masks, taken by it with some."""
    path = ShapesDataset(6, (48, 64), seed=1).write_coco(tmp_path)
    truth = json.loads(path.read_text())
    for annotation in truth["annotations"][::2]:
        annotation.pop("segmentation")
    path.write_text(json.dumps(truth))
    data = [f"data.train={path}", f"data.val={path}", *TINY]
    some = ["data.masks=some", f"data.masks_of=[{truth['categories'][0]['name']}]"]
    dice = "model.instance.known_masks=dice"
    assert main(["train", "boxinst_shapes", *data, *some, dice, "--device", "cpu", "--out", str(tmp_path / "b")]) == 0
    first = json.loads((tmp_path / "b/log.jsonl").read_text().splitlines()[0])
    assert first["losses"].keys() == {"class", "box", "centerness", "mask", "projection", "pairwise"}
    capsys.readouterr()
    out = ["--out", str(tmp_path / "e"), "--device", "cpu"]
    assert main(["evaluate", str(tmp_path / "b/last.safetensors"), "model.selection.threshold=0.001", *out]) == 0
    assert "masks of classes that were trained without:" in capsys.readouterr().out
    assert json.loads((tmp_path / "e/metrics.json").read_text())["unseen"].keys() == {"AP", "AP50", "AP75"}
    assert main(["train", "condinst_shapes", *data, "--device", "cpu", "--out", str(tmp_path / "c")]) == 2
    assert "objects have a box but no mask" in capsys.readouterr().err
    assert main(["train", "condinst_shapes", *data, some[0], "--device", "cpu", "--out", str(tmp_path / "d")]) == 0
    assert main(["check", str(path), "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert "objects have a box but no mask: data.masks=some" in capsys.readouterr().out


def test_characters(tmp_path, monkeypatch):
    """The program of docs/methods/boxinst.md on a miniature of ReCTS: a slanted quadrilateral's box, a crowd where unreadable."""
    page = (Path(__file__).resolve().parents[1] / "docs/methods/boxinst.md").read_text("utf-8")
    program = page.partition("```python\n# rects.py")[2].partition("```")[0].partition("\n")[2]
    for folder in ("gt", "img"):
        (tmp_path / "rects" / folder).mkdir(parents=True)
    Pillow.new("RGB", (60, 40)).save(tmp_path / "rects/img/train_1.jpg")
    chars = [
        {"points": [10, 5, 20, 7, 19, 18, 9, 16], "transcription": "店", "ignore": 0},
        {"points": [30, 5, 40, 5, 40, 15, 30, 15], "transcription": "###", "ignore": 1},
    ]
    (tmp_path / "rects/gt/train_1.json").write_text(json.dumps({"chars": chars, "lines": []}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "rects.py", "exec"), {})
    dataset = read_coco(tmp_path / "rects.json")
    record = dataset.record(0)
    assert dataset.classes == ("character",) and record.path.is_file()
    assert record.boxes.tolist() == [[9, 5, 20, 18], [30, 5, 40, 15]] and record.crowd.tolist() == [False, True]
