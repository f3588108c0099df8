"""Reports of trainings and evaluations, and the page that compares runs: the files, the numbers, a real browser."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from engine_fakes import BrightSquare, Squares
from perpixel.cli.main import main
from perpixel.data.loader import test_batches as batches_of
from perpixel.data.open import open_dataset
from perpixel.data.settings import DataConfig
from perpixel.data.settings import TestSize as Size
from perpixel.engine.charts import Axis, Line, line_chart
from perpixel.engine.compare import metric_rows, read_runs, setting_rows
from perpixel.engine.environment import commit, environment
from perpixel.engine.evaluate import evaluate
from perpixel.engine.examples import Kept, choose, evenly, instances_of
from perpixel.engine.instances import Instances
from perpixel.engine.page import percent, section
from perpixel.engine.report_page import write_report
from perpixel.engine.report_sections import metric_lines, training_section
from perpixel.errors import InputError
from perpixel.recipes import get_recipe
from web_pages import opened

TINY = [
    *("training.steps=4", "training.batch_size=2", "training.warmup_steps=1", "training.save_every=2"),
    *(
        "training.log_every=1",
        "training.evaluate_every=2",
        "data.workers=0",
        "data.train=shapes:4",
        "data.val=shapes:3:1",
    ),
    *("data.test.short_side=64", "data.test.max_side=96", "data.augment.short_sides=[64]", "data.augment.max_side=96"),
]
EVIL = "<img src=x onerror=document.title='broken'>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training of four steps, evaluated twice."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert main(["train", "fcos_shapes", *TINY, "--out", str(folder), "--device", "cpu"]) == 0
    return folder


def test_choosing_images():
    """Ranks 9, 8 ... 0 of images 0 ... 9. Of 4: two worst (9, 8), one best (0), one spread (0, which is shown already)."""
    ranks = {index: (float(9 - index), 0.0) for index in range(10)}
    assert choose(ranks, 4, 10) == {9: "worst", 8: "worst", 0: "best"}
    # Of 8: four worst, two best; of the two evenly spread, 0 and 5, the first is a best one.
    assert choose(ranks, 8, 10) == {9: "worst", 8: "worst", 7: "worst", 6: "worst", 0: "best", 1: "best", 5: "spread"}
    assert list(choose(ranks, 10, 10)) == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert choose(ranks, 0, 10) == {} and choose({}, 4, 10) == {}
    assert evenly(10, 4) == [0, 2, 5, 7] and evenly(2, 5) == [0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_few_images_are_kept_at_any_time_and_the_same_are_chosen(seed):
    random = np.random.default_rng(seed)
    ranks = {index: (float(random.integers(0, 9)) / 8, 0.0) for index in range(200)}
    kept, nothing = Kept(16, 200), Instances(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), ("a",), (4, 4))
    for index in random.permutation(200).tolist():
        kept.offer(index, ranks[index], str(index), nothing)
        assert len(kept.rows) <= 16
    chosen = kept.chosen()
    assert {example.index: example.group for example in chosen} == choose(ranks, 16, 200)
    assert all(example.note == str(example.index) for example in chosen)


def test_results_become_what_was_found():
    """There and back: boxes, scores, labels, masks and keypoints."""
    dataset, data = Squares(masks=True), DataConfig(workers=0, test=Size(120, 200))
    model = BrightSquare(masks=True, keypoints=True)
    found = evaluate(model, dataset, batches_of(dataset, data, batch_size=2), examples=5, progress=False)
    example = next(one.found for one in found.examples if one.index == 2)
    again = instances_of(example.to_coco(102, (7,)), dataset, 2)
    for name in ("boxes", "scores", "labels", "keypoints"):
        np.testing.assert_allclose(getattr(again, name), getattr(example, name), atol=1e-4)
    assert again.runs == example.runs and again.keypoints.shape == (1, 1, 3)
    nothing = instances_of([], dataset, 0)
    assert len(nothing) == 0 and nothing.runs is None and nothing.keypoints is None


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'<polyline points="([^"]+)"', svg)
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]


def test_a_chart_by_hand():
    """Across 54 to 406 (0 to 10), up 222 to 8 (0 to 100): (5, 50) lies at (230, 115)."""
    line = Line("<b>", [(0, 0), (5, 50), (10, 100)])
    svg = line_chart("x & y", [line], Axis("across", (0, 10)), Axis("up", (0, 100)))
    assert points_of(svg) == [[(54, 222), (230, 115), (406, 8)]]
    assert "x &amp; y" in svg and "<title>&lt;b&gt;</title>" in svg and "legend" not in svg
    # Decades are as far apart as each other, what has no logarithm is left out, and of one point there is a dot.
    log = line_chart(
        "l", [Line("a", [(0, 1), (1, 10), (2, 100), (3, 0)]), Line("b", [(1, 10)])], Axis("x"), Axis("y", log=True)
    )
    assert points_of(log) == [[(54, 222), (230, 115), (406, 8)]] and 'cx="230.0" cy="115.0"' in log and "legend" in log
    assert line_chart("empty", [Line("a", []), Line("b", [(1, float("nan"))])], Axis("x"), Axis("y")) == ""
    flat = line_chart("flat", [Line("a", [(0, 3), (1, 3)])], Axis("x"), Axis("y"))
    assert points_of(flat) == [[(54, 115), (406, 115)]]
    # A line keeps its colour whether or not those before it have points.
    second = line_chart("two", [Line("a", []), Line("b", [(0, 1), (1, 2)])], Axis("x"), Axis("y"))
    assert "var(--line1)" in second and "var(--line0)" not in second
    (many,) = points_of(line_chart("m", [Line("a", [(i, 7) for i in range(10_000)])], Axis("x"), Axis("y")))
    assert len(many) == 400 and many[0][1] == many[-1][1]


def test_numbers_in_words():
    assert section("empty", "") == ""
    assert percent(-1.0).text == percent(None).text == "–" and percent(0.1234).text == "12.3"


def test_curves_of_a_training():
    log = [
        {"step": 1, "loss": 3.0, "losses": {"class": 1.0, "box": 2.0}, "learning_rate": 0.1, "gradient_norm": 1.0},
        {"step": 2, "loss": 2.0, "losses": {"class": 1.0, "box": 1.0}, "learning_rate": 0.2, "gradient_norm": 0.5},
        {"step": 2, "metrics": {"bbox/AP": 0.25, "bbox/APl": -1.0, "other": 0.5}},
    ]
    assert metric_lines(log) == {"bbox/AP": [(2, 25.0)], "other": [(2, 50.0)]}
    html = training_section(log)
    assert [name in html for name in ("Losses", "Validation", "Learning rate", "Gradient norm")] == [True] * 4
    assert "bbox/AP<" in html and "other" not in html
    assert training_section([]) == ""
    assert "Validation" not in training_section(log[:2])


def test_the_environment():
    facts = environment("cpu")
    assert facts["device"] == "cpu" and facts["torch"] and facts["perpixel"] and "threads" in facts["processor"]
    assert commit() is None or re.fullmatch(r"[0-9a-f]{12}(, changed)?", commit())


def test_a_training_writes_its_report(run, browser):
    numbers = json.loads((run / "metrics.json").read_text())
    stored = json.loads((run / "recipe.json").read_text())
    assert numbers["recipe"] == stored["recipe"] and numbers["step"] in (2, 4) and "bbox" in numbers["mistakes"]
    best = max(row["metrics"]["bbox/AP"] for row in map(json.loads, (run / "log.jsonl").open()) if "metrics" in row)
    assert numbers["summary"]["bbox/AP"] == best
    page = opened(browser, run / "report.html")
    headings = page.locator("h2").all_inner_texts()
    assert headings == [
        "Boxes: average precision and recall, per cent",
        "Mistakes in boxes",
        "Training",
        "All photos, the worst first",
        "Command and environment",
        "Recipe",
    ]
    assert page.locator("article.card").count() == 3 and "best.safetensors" in page.inner_text("header")
    assert page.locator("figure.chart figcaption").all_inner_texts()[2:] == [
        "Losses",
        "Validation",
        "Learning rate",
        "Gradient norm",
    ]
    page.context.close()


def test_a_training_without_validation_has_curves_alone(tmp_path):
    out = tmp_path / "run"
    assert main(["train", "fcos_shapes", *TINY, "data.val=null", "--out", str(out), "--device", "cpu"]) == 0
    page = (out / "report.html").read_text()
    assert "Learning rate" in page and "Mistakes" not in page and not (out / "metrics.json").exists()


def test_an_evaluation_in_the_browser(tmp_path, browser):
    """A class and a photo with evil names; tables sort; phone and dark look; the page counts what the table counts."""
    dataset, data = Squares(masks=True), DataConfig(workers=0, test=Size(120, 200))
    dataset.classes = (EVIL,)
    found = evaluate(
        BrightSquare(masks=True), dataset, batches_of(dataset, data, batch_size=2), examples=5, progress=False
    )
    recipe = replace(get_recipe("fcos_shapes"), name=EVIL)
    path = write_report(tmp_path, recipe, {"command": EVIL}, dataset=dataset, found=found, notes=[EVIL])
    for width, scheme in ((390, "dark"), (1200, "light")):
        page = opened(browser, path, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.title() == f"perpixel: {EVIL}" and page.locator("header img, dl img, .card h3 img").count() == 0
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(17, 19, 24)" if scheme == "dark" else "rgb(246, 247, 249)")
        tally = found.mistakes["bbox"].tally
        assert page.inner_text("#tally").startswith(
            f"{tally.right} right · {tally.wrong} wrong · {tally.missed} missed"
        )
        page.context.close()


def test_semantic_and_keypoint_models_leave_out_what_they_have_not(tmp_path):
    data = DataConfig(workers=0, test=Size(120, 200))
    dataset = Squares()
    found = evaluate(
        BrightSquare(keypoints=True), dataset, batches_of(dataset, data, batch_size=2), examples=2, progress=False
    )
    page = write_report(tmp_path, get_recipe("fcos_shapes"), {}, dataset=dataset, found=found).read_text()
    assert "Mistakes in boxes" in page and "<h2>Masks" not in page and "<h2>Segments" not in page


def test_runs_side_by_side(run, tmp_path, capsys, browser):
    """The same run evaluated at another size, and a training without metrics."""
    other, bare = tmp_path / "two", tmp_path / "three"
    assert main(["evaluate", str(run / "best.safetensors"), "data.test.short_side=48", "--out", str(other)]) == 0
    bare.mkdir()
    (bare / "recipe.json").write_text((run / "recipe.json").read_text())
    (bare / "log.jsonl").write_text('{"step": 1, "loss": 1.5, "losses": {"a": 1.5}, "learning_rate": 0.1}\n{"half')
    capsys.readouterr()
    assert main(["compare", str(run), str(other), str(bare), "--out", str(tmp_path / "c.html")]) == 0
    said = capsys.readouterr().out
    assert "1 setting differs" in said and "bbox/AP50" in said

    runs = read_runs([run, other, bare])
    assert [one.name for one in runs] == ["one", "two", "three"]
    assert setting_rows(runs) == [["data.test.short_side", "64", "48", "64"]]
    first = metric_rows([replace(runs[0], metrics={"bbox/AP": 0.5}), replace(runs[1], metrics={"bbox/AP": 0.475})])
    assert [getattr(cell, "text", cell) for cell in first[0]] == ["bbox/AP", "50.0", "47.5", "-2.5"]
    assert first[0][3].look == "bad" and first[0][3].value == pytest.approx(-2.5)
    less = [replace(runs[0], metrics={"crowd/MR-2": 0.5}), replace(runs[1], metrics={"crowd/MR-2": 0.4})]
    assert metric_rows(less)[0][3].look == "good"
    page = opened(browser, tmp_path / "c.html", 390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("article.card").count() == 0 and not page.is_visible("#tools")
    assert "Settings that differ" in page.locator("h2").all_inner_texts()
    assert "different data" not in page.inner_text("header")
    page.context.close()


def test_a_heading_sorts_its_table(run, browser):
    page = opened(browser, run / "report.html")
    cells = page.locator("table").first.locator("tbody tr td:nth-child(2)")
    page.locator("table").first.locator("th button").nth(1).click()
    down = [int(text) for text in cells.all_inner_texts()]
    page.locator("table").first.locator("th button").nth(1).click()
    assert down == sorted(down, reverse=True) and [int(text) for text in cells.all_inner_texts()] == sorted(down)
    page.context.close()


def test_what_compare_refuses(run, tmp_path):
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / "metrics.json").write_text("[1")
    for folders, words in (
        ([tmp_path / "none", run], "is no folder"),
        ([empty, run], "holds neither recipe.json nor metrics.json"),
        ([broken, run], "is not valid JSON"),
        ([run, run], "is named twice"),
    ):
        with pytest.raises(InputError, match=words):
            read_runs(folders)
    (broken / "metrics.json").write_text('{"recipe": 3, "summary": {"bbox/AP": "x"}}')
    with pytest.raises(InputError, match="damaged"):
        read_runs([run, broken])
    assert main(["compare", str(run)]) == 2


def test_segments_stand_beside_their_truth(tmp_path):
    """A model that gives the true segments of a scene: PQ and mIoU 1, and pictures of both in the page."""
    from perpixel.data.panoptic import segments_of
    from perpixel.models.heads import Model
    from perpixel.structures import Detections

    for source, name in (("scenes:2", "PQ 1.00"), ("scenes:2", "mIoU 1.00")):
        dataset = open_dataset(source, all_stuff=name.startswith("mIoU"))

        class Oracle(Model):
            def loss(self, batch):
                return {}

            def predict(self, batch, dataset=dataset):
                import torch

                none = torch.zeros(0)
                return [
                    Detections(none.reshape(0, 4), none, none.long(), size, segments=segments_of(dataset, index))
                    for index, size in zip(batch.ids, batch.sizes, strict=True)
                ]

        data = DataConfig(workers=0, test=Size(64, 96))
        found = evaluate(Oracle(), dataset, batches_of(dataset, data, batch_size=1), examples=2, progress=False)
        assert [example.note for example in found.examples] == [name] * 2
        page = write_report(tmp_path, get_recipe("fcos_shapes"), {}, dataset=dataset, found=found).read_text()
        assert (
            page.count('["true segments","data:image/jpeg') == page.count('["predicted segments","data:image/jpeg') == 2
        )
        assert ("Pixels by class" in page) == name.startswith("mIoU")
        assert ("panoptic quality" in page) == name.startswith("PQ")
