"""The documentation is true: its commands parse, its Python resolves, its toy method trains, its links lead somewhere.

Nothing here downloads, trains for long or needs a GPU.
"""

import ast
import importlib
import inspect
import re
import shlex
import sys
import tomllib
import types
from collections.abc import Iterator
from itertools import product, takewhile
from pathlib import Path

import pytest
import yaml

from perpixel.cli import main as command_line
from perpixel.cli.settings import with_settings
from perpixel.config import from_dict, override, to_dict
from perpixel.data.settings import DataConfig
from perpixel.engine.ablation import Table, choose_rows
from perpixel.engine.recipe import Recipe
from perpixel.models.blendmask import BlendMask
from perpixel.models.boxinst import BoxInst
from perpixel.models.candidates import BestPositives, RandomPositives
from perpixel.models.detector import DetectorConfig
from perpixel.models.directpose import DirectPose
from perpixel.models.dr1mask import DR1Mask
from perpixel.models.dr1mask_panoptic import DR1MaskPanoptic
from perpixel.models.duplicates import MaskNMS
from perpixel.models.fcos import FCOS
from perpixel.models.meinst import MEInst
from perpixel.models.panoptic import PanopticFPN
from perpixel.models.pointins import PointINS
from perpixel.models.retinanet import RetinaNet
from perpixel.models.smalmask import SmalMask
from perpixel.models.smalmask2 import SmalMask2
from perpixel.models.video_segmenter import VideoSegmenter
from perpixel.nn.bases import DeepLabV3Plus, ProtoFPN
from perpixel.nn.bifpn import BiFPN
from perpixel.nn.cells import SearchedFPN
from perpixel.nn.mask_autoencoder import AutoEncoder
from perpixel.nn.mask_codes import PCA
from perpixel.nn.sparse_codes import SparseCoding
from perpixel.recipes import all_recipes, all_tables, get_recipe, get_table
from perpixel.search.spaces import get_search

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
OTHER_PROGRAMS = {"uv", "pip", "git", "cd", "tensorboard", "python"}
SETTING = re.compile(r"(?<![\w./-])(?:data|model|training)(?:\.[a-z_0-9]+)+(?![\w/])")
FILE_ENDINGS = ("yaml", "json", "safetensors", "py", "md", "jsonl")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(language: str, pages: list[Path] = PAGES) -> list[tuple[Path, str]]:
    return [
        (page, text) for page in pages for found, text in FENCE.findall(page.read_text("utf-8")) if found == language
    ]


def commands(text: str) -> list[list[str]]:
    """The commands of a bash block as words, `&&` and line ends between them, without the file that takes their output."""
    lines = re.sub(r">>? \S+", "", text.replace("\\\n", " ")).splitlines()
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            found.append(words[:end])
            words = words[end + 1 :]
    return found


def of_perpixel(words: list[str]) -> list[str] | None:
    """The arguments that a command gives to perpixel, however it is started; None for another program."""
    if words[0] == "perpixel":
        return words[1:]
    if words[:2] == ["uv", "run"] and "perpixel" in words:
        return words[words.index("perpixel") + 1 :]
    if words[0] == "torchrun":
        return words[words.index("perpixel.cli.main") + 1 :]
    assert words[0] in OTHER_PROGRAMS, f"{words[0]} is no program that the documentation may use"
    return None


def documented() -> list[list[str]]:
    found = [of_perpixel(words) for _, text in blocks("bash") for words in commands(text)]
    return [list(words) for words in dict.fromkeys(tuple(words) for words in found if words is not None)]


def parsed(arguments: list[str], monkeypatch: pytest.MonkeyPatch):
    """What argparse makes of a command, without running it."""
    seen = []
    module = importlib.import_module(f"perpixel.cli.{arguments[0].replace('-', '_')}")
    monkeypatch.setattr(module, "run", lambda found: seen.append(found) or 0)
    assert command_line.main(arguments) == 0
    return seen[0]


def test_there_are_commands_to_test():
    """Guards the guards: a change of the fences must not empty the tests below."""
    assert {words[0] for words in documented()} >= set(command_line.COMMANDS)


@pytest.mark.parametrize("arguments", documented(), ids=" ".join)
def test_commands(arguments, monkeypatch):
    assert arguments[0] in command_line.COMMANDS
    found = parsed(arguments, monkeypatch)
    recipe = {"demo": "fcos_shapes", "evaluate": "fcos_mobilenetv2"}.get(arguments[0]) or getattr(found, "recipe", None)
    if arguments[0] == "ablate" and found.table is not None:
        table = get_table(found.table)
        recipe = found.recipe or table.recipe
        assert choose_rows(table, found.rows or ())
    if arguments[0] == "search" and found.name != "show":
        with_settings(get_search(found.name)(), found.settings)
    if arguments[0] == "convert":
        override(Recipe("converted", DetectorConfig()), found.settings)
    elif recipe is not None:
        with_settings(get_recipe(recipe), [s for s in found.settings if not s.startswith("data=")])
    if arguments[0] == "list" and found.part:
        assert any(found.part in name for name in all_recipes())


def test_a_wrong_command_is_noticed(monkeypatch):
    with pytest.raises(SystemExit):
        parsed(["train", "fcos_r50_1x", "--gpu", "3"], monkeypatch)
    with pytest.raises(AssertionError, match="no program"):
        of_perpixel(["perpixle", "list"])


def known_settings() -> set[str]:
    """Dotted paths of every setting of a detector, nodes and values."""

    def walk(values: dict, prefix: str = ""):
        for name, value in values.items():
            yield prefix + name
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{name}.")

    models = [DetectorConfig(head=head) for head in (FCOS(), RetinaNet())]
    policies = (RandomPositives(), BestPositives())
    models += [DetectorConfig(instance=BoxInst(policy=policy)) for policy in policies]
    models += [DetectorConfig(neck=SearchedFPN())]
    models += [DetectorConfig(neck=BiFPN()), DetectorConfig(duplicates=MaskNMS()), DetectorConfig(instance=PointINS())]
    models += [DetectorConfig(instance=MEInst(code=code)) for code in (PCA(), SparseCoding(), AutoEncoder())]
    models.append(PanopticFPN(detector=DetectorConfig(instance=BoxInst())))
    models += [DetectorConfig(instance=BlendMask(bottom)) for bottom in (DeepLabV3Plus(), ProtoFPN())]
    models += [DetectorConfig(instance=SmalMask()), DetectorConfig(instance=SmalMask2())]
    models += [DetectorConfig(instance=DirectPose())]
    models += [DetectorConfig(instance=DR1Mask()), DR1MaskPanoptic(), VideoSegmenter()]
    # What is null in a recipe is switched on by its kind.
    return {path for model in models for path in walk(to_dict(Recipe("any", model)))} | {"model.duplicates.kind"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_in_prose(page):
    """Every `data.…`, `model.…` and `training.…` in code spans is a setting."""
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text("utf-8")))
    named = {path for span in spans for path in SETTING.findall(span) if not path.endswith(FILE_ENDINGS)}
    assert named - known_settings() == set()


def test_data_file():
    """The data file of docs/data.md has exactly the fields of `DataConfig`."""
    text = next(text for page, text in blocks("yaml") if page.name == "data.md" and text.startswith("# my.yaml"))
    values = yaml.safe_load(text)
    built = to_dict(from_dict(DataConfig, values))
    assert values.keys() == built.keys()
    assert values["augment"].keys() == built["augment"].keys()
    for _, other in blocks("yaml"):
        from_dict(DataConfig, yaml.safe_load(other))


@pytest.fixture(scope="module")
def toy() -> Iterator[dict[str, types.ModuleType]]:
    """The files of docs/new_method.md as modules, in the order of the page."""
    made = {}
    monkeypatch = pytest.MonkeyPatch()
    for _, text in blocks("python", [ROOT / "docs" / "new_method.md"]):
        path = text.splitlines()[0].removeprefix("# ").removeprefix("src/").removesuffix(".py")
        module = types.ModuleType(path.replace("/", "."))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text, f"docs/new_method.md:{path}", "exec"), module.__dict__)
        made[module.__name__] = module
    yield made
    monkeypatch.undo()


def test_the_toy_method(toy):
    """Its own test, on both detectors, with objects in both images, in one, in none."""
    test = toy["tests.test_bases"].test_bases
    cases = [mark.args for mark in test.pytestmark]
    assert len(cases) == 2
    for values in product(*(choices for _, choices in cases)):
        test(**dict(zip((name for name, _ in cases), values, strict=True)))


def test_the_toy_recipe(toy):
    made = toy["perpixel.recipes.bases"].bases_mobilenetv2()
    assert made.data.masks and type(made.model.instance).__name__ == "Bases"
    assert override(made, ["model.instance.width=16"]).model.instance.width == 16
    assert override(get_recipe("retinanet_mobilenetv2"), ["model.instance.kind=Bases"]).model.instance.width == 8


PYTHON = blocks("python")


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=[f"{name_of(page)}-{i}" for i, (page, _) in enumerate(PYTHON)])
def test_python(page, text, toy):
    """Every Python block compiles and what it imports exists."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text("utf-8"))):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_nothing_of_this_workplace(page):
    """The documentation stands alone: no path outside the repository."""
    assert re.findall(r"/work\b|\bshared/|/tmp\b|/root\b|DESIGN\.md", page.read_text("utf-8")) == []


def test_navigation():
    """mkdocs.yml lists every page of docs/ once."""
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    listed = re.findall(r": ([\w/]+\.md)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize(
    "method", ["fcos", "crowds", "retinanet", "condinst", "boxinst", "blendmask", "dr1mask", "meinst", "smalmask"]
)
def test_tables_of_recipes(method):
    """A method's page names each of its recipes, with the figure that the recipe's docstring labels as the paper's."""
    text = (ROOT / "docs" / "methods" / f"{method}.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for name, function in all_recipes().items():
        module = inspect.getmodule(function).__name__.removesuffix("_real_time")
        if module != f"perpixel.recipes.{method}":
            continue
        mine = [row for row in rows if f"`{name}`" in row]
        assert len(mine) == 1, f"{name} stands in {len(mine)} rows"
        for figure in re.findall(r"(?:Paper|AdelaiDet): ([\d.]+) AP", inspect.getdoc(function) or ""):
            assert figure in mine[0], f"{name}: {figure} is missing"


def table_after(page: Path, head: str) -> list[str]:
    """The rows of the page's one table of that heading."""
    lines = page.read_text("utf-8").splitlines()
    assert lines.count(head) == 1
    return list(takewhile(lambda line: line.startswith("|"), lines[lines.index(head) + 2 :]))


def what_of(table: Table) -> str:
    """What it compares: its source after paper, table and data."""
    return table.source.partition(": ")[2]


@pytest.mark.parametrize(
    "method", ["fcos", "crowds", "condinst", "boxinst", "blendmask", "dr1mask", "meinst", "smalmask"]
)
def test_tables_of_ablations(method):
    """A method's page has every row of its tables: name, settings, and the box, mask or crowd AP, or PQ, with whose it is."""
    expected = []
    for table in all_tables().values():
        if not table.name.startswith(f"{method}_"):
            continue
        whose = "AdelaiDet: " if table.source.startswith("AdelaiDet") else ""
        for number, row in enumerate(table.rows):
            whole = [row.paper[name] for name in ("box AP", "mask AP", "panoptic PQ", "crowd AP") if name in row.paper]
            figure = whole[0] if whole else None
            first = "" if number else f"`{table.name}`: {what_of(table)} "
            settings = " ".join(f"`{setting}`" for setting in row.settings)
            expected.append(
                f"| {first}| {row.name} | {settings} | {'none' if figure is None else f'{whose}{figure}'} |"
            )
    page = ROOT / "docs" / "methods" / f"{method}.md"
    assert table_after(page, "| table | what | setting | AP of the paper |") == expected


def test_list_of_tables():
    """docs/ablate.md names every table of ablations."""
    expected = [f"| `{name}` | {len(table.rows)} | {what_of(table)} |" for name, table in all_tables().items()]
    assert table_after(ROOT / "docs" / "ablate.md", "| table | rows | what it compares |") == expected


def test_extras():
    """The extras that README names are those of pyproject.toml."""
    text = (ROOT / "README.md").read_text("utf-8").partition("Extras:")[2].partition(";")[0]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"`(\w+)`", text)) == set(extras)


def test_list_of_commands():
    """README's table holds every command."""
    table = re.findall(r"^\| `perpixel ([\w-]+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert table == list(command_line.COMMANDS)


def test_words_of_the_glossary():
    """The glossary explains the words of the seam that the code uses."""
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    words = ("pyramid", "level", "stride", "location", "point", "tower", "bases", "embedding", "target", "match")
    for word in (*words, "candidate", "recipe"):
        assert f"\n| **{word}** |" in text, word
