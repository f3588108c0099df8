"""A few hundred seeded cases of the fuzzer, and the shapes that break readers, by name."""

import json
import struct
import zlib
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from bad_annotations import coco_document, make_images
from bad_drawings import cvat_text
from bad_input import TARGETS, run_case
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import damage
from PIL import Image

from engine_fakes import BrightSquare
from perpixel.config import ConfigError, from_dict, load_yaml, override, to_dict
from perpixel.data.document import Document
from perpixel.data.loader import train_batches
from perpixel.data.open import open_dataset
from perpixel.data.settings import Augment, DataConfig
from perpixel.data.settings import TestSize as Size
from perpixel.engine.checkpoint import build_model, load_checkpoint, save_checkpoint
from perpixel.engine.convert_data import convert
from perpixel.engine.label_file import BoxFile
from perpixel.engine.predict import Predictor
from perpixel.engine.state import RunState
from perpixel.errors import InputError
from tiny_training import CLASSES, TinyTrainingConfig, tiny_recipe


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_few_cases_of_each_kind(name, tmp_path):
    """The long mode is `python tests/reliability/bad_input.py --cases 1000`."""
    (tmp_path / "base").mkdir()
    (tmp_path / "case").mkdir()
    target = TARGETS[name](tmp_path / "base")
    for number in range(12):
        became, sentence = run_case(name, target, 7, number, tmp_path / "case")
        assert became != "fault", (name, number, sentence)


def test_damage_is_a_function_of_its_seed():
    document = coco_document()
    assert repr(damage(document, Random("a"))) == repr(damage(document, Random("a")))
    assert document == coco_document()
    assert len({repr(damage(document, Random(n))) for n in range(30)}) > 20


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    path=st.sampled_from(("model", "data.augment", "training.steps", "data.test.short_side", "model.kind")),
    value=anything,
)
def test_any_value_of_a_setting_fits_or_is_refused(path, value):
    recipe = tiny_recipe()
    try:
        changed = override(recipe, [f"{path}={json.dumps(value)}"])
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert from_dict(type(recipe), to_dict(changed)) == changed


@pytest.fixture
def folder(tmp_path) -> Path:
    make_images(tmp_path / "images")
    return tmp_path


def opened(folder: Path, document: dict, skip_bad: bool = False):
    (folder / "a.json").write_text(json.dumps(document))
    return open_dataset(folder / "a.json", folder / "images", skip_bad=skip_bad)


BOXES = {
    "outside": ([30, 2, 5, 5], "lies outside"),
    "zero area": ([3, 3, 0, 5], "has no width"),
    "negative": ([9, 9, 4, -5], "has no height"),
    "not a number": ([float("nan"), 1, 4, 4], "not a number"),
    "infinite": ([1, 1, float("inf"), 4], "not a number"),
    "too large for any": ([1, 1, 10**400, 4], "too large"),
    "text": (["1", 1, 4, 4], "in numbers"),
}


@pytest.mark.parametrize("name", BOXES)
def test_boxes(folder, name):
    """One sentence, or left out and named: the other four annotations stay."""
    box, sentence = BOXES[name]
    document = coco_document()
    document["annotations"][0]["bbox"] = box
    with pytest.raises(InputError, match=sentence):
        opened(folder, document)
    dataset = opened(folder, document, skip_bad=True)
    assert len(dataset.skipped) == 1 and sum(len(dataset.record(i)) for i in range(3)) == 4


MASKS = {
    "of the wrong size": ({"size": [10, 10], "counts": [100]}, "is not the image's"),
    "runs of another sum": ({"size": [17, 24], "counts": [5, 5]}, "the runs cover 10 pixels"),
    "negative runs": ({"size": [17, 24], "counts": [-1, 409]}, "are not runs"),
    "invalid code": ({"size": [17, 24], "counts": "1" * 100}, "run-length code"),
    "two points": ([[1, 1, 5, 5]], "3 or more points"),
    "huge coordinates": ([[0, 0, 10**400, 0, 5, 5]], "not a list of numbers"),
    "a polygon of nothing": ([[]], "3 or more points"),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(folder, name):
    """Refused when read, or when drawn, which is when codes are unpacked."""
    shape, sentence = MASKS[name]
    document = coco_document()
    document["annotations"][0]["segmentation"] = shape
    data = DataConfig(workers=0, masks="some", augment=Augment(short_sides=(16,), max_side=64))
    with pytest.raises(InputError, match=sentence):
        dataset = opened(folder, document)
        for _, batch in zip(range(6), train_batches(dataset, data, batch_size=2, seed=0), strict=False):
            assert batch.targets


def test_an_empty_segmentation_is_a_box_alone(folder):
    document = coco_document()
    document["annotations"][0]["segmentation"] = []
    assert opened(folder, document).record(0).shapes[0] is None


def test_duplicate_ids_and_unknown_classes(folder):
    document = coco_document()
    document["annotations"][1]["id"] = 10
    document["annotations"][2]["category_id"] = 99
    document["images"].append(document["images"][0])
    dataset = opened(folder, document, skip_bad=True)
    assert len(dataset) == 3 and sum(len(dataset.record(i)) for i in range(3)) == 3
    assert len(dataset.skipped) == 3
    assert all(
        any(word in note for note in dataset.skipped)
        for word in ("id occurs twice", "names no category", "id 1 occurs")
    )


@pytest.mark.parametrize("count", [0, 5000])
def test_no_object_and_5000_objects(folder, count):
    document = coco_document()
    one = {"image_id": 1, "category_id": 3, "bbox": [1, 1, 8, 7], "segmentation": [[1, 1, 9, 1, 9, 8]], "area": 20}
    document["annotations"] = [one | {"id": n} for n in range(count)]
    dataset = opened(folder, document)
    assert len(dataset.record(0)) == count
    data = DataConfig(workers=0, masks=bool(count), augment=Augment(short_sides=(17,), max_side=64, flip=0.0))
    for _, batch in zip(range(2), train_batches(dataset, data, batch_size=1, seed=0), strict=False):
        assert len(batch.truth()[0]) in (0, count)


def test_sizes_that_no_memory_holds_are_refused_when_read(folder):
    """hotcoco, which draws masks, ends the whole process where memory does: 10^10 pixels never come to it."""
    document = coco_document()
    document["images"][0] |= {"width": 100_000, "height": 100_000}
    with pytest.raises(InputError, match="million pixels"):
        opened(folder, document)
    assert len(opened(folder, document, skip_bad=True)) == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (2, 3), (17, 4001)])
def test_photos_of_odd_shapes_are_predicted(size):
    predictor = Predictor(BrightSquare(masks=True), ["square"], Size(64, 96), "cpu")
    found = predictor.predict(np.full((*size, 3), 255, np.uint8))
    assert found.size == size and len(found) == 1  # pyright: ignore
    box = found.boxes[0].tolist()  # pyright: ignore
    assert box == pytest.approx([0, 0, size[1], size[0]], rel=0.02, abs=0.6)


def test_a_photo_of_400_million_pixels_is_refused(tmp_path):
    """20000x20000: a header of 13 bytes is enough to ask for 1.2 GB."""
    Image.new("RGB", (1, 1)).save(tmp_path / "large.png")
    content = bytearray((tmp_path / "large.png").read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "large.png").write_bytes(content)
    predictor = Predictor(BrightSquare(), ["square"], Size(64, 96), "cpu")
    with pytest.raises(InputError, match=r"large\.png.*178956970 pixels"):
        predictor.predict(tmp_path / "large.png")


def test_yaml_bombs_dates_and_depth():
    bomb = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join('*' + chr(97 + n) for _ in range(9))}]\n" for n in range(9)
    )
    import yaml

    tags = ("!!int x", "!!timestamp x", "!!python/object:os.system x")
    for text in (bomb, "a: 2001-99-99", "[" * 5000, "a: " + "9" * 5000, *tags):
        with pytest.raises(yaml.YAMLError):
            load_yaml(text)
    assert load_yaml("a: 5e-3\nb: 2001-02-03")["a"] == 0.005


def test_kinds_and_names_of_settings_that_are_no_text():
    kinds = ("model.kind=[1]", "model.kind={a: 1}", "model={kind: [1]}")
    for setting in (*kinds, "mod\nel=3", "training.learning_rate=" + "9" * 400):
        with pytest.raises(ConfigError) as caught:
            override(tiny_recipe(), [setting])
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_a_model_that_cannot_be_built_says_so(tmp_path):
    recipe = tiny_recipe(TinyTrainingConfig(width=-2))
    save_checkpoint(tmp_path / "a.safetensors", tiny_recipe().model.build(3), recipe, CLASSES)
    with pytest.raises(InputError, match=r"a\.safetensors: a model with these settings cannot be built \(.*negative"):
        build_model(load_checkpoint(tmp_path / "a.safetensors"))


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    model = tiny_recipe().model.build(3)
    with torch.no_grad():
        next(model.parameters()).view(-1)[3] = float("nan")
    save_checkpoint(tmp_path / "a.safetensors", model, tiny_recipe(), CLASSES)
    with pytest.raises(InputError, match=r"a\.safetensors: first\.weight holds values that are not finite"):
        build_model(load_checkpoint(tmp_path / "a.safetensors"))


def test_a_run_that_counts_below_zero():
    with pytest.raises(ConfigError, match="step=-1 is below 0"):
        from_dict(RunState, {"step": -1})


def test_half_a_letter_survives_labelling(tmp_path):
    """A lone surrogate, which json may hold and UTF-8 cannot, ended `label` after all its work."""
    make_images(tmp_path / "images")
    document = coco_document()
    document["info"]["note"] = "\ud800"
    (tmp_path / "a.json").write_text(json.dumps(document))
    BoxFile.read(tmp_path / "a.json", tmp_path / "images").write(tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text()) == document


@pytest.mark.parametrize("form", ["coco", "labelme", "cvat"])
def test_half_a_letter_survives_conversion(tmp_path, form):
    """In a field of an annotation that this library does not read; in COCO and LabelMe it ended in a traceback."""
    make_images(tmp_path / "images")
    document = coco_document()
    document["annotations"][0]["note"] = "\ud800"
    (tmp_path / "a.json").write_text(json.dumps(document))
    if form != "coco":  # which takes codes as they are
        with pytest.raises(InputError, match=r"a\.json: annotation 12 of image 1: segmentation: .* does not fit"):
            convert(tmp_path / "a.json", tmp_path / "out", form, tmp_path / "images", skip_bad=True, progress=False)
    document["annotations"][2]["segmentation"]["counts"] = "h24=000]8"
    (tmp_path / "a.json").write_text(json.dumps(document))
    convert(tmp_path / "a.json", tmp_path / "out", form, tmp_path / "images", skip_bad=True, progress=False)
    back = Document.read({"coco": tmp_path / "out/annotations.json"}.get(form, tmp_path / "out"))
    assert [entry["note"] for entry in back.annotations if "note" in entry] == ["\ud800"]


@pytest.mark.parametrize(
    ("old", "new"), [('name="two.png"', 'name="one.png"'), ('name="two.png"', 'name=""'), ('width="24"', 'width="x"')]
)
def test_shapes_of_a_bad_image_of_cvat_are_counted(tmp_path, old, new):
    make_images(tmp_path / "images")
    (tmp_path / "a.xml").write_text(cvat_text().replace(old, new, 1))
    left = open_dataset(tmp_path / "a.xml", tmp_path / "images", skip_bad=True)
    assert len(left) == 2 and left.skipped[0].endswith(", with its 5 shapes")
