"""The commands as a user types them, on synthetic shapes and a network of a few layers: exit status, files, messages."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torchvision.models.detection import fcos_resnet50_fpn

import perpixel
from perpixel.cli.main import COMMANDS, main
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.checkpoint import load_checkpoint

TINY = [
    "model.backbone.name=test_resnet",
    "model.head.class_convs=1",
    "model.head.box_convs=1",
    "data.val=shapes:4:1",
    "data.workers=0",
    "training.steps=3",
    "training.warmup_steps=1",
    "training.batch_size=2",
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A run of three steps, made by `perpixel train`."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "fcos_shapes", "data.train=shapes:8:0", *TINY, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    ShapesDataset(2, seed=5).write_coco(folder)
    return folder


def test_every_command_has_help(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
        assert command in capsys.readouterr().out


def test_list_and_show(capsys):
    assert main(["list", "retinanet"]) == 0
    shown = capsys.readouterr().out
    assert "retinanet_mobilenetv2" in shown and "fcos_mobilenetv2" not in shown
    assert main(["show", "fcos_r50_1x", "model.head.radius=2.0"]) == 0
    shown = capsys.readouterr().out
    assert "Paper: 38.9 AP" in shown and "radius: 2.0" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "fcos_r50_1"], "did you mean fcos_r50_1x"),
        (["show", "fcos_r50_1x", "model.head.radus=2"], "did you mean radius"),
        (["show", "fcos_r50_1x", "model.head.radius=wide"], "radius"),
        (["train", "fcos_mobilenetv2"], "data.train is not set"),
        (["train", "fcos_mobilenetv2", "data=nowhere.yaml"], "nowhere.yaml"),
        (["predict", "nowhere.safetensors", "photo.jpg"], "nowhere.safetensors"),
        (["evaluate", "nowhere.safetensors"], "nowhere.safetensors"),
        (["check", "nowhere.json"], "nowhere.json"),
        (["analyze", "assignment", "fcos_mobilenetv2"], "data.train is not set"),
        (["convert", "nowhere.pth", "out.safetensors"], "nowhere.pth"),
        (["train", "fcos_shapes", "--device", "toaster"], "toaster"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("perpixel: ") and message in shown.err
    assert "Traceback" not in shown.err and len(shown.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_unknown_options_are_refused(capsys):
    with pytest.raises(SystemExit) as end:
        main(["show", "fcos_r50_1x", "--radius", "2"])
    assert end.value.code == 2


def test_train_writes_a_run(run_folder):
    assert {p.name for p in run_folder.iterdir()} >= {
        "recipe.json",
        "log.jsonl",
        "last.safetensors",
        "best.safetensors",
    }
    steps = [
        row["step"] for row in map(json.loads, (run_folder / "log.jsonl").read_text().splitlines()) if "step" in row
    ]
    assert steps[-1] == 3


def test_settings_may_follow_options(tmp_path):
    out = tmp_path / "run"
    assert main(["train", "fcos_shapes", "--out", str(out), "data.train=shapes:4:0", *TINY, "training.steps=2"]) == 0
    assert json.loads((out / "recipe.json").read_text())["recipe"]["training"]["steps"] == 2


def test_skip_bad_goes_on_and_lists(photos, tmp_path, capsys):
    """One of two pictures is broken: training and evaluation go on with the other and name the broken one."""
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    sorted((data / "images").iterdir())[0].write_bytes(b"not a picture")
    sources = [f"data.train={data}/instances.json", f"data.val={data}/instances.json"]
    tiny = [setting for setting in TINY if not setting.startswith("data.val")]
    out = tmp_path / "run"
    command = ["train", "fcos_shapes", *sources, *tiny, "data.group_by_shape=false"]
    assert main([*command, "--out", str(tmp_path / "strict")]) == 2
    assert "000000.png" in capsys.readouterr().err
    assert main([*command, "--skip-bad", "--out", str(out)]) == 0
    assert "000000.png" in (out / "skipped.txt").read_text()
    assert "skipped.txt" in capsys.readouterr().out
    assert main(["evaluate", str(out / "last.safetensors"), "--skip-bad"]) == 0
    assert "000000.png" in capsys.readouterr().out


def test_resume_of_a_finished_run_changes_nothing(run_folder):
    before = load_checkpoint(run_folder / "last.safetensors")
    arguments = ["train", "fcos_shapes", "data.train=shapes:8:0", *TINY, "--out", str(run_folder)]
    assert main(arguments) == 2  # a run is not overwritten
    assert main([*arguments, "--resume"]) == 0
    after = load_checkpoint(run_folder / "last.safetensors")
    assert after.step == before.step == 3 and after.metrics == before.metrics
    assert all(torch.equal(after.weights[name], value) for name, value in before.weights.items())


def test_predict_from_the_command_line(run_folder, photos, tmp_path, capsys):
    out = tmp_path / "out"
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    pictures = sorted(str(p) for p in (photos / "images").iterdir())
    arguments = ["predict", str(run_folder / "last.safetensors"), *pictures, "--out", str(out), "--score", "0.0"]
    assert main(arguments) == 0
    results = json.loads((out / "results.json").read_text())
    assert results and {"image_id", "category_id", "bbox", "score", "file_name"} <= set(results[0])
    assert len(list(out.glob("*.png"))) == 2 and (out / "gallery.html").stat().st_size > 10_000
    assert main([*arguments[:2], str(broken), *arguments[2:]]) == 1
    assert "broken.jpg" in capsys.readouterr().out


def test_predict_from_python(run_folder, photos):
    model = perpixel.load(run_folder / "last.safetensors")
    picture = sorted((photos / "images").iterdir())[0]
    found = model.predict(picture, score=0.0)
    assert isinstance(found, perpixel.Instances) and len(found) > 0
    assert found.plot().size[0] > 0
    assert len(perpixel.predict(run_folder / "last.safetensors", picture, score=0.0)) == len(found)
    assert "fcos_r50_1x" in perpixel.recipes.all_recipes()
    assert "fcos_r50_1x" in perpixel.recipes.all_recipes()  # the second use too


def test_evaluate_and_its_files(run_folder, tmp_path, capsys):
    out = tmp_path / "evaluation"
    assert main(["evaluate", str(run_folder / "last.safetensors"), "--out", str(out), "--examples", "2"]) == 0
    assert "AP50" in capsys.readouterr().out
    numbers = json.loads((out / "metrics.json").read_text())
    assert "bbox/AP" in numbers["summary"] and (out / "report.html").exists() and (out / "results.json").exists()
    assert main(["evaluate", str(run_folder / "last.safetensors"), "--augmented", "96", "128"]) == 0
    # Settings of the model count too: nothing scores above 1, so nothing is found.
    nothing = "model.selection.threshold=1.0"
    assert main(["evaluate", str(run_folder / "last.safetensors"), nothing, "--out", str(out)]) == 0
    assert json.loads((out / "results.json").read_text()) == []


def test_check_and_analyze(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.yaml").write_text(f"train: {photos}/instances.json\nval: {photos}/instances.json\n")
    assert main(["check", "data.yaml"]) == 0
    assert "ready for training" in capsys.readouterr().out
    assert {p.name for p in tmp_path.glob("*.png")} == {"check_train.png", "check_val.png"}
    for recipe in ("fcos_shapes", "retinanet_mobilenetv2"):
        assert main(["analyze", "assignment", recipe, "data=data.yaml", "data.test.short_side=160"]) == 0
        assert "this recipe" in capsys.readouterr().out


def test_convert_and_predict(photos, tmp_path, capsys):
    weights = tmp_path / "theirs.pth"
    torch.save(fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=80).state_dict(), weights)
    out = tmp_path / "ours.safetensors"
    assert main(["convert", str(weights), str(out)]) == 0
    assert "torchvision, 80 classes" in capsys.readouterr().out
    model = perpixel.load(out)
    assert model.class_names[0] == "person" and model.class_names[-1] == "toothbrush"
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    assert main(["convert", str(weights), str(out), "--classes", str(tmp_path / "names.txt")]) == 2
    assert main(["convert", str(weights), str(out), "--classes", str(tmp_path / "nowhere.txt")]) == 2
