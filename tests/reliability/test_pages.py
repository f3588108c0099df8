"""Every page the library makes shows names, notes and messages as text: none becomes an element, an attribute, a script.

Each page is made twice, with plain names and with names that are markup. Both have to have the same elements with the same
attributes, in the same order; what the names say has to be there to the letter.
"""

import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import perpixel
from engine_fakes import BrightSquare, photo
from perpixel.cli.main import main
from perpixel.data.dataset import Dataset
from perpixel.data.loader import test_batches as batches_of
from perpixel.data.open import open_dataset
from perpixel.data.settings import DataConfig
from perpixel.data.settings import TestSize as Size
from perpixel.engine import ablation_report, codes_page, color_affinity_page, data_stats
from perpixel.engine.ablation import Outcome, Row, Table
from perpixel.engine.charts import Axis, Line, line_chart
from perpixel.engine.codes_study import study_codes
from perpixel.engine.color_affinity import study_affinity
from perpixel.engine.compare import print_comparison, read_runs, write_comparison
from perpixel.engine.data_view import write_view
from perpixel.engine.evaluate import Evaluation, evaluate
from perpixel.engine.gallery import write_gallery
from perpixel.engine.label import label
from perpixel.engine.label_compare import Agreement, print_agreements
from perpixel.engine.label_file import BoxFile
from perpixel.engine.label_masks import Masker, Proposal
from perpixel.engine.page import Cell, code, drawing, facts, folded, links, numbers, paragraph, section, table
from perpixel.engine.panoptic_metrics import ClassQuality, PanopticMetrics
from perpixel.engine.predict import Predictor
from perpixel.engine.prediction_folder import predict_to_folder
from perpixel.engine.report import print_metrics
from perpixel.engine.report_page import write_report
from perpixel.engine.semantic_metrics import ClassAccuracy, SemanticMetrics
from perpixel.errors import InputError
from perpixel.recipes import get_recipe
from perpixel.search.folder import SearchFolder
from perpixel.search.graph import Graph, Node, draw
from perpixel.search.policy import Proposal as Tokens
from perpixel.search.policy import RandomSearch
from perpixel.search.report import write_report as write_search_report
from perpixel.search.spaces.toy import ToySearch, ToySpace
from perpixel.search.state import SearchState, Trial
from perpixel.search.trial import Outcome as Tried
from perpixel.serve.app import create_app
from serve_fakes import picture

SOURCES = Path(perpixel.__file__).parent
PLAIN = "plain name"
EVIL = {
    "script": "<script>alert(1)</script>",
    "attribute": '"><img src=x onerror=alert(1)>',
    "quote": "' onmouseover='alert(1)",
    "end of script": "</script></title></style><svg onload=alert(1)>",
    "comment": "<!-- --!><!--SECTIONS--><!--ITEMS-->",
    "ampersand": "a & b &amp; &lt;b&gt; &#60;",
    "separators": "a\u2028b</p>\u2029",
}
SQUARE = (10, 8, 50, 44)


class Page(HTMLParser):
    """What a browser would see: elements with the names of their attributes, all that is text, all that is data."""

    def __init__(self, file: Path):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.wrong: list[str] = []
        self.text = ""
        self.data: list[object] = []
        self._element = ""
        self._script: str | None = None
        self.feed(file.read_text("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        values = {name: value or "" for name, value in attrs}
        fetched = [place for name in ("src", "href", "action", "xlink:href") if (place := values.get(name))]
        own = all(re.match(r"data:image/|[\w.]+$", place) for place in fetched)
        if not own or any(name.startswith("on") for name in values):
            self.wrong.append(f"<{tag} {values}>")
        self.text += "\n".join(["", *values.values(), ""])
        self._element = tag
        self._script = values.get("type", "") if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None if tag == "script" else self._script

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"<!--{data}-->")

    def handle_data(self, data: str) -> None:
        if self._script == "application/json":
            self.data.append(json.loads(data, parse_constant=lambda name: self.wrong.append(name)))
            self.text += "\n".join(strings(self.data[-1]))
        elif self._script is None and self._element != "style":
            self.text += data


def strings(value: object) -> list[str]:
    """All texts in a JSON value."""
    if isinstance(value, dict):
        return [text for part in value.values() for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def in_a_file_name(text: str) -> str:
    return text.replace("/", "|")


def annotations(folder: Path, text: str) -> Path:
    """Two photos with a square each, named `text`, with masks, of two classes; one more object lies twice, one photo is gone."""
    folder.mkdir(parents=True)
    names = [f"{in_a_file_name(text)}{n}.png" for n in range(3)]
    for name in names[:2]:
        Image.fromarray(photo((60, 80), SQUARE)).save(folder / name)
    x1, y1, x2, y2 = SQUARE
    box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]], "iscrowd": 0}
    rows = [(1, 1, 1), (2, 1, 1), (3, 2, 2), (4, 3, 1)]
    document = {
        "images": [{"id": n, "file_name": name, "width": 80, "height": 60} for n, name in enumerate(names, 1)],
        "annotations": [{"id": n, "image_id": image, "category_id": c, "area": 1440} | box for n, image, c in rows],
        "categories": [{"id": 1, "name": text}, {"id": 2, "name": f"{text}2"}],
    }
    path = folder / f"{in_a_file_name(text)}.json"
    path.write_text(json.dumps(document))
    return path


def evaluation(folder: Path, text: str) -> tuple[Dataset, Evaluation]:
    dataset = open_dataset(annotations(folder, text), skip_bad=True)
    data = DataConfig(workers=0, test=Size(60, 80))
    found = evaluate(
        BrightSquare(masks=True), dataset, batches_of(dataset, data, batch_size=2), examples=3, progress=False
    )
    quality = PanopticMetrics(
        {f"{one}{of}": 0.5 for one in ("PQ", "SQ", "RQ") for of in ("", "_things", "_stuff")},
        [ClassQuality(text, True, 1, 1, 0.5, 0.5, 0.5)],
    )
    pixels = SemanticMetrics(0.5, 0.5, 0.5, 0.5, 0.5, [ClassAccuracy(text, 10, 0.5, 0.5, 0.5)])
    return dataset, replace(found, panoptic=quality, semantic=pixels)


def report_page(folder: Path, text: str, name: str = "report") -> list[Path]:
    dataset, found = evaluation(folder / f"data of {name}", text)
    log = [
        {
            "step": n,
            "loss": 1.0,
            "losses": {text: 1.0, "b": n},
            "learning_rate": 0.1,
            "metrics": {f"{text}/AP": 0.1 * n},
        }
        for n in (1, 2)
    ]
    recipe = replace(get_recipe("fcos_shapes"), name=text)
    facts = {"command": text, text: name}
    made = write_report(folder / name, recipe, facts, dataset=dataset, found=found, log=log, notes=[text])
    (folder / name / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    return [made]


def compare_page(folder: Path, text: str) -> list[Path]:
    names = [f"{in_a_file_name(text)}{n}" for n in (1, 2)]
    for name in names:
        report_page(folder, text, name)
    runs = read_runs([folder / name for name in names])
    runs[1].settings["data.train"] = text
    return [write_comparison(folder / "compare.html", runs)]


def prediction_page(folder: Path, text: str) -> list[Path]:
    annotations(folder / "photos", text)
    (folder / "photos" / f"{in_a_file_name(text)}9.png").write_bytes(b"no picture")
    predictor = Predictor(BrightSquare(masks=True, keypoints=True), [text, PLAIN], Size(60, 80), "cpu")
    done = predict_to_folder(predictor, folder / "photos", folder / "out", title=text, progress=False)
    assert done.refused and done.gallery is not None
    return [done.gallery]


def data_pages(folder: Path, text: str) -> list[Path]:
    done = write_view(annotations(folder / "data", text), folder / "view", progress=False)
    assert done.problems and done.odd and done.groups
    return sorted((folder / "view").glob("*.html"))


def stats_page(folder: Path, text: str) -> list[Path]:
    stats = data_stats.measure(annotations(folder / "data", text), skip_bad=True)
    return [data_stats.write_page(stats, folder / "stats.html")]


class Boxes(Masker):
    """Fills each box."""

    def __init__(self, name: str):
        self.name, self.unknown = name, {name}

    def propose(self, image: np.ndarray, boxes: np.ndarray, names: Sequence[str | None]):
        for x1, y1, x2, y2 in boxes.round().astype(int):
            mask = np.zeros(image.shape[:2], bool)
            mask[y1:y2, x1:x2] = True
            yield Proposal(mask, 0.5)


def label_page(folder: Path, text: str) -> list[Path]:
    file = BoxFile.read(annotations(folder / "data", text), folder / "data", replace=True)
    done = label(file, Boxes(text), folder / in_a_file_name(text) / "out.json", folder / "report", progress=False)
    assert done.sheet is not None and file.unreadable
    return [done.sheet]


def search_page(folder: Path, text: str) -> list[Path]:
    rows = [Tried(0.5, {text: 1.0}), Tried(0.25, {text: 0.5}), Tried(0.0, error=f"{text}\n{text}")]
    trials = [Trial(Tokens((0, n), (0.0, 0.0)), None, outcome) for n, outcome in enumerate(rows)]
    state = SearchState(RandomSearch().build(ToySpace(1), 0), trials, seconds=60.0)
    out = SearchFolder(folder / in_a_file_name(text))
    out.path.mkdir()
    return [write_search_report(out, ToySearch(steps=1), ToySpace(1), state, baseline=state)]


def ablation_page(folder: Path, text: str) -> list[Path]:
    row = Row(text, (f"model.head.kind={text}",), {f"box {text}": 1.0, "box AP": 2.0})
    table = Table(text, text, "fcos_shapes", (row, Row(f"{text}2", (), {})))
    outcomes = [Outcome(row, {"bbox/AP": 0.5}), Outcome(table.rows[1], {}, text)]
    recipe = replace(get_recipe("fcos_shapes"), name=text)
    ablation_report.Report(table, recipe, folder / "out")(outcomes)
    return [folder / "out" / "table.html"]


def codes_study_page(folder: Path, text: str) -> list[Path]:
    study = study_codes(open_dataset("shapes:6:0"), size=6, dims=(2,))
    return [codes_page.write_page(folder / "codes.html", replace(study, shared=(text,)), text, [text])]


def colors_study_page(folder: Path, text: str) -> list[Path]:
    recipe = get_recipe("boxinst_shapes")
    study = study_affinity(open_dataset("shapes:2:0"), recipe)
    return [color_affinity_page.write_page(folder / "colors.html", study, text, [text])]


PAGES: dict[str, Callable[[Path, str], list[Path]]] = {
    "engine/report_page.py": report_page,
    "engine/compare.py": compare_page,
    "engine/prediction_folder.py": prediction_page,
    "engine/data_view.py": data_pages,
    "engine/data_stats.py": stats_page,
    "engine/label_sheet.py": label_page,
    "engine/ablation_report.py": ablation_page,
    "engine/codes_page.py": codes_study_page,
    "engine/color_affinity_page.py": colors_study_page,
    "search/report.py": search_page,
}
"""By the source that writes it."""


def test_no_page_is_missing_here():
    """Whatever begins a page of its own or writes into the gallery's."""
    begins = re.compile(r"<!doctype|<html|(?<!def )write_gallery\(", re.IGNORECASE)
    writers = {
        str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.py") if begins.search(path.read_text("utf-8"))
    }
    assert writers == set(PAGES)


@pytest.mark.parametrize("writer", PAGES)
def test_markup_in_names_is_text(writer, tmp_path):
    """All kinds of it at once; a name of a file has no slash."""
    text = " ".join(EVIL.values())
    made = {}
    for folder, name in (("plain", PLAIN), ("evil", text)):
        (tmp_path / folder).mkdir()
        made[name] = [Page(file) for file in PAGES[writer](tmp_path / folder, name)]
    assert [page.elements for page in made[text]] == [page.elements for page in made[PLAIN]]
    assert not [wrong for page in made[text] for wrong in page.wrong]
    for name in made:
        shown = "".join(page.text for page in made[name])
        assert name in shown or in_a_file_name(name) in shown


def test_every_part_of_a_page_is_text(tmp_path):
    """Also those that no page gives others' names: colours, looks, addresses of links."""

    def parts(text: str) -> list[str]:
        lines = [Line(text, [(0, 1), (1, 2)], text), Line(text, [(0, 1)])]
        return [
            section(text, paragraph(text), code(text)),
            table([text], [[text], [Cell(text, 1, color=text, look=text)]]),
            numbers({text: Cell(text)}, {text: text}, main=text),
            folded(text, facts({text: text})),
            drawing(text, draw(Graph({"a": Node(text, "input")}, []), text)),
            line_chart(text, lines, Axis(text), Axis(text)),
            links([("a.html", text)]),
        ]

    text = " ".join(EVIL.values())
    found = [Page(write_gallery(tmp_path / "page.html", (), name, sections=parts(name))) for name in (PLAIN, text)]
    assert found[0].elements == found[1].elements and not found[1].wrong
    assert found[1].text.count(text) == found[0].text.count(PLAIN) > 20


def test_no_script_of_ours_makes_markup_of_text():
    """Pages draw what they are given with elements and text, never from a string of HTML."""
    scripts = [path for path in SOURCES.rglob("*") if path.suffix in (".js", ".html")]
    makes = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc")
    assert len(scripts) > 4 and not [path.name for path in scripts if makes.search(path.read_text("utf-8"))]


def test_names_in_answers_of_the_server_are_data():
    """Of a model, a class and a photo: JSON that says so, and a browser is told not to guess."""
    text = EVIL["script"]
    models = {text: Predictor(BrightSquare(), [text], Size(90, 120), "cpu")}
    api = TestClient(create_app(models), base_url="http://127.0.0.1:8000")
    photos = [("image", (f"{text}.png", picture()))]
    answers = [api.get("/api/models"), api.get(f"/{text}"), api.post(f"/api/predict?model={text}2")]
    answers += [api.post(f"/api/predict?format={form}", files=photos) for form in ("json", "coco", "geojson", text)]
    for answer in answers:
        assert answer.headers["content-type"] in ("application/json", "application/geo+json")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert answers[0].json()["models"][0]["classes"] == [text]
    assert answers[3].json()["photos"][0]["name"] == f"{text}.png"


def test_a_file_name_in_another_encoding(tmp_path):
    """Bytes that are no UTF-8, as old archives hold them: the page says which they are, results.json has the name itself."""
    (tmp_path / "in").mkdir()
    name = "caf\udce9.png"
    try:
        Image.fromarray(photo((60, 80), SQUARE)).save(tmp_path / "in" / name)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    predictor = Predictor(BrightSquare(), ["a"], Size(60, 80), "cpu")
    done = predict_to_folder(predictor, tmp_path / "in", tmp_path / "out", progress=False)
    assert done.gallery is not None and not done.refused and done.pictures == [tmp_path / "out" / name]
    item = next(one for one in Page(done.gallery).data if isinstance(one, dict) and "photo" in one)
    assert item["name"] == name == json.loads(done.results.read_text())[0]["file_name"]


def test_half_a_letter_is_no_class(tmp_path):
    """JSON may hold one; no file of text, and no evaluator, takes it."""
    path = annotations(tmp_path / "data", PLAIN)
    path.write_text(path.read_text().replace(PLAIN + "2", "\\ud800"))
    with pytest.raises(InputError, match=r"the class '\\ud800' holds half a letter"):
        open_dataset(path, skip_bad=True)


@pytest.mark.parametrize("name", ["[/b]", "[red]a[/red]", ":cat: [link=x]"])
def test_names_in_brackets_stay_as_they_are_on_the_terminal(name, tmp_path, capsys):
    """Rich would take them for its own marks: a colour, a picture, an error."""
    dataset, found = evaluation(tmp_path / "data", name)
    print_metrics(found)
    assert capsys.readouterr().out.count(name) == 6  # two classes of boxes and of masks, one of segments, one of pixels
    print_agreements([Agreement(name, np.array([0.5]), None, 0)])
    assert name in capsys.readouterr().out
    assert main(["check", dataset.name, "--sheet", str(tmp_path / "sheet.png")]) == 1
    said = capsys.readouterr().out
    assert said.count(name) >= 2 and in_a_file_name(name) in said
    runs = [replace(run, name=name) for run in read_runs([report_page(tmp_path, name, n)[0].parent for n in "ab"])]
    capsys.readouterr()
    print_comparison(runs)
    assert capsys.readouterr().out.count(name) >= 2


def test_a_terminal_that_cannot_say_a_name(tmp_path, monkeypatch):
    path = annotations(tmp_path / "data", "stra\u00dfe")
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii", write_through=True))
    assert main(["check", str(path), "--sheet", str(tmp_path / "sheet.png")]) == 1
    assert b"stra\\xdfe" in out.getvalue()
