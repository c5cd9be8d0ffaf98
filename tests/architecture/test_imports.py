"""Who may import whom: the contracts of pyproject.toml hold, and they would notice if they did not."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    # The copy in `folder` must be found before the installed package.
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_contracts_hold() -> None:
    result = _lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("cleaning/planted.py", "import recbatch.features", "Stages know libraries"),
        ("scoring/planted.py", "from recbatch.training import dataset", "Stages know libraries"),
        ("tables/planted.py", "import recbatch.cleaning", "Stages know libraries"),
        ("publishing/planted.py", "import recbatch.cli", "Stages know libraries"),
        ("novelty.py", "", "Stages know libraries"),
        ("ranking/planted.py", "import pyspark", "without Spark"),
        ("model/planted.py", "import recbatch.session", "without Spark"),
        ("training/planted.py", "from recbatch.tables.store import TableStore", "without Spark"),
    ],
)
def test_the_contracts_notice(tmp_path: Path, module: str, line: str, contract: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "recbatch", tmp_path / "recbatch", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "recbatch" / module).write_text(f"{line}\n")
    result = _lint_imports(tmp_path)
    assert result.returncode != 0
    broken = re.findall(r"^(.+) BROKEN", result.stdout, re.MULTILINE)
    assert any(contract in name for name in broken), result.stdout + result.stderr


def test_what_runs_without_spark_does_not_load_it() -> None:
    """The contracts see import statements; this sees what a package's own __init__ brings in as well."""
    packages = ("model", "ranking", "training")
    files = [file for package in packages for file in (ROOT / "recbatch" / package).rglob("*.py")]
    pure = ("metrics", "novelty", "slices", "splits", "bootstrap")
    files += [ROOT / "recbatch" / "evaluation" / f"{name}.py" for name in pure]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    script = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    script += "sys.exit(' '.join(sorted({'pyspark', 'py4j', 'delta'} & sys.modules.keys())) or None)"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module.partition(".")[0]


def _distribution_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_that_is_imported_is_declared() -> None:
    extras = [text for group in PROJECT["optional-dependencies"].values() for text in group]
    # What a peer runs on has an environment of its own.
    peers = (ROOT / "benchmarks" / "sequences" / "requirements-peers.txt").read_text().splitlines()
    texts = [*PROJECT["dependencies"], *extras, *(line for line in peers if not line.startswith("#"))]
    declared = {_distribution_name(Requirement(text).name) for text in texts}
    # pyspark pins the py4j that its own signatures are made of.
    declared.add("py4j")
    owners = importlib.metadata.packages_distributions()
    undeclared = {
        f"{file.relative_to(ROOT)}: {name}"
        for folder in ("recbatch", "examples", "jobs", "benchmarks")
        for file in (ROOT / folder).rglob("*.py")
        for name in _imported(ast.parse(file.read_text()))
        if name not in sys.stdlib_module_names | {"recbatch", "examples", "benchmarks"}
        if not (file.parent / f"{name}.py").exists()  # a script sees the modules beside it
        # What an extra brings may not be installed: then its own name, or one like faiss-cpu, must be declared.
        if not declared & {_distribution_name(owner) for owner in owners.get(name, (name, f"{name}-cpu"))}
    }
    assert undeclared == set()
