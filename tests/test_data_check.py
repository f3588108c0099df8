import json

import pytest
from rich.console import Console

from perpixel.config import ConfigError, from_dict, to_dict
from perpixel.data.check import check_dataset, print_report
from perpixel.data.settings import Augment, Color, DataConfig, load_data_yaml
from perpixel.data.shapes import ShapesDataset
from perpixel.errors import InputError


@pytest.fixture
def damaged(tmp_path):
    """Five images; the first file is broken, the second object of the last image has an empty mask."""
    path = ShapesDataset(5, (64, 80), seed=9).write_coco(tmp_path)
    (tmp_path / "images/000000.png").write_bytes(b"broken")
    truth = json.loads(path.read_text())
    last = [entry for entry in truth["annotations"] if entry["image_id"] == 5]
    last[1]["segmentation"] = [[100, 100, 120, 100, 120, 120]]
    path.write_text(json.dumps(truth))
    return path, truth


def test_a_check_counts_what_is_left_and_names_the_rest(damaged, tmp_path):
    path, truth = damaged
    first = sum(entry["image_id"] == 1 for entry in truth["annotations"])
    report = check_dataset(path, sheet=tmp_path / "sheet.png")
    assert not report.good and len(report.problems) == 2
    assert "000000.png: cannot be read as an image" in report.problems[0]
    assert report.problems[0].endswith(f"with its {first} objects")
    assert "of image 5: segmentation: the polygon covers no pixel" in report.problems[1]
    assert report.images == 4 and report.objects == len(truth["annotations"]) - first - 1
    assert sum(report.classes.values()) == sum(report.sizes.values()) == report.objects == report.masks
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    console = Console(width=200, record=True, quiet=True)
    print_report(report, console)


def test_a_good_set_is_ready(capsys):
    report = check_dataset("shapes:6:1")
    assert report.good and report.images == 6 and not report.empty
    print_report(report, Console(width=200))
    shown = capsys.readouterr().out
    assert "ready for training" in shown and "disc" in shown


def test_box_sizes_by_hand(tmp_path):
    """31x33 = 1023 is small (below 1024), 32x32 medium, 96x96 large; a crowd counts apart; image 2 is empty."""
    from PIL import Image as Pillow

    images = [{"id": i, "file_name": f"{i}.png", "height": 200, "width": 200} for i in (1, 2)]
    boxes = [[0, 0, 31, 33], [0, 0, 32, 32], [0, 0, 96, 96], [0, 0, 99, 99]]
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": int(n == 3)} for n, box in enumerate(boxes)
    ]
    for i in (1, 2):
        Pillow.new("RGB", (200, 200)).save(tmp_path / f"{i}.png")
    path = tmp_path / "t.json"
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    report = check_dataset(path)
    assert report.sizes == {"small": 1, "medium": 1, "large": 1}
    assert (report.objects, report.crowds, report.empty, report.masks) == (3, 1, 1, 0)
    assert report.good and report.remarks == ("1 classes have no object: b",)


def test_a_data_file_is_relative_to_itself(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("train: a/train.json\nval: shapes:20:1\nimages: /photos\naugment: {short_sides: [128]}\n")
    values = load_data_yaml(path)
    assert values["train"] == str(tmp_path / "a/train.json")
    assert values["val"] == "shapes:20:1" and values["images"] == "/photos"
    assert from_dict(DataConfig, values).augment.short_sides == (128,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: a.json", r"my\.yaml: trian is not a setting of DataConfig; did you mean train\?"),
        ("augment: {flip: 2}", "flip=2.0 is not between 0 and 1"),
        ("- a", "holds no settings by name"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_wrong_data_file_is_named(tmp_path, text, message):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_data_yaml(path)
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        load_data_yaml(tmp_path / "none.yaml")


def test_a_yolo_file_serves_as_data_file(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text("train: images/train\nval: images/val\nnames: [a]\n")
    assert load_data_yaml(path) == {"train": f"{path}:train", "val": f"{path}:val"}


def test_settings_survive_the_round_trip_and_refuse_nonsense():
    data = DataConfig(augment=Augment(crop_size=512, color=Color(hue=0.1)), masks=True)
    assert from_dict(DataConfig, to_dict(data)) == data
    for values in ({"crop": 0.0}, {"short_sides": ()}, {"scale_jitter": (2.0, 1.0)}, {"crop_size": 0}):
        with pytest.raises(ConfigError):
            Augment(**values)
    with pytest.raises(ConfigError):
        DataConfig(workers=-1)
