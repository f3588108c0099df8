"""Exported files find what the checkpoint finds: every method, ONNX Runtime and OpenVINO, two sizes, two batch sizes, one file.

The files are made once, by `tiny_exports.py`, in a process of its own.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

import perpixel
from perpixel.cli.main import main
from perpixel.engine.export import check_exportable
from perpixel.engine.export_int8 import agreement_of, match
from perpixel.engine.exported import ExportedPredictor, load_exported
from perpixel.engine.instances import Instances
from perpixel.engine.sources import Photo
from perpixel.errors import InputError
from perpixel.serve import samples
from perpixel.serve.app import create_app
from tiny_exports import FCOS_TINY, MODELS

ROOT = Path(__file__).resolve().parents[1]
METHODS = tuple(MODELS)
SCORE = 0.05


def run_python(*arguments: str | Path, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=1200, env=os.environ | more
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Checkpoints and exported files of all methods; `int8.txt` is what the int8 export said."""
    folder = tmp_path_factory.mktemp("exports")
    (folder / "said.txt").write_text(run_python(ROOT / "tests" / "tiny_exports.py", folder))
    return folder


def photos(height: int, width: int, count: int) -> list[np.ndarray]:
    """Smooth random pictures: what a network finds in them does not hang on a pixel."""
    coarse = torch.rand(count, 3, 6, 8) * 255
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 255)
    return list(fine.permute(0, 2, 3, 1).byte().numpy())


def assert_same(found: Instances, wanted: Instances) -> None:
    """Boxes within 1e-3 px, masks of an IoU above 0.999; of a mask below 3000 px three pixels at the threshold may differ.

    Pixels are those of the network's input, in which the file speaks: a photo with a short side of 300 is three times its 96.
    """
    assert len(found) == len(wanted)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    scale = max(1.0, min(wanted.size) / 96)
    np.testing.assert_allclose(found.boxes / scale, wanted.boxes / scale, rtol=0, atol=1e-3)
    assert found.skeleton == wanted.skeleton and (found.keypoints is None) == (wanted.keypoints is None)
    if found.keypoints is not None and wanted.keypoints is not None:
        np.testing.assert_allclose(found.keypoints / scale, wanted.keypoints / scale, rtol=0, atol=1e-3)
    assert (found.runs is None) == (wanted.runs is None)
    for row in range(len(wanted) if wanted.runs is not None else 0):
        one, two = found.mask(row), wanted.mask(row)
        assert (one ^ two).sum() <= max(3, 0.001 * (one | two).sum())
    assert (found.segments is None) == (wanted.segments is None)
    if found.segments is not None and wanted.segments is not None:
        assert found.segment_names == wanted.segment_names
        assert (found.segments.map != wanted.segments.map).float().mean() <= 0.001


@pytest.mark.parametrize("ending", ["onnx", "xml"])
@pytest.mark.parametrize("method", METHODS)
def test_a_file_finds_what_the_checkpoint_finds(files, method, ending):
    """Sizes below and above the traced one, multiples of 32 and not (then the graph pads); photos alone and in pairs."""
    model, file = (
        perpixel.load(files / f"{method}.safetensors", "cpu"),
        perpixel.load(files / f"{method}.{ending}", "cpu"),
    )
    assert isinstance(file, ExportedPredictor) and file.class_names == model.class_names == ("disc", "ring", "cross")
    assert file.keypoint_names == model.keypoint_names == MODELS[method].keypoint_names()
    assert file.category_ids == model.category_ids == (3, 5, 8) and file.test_size == model.test_size
    objects = masked = posed = 0
    for height, width in ((96, 160), (301, 350)):
        file.test_size = model.test_size = type(model.test_size)(min(height, width), max(height, width))
        pictures = photos(height, width, 2)
        wanted = model.predict(pictures, score=SCORE)
        for batch_size in (1, 2):
            for one, two in zip(file.predict(pictures, score=SCORE, batch_size=batch_size), wanted, strict=True):
                assert_same(one, two)
        objects += sum(len(one) for one in wanted)
        masked += sum(one.masks.any() for one in wanted if one.runs is not None)
        posed += sum(len(one) for one in wanted if one.keypoints is not None)
    assert objects > 20 and (masked + posed > 0) == (method not in ("fcos", "retinanet"))


@pytest.mark.parametrize("ending", ["onnx", "xml"])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_found(files, method, ending):
    """No row at all goes through the mask heads."""
    found = load_exported(files / f"{method}.{ending}").predict(photos(96, 128, 1)[0], score=1.0)
    assert len(found) == 0 and found.boxes.shape == (0, 4)


def test_photos_of_different_sizes_in_one_batch(files):
    """They run size by size: each result is that of the photo alone."""
    file = load_exported(files / "condinst.onnx")
    pictures = [*photos(96, 160, 1), *photos(120, 96, 1), *photos(96, 160, 1)]
    together = file.predict(pictures, score=SCORE, batch_size=3)
    for picture, one in zip(pictures, together, strict=True):
        assert_same(one, file.predict(picture, score=SCORE))


def test_a_file_of_one_size(files):
    """Its inputs are 96 x 128. A photo of that size is seen as it is, another inside it, padded with what becomes zero."""
    model, file = perpixel.load(files / "fcos.safetensors", "cpu"), load_exported(files / "fixed.onnx")
    picture = photos(96, 128, 1)[0]
    assert_same(file.predict(picture, score=SCORE), model.predict(picture, score=SCORE))
    image, inside = file.prepare(photos(200, 200, 1)[0])
    assert inside == (96, 96) and image.shape == (3, 96, 128)
    assert torch.equal(image[:, :, 96:], torch.tensor(file.file.facts.padding)[:, None, None].expand(3, 96, 32))
    with pytest.raises(Exception, match="Got: 64 Expected: 96"):
        file.file.run(np.zeros((1, 3, 64, 128), np.float32), 0.5)


def test_predict_writes_the_same_results(files, tmp_path):
    Image.fromarray(photos(96, 160, 1)[0]).save(tmp_path / "photo.png")
    results = []
    for name in ("condinst.safetensors", "condinst.onnx"):
        out = tmp_path / name
        arguments = [
            "predict",
            str(files / name),
            str(tmp_path / "photo.png"),
            "--out",
            str(out),
            "--score",
            str(SCORE),
        ]
        assert main([*arguments, "--device", "cpu"]) == 0
        assert (out / "photo.png").is_file() and (out / "gallery.html").is_file()
        results.append(json.loads((out / "results.json").read_text()))
    one, two = results
    assert len(one) == len(two) > 3 and {"bbox", "score", "segmentation"} <= one[0].keys()
    assert [row["category_id"] for row in one] == [row["category_id"] for row in two]
    assert {row["category_id"] for row in one} <= {3, 5, 8}


@pytest.mark.parametrize("ending", ["onnx", "xml"])
@pytest.mark.parametrize("method", ["condinst", "panoptic"])
def test_the_server_answers_from_a_file(files, method, ending):
    """What `perpixel serve` loads and answers is what `perpixel predict` finds with the file: results, and segments' pixels."""
    file = perpixel.load(files / f"{method}.{ending}", "cpu")
    content = samples.sample(0)
    wanted = file.predict(Image.open(BytesIO(content)), score=SCORE)
    assert len(wanted) > 0 and wanted.runs is not None
    api = TestClient(create_app({method: file}), base_url="http://127.0.0.1:8000")

    def answer(form: str):
        sent = {"content": content, "headers": {"Content-Type": "image/png"}}
        return api.post("/api/predict", params={"score": SCORE, "format": form, "masks": "runs"}, **sent).json()

    expected = [result | {"file_name": "photo"} for result in wanted.to_coco(1, (3, 5, 8))]
    assert answer("coco") == json.loads(json.dumps(expected))
    (photo,) = answer("json")["photos"]
    assert [one["class_name"] for one in photo["instances"]] == wanted.names
    assert [one["runs"] for one in photo["instances"]] == [dict(run) for run in wanted.runs]
    if method == "panoptic":
        assert [one["class_name"] for one in photo["segments"]] == wanted.segment_names
        owner = wanted.segments.map.numpy()
        assert [one["area"] for one in photo["segments"]] == [
            (owner == row).sum() for row in range(len(wanted.segments))
        ]


def test_the_example_without_torch(files, tmp_path):
    """It runs where PyTorch and perpixel cannot be imported, and prints the boxes that `perpixel predict` finds."""
    blocked = tmp_path / "blocked"
    for name in ("torch", "perpixel"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('not here')")
    picture = photos(96, 128, 1)[0]  # already of the size that the network sees: no resize that could differ
    Image.fromarray(picture).save(tmp_path / "photo.png")
    script = ROOT / "examples" / "onnx_without_torch.py"
    arguments = (script, files / "condinst.onnx", tmp_path / "photo.png", tmp_path / "found.png")
    lines = run_python(*arguments, PYTHONPATH=str(blocked)).splitlines()
    wanted = load_exported(files / "condinst.onnx").predict(picture, score=0.5)
    assert len(lines) == len(wanted) > 0
    for line, name, score, box in zip(lines, wanted.names, wanted.scores, wanted.boxes, strict=True):
        assert line.split()[0] == name
        np.testing.assert_allclose([float(word) for word in line.split()[1:]], [score, *box], atol=0.006)
    drawn = np.asarray(Image.open(tmp_path / "found.png").convert("RGB"))
    assert drawn.shape == picture.shape and (drawn != picture).any()
    assert len(script.read_text().splitlines()) <= 40


def test_int8(files):
    """The file is smaller, runs, and the export said how well it agrees."""
    assert (files / "int8.onnx").stat().st_size < 0.7 * (files / "fcos.onnx").stat().st_size
    said = (files / "said.txt").read_text()
    assert "int8 finds " in said and " on 3 photos (score 0.3 or more)" in said
    paths = sorted((files / "photos" / "images").iterdir())
    before, after = load_exported(files / "fcos.onnx"), load_exported(files / "int8.onnx")
    agreement = agreement_of(before, after, [Photo(str(path), path) for path in paths])
    assert str(agreement) in said
    assert agreement.found > 0.5 * agreement.objects > 0 and agreement.box_iou > 0.8
    itself = agreement_of(before, before, [Photo(str(path), path) for path in paths])
    assert (itself.found, itself.others, itself.score) == (itself.objects, 0, 0) and itself.box_iou == pytest.approx(1)


def test_match_by_hand():
    """The best takes the nearer of two boxes of its class, the second the other; the third's class differs; the last is alone."""

    def instances(boxes, labels):
        scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
        return Instances(np.array(boxes, np.float32), scores, np.array(labels), ("a", "b"), (100, 100))

    wanted = instances([[0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60], [80, 80, 90, 90]], [0, 0, 1, 0])
    found = instances([[0, 0, 10, 8], [0, 0, 10, 10], [50, 50, 60, 60]], [0, 0, 0])
    assert match(wanted, found) == [(0, 1, 1.0), (1, 0, 1.0)]
    assert match(wanted, found[:0]) == [] and match(wanted[:0], found) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fcos", "-o", "model.torchscript"], "ends in .onnx, .xml"),
        (["fcos", "-o", "model.onnx", "--size", "16", "640"], "at least 32 pixels"),
        (["fcos", "-o", "model.onnx", "--int8", "empty"], "empty"),
        (["fcos", "-o", "model.pt2", "--int8", "photos"], ".onnx and .xml"),
        (["condinst", "-o", "model.onnx", "model.duplicates.kind=MaskNMS"], "model.duplicates.kind=BoxNMS"),
    ],
)
def test_bad_input_is_one_sentence(files, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    shutil.copytree(files / "photos" / "images", tmp_path / "photos")
    source = str(files / f"{arguments[0]}.safetensors")
    assert main(["export", source, *arguments[1:]]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("perpixel: ") and message in shown and shown.count("\n") == 1
    assert not list(tmp_path.glob("model.*"))


def test_openvino_reads_no_deformable_convolutions():
    config = replace(MODELS["fcos"], head=replace(FCOS_TINY, deformable=True))
    with pytest.raises(InputError, match=r"export this model to \.onnx or \.pt2"):
        check_exportable(config.build(3), Path("model.xml"))
    check_exportable(config.build(3), Path("model.onnx"))


@pytest.mark.parametrize(
    ("module", "ending", "extra"), [("onnxruntime", "onnx", "onnx"), ("openvino", "xml", "openvino")]
)
def test_a_missing_runtime_names_its_extra(files, module, ending, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"need {module}: pip install 'perpixel\[{extra}\]'"):
        load_exported(files / f"fcos.{ending}")


def test_foreign_and_broken_files(files, tmp_path):
    (tmp_path / "broken.onnx").write_bytes((files / "fcos.onnx").read_bytes()[:5000])
    shutil.copy(files / "fcos.xml", tmp_path / "alone.xml")
    for name, message in (("none.onnx", "does not exist"), ("broken.onnx", "corrupt"), ("alone.xml", "bin")):
        with pytest.raises(InputError, match=message):
            load_exported(tmp_path / name)
    import onnx

    model = onnx.load(files / "fcos.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match="perpixel export"):
        load_exported(tmp_path / "foreign.onnx")


def test_the_free_sizes_have_names(files):
    session = load_exported(files / "condinst.onnx").file.session
    assert [i.shape for i in session.get_inputs()] == [["batch", 3, "height", "width"], [1]]
    shapes = {output.name: output.shape for output in session.get_outputs()}
    assert shapes["boxes"] == ["detections", 4] and shapes["masks"] == ["detections", "height", "width"]
