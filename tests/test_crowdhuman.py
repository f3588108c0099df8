"""CrowdHuman's .odgt and synthetic crowds: what is read, what is refused, and that crowds are crowded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perpixel.cli.main import main
from perpixel.data.crowdhuman import CrowdHumanDataset
from perpixel.data.crowds import CrowdsDataset
from perpixel.data.loader import test_batches
from perpixel.data.masks import draw_shape
from perpixel.data.open import open_dataset
from perpixel.data.sample import train_sample
from perpixel.data.settings import Augment, DataConfig, TestSize, load_data_yaml
from perpixel.errors import InputError
from perpixel.models.analysis import reach
from perpixel.models.fcos import FCOS
from perpixel.ops.boxes import pairwise_iou
from perpixel.structures import Targets

PERSON = {
    "tag": "person",
    "fbox": [-4, 6, 24, 40],
    "hbox": [2, 6, 8, 8],
    "vbox": [0, 6, 10, 30],
    "extra": {"box_id": 0},
}
HIDDEN = {"tag": "person", "fbox": [30, 10, 12, 30], "extra": {"ignore": 1}, "head_attr": {"ignore": 1}}
GROUP = {"tag": "mask", "fbox": [44, 0, 30, 48], "hbox": [44, 0, 30, 48], "vbox": [44, 0, 30, 48]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos of 64 x 48: one with a person, one ignored and a group; one with nobody; a third that is not annotated."""
    (tmp_path / "Images").mkdir()
    for name in ("1,a", "2,b", "3,c"):
        Image.new("RGB", (64, 48)).save(tmp_path / "Images" / f"{name}.jpg")
    write(tmp_path, {"ID": "1,a", "gtboxes": [PERSON, HIDDEN, GROUP]}, {"ID": "2,b", "gtboxes": []})
    return tmp_path


def write(folder: Path, *lines: object) -> Path:
    path = folder / "annotation_val.odgt"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_reading(folder):
    """Whole bodies, past the border in the evaluation truth and cut in records; what is ignored is a crowd."""
    data = open_dataset(folder / "annotation_val.odgt")
    assert isinstance(data, CrowdHumanDataset) and len(data) == 2
    assert data.classes == ("person",) and data.category_ids == (1,) and data.object_counts.tolist() == [1, 0]
    record = data.record(0)
    assert record.id == "1,a" and record.size == (48, 64) and data.image(0).shape == (48, 64, 3)
    assert record.boxes.tolist() == [[0, 6, 20, 46], [30, 10, 42, 40], [44, 0, 64, 48]]
    assert record.crowd.tolist() == [False, True, True] and record.shapes == (None,) * 3
    truth = data.coco_truth()
    assert truth["annotations"][0]["bbox"] == [-4, 6, 24, 40]
    assert [a["iscrowd"] for a in truth["annotations"]] == [0, 1, 1]
    coarse = DataConfig(augment=Augment(short_sides=(48,), flip=0.0))
    sample = train_sample(data, 0, coarse, np.random.default_rng(0))
    assert sample.boxes.tolist() == [[0, 6, 20, 46]] and sample.ignored.shape == (2, 4)


def test_classes_of_a_model(folder):
    data = open_dataset(folder / "annotation_val.odgt", classes=("bicycle", "person"))
    assert data.record(0).labels.tolist() == [1, 1, 1] and data.category_ids[1] == 1
    with pytest.raises(InputError, match="'person' is not among the training set's"):
        open_dataset(folder / "annotation_val.odgt", classes=("cell",))


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["{"], r"annotation_val\.odgt: line 1: is not json"),
        (["", "[1]"], r"line 2: is no entry with ID, a text, and gtboxes, a list"),
        ([{"ID": 3, "gtboxes": []}], r"line 1: is no entry with ID"),
        ([{"ID": "1,a"}], r"line 1: is no entry with ID"),
        ([{"ID": "9,z", "gtboxes": [PERSON]}], r"line 1: there is no image 9,z\.jpg in .*Images, with its 1 boxes"),
        ([{"ID": "2,b", "gtboxes": []}] * 2, r"line 2: the ID '2,b' occurs twice"),
        (
            [{"ID": "1,a", "gtboxes": [PERSON, {"tag": "person"}]}],
            r"line 1: gtboxes\[1\] of 1,a: has no tag, .* or no fbox",
        ),
        ([{"ID": "1,a", "gtboxes": [PERSON | {"fbox": [0, 0, True, 4]}]}], r"gtboxes\[0\] of 1,a: has no tag"),
        ([{"ID": "1,a", "gtboxes": [PERSON | {"fbox": [0, 0, 0, 4]}]}], r"fbox \[0, 0, 0, 4\] has no width"),
        ([{"ID": "1,a", "gtboxes": [PERSON | {"fbox": [70, 0, 5, 4]}]}], r"lies outside the image \(64x48\)"),
    ],
)
def test_bad_lines_are_one_sentence_or_left_out(folder, lines, sentence):
    path = write(folder, *lines, {"ID": "3,c", "gtboxes": []})
    with pytest.raises(InputError, match=sentence):
        open_dataset(path)
    data = open_dataset(path, skip_bad=True)
    assert len(data.skipped) == 1 and len(data) >= 1


def test_a_folder_without_images_is_named(folder):
    (folder / "Images").rename(folder / "photos")
    with pytest.raises(InputError, match=r"there is no folder .*Images.* name it with images="):
        open_dataset(folder / "annotation_val.odgt")
    assert len(open_dataset(folder / "annotation_val.odgt", folder / "photos")) == 2
    with pytest.raises(InputError, match="none of its images can be used"):
        open_dataset(write(folder, ""), folder / "photos")


def test_check_and_a_data_file(folder, capsys):
    assert main(["check", str(folder / "annotation_val.odgt")]) == 0
    shown = capsys.readouterr().out
    assert "2 images, 1 objects" in shown and "ready for training" in shown
    (folder / "crowd.yaml").write_text("train: annotation_val.odgt\nval: crowds:3:1\n")
    values = load_data_yaml(folder / "crowd.yaml")
    assert values == {"train": str(folder / "annotation_val.odgt"), "val": "crowds:3:1"}


def test_synthetic_crowds():
    """The same for the same seed; boxes are whole bodies, masks what is seen; half of the people are overlapped by half."""
    data = open_dataset("crowds:30:2")
    assert isinstance(data, CrowdsDataset) and data.classes == ("person",)
    assert np.array_equal(data.image(3), CrowdsDataset(5, seed=2).image(3))
    assert not np.array_equal(data.image(3), CrowdsDataset(5, seed=3).image(3))
    crowded = people = larger = 0
    for index in range(len(data)):
        record = data.record(index)
        masks = np.stack([draw_shape(shape, record.size) for shape in record.shapes])
        assert masks.sum(0).max() <= 1 and 1 <= len(record) <= data.most_objects == 12
        for box, mask in zip(record.boxes, masks, strict=True):
            ys, xs = np.nonzero(mask)
            seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            assert (box[:2] <= seen[:2]).all() and (box[2:] >= seen[2:]).all()
            larger += not np.array_equal(box, seen)
        boxes = torch.from_numpy(record.boxes)
        overlaps = pairwise_iou(boxes, boxes).fill_diagonal_(0).amax(dim=1)
        crowded, people = crowded + int((overlaps > 0.5).sum()), people + len(boxes)
    assert crowded > 0.4 * people and larger > 0.05 * people
    with pytest.raises(InputError, match=r"crowds:0:0"):
        open_dataset("crowds:0")


def test_many_locations_of_a_crowd_are_ambiguous():
    """More than 3.3.5's 15.5 % of CrowdHuman lie in several people, however many boxes a cell predicts."""
    data = CrowdsDataset(20, seed=0)
    samples = []
    for index in range(20):
        record = data.record(index)
        samples.append((Targets(torch.from_numpy(record.boxes), torch.from_numpy(record.labels)), (160, 192)))
    found = [reach("", FCOS(prefer="nearest", per_cell=k), (8, 16, 32, 64, 128), samples) for k in (1, 2)]
    assert found[0].ambiguity == found[1].ambiguity and sum(found[0].ambiguity[1:]) > 0.155


def test_batches_of_crowds():
    batch = next(iter(test_batches(CrowdsDataset(2), DataConfig(test=TestSize(64, 96), workers=0), batch_size=2)))
    assert batch.images.shape[0] == 2
