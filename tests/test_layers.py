"""Imports point down only: the architecture of docs/architecture.md, enforced."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "perpixel"

# Each layer may import those of lower rank; of one rank, none knows another (`models` and `data`, `recipes` and `serve`).
RANKS = {
    "cli": 8,
    "serve": 7,
    "recipes": 7,
    "search": 6,
    "engine": 5,
    "models": 4,
    "data": 4,
    "nn": 3,
    "ops": 2,
    "structures": 1,
    "config": 1,
    "errors": 0,
}


def layer(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def imports_of(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def upward_imports():
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        here = parts[0]
        if here in ("__init__", "__main__"):  # the public face imports whatever it offers
            continue
        assert here in RANKS, f"{path} belongs to no layer"
        for line, module in imports_of(path):
            if not module.startswith("perpixel.") or layer(module) == here:
                continue
            if RANKS[layer(module)] >= RANKS[here]:
                yield f"{path.relative_to(SOURCE)}:{line} ({here}) imports {module}"


def test_imports_point_down():
    assert list(upward_imports()) == []


def test_the_check_sees_an_upward_import(tmp_path, monkeypatch):
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops" / "wrong.py").write_text("from perpixel.models.fcos import FCOS\n")
    monkeypatch.setattr("test_layers.SOURCE", tmp_path)
    assert list(upward_imports()) == ["ops/wrong.py:1 (ops) imports perpixel.models.fcos"]


@pytest.mark.parametrize("word", ["feats", "inds", "cfg", "im", "topk_proposals_per_im", "utils", "misc"])
def test_forbidden_words(word):
    """Words the glossary rules out name nothing of ours: no variable, attribute, argument, function, class or module."""
    found = [str(path) for path in SOURCE.rglob("*.py") if path.stem == word]
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            stored = isinstance(getattr(node, "ctx", None), ast.Store)
            defined = isinstance(node, ast.arg | ast.FunctionDef | ast.ClassDef)
            names = {getattr(node, field, None) for field in ("id", "attr", "arg", "name")}
            if (stored or defined) and word in names:
                found.append(f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', '?')}")
    assert found == []
