"""Tables of ablations: every row trains, the command trains, reads, resumes and reports, and the order is counted right."""

import json
from dataclasses import replace
from functools import cache

import pytest
import torch

from perpixel.cli.main import main
from perpixel.config import override, to_dict
from perpixel.engine import ablation
from perpixel.engine.ablation import Outcome, Row, Table, choose_rows
from perpixel.engine.ablation_report import columns_of, metric_of, ours, same_order
from perpixel.engine.loop import DivergedError
from perpixel.engine.recipe import Recipe
from perpixel.errors import InputError
from perpixel.models.blendmask import BlendMask
from perpixel.models.detector import DetectorConfig
from perpixel.models.directpose import DirectPose
from perpixel.models.dr1mask import DR1Mask
from perpixel.models.dr1mask_panoptic import DR1MaskPanoptic
from perpixel.models.fcos import FCOS
from perpixel.models.heads import InstanceHeadConfig
from perpixel.models.meinst import MEInst
from perpixel.models.pointins import PointINS
from perpixel.models.smalmask import SmalMask
from perpixel.models.smalmask2 import SmalMask2
from perpixel.nn.backbones import Backbone
from perpixel.recipes import all_recipes, all_tables, get_recipe, get_table
from tiny_batches import batch_of

TINY_BACKBONE = Backbone("test_resnet", weights=None, norm="train", frozen_stages=0)
TINY = [
    "model.backbone.name=test_resnet",
    "model.head.class_convs=1",
    "model.head.box_convs=1",
    "model.instance.mask_convs=1",
    "model.instance.mask_width=8",
    "data.train=shapes:8:0",
    "data.val=shapes:4:1",
    "data.workers=0",
    "training.steps=2",
    "training.warmup_steps=1",
    "training.batch_size=2",
    "model.selection.threshold=0.0",
    "model.selection.keep=5",
]


@cache
def recipes_of(name: str) -> dict[str, Recipe]:
    """The table's recipe with each row's settings, by the row's name."""
    table = get_table(name)
    recipe = get_recipe(table.recipe)
    return {row.name: override(recipe, row.settings) for row in table.rows}


@pytest.mark.parametrize("name", all_tables())
def test_rows_are_settings_of_the_recipe(name):
    """Each row builds on the table's recipe, and no two of them are the same."""
    made = [str(to_dict(recipe)) for recipe in recipes_of(name).values()]
    assert len(set(made)) == len(made) > 1


def few_channels(instance: InstanceHeadConfig) -> dict:
    """Settings of a narrow instance head."""
    match instance:
        case PointINS():
            return {"width": 8, "convs": 1}
        case BlendMask(bottom=bottom):
            # A table varies the width.
            return {"bottom": replace(bottom, width=bottom.width // 16), "semantic_width": 8}
        case DR1Mask(width=width):
            return {"width": width // 4, "region": 14, "semantic_width": 8}
        case MEInst():
            return {"convs": 1}
        case SmalMask(convs=convs):
            # A table compares a tower with none.
            return {"convs": min(convs, 1), "size": 8}
        case SmalMask2():
            return {"size": 8}
        case DirectPose(align=align, heat_map=heat_map):
            # A table compares maps of their own with the tower, and heat maps with none.
            narrow = None if align is None else replace(align, width=align.width and 8)
            return {
                "align": narrow,
                "heat_map": heat_map and replace(heat_map, width=8),
                "convs": min(instance.convs, 1),
            }
        case _:
            return {"mask_width": 8, "mask_convs": 1}


def shrunk(model: DetectorConfig | DR1MaskPanoptic) -> DetectorConfig | DR1MaskPanoptic:
    """A network of a few layers, in nothing that a row varies."""
    if isinstance(model, DR1MaskPanoptic):
        return replace(model, detector=shrunk(model.detector))
    convs = {"class_convs": 1, "box_convs": 1} if isinstance(model.head, FCOS) else {"convs": 1}
    instance = model.instance
    if instance is not None:
        instance = replace(instance, **few_channels(instance))
    return replace(
        model,
        backbone=replace(TINY_BACKBONE, stages=model.backbone.stages, blur=model.backbone.blur),
        neck=replace(model.neck, channels=32),
        head=replace(model.head, **convs),
        instance=instance,
        selection=replace(model.selection, threshold=0.001, keep=5),
    )


def distinct_rows() -> dict[str, tuple[DetectorConfig | DR1MaskPanoptic, bool]]:
    """Shrunk, and whether the data have masks; the paper's own choice stands in many tables and is trained once."""
    rows = {}
    for table in all_tables():
        for name, recipe in recipes_of(table).items():
            made = shrunk(recipe.model), bool(recipe.data.masks)
            rows.setdefault(str((to_dict(made[0]), made[1])), (f"{table}: {name}", made))
    return dict(rows.values())


@pytest.mark.parametrize("model, masks", [pytest.param(*made, id=name) for name, made in distinct_rows().items()])
def test_every_row_trains_and_predicts(model, masks):
    """Every parameter learns from the losses, which are numbers; masks are given to the rows alone whose data have them."""
    batch = batch_of((3, 2))
    if not masks:
        batch = replace(batch, targets=tuple(replace(t, masks=None, centers=None) for t in batch.targets))
    built = model.build(classes=3, stuff=2).train()
    losses = built.loss(batch)
    assert all(torch.isfinite(loss) for loss in losses.values()), losses
    detector = getattr(model, "detector", model)
    assert losses["class"] > 0 and ("box" in losses) == (getattr(detector.head, "box_loss", "") != "none")
    assert detector.instance is None or sum(losses.get(name, 0) for name in ("mask", "projection", "keypoints")) > 0.1
    sum(losses.values()).backward()
    assert [name for name, p in built.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in built.parameters() if p.grad is not None)
    found = built.eval().predict(replace(batch, targets=None))
    added = [f.masks if f.keypoints is None else f.keypoints for f in found]
    assert len(found) == 2 and all((more is not None) == (detector.instance is not None) for more in added)


def test_an_ablation_has_one_home():
    """No recipe repeats a row, but the tables' bases, two results of their own, and BoxInst's base for other data."""
    rows = [str(to_dict(replace(recipe, name=""))) for table in all_tables() for recipe in recipes_of(table).values()]
    both = {name for name, recipe in all_recipes().items() if str(to_dict(replace(recipe(), name=""))) in rows}
    bases = {table.recipe for table in all_tables().values()}
    assert both == bases | {
        "retinanet_r50_1x",
        "condinst_r50_1x_mask_nms",
        "boxinst_r50_characters",
        "directpose_r50_long",
    }


@pytest.mark.parametrize("name", ["condinst_5.5", "condinst_5.4", "boxinst_6.1", "boxinst_6.2"])
def test_rows_differ_on_another_recipe_too(name):
    """The row of the paper's own choice names its setting: on a recipe with other defaults rows stay distinct."""
    recipe = get_recipe("condinst_shapes" if name.startswith("condinst") else "boxinst_shapes")
    made = [str(to_dict(override(recipe, row.settings))) for row in get_table(name).rows]
    assert len(set(made)) == len(made)


@pytest.fixture
def command(tmp_path):
    arguments = ["ablate", "condinst_5.5", *TINY, "--recipe", "condinst_shapes", "--device", "cpu"]
    return [*arguments, "--out", str(tmp_path / "runs")]


def results(tmp_path):
    return json.loads((tmp_path / "runs" / "results.json").read_text())


def test_a_table_is_trained_read_and_resumed(command, tmp_path, capsys, monkeypatch):
    """Rows 1 and 2 finish, row 3 is stopped after its first step; the same command ends it and touches no other.

    The settings of the whole table are those of the command, the rows' own above them.
    """
    assert main([*command, "--rows", "1", "by 2"]) == 0
    shown = capsys.readouterr().out
    assert "34.4" in shown and "not enlarged" in shown and "paper's order" in shown
    first, second, third = results(tmp_path)["rows"]
    assert {"segm/AP", "bbox/AP"} <= set(first["ours"]) and first["paper"]["mask AP"] == 34.4
    assert second["ours"] and not third["ours"]
    trained = []

    def stopped(recipe, output, **options):
        trained.append((recipe.name, options["resume"]))
        short = replace(recipe, training=replace(recipe.training, steps=1, warmup_steps=0))
        return replace(genuine(short, output, **options), interrupted=True)

    genuine = ablation.train
    monkeypatch.setattr(ablation, "train", stopped)
    settings = [setting for setting in command if not setting.startswith("training.warmup")]
    settings.insert(2, "training.warmup_steps=0")
    assert main([*settings, "--rows", "3"]) == 130
    assert trained == [("condinst_5.5: by 4", False)] and not results(tmp_path)["rows"][2]["ours"]

    def counted(recipe, output, **options):
        trained.append((recipe.name, options["resume"]))
        return genuine(recipe, output, **options)

    monkeypatch.setattr(ablation, "train", counted)
    assert main([*settings, "--rows", "3"]) == 0
    assert trained[1:] == [("condinst_5.5: by 4", True)]
    rows = results(tmp_path)["rows"]
    assert all(row["ours"] for row in rows) and rows[0]["ours"] == first["ours"]
    upsampling = []
    for folder in sorted((tmp_path / "runs").glob("*_*/")):
        made = json.loads((folder / "recipe.json").read_text())["recipe"]
        upsampling.append(made["model"]["instance"]["upsampling"])
        assert made["data"]["train"] == "shapes:8:0" and made["training"]["seed"] == 0
    assert upsampling == [1, 2, 4]
    assert '<table class="sortable' in (tmp_path / "runs" / "table.html").read_text()
    assert "| by 4 |" in (tmp_path / "runs" / "table.md").read_text()
    assert main([*settings, "--rows", "3", "--device", "cpu"]) == 0 and len(trained) == 2


def test_a_row_that_diverges_is_noted_and_the_next_begins(command, tmp_path, capsys, monkeypatch):
    genuine = ablation.train

    def broken(recipe, output, **options):
        if recipe.name.endswith("not enlarged"):
            output.mkdir(parents=True)
            (output / "recipe.json").write_text("{}")
            raise DivergedError("step 2: a loss is not finite")
        return genuine(recipe, output, **options)

    monkeypatch.setattr(ablation, "train", broken)
    assert main([*command, "--rows", "1", "2"]) == 0
    assert "diverged" in capsys.readouterr().out
    first, second, _ = results(tmp_path)["rows"]
    assert "not finite" in first["failure"] and second["ours"] and second["failure"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["ablate", "condinst_55"], "did you mean condinst_5.5"),
        (["ablate"], "--list"),
        (["ablate", "condinst_5.5"], "data.val is not set"),
        (["ablate", "condinst_5.5", "data.val=shapes:2"], "data.train is not set"),
        (["ablate", "condinst_5.5", "data.val=shapes:2", "--rows", "by 3"], "2 (by 2)"),
        (["ablate", "condinst_5.5", "data.val=shapes:2", "--recipe", "fcos_shapes"], "model.instance"),
        (["ablate", "condinst_5.5", "data.val=shapes:2", "--recipe", "condinst_shape"], "condinst_shapes"),
    ],
)
def test_wrong_names_are_one_sentence(change, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(change) == 2
    shown = capsys.readouterr().err
    assert message in shown and len(shown.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_other_settings_in_the_same_folder_are_refused(command, capsys):
    assert main([*command, "--rows", "1"]) == 0
    command.insert(2, "training.seed=3")
    assert main([*command, "--rows", "1"]) == 2
    assert "training.seed" in capsys.readouterr().err


def test_lists(capsys):
    assert main(["ablate", "--list"]) == 0
    assert "boxinst_6.3" in capsys.readouterr().out
    assert main(["ablate", "boxinst_6.2", "--list"]) == 0
    assert "2  tau 0: model.instance.tau=0; paper: mask AP 9.4" in capsys.readouterr().out


def test_columns_and_order_by_hand():
    """Paper 10, 20, 30, 20; ours 5, 7, 6, 8 per cent.

    Pairs that the paper tells apart: (10,20) same, (10,30) same, (10,20) same, (20,30): 7 against 6 no, (30,20): 6 against 8
    no; the pair of equal 20s does not count: 3 of 5. A row without our figure is in no pair.
    """
    figures = ((10.0, 0.05), (20.0, 0.07), (30.0, 0.06), (20.0, 0.08))
    outcomes = [
        Outcome(Row(str(i), (), {"AP": paper, "time": 3.0}), {"segm/AP": mine, "bbox/AP": 0.5})
        for i, (paper, mine) in enumerate(figures)
    ]
    outcomes.append(Outcome(Row("not run", (), {"AP": 50.0})))
    assert same_order(outcomes, "AP") == (3, 5)
    assert columns_of(outcomes) == ["box AP", "AP", "time"]
    assert ours(outcomes[0], "AP") == 5.0 and ours(outcomes[0], "time") is None and ours(outcomes[4], "AP") is None
    assert [metric_of(c) for c in ("mask AP", "AP50", "box APs")] == ["segm/AP", "segm/AP50", "bbox/APs"]


def test_rows_are_chosen_by_name_or_number():
    table = Table("t", "nowhere", "fcos_shapes", (Row("a"), Row("b"), Row("c")))
    assert [row.name for row in choose_rows(table, ["3", "a"])] == ["a", "c"]
    assert choose_rows(table, []) == list(table.rows)
    with pytest.raises(InputError, match=r"'4' is not a row of t; it has 1 \(a\), 2 \(b\), 3 \(c\)"):
        choose_rows(table, ["4"])
    with pytest.raises(ValueError, match="two rows"):
        Table("t", "nowhere", "fcos_shapes", (Row("a"), Row("a")))
