"""Tables to choose by: figures are the recipes' own, or those of the page that says how they were measured."""

import inspect
import re
from itertools import takewhile
from pathlib import Path

import pytest

from perpixel.recipes import all_recipes

DOCS = Path(__file__).resolve().parents[1] / "docs"


def rows(page: str, head: str) -> list[list[str]]:
    """The cells of a page's table of that heading."""
    lines = (DOCS / page).read_text("utf-8").splitlines()
    table = takewhile(lambda line: line.startswith("|"), lines[lines.index(head) + 2 :])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


CHOICE = rows(
    "tutorials/choose_a_method.md", "| method | learns from | recipe of the figure | AP of the paper | take it when |"
)


IN_README = re.findall(r"\| ([\d.]+), `(\w+)` \|", (DOCS.parent / "README.md").read_text("utf-8"))


@pytest.mark.parametrize(("figure", "recipe"), IN_README, ids=[recipe for _, recipe in IN_README])
def test_figures_of_papers_are_those_of_the_recipes(figure, recipe):
    assert re.search(rf"Paper: {re.escape(figure)} (keypoint )?AP", inspect.getdoc(all_recipes()[recipe]) or "")


def test_readme_and_tutorial_give_the_same_figures():
    assert len(CHOICE) == 11
    assert sorted((row[3], row[2].strip("`")) for row in CHOICE) == sorted(IN_README)


def test_measured_figures_are_those_of_the_results():
    """The columns of the short comparison are the mask AP of results.md's two tables of nuclei."""
    short = rows("results.md", "| model | box AP | mask AP | AP50 | AP75 | small | medium | commit |")
    long = rows("results.md", "| photos | model | box AP | mask AP | AP50 | AP75 | commit |")
    measured = {row[0]: row[2] for row in short}
    longer = {row[1].partition(",")[0]: row[3] for row in long if row[0] == "nuclei"}
    table = rows("tutorials/choose_a_method.md", "| method | 200 steps at 192 pixels | 400 steps at 256 pixels |")
    assert {row[0] for row in table if row[1]} == set(measured)
    for method, first, second in table:
        assert first == measured.get(method, "")
        assert second == longer.get(method.partition(",")[0], "")
