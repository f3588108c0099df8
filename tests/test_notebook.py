"""The notebooks in examples/ run from top to bottom, and are stored as Jupyter wants them, without anybody's paths."""

import ast
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.ipynb"))


def cells(notebook: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_there_is_one():
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_form(notebook):
    """nbformat 4.5: each cell with an id of its own, code cells with outputs; small, and free of this machine's paths."""
    stored = json.loads(notebook.read_text("utf-8"))
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in stored["cells"]}) == len(stored["cells"])
    for cell in cells(notebook, "code"):
        assert {"execution_count", "outputs", "metadata"} <= set(cell)
    text = notebook.read_text("utf-8")
    assert len(text) < 300_000 and not any(path in text for path in ("/work", "/root", "/tmp", "/home"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook, tmp_path, monkeypatch):
    """Every code cell in its order, with few steps; the last expression of a cell is what Jupyter would show."""
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "notebook"}
    shown = []
    for cell in cells(notebook, "code"):
        lines = ast.parse(source(cell).replace("STEPS = 200", "STEPS = 3"))
        last = lines.body.pop() if isinstance(lines.body[-1], ast.Expr) else None
        exec(compile(lines, notebook.name, "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), notebook.name, "eval"), names))
    assert (3, "FCOS", "CondInst") in shown
    assert [one.size for one in shown if hasattr(one, "getpixel")]  # a picture was shown
