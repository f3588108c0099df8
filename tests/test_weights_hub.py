"""Pushing to and loading from a hub on the loopback interface, through the hub's own client."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import save

import perpixel
from perpixel.cli.export import source_of
from perpixel.cli.main import main
from perpixel.config import override
from perpixel.engine import weights_hub
from perpixel.engine.checkpoint import Origin, load_checkpoint, save_checkpoint
from perpixel.engine.distributed import World
from perpixel.engine.recipe import recipe_from_json
from perpixel.engine.trainee import build_trainee
from perpixel.engine.weights import checkpoint_file, open_checkpoint
from perpixel.engine.weights_hub import push
from perpixel.errors import InputError
from perpixel.recipes import get_recipe
from weights_hosts import Hub, serving

NAMES = ("disc", "square")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch) -> Iterator[Hub]:
    """An empty hub, an empty cache, and somebody logged in."""
    found = Hub()
    with serving(found):
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_TOKEN", "hf_nobody")
        yield found


def trained(path: Path, step: int = 7, origin: Origin | None = None) -> Path:
    """A small checkpoint as a training of somebody with a home folder left it."""
    settings = [
        "model.backbone.name=test_resnet",
        "model.head.class_convs=1",
        "model.head.box_convs=1",
        "model.neck.channels=32",
        "data.train=/home/ada/secret project/annotations/train.json",
        "data.val=../ada/val.json",
        "data.images=photos/train",
        "training.init_from=~/models/before.safetensors",
    ]
    recipe = override(get_recipe("fcos_shapes"), settings)
    torch.manual_seed(step)
    model = recipe.model.build(2)
    save_checkpoint(path, model, recipe, NAMES, step=step, metrics={"bbox/AP": 0.389, "bbox/APl": -1.0}, origin=origin)
    return path


def test_push_and_load(hub: Hub, tmp_path: Path, capsys):
    """Weights and names come back equal; the licence on the card is said at the first use alone."""
    path = trained(tmp_path / "best.safetensors")
    assert main(["push", str(path), "ada/shapes", "--licence", "apache-2.0"]) == 0
    commit = hub.commits["ada/shapes"][0][0]
    assert f'perpixel.load("hf:ada/shapes@{commit}")' in capsys.readouterr().out
    found = perpixel.load("hf:ada/shapes", device="cpu")
    assert tuple(found.class_names) == NAMES
    assert capsys.readouterr().err.strip().endswith("hf:ada/shapes: its card names the licence apache-2.0")
    ours, back = load_checkpoint(path), open_checkpoint("hf:ada/shapes")
    assert all(torch.equal(back.weights[name], tensor) for name, tensor in ours.weights.items())
    assert back.weights.keys() == ours.weights.keys() and back.metrics == ours.metrics and back.step == 7
    assert "licence" not in capsys.readouterr().err


def test_what_is_pushed(hub: Hub, tmp_path: Path):
    """Three files; a card with the hub's head; no folder of whoever pushed."""
    push(trained(tmp_path / "best.safetensors"), "ada/shapes", "cc-by-4.0", private=True)
    assert hub.private == {"ada/shapes"}
    files = hub.commits["ada/shapes"][0][1]
    assert files.keys() == {"model.safetensors", "recipe.json", "README.md"}
    card = files["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert head == {
        "library_name": "perpixel",
        "license": "cc-by-4.0",
        "pipeline_tag": "object-detection",
        "tags": ["perpixel", "safetensors"],
    }
    for part in (
        "# shapes\n",
        "Recipe `fcos_shapes`, 7 steps",
        'perpixel.load("hf:ada/shapes")',
        "perpixel predict hf:ada/shapes photo.jpg",
        "2 classes of objects: disc, square.",
        "| bbox/AP | 0.3890 |",
        "Trained on `train.json`, validated on `val.json`. Started from `before.safetensors`.",
        "Of these weights: cc-by-4.0.",
    ):
        assert part in card, part
    assert "APl" not in card
    assert recipe_from_json(files["recipe.json"].decode()).data.images == "photos/train"
    for content in files.values():
        assert (
            b"ada/" not in content.replace(b"ada/shapes", b"") and b"secret" not in content and b"home" not in content
        )


@pytest.mark.parametrize(
    ("recipe", "task"),
    [
        ("condinst_shapes", "image-segmentation"),
        ("boxinst_shapes", "image-segmentation"),
        ("blendmask_panoptic_shapes", "image-segmentation"),
        ("directpose_mobilenetv2", "keypoint-detection"),
    ],
)
def test_the_task_on_the_card(recipe: str, task: str, tmp_path: Path):
    checkpoint = load_checkpoint(trained(tmp_path / "best.safetensors"))
    card = weights_hub.model_card(replace(checkpoint, recipe=get_recipe(recipe), metrics={}), "a/b", "mit")
    assert f"pipeline_tag: {task}\n" in card and "The training measured none." in card


def test_the_card_names_whose_weights_the_training_started_from(tmp_path: Path):
    """Published ones with their publisher's terms."""
    checkpoint = load_checkpoint(trained(tmp_path / "best.safetensors"))
    recipe = override(checkpoint.recipe, ["training.init_from=condinst_r50_3x"])
    card = weights_hub.model_card(replace(checkpoint, recipe=recipe), "a/b", "mit")
    assert "Started from `condinst_r50_3x`, whose weights AdelaiDet published (non-commercial)." in card


def test_training_starts_from_a_name(hub: Hub, tmp_path: Path, monkeypatch):
    """`training.init_from=hf:ada/shapes`: the first weights are those of the repository."""
    monkeypatch.chdir(tmp_path)
    push(trained(tmp_path / "a.safetensors"), "ada/shapes", "mit")
    recipe = override(open_checkpoint("hf:ada/shapes").recipe, ["training.init_from=hf:ada/shapes"])
    trainee, notes = build_trainee(recipe, NAMES, World(0, 1, torch.device("cpu")), lambda model, world: [], fresh=True)
    assert notes == ["weights from hf:ada/shapes"]
    assert torch.equal(
        trainee.model.state_dict()["box_head.class_logits.weight"],
        load_checkpoint(tmp_path / "a.safetensors").weights["box_head.class_logits.weight"],
    )


def test_a_revision_is_pinned(hub: Hub, tmp_path: Path):
    """The first commit stays the first after a second; `main` is the second."""
    first = push(trained(tmp_path / "a.safetensors", step=1), "ada/shapes", "mit")
    second = push(trained(tmp_path / "b.safetensors", step=2), "ada/shapes", "mit")
    assert first != second
    assert open_checkpoint(f"hf:ada/shapes@{first}").step == 1
    assert open_checkpoint("hf:ada/shapes").step == open_checkpoint(f"hf:ada/shapes@{second}").step == 2
    perpixel.from_pretrained("ada/shapes", revision=first, device="cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:ada/nothing", "has no repository ada/nothing, or it is private"),
        ("hf:ada/shapes@v9", "has no revision v9: name a branch, a tag or a commit"),
        ("hf:ada/photos", "has no model.safetensors in revision main: it is no repository that `perpixel push` filled"),
        ("hf:ada", "write hf:OWNER/NAME"),
        ("hf:ada/shapes@../../x", "write hf:OWNER/NAME"),
        ("hf:../shapes", "is no name that the hub allows"),
        ("hf:ada/a--b", "is no name that the hub allows"),
        ("hf:ada/others", "holds weights but no recipe of perpixel"),
    ],
)
def test_what_cannot_be_loaded(hub: Hub, name: str, message: str):
    others = {"model.safetensors": save({"weight": torch.zeros(1)}), "pytorch_model.bin": b"\x80\x04never read"}
    hub.commits["ada/shapes"].append(("1" * 40, {}))
    hub.commits["ada/photos"].append(("2" * 40, {"photo.jpg": b"", "pytorch_model.bin": b"\x80\x04never read"}))
    hub.commits["ada/others"].append(("3" * 40, others))
    with pytest.raises(InputError, match=message):
        open_checkpoint(name)


def test_without_a_network(hub: Hub, tmp_path: Path, monkeypatch):
    """What is in the cache is used; of the rest the sentence names the address."""
    push(trained(tmp_path / "a.safetensors"), "ada/shapes", "mit")
    open_checkpoint("hf:ada/shapes")
    monkeypatch.setattr(weights_hub, "hub_answers", lambda: False)
    assert open_checkpoint("hf:ada/shapes").step == 7
    address = f"{hub.address}/ada/others/resolve/main/model.safetensors"
    with pytest.raises(InputError, match=f"get {address} in another way and give that file in place of the name"):
        open_checkpoint("hf:ada/others")
    with pytest.raises(InputError, match="nothing was pushed"):
        push(tmp_path / "a.safetensors", "ada/shapes", "mit")


def test_what_is_not_pushed(hub: Hub, tmp_path: Path, monkeypatch, capsys):
    path = trained(tmp_path / "a.safetensors")
    theirs = trained(
        tmp_path / "b.safetensors", origin=Origin("https://host/a.pth", "00", "AdelaiDet", "non-commercial")
    )
    with pytest.raises(
        InputError, match=r"weights that AdelaiDet published \(non-commercial\): they are not handed on"
    ):
        push(theirs, "ada/theirs", "mit")
    with pytest.raises(InputError, match="write OWNER/NAME"):
        push(path, "shapes", "mit")
    with pytest.raises(SystemExit):
        main(["push", str(path), "ada/shapes"])  # a licence must be named
    hub.refused = 403
    with pytest.raises(InputError, match="did not take ada/shapes: "):
        push(path, "ada/shapes", "mit")
    hub.refused, hub.bad_licences = 0, ("free",)
    with pytest.raises(InputError, match="did not take ada/shapes: "):
        push(path, "ada/shapes", "free")
    monkeypatch.setattr(weights_hub, "get_token", lambda: None)
    with pytest.raises(InputError, match="log in with `hf auth login`, or set HF_TOKEN"):
        push(path, "ada/shapes", "mit")
    assert hub.commits.get("ada/theirs") is None and not hub.commits["ada/shapes"]


def test_the_commands_take_names(hub: Hub, tmp_path: Path, monkeypatch, capsys):
    """evaluate, export and benchmark by `hf:OWNER/NAME`; an export of fresh weights says so; serve makes a Path of a name."""
    monkeypatch.chdir(tmp_path)
    push(trained(tmp_path / "a.safetensors"), "ada/shapes", "mit")
    size = ["data.test.short_side=64", "data.test.max_side=64"]
    assert main(["evaluate", "hf:ada/shapes", "data.val=shapes:2:0", *size, "--device", "cpu"]) == 2
    assert "disc" in capsys.readouterr().err  # the shapes have other classes: the file was read, and its names compared
    words = ["--size", "64", "64", "--rounds", "1", "--fast", "off", "--json", "times.json"]
    assert main(["benchmark", "hf:ada/shapes", "--device", "cpu", *words]) == 0
    assert "shapes off" in json.dumps(json.loads(Path("times.json").read_text()))
    assert source_of("hf:ada/shapes", ["model.selection.keep=9"]).class_names == NAMES
    assert checkpoint_file(Path("hf:ada/shapes")) == checkpoint_file("hf:ada/shapes")
    capsys.readouterr()
    assert len(source_of("fcos_rt_dla34_shared_4x", [], fresh=True).class_names) == 80
    assert "fcos_rt_dla34_shared_4x is a recipe: the weights are fresh" in capsys.readouterr().out
