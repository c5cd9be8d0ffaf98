"""Modules that fit a reader's head: up to 300 lines, functions up to 50 beside their docstring, jobs under 40."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    file.relative_to(ROOT).as_posix()
    for folder in ("recbatch", "examples", "jobs", "benchmarks")
    for file in (ROOT / folder).rglob("*.py")
)


def _function_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


@pytest.mark.parametrize("module", MODULES)
def test_module_and_its_functions_are_short(module: str) -> None:
    text = (ROOT / module).read_text()
    lines = len(text.splitlines())
    limit = 39 if module.startswith("jobs/") else 300
    assert lines <= limit, f"{module} has {lines} lines"
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {f.name: _function_lines(f) for f in functions if _function_lines(f) > 50} == {}


def test_lines_of_a_function_are_counted_without_its_docstring() -> None:
    (function,) = ast.parse('def f(\n    a: int,\n) -> int:\n    """One\n\n    two.\n    """\n    return a\n').body
    assert isinstance(function, ast.FunctionDef)
    assert _function_lines(function) == 4
