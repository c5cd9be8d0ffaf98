"""`find_java` takes the Java that Spark's launcher would take, and says what is wrong with any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbatch.errors import UsageError
from recbatch.operations.java import find_java

OPENJDK = 'openjdk version "{}" 2025-04-15'


def _install(folder: Path, answer: str, exit_code: int = 0) -> Path:
    """A `java` in `folder` that answers -version on standard error, as every vendor's does."""
    folder.mkdir(parents=True)
    program = folder / "java"
    program.write_text(f"#!/bin/sh\n[ \"$1\" = -version ] || exit 64\necho '{answer}' >&2\nexit {exit_code}\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(("version", "major"), [("17.0.15", 17), ("21", 21), ("21.0.3+9-LTS", 21), ("17-ea", 17)])
def test_supported_versions_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, major: int
) -> None:
    program = _install(tmp_path / "jdk" / "bin", OPENJDK.format(version))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    java = find_java()
    assert (java.executable, java.version, java.major) == (program, version, major)


@pytest.mark.parametrize("version", ["1.8.0_392", "11.0.2", "16", "18.0.1", "24", "170"])
def test_other_versions_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    program = _install(tmp_path / "jdk" / "bin", OPENJDK.format(version))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    with pytest.raises(UsageError) as refusal:
        find_java()
    assert version in refusal.value.what
    assert str(program) in refusal.value.what
    assert "JAVA_HOME" in refusal.value.remedy


def test_java_home_goes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = _install(tmp_path / "jdk" / "bin", OPENJDK.format("21.0.1"))
    path = _install(tmp_path / "path", OPENJDK.format("17.0.1"))
    monkeypatch.setenv("PATH", str(path.parent))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert find_java().executable == home
    monkeypatch.delenv("JAVA_HOME")
    assert find_java().executable == path


def test_a_java_home_without_java_does_not_fall_back_to_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _install(tmp_path / "path", OPENJDK.format("17.0.1"))
    monkeypatch.setenv("PATH", str(path.parent))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match=r"JAVA_HOME is '.*gone'"):
        find_java()


def test_no_java_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UsageError, match="Java is missing") as refusal:
        find_java()
    assert refusal.value.exit_code == 2


def test_the_version_is_read_below_other_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path / "jdk" / "bin", "Picked up JAVA_TOOL_OPTIONS: -Xmx1g\n" + OPENJDK.format("17.0.9"))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert find_java().version == "17.0.9"


@pytest.mark.parametrize(
    ("answer", "exit_code"),
    [("Unable to locate a Java Runtime.", 1), ("Unable to locate a Java Runtime.", 0), (OPENJDK.format("17.0.9"), 134)],
)
def test_a_java_that_fails_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, exit_code: int
) -> None:
    _install(tmp_path / "jdk" / "bin", answer, exit_code)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    with pytest.raises(UsageError) as refusal:
        find_java()
    assert answer in refusal.value.what


def test_a_file_that_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _install(tmp_path / "jdk" / "bin", "")
    program.write_bytes(b"\x7fELF broken")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    with pytest.raises(UsageError, match="-version' failed"):
        find_java()
