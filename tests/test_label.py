"""`perpixel label`: locations that stand for given boxes, the file with its masks, scores, comparison, the command."""

import copy
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perpixel.cli.main import main
from perpixel.engine.checkpoint import load_checkpoint, save_checkpoint
from perpixel.engine.label import in_box, touched
from perpixel.engine.label_compare import Agreement, compare
from perpixel.engine.label_file import BoxFile
from perpixel.engine.label_masks import GrabCut, ModelMasker, Proposal, certainties
from perpixel.engine.recipe import Recipe
from perpixel.errors import InputError
from perpixel.models.boxinst import BoxInst
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.given import ANY_CLASS, nearest_locations, predict_given, represent
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.ops.boxes import pairwise_iou
from perpixel.ops.runs import decode
from perpixel.structures import Batch, BoxMasks, ImageMasks, Targets

INSTANCE = BoxInst(mask_convs=1, mask_width=16, warmup_steps=10)


def detector(head, instance=INSTANCE):
    torch.manual_seed(0)
    backbone = Backbone("test_resnet.r160_in1k", weights=None)
    return DetectorConfig(backbone=backbone, neck=FPN(channels=64), head=head, instance=instance).build(3).eval()


def given_batch():
    """Two images: a large box, a small one inside it, one of a pixel; and none."""
    boxes = torch.tensor([[5.0, 5, 120, 90], [50.0, 40, 70, 60], [100.3, 20.2, 101.2, 21.1]])
    targets = (Targets(boxes, torch.tensor([0, 2, ANY_CLASS])), Targets(torch.zeros(0, 4), torch.zeros(0).long()))
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    return Batch(images, ((96, 128), (96, 128)), targets=targets)


@pytest.mark.parametrize("head", [FCOS(class_convs=1, box_convs=1, initial_distance=2.0), RetinaNet(convs=1)])
def test_every_given_box_gets_the_best_of_its_locations(head):
    """The slow loop: for each box the assigned locations, or the nearest ones, ranked by class score times IoU."""
    model, batch = detector(head), given_batch()
    with torch.no_grad():
        outputs, _ = model(model.normalized(batch))
    found = represent(model.box_head, outputs, batch.truth())
    assert found.image.tolist() == [0, 0, 0] and found.target.tolist() == [0, 1, 2]
    given = batch.truth()[0]
    assert torch.equal(found.boxes, given.boxes) and (found.labels >= 0).all()
    matched = model.box_head.assign(outputs.locations, batch.truth()).target[0]
    for row, box in enumerate(given.boxes):
        places = (matched == row).nonzero()[:, 0]
        if not len(places):
            places = nearest_locations(outputs.locations, box)
        best, chosen = -1.0, None
        for place in places.tolist():
            label = int(given.labels[row])
            probability = outputs.logits[0, place].sigmoid()
            score = probability.max() if label == ANY_CLASS else probability[label]
            if outputs.quality is not None:
                score = score * outputs.quality[0, place].sigmoid()
            score = float(score * pairwise_iou(outputs.boxes[0, place][None], box[None])[0, 0])
            if score > best:
                best, chosen = score, place
        assert found.scores[row].item() == pytest.approx(best, rel=1e-4, abs=1e-7)
        assert found.location[row].item() == chosen or best == 0
    assert (matched != 2).all() or isinstance(head, RetinaNet)  # FCOS trains nothing on a box between its points


def test_the_nearest_location_lies_at_the_level_of_the_boxs_size():
    """Levels take up to 16 strides: 128 pixels for stride 8, then 256. Sides 20, 128 and 130, 3000 -> levels 0, 0, 1, 4.

    Of P3's points (4, 12, 20, ...) the nearest to (30, 30) is (28, 28).
    """
    locations = detector(FCOS(class_convs=1, box_convs=1)).box_head.locate(((12, 16), (6, 8), (3, 4), (2, 2), (1, 1)))
    for side, level in ((20.0, 0), (128.0, 0), (130.0, 1), (3000.0, 4)):
        box = torch.tensor([30 - side / 2, 30 - side / 2, 30 + side / 2, 30 + side / 2])
        (place,) = nearest_locations(locations, box)
        assert locations.levels[place] == level
        if level == 0:
            assert locations.points[place].tolist() == [28, 28]


def test_masks_of_given_boxes_come_in_their_order():
    """Each box alone gives the masks it gets among others: a row belongs to its box."""
    model, batch = detector(FCOS(class_convs=1, box_convs=1, initial_distance=2.0)), given_batch()
    first, second = predict_given(model, batch)
    assert torch.equal(first.boxes, batch.truth()[0].boxes) and len(second) == 0
    assert isinstance(first.masks, ImageMasks) and len(first.masks.values) == 3
    assert isinstance(second.masks, ImageMasks) and len(second.masks.values) == 0
    empty = batch.truth()[1]
    for row in (1, 2):  # the large box shares locations with the small one when they come together
        targets = batch.truth()[0]
        alone = replace(batch, targets=(Targets(targets.boxes[[row]], targets.labels[[row]]), empty))
        (one, _) = predict_given(model, alone)
        assert isinstance(one.masks, ImageMasks)
        assert torch.allclose(one.masks.values[0], first.masks.values[row], atol=1e-5)


def test_a_mask_is_cut_at_its_box_and_scored():
    """Box (1.5, 1, 4, 3) of an 6 x 4 image touches columns 1..3 and rows 1..2: 6 pixels.

    The mask covers columns 0..2 of row 1: cut to columns 1..2; its own box is 2 of 6 pixels: 0.9 * 2 / 6 = 0.3.
    """
    mask = np.zeros((4, 6), dtype=bool)
    mask[1, :3] = True
    box = np.array([1.5, 1, 4, 3], dtype=np.float32)
    cut, score = in_box(Proposal(mask, 0.9), box, (4, 6))
    assert np.argwhere(cut).tolist() == [[1, 1], [1, 2]] and score == pytest.approx(0.3)
    for proposal in (Proposal(None), Proposal(np.zeros((4, 6), dtype=bool))):
        filled, score = in_box(proposal, box, (4, 6))
        assert filled.sum() == 6 and filled[1:3, 1:4].all() and score == 0


@pytest.mark.parametrize(
    ("ends", "pixels"), [((2.2, 2.6), [2]), ((2.0, 4.0), [2, 3]), ((5.9, 6.0), [5]), ((6.0, 6.0), [5])]
)
def test_touched_pixels(ends, pixels):
    assert list(range(6))[touched(ends, 6)] == pixels


def test_certainty_by_hand():
    """Box over the two left cells of a row: 0.8 and 0.4. The mask is the first: 0.8 / (1 + 0.4). Sure ones give 1."""
    masks = ImageMasks(torch.tensor([[[0.8, 0.4, 0.9, 0.9]], [[1.0, 0.0, 0.9, 0.9]], [[0.1, 0.2, 0.9, 0.9]]]), 4)
    boxes = torch.tensor([[0.0, 0, 8, 4]] * 3)
    assert torch.allclose(certainties(masks, boxes), torch.tensor([0.8 / 1.4, 1.0, 0.0]))
    assert torch.allclose(
        certainties(BoxMasks(torch.tensor([[[0.8, 0.4], [0.6, 0.1]]])), boxes[:1]), torch.tensor([0.56])
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A mask model of random weights that knows the class disc."""
    path = tmp_path_factory.mktemp("checkpoint") / "random.safetensors"
    config = DetectorConfig(
        backbone=Backbone("test_resnet.r160_in1k", weights=None),
        neck=FPN(channels=64),
        head=FCOS(class_convs=1, box_convs=1, initial_distance=2.0),
        instance=INSTANCE,
    )
    recipe = Recipe("tiny", config)
    recipe = replace(recipe, data=replace(recipe.data, test=replace(recipe.data.test, short_side=64, max_side=96)))
    torch.manual_seed(1)
    save_checkpoint(path, config.build(1), recipe, ("disc",))
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    """A file with everything that can go wrong, and a photo with a white disc; `photos/missing.jpg` is not there."""
    (tmp_path / "photos").mkdir()
    y, x = np.mgrid[:64, :80]
    photo = np.full((64, 80, 3), 30, np.uint8)
    photo[(x - 29.5) ** 2 + (y - 29.5) ** 2 < 400] = 220
    Image.fromarray(photo).save(tmp_path / "photos" / "disc.png")
    wanted = {"image_id": 1, "category_id": 1, "iscrowd": 0}
    annotations = [
        {"id": 10, "bbox": [10, 10, 40, 40], "area": 1600.5, "note": {"by": "Åsa"}, **wanted},
        {"id": 11, "bbox": [60, 40, 1, 1], **wanted},
        {"id": 12, "bbox": [10, 10, 0, 5], **wanted},
        {"id": 13, "bbox": [200, 10, 20, 5], **wanted},
        {"id": 14, "bbox": [10, 10, 40, 40], **wanted, "iscrowd": 1, "segmentation": {"size": [64, 80], "counts": [0]}},
        {"id": 15, "bbox": [50, 30, 100, 100], **wanted, "category_id": 2, "segmentation": []},
        {"id": 16, "bbox": [1, 1, 9, 9], **wanted, "segmentation": [[1, 1, 9, 1, 9, 9]]},
        {"id": 17, "bbox": [1, 1, 9, 9], **wanted, "image_id": 2},
        {"id": 18, "bbox": [1, 1, 9, 9], **wanted, "image_id": 99},
        {"id": 19, "bbox": [1, 1, "wide"], **wanted},
        "not an annotation",
    ]
    document = {
        "info": {"year": 1999},
        "images": [
            {"id": 1, "file_name": "disc.png", "width": 80, "height": 64, "camera": "x"},
            {"id": 2, "file_name": "missing.jpg", "width": 80, "height": 64},
        ],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "unheard of"}],
        "annotations": annotations,
    }
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    return tmp_path


ADDED = {"segmentation", "area", "perpixel"}


def test_nothing_is_dropped_and_nothing_else_changes(data, checkpoint, capsys):
    out = data / "masks.json"
    before = json.loads((data / "boxes.json").read_text())
    command = ["label", str(data / "boxes.json"), str(data / "photos"), "-o", str(out), "--device", "cpu"]
    assert main([*command, "--checkpoint", str(checkpoint)]) == 1  # a photo is missing
    after = json.loads(out.read_text())
    assert {key: value for key, value in after.items() if key != "annotations"} == {
        key: value for key, value in before.items() if key != "annotations"
    }
    assert len(after["annotations"]) == len(before["annotations"]) == 11
    for old, new in zip(before["annotations"], after["annotations"], strict=True):
        if isinstance(old, str):
            assert new == old
            continue
        assert {key: new[key] for key in old if key not in ADDED} == {k: v for k, v in old.items() if k not in ADDED}
        if "area" in old:
            assert new["area"] == old["area"]
    by_id = {entry["id"]: entry for entry in after["annotations"] if isinstance(entry, dict)}
    kept = {entry["id"]: entry for entry in before["annotations"] if isinstance(entry, dict)}
    for number in (14, 16, 19):  # a crowd, one with a mask, one without a box
        assert by_id[number] == kept[number]
    for number in (12, 13, 17, 18):
        assert "segmentation" not in by_id[number] and by_id[number]["perpixel"]["mask"] is None
    for number, box in ((10, (10, 10, 50, 50)), (11, (60, 40, 61, 41)), (15, (50, 30, 80, 64))):
        mask = decode([by_id[number]["segmentation"]], (64, 80))[0]
        outside = mask.copy()
        outside[box[1] : box[3], box[0] : box[2]] = False
        assert mask.any() and not outside.any()
        assert by_id[number]["perpixel"]["area"] == mask.sum() and 0 <= by_id[number]["perpixel"]["score"] <= 1
    assert by_id[11]["perpixel"]["mask"] == "box" and by_id[11]["area"] == 1
    shown = capsys.readouterr().out
    assert "11 annotations and 2 images in, 11 and 2 out" in shown and "unheard of" in shown and "missing.jpg" in shown
    told = sum(int(count) for count in re.findall(r"^(\d+) got", shown, re.MULTILINE))
    assert told == 11
    page = (data / "masks_report" / "sheet.html").read_text()
    assert page.count("<figure>") == 2 and "missing.jpg" in page
    assert "http" not in page.replace("data:image", "")


def test_replace_draws_anew_but_no_crowd(data, checkpoint):
    file = BoxFile.read(data / "boxes.json", data / "photos", replace=True)
    assert 6 in file.images[0].rows and 4 not in file.images[0].rows
    assert 6 not in BoxFile.read(data / "boxes.json", data / "photos").images[0].rows


def test_the_sheet_has_the_most_doubtful_first(data, checkpoint):
    document = json.loads((data / "boxes.json").read_text())
    document["annotations"] = [
        {"id": 100 + i, "image_id": 1, "category_id": 1, "bbox": [4 * i, 3 * i, 12 + 3 * i, 20]} for i in range(8)
    ]
    (data / "many.json").write_text(json.dumps(document))
    out = data / "masks.json"
    command = ["label", str(data / "many.json"), str(data / "photos"), "-o", str(out), "--checkpoint", str(checkpoint)]
    assert main([*command, "--device", "cpu", "--pictures", "3", "--report", str(data / "report")]) == 0
    page = (data / "report" / "sheet.html").read_text()
    doubts = [float(value) for value in re.findall(r"doubt ([\d.]+)", page)]
    scores = sorted(entry["perpixel"]["score"] for entry in json.loads(out.read_text())["annotations"])
    assert doubts == [pytest.approx(1 - score, abs=0.006) for score in scores[:3]]
    assert "the 3 most doubtful of 8" in page
    assert main([*command, "--device", "cpu", "--pictures", "0", "--report", str(data / "none")]) == 0
    assert not (data / "none" / "sheet.html").exists()


def test_grabcut_finds_a_white_disc_and_the_comparison_says_so(data, capsys):
    """A disc of radius 20 in its box of 40 x 40: the box alone reaches about pi / 4 = 0.785."""
    document = json.loads((data / "boxes.json").read_text())
    document["annotations"] = document["annotations"][:1]
    (data / "boxes.json").write_text(json.dumps(document))
    truth = copy.deepcopy(document)
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    truth["annotations"][0]["segmentation"] = [(30 + 20 * np.stack([np.cos(angle), np.sin(angle)], 1)).ravel().tolist()]
    (data / "truth.json").write_text(json.dumps(truth))
    out = data / "cut.json"
    command = ["label", str(data / "boxes.json"), str(data / "photos"), "-o", str(out), "--method", "grabcut"]
    assert main([*command, "--against", str(data / "truth.json")]) == 0
    assert "filled boxes" in capsys.readouterr().out
    cut, boxes = compare(data / "truth.json", {"cut": out})
    assert cut.ious[0] > 0.95 and boxes.ious[0] == pytest.approx(np.pi / 4, abs=0.01)
    assert cut.missing == boxes.missing == 0
    drawn = json.loads(out.read_text())["annotations"][0]
    assert drawn["perpixel"]["mask"] == "grabcut" and drawn["area"] == 1600.5
    assert main([*command, "--against", str(data / "truth.json"), "--beside", str(data / "boxes.json")]) == 2
    assert "no annotation id with a mask" in capsys.readouterr().err


def test_grabcut_without_background_fills_the_box():
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    whole, tiny = GrabCut().propose(image, np.array([[0, 0, 40, 40], [3, 3, 6, 30]], np.float32), ["a", "a"])
    assert whole.mask is None and tiny.mask is None


def test_rank_correlation_by_hand():
    """Ranks of IoU 1 2 3 4; of scores with a tie 1.5 1.5 4 3. Deviations from 2.5: (-1.5 -.5 .5 1.5), (-1 -1 1.5 .5).

    Products 1.5 + .5 + .75 + .75 = 3.5; squares 5 and 1 + 1 + 2.25 + .25 = 4.5: 3.5 / sqrt(22.5) = 0.7379.
    """
    row = Agreement("x", np.array([0.1, 0.2, 0.6, 0.9]), np.array([0.3, 0.3, 0.8, 0.7]), 0)
    assert row.correlation == pytest.approx(0.73786, abs=1e-4)
    assert Agreement("x", row.ious, None, 0).correlation is None
    assert Agreement("x", row.ious, np.zeros(4), 0).correlation is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--train trains one on these boxes"),
        (["--train", "--checkpoint", "x.safetensors"], "--train trains one on these boxes"),
        (["--method", "grabcut", "--train"], "learns nothing"),
        (["--checkpoint", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--method", "grabcut", "-o", "boxes.json"], "give -o another name"),
        (["--method", "grabcut", "--beside", "other.json"], "--against"),
        (["--train", "--recipe", "boxinst_mobile"], "did you mean boxinst_mobilenetv2"),
    ],
)
def test_bad_input(data, options, message, capsys, monkeypatch):
    monkeypatch.chdir(data)
    assert main(["label", "boxes.json", "photos", "-o", "masks.json", *options]) == 2
    shown = capsys.readouterr().err
    assert message in shown and len(shown.strip().splitlines()) == 1
    assert not (data / "masks.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "holds no COCO"),
        ('{"images": [', "not valid json"),
        ('{"images": [], "annotations": []}', "categories"),
    ],
)
def test_a_file_that_is_no_coco(tmp_path, content, message):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(InputError, match=message):
        BoxFile.read(tmp_path / "bad.json", tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        BoxFile.read(tmp_path / "bad.json", tmp_path / "nowhere")


def test_a_model_of_boxes_alone_is_refused(tmp_path):
    config = DetectorConfig(backbone=Backbone("test_resnet.r160_in1k", weights=None), neck=FPN(channels=64))
    save_checkpoint(tmp_path / "boxes.safetensors", config.build(1), Recipe("boxes", config), ("disc",))
    with pytest.raises(InputError, match="boxes only"):
        ModelMasker(load_checkpoint(tmp_path / "boxes.safetensors"))


def test_grabcut_without_opencv_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"--method grabcut needs OpenCV: pip install 'perpixel\[video\]'"):
        GrabCut()


def test_train_then_label_and_again_from_its_run(data, monkeypatch, capsys):
    """Two steps on the good annotations of a file with bad ones; the second call goes straight on to labelling."""
    monkeypatch.chdir(data)
    tiny = ["model.backbone.name=test_resnet.r160_in1k", "model.backbone.weights=null", "data.workers=0"]
    tiny += ["training.steps=2", "training.warmup_steps=1", "training.batch_size=2", "training.evaluate_every=null"]
    tiny += ["model.head.class_convs=1", "model.head.box_convs=1", "model.instance.mask_convs=1"]
    tiny += ["data.test.short_side=64", "data.augment.short_sides=[64]"]
    command = ["label", "boxes.json", "photos", "-o", "masks.json", "--train", "--run", "run", "--device", "cpu", *tiny]
    assert main(command) == 1  # a photo is missing
    assert "--run run --resume" in capsys.readouterr().out and (data / "run" / "last.safetensors").exists()
    first = (data / "masks.json").read_text()
    assert main(command) == 2  # a run is not overwritten
    capsys.readouterr()
    assert main([*command, "--resume"]) == 1
    assert (data / "masks.json").read_text() == first
