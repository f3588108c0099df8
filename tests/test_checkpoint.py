"""Checkpoint files: round trip, damage, tied weights, fine-tuning."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from perpixel import __version__
from perpixel.config import to_dict
from perpixel.engine import files
from perpixel.engine.checkpoint import build_model, initialize_from, load_checkpoint, misfits, save_checkpoint
from perpixel.engine.files import load_tensors, save_tensors
from perpixel.engine.recipe import Recipe, load_model_configs, recipe_from_json, recipe_to_json
from perpixel.engine.state import load_state
from perpixel.engine.trainee import Trainee
from perpixel.errors import InputError
from perpixel.models.heads import Losses, Model, ModelConfig
from perpixel.structures import Batch, Detections
from tiny_training import CLASSES, TinyTrainingConfig, tiny_recipe


@dataclass(frozen=True)
class TiedConfig(ModelConfig):
    """A model that uses one weight twice."""

    def build(self, classes: int, stuff: int = 0) -> "Tied":
        return Tied(classes)


class Tied(Model):
    def __init__(self, classes: int):
        super().__init__()
        self.first = nn.Linear(classes, classes)
        self.second = nn.Linear(classes, classes)
        self.second.weight = self.first.weight

    def loss(self, batch: Batch) -> Losses:
        return {}

    def predict(self, batch: Batch) -> list[Detections]:
        return []


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    recipe = tiny_recipe()
    path = tmp_path / "model.safetensors"
    save_checkpoint(
        path, recipe.model.build(3), recipe, CLASSES, category_ids=(3, 5, 9), step=7, metrics={"bbox/AP": 0.25}
    )
    return path


def test_round_trip(saved: Path):
    checkpoint = load_checkpoint(str(saved))
    assert checkpoint.recipe == tiny_recipe()
    assert (checkpoint.class_names, checkpoint.category_ids) == (CLASSES, (3, 5, 9))
    assert (checkpoint.step, checkpoint.metrics, checkpoint.version) == (7, {"bbox/AP": 0.25}, __version__)
    model = build_model(checkpoint)
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, checkpoint.weights[name])


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path):
    model = Tied(64)
    path = tmp_path / "tied.safetensors"
    save_checkpoint(path, model, Recipe("tied", TiedConfig()), [str(i) for i in range(64)])
    one_weight = 64 * 64 * 4
    assert one_weight < path.stat().st_size < 2 * one_weight
    loaded = build_model(load_checkpoint(path))
    assert loaded.second.weight is loaded.first.weight
    assert torch.equal(loaded.second.weight, model.first.weight)


def test_views_of_one_storage_and_odd_layouts_survive(tmp_path: Path):
    """Halves of one tensor, a transposed one, a scalar, an empty one and a channels-last one come back with their values."""
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "upper": whole[:2],
        "lower": whole[2:],
        "transposed": whole.T,
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.zeros(0, 4),
        "again": torch.zeros(0, 4),
        "last": torch.arange(16.0).reshape(1, 2, 2, 4).to(memory_format=torch.channels_last),
    }
    save_tensors(tmp_path / "a.safetensors", tensors, {})
    loaded, _ = load_tensors(tmp_path / "a.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype


@pytest.mark.parametrize("keep", [0, 4, 300, -1])
def test_truncated_file_is_named(saved: Path, keep: int):
    content = saved.read_bytes()
    saved.write_bytes(content[:keep])
    with pytest.raises(InputError, match=r"model\.safetensors.*truncated, corrupt.*perpixel convert"):
        load_checkpoint(saved)


def test_foreign_files_hint_at_convert(tmp_path: Path):
    torch.save({"model": {"a": torch.zeros(2)}}, tmp_path / "fcos.pth")
    with pytest.raises(InputError, match=r"fcos\.pth.*perpixel convert"):
        load_checkpoint(tmp_path / "fcos.pth")
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match=r"foreign\.safetensors holds weights but no recipe.*perpixel convert"):
        load_checkpoint(tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match=r"nothing\.safetensors does not exist"):
        load_checkpoint(tmp_path / "nothing.safetensors")
    with pytest.raises(InputError, match="is a folder"):
        load_checkpoint(tmp_path)


def test_metadata_that_is_not_ours_is_named(tmp_path: Path):
    path = tmp_path / "odd.safetensors"
    save_tensors(path, {"a": torch.zeros(2)}, {"version": "0"})
    with pytest.raises(InputError, match="has no recipe in its metadata"):
        load_checkpoint(path)
    model = nn.Linear(2, 2)
    trainee = Trainee(model, torch.optim.SGD(model.parameters()))
    with pytest.raises(InputError, match="not the state of a run"):
        load_state(path, trainee)
    save_file({"a": torch.zeros(2)}, path, {"perpixel": "{"})
    with pytest.raises(InputError, match="not valid JSON"):
        load_checkpoint(path)


def _damaged(saved: Path, change: str) -> dict[str, Tensor]:
    weights = dict(load_checkpoint(saved).weights)
    if change == "missing":
        del weights["first.weight"]
    elif change == "unknown":
        weights["third.weight"] = torch.zeros(1)
    else:
        weights["first.bias"] = torch.zeros(9)
    return weights


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("missing", "first.weight is missing: the recipe's model needs it"),
        ("unknown", "third.weight is unknown to the recipe's model"),
        ("shape", "first.bias is (9,), the recipe's model needs (4,)"),
    ],
)
def test_misfits_name_file_and_key(saved: Path, change: str, sentence: str):
    weights = _damaged(saved, change)
    assert misfits(tiny_recipe().model.build(3), weights) == [sentence]
    _, document = load_tensors(saved)
    save_tensors(saved, weights, document)
    with pytest.raises(InputError) as caught:
        build_model(load_checkpoint(saved))
    assert str(caught.value) == f"{saved}: {sentence}"


def test_fine_tuning_replaces_the_class_predictor_only(saved: Path):
    """3 -> 5 classes: predictor (3 rows) starts anew; the same class count takes everything; another width is refused."""
    model = TinyTrainingConfig().build(5)
    fresh = model.state_dict()["predictor.weight"].clone()
    assert initialize_from(model, saved, "abcde") == ["predictor.weight", "predictor.bias"]
    assert torch.equal(model.state_dict()["predictor.weight"], fresh)
    assert torch.equal(model.state_dict()["first.weight"], load_checkpoint(saved).weights["first.weight"])
    same = TinyTrainingConfig().build(3)
    assert initialize_from(same, saved, "abc") == []
    assert torch.equal(same.state_dict()["predictor.bias"], load_checkpoint(saved).weights["predictor.bias"])
    with pytest.raises(InputError, match=r"first\.weight is \(4, 3, 3, 3\), the recipe's model needs \(8, 3, 3, 3\)"):
        initialize_from(TinyTrainingConfig(width=8).build(5), saved, "abcde")


def test_a_part_that_the_file_does_not_have_starts_anew(saved: Path):
    model = TinyTrainingConfig().build(3)
    model.add_module("instance_head", torch.nn.Linear(2, 1))
    fresh = model.state_dict()["instance_head.weight"].clone()
    assert initialize_from(model, saved, "abc") == ["instance_head"]
    assert torch.equal(model.state_dict()["instance_head.weight"], fresh)
    assert torch.equal(model.state_dict()["first.weight"], load_checkpoint(saved).weights["first.weight"])


def test_failed_write_keeps_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch):
    before = saved.read_bytes()

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(InputError, match=r"model\.safetensors cannot be written: .*No space left"):
        save_checkpoint(saved, tiny_recipe().model.build(3), tiny_recipe(), CLASSES)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_files_have_the_users_permissions(saved: Path):
    (saved.parent / "plain").touch()
    assert saved.stat().st_mode == (saved.parent / "plain").stat().st_mode
    assert os.access(saved, os.R_OK)


def test_recipe_json_round_trip_and_refusals():
    load_model_configs()
    recipe = Recipe("tiny", TinyTrainingConfig(width=8, norm="batch"))
    text = recipe_to_json(recipe)
    assert recipe_from_json(text) == recipe
    assert to_dict(recipe)["model"]["kind"] == "TinyTrainingConfig"
    for broken, sentence in (
        ("{", "x.json is not valid JSON"),
        ("[]", "x.json is not a recipe"),
        ('{"format": 1}', "x.json is not a recipe"),
        (text.replace('"format": 1', '"format": 2'), "x.json has format 2.*upgrade"),
        (text.replace('"width"', '"widht"'), r"x.json: model.widht is not a setting.*did you mean width"),
        (
            text.replace("TinyTrainingConfig", "TinyTrainingConfg"),
            "x.json: model.kind.*did you mean TinyTrainingConfig",
        ),
    ):
        with pytest.raises(InputError, match=sentence):
            recipe_from_json(broken, "x.json")
