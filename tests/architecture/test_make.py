"""The targets of the Makefile: all are listed by `make help`, and each is a recipe that make can expand."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = {"help", "setup", "demo", "test", "test-full", "oracle", "lint", "bench", "peers-env", "package", "clean"}


def _make(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    # Under `make test` the outer make's flags must not reach this one.
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, env=inherited | (environment or {}), capture_output=True, text=True)


def test_help_is_the_default_and_lists_every_target() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    # `java` is a step of setup that nobody calls by itself.
    assert set(phony.split()) == TARGETS | {"java"}
    result = _make()
    assert result.returncode == 0, result.stderr
    helps = dict(re.findall(r"^ +make ([a-z-]+) +(\S.+)$", result.stdout, re.MULTILINE))
    assert helps.keys() == TARGETS
    assert all(len(text) > 10 for text in helps.values())


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_target_expands(target: str) -> None:
    result = _make("--dry-run", target)
    assert result.returncode == 0, result.stderr


def _java(folder: Path, version: str) -> dict[str, str]:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    (folder / "bin" / "java").chmod(0o755)
    return {"JAVA_HOME": str(folder)}


@pytest.mark.parametrize("version", ["17.0.15", "17", "21.0.1"])
def test_setup_accepts_the_java_that_spark_runs_on(tmp_path: Path, version: str) -> None:
    assert _make("java", environment=_java(tmp_path, version)).returncode == 0


@pytest.mark.parametrize("version", ["1.8.0_392", "11.0.2", "24"])
def test_setup_refuses_another_java(tmp_path: Path, version: str) -> None:
    result = _make("java", environment=_java(tmp_path, version))
    assert result.returncode != 0
    assert f"is Java {version.split('.')[0]}; Spark needs 17 or 21" in result.stderr


def test_setup_refuses_a_missing_java(tmp_path: Path) -> None:
    result = _make("java", environment={"JAVA_HOME": str(tmp_path)})
    assert result.returncode != 0
    assert "Java is missing" in result.stderr


def test_setup_refuses_a_machine_without_python(tmp_path: Path) -> None:
    virtual_environment = tmp_path / "venv"
    result = _make(f"VENV={virtual_environment}", "PYTHON=false", f"{virtual_environment}/.installed")
    assert result.returncode != 0
    assert "None of 'false' is a Python 3.11 to 3.13" in result.stderr
    assert not virtual_environment.exists()
