"""The Java that Spark will start: where it is and which version, found before Spark fails without saying why."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from recbatch.errors import UsageError

SUPPORTED_JAVA = (17, 21)
# A first start on a cold disk takes seconds; more than this is a broken installation.
_TIMEOUT_SECONDS = 60
_REMEDY = "install Java 17 and set JAVA_HOME to it"


@dataclass(frozen=True)
class JavaInstall:
    """An executable that ran; `version` is what it called itself ("17.0.15"), `major` its feature release (17)."""

    executable: Path
    version: str
    major: int


def find_java() -> JavaInstall:
    """Return the Java that Spark's launcher would take: JAVA_HOME's where that is set, otherwise the first on PATH.

    Raises:
        UsageError: there is none, it does not run, or Spark does not support its version.
    """
    executable = _locate()
    version = _read_version(executable)
    java = JavaInstall(executable, version, _major(version))
    if java.major not in SUPPORTED_JAVA:
        raise UsageError(f"Java {version} ({executable}) is not one that Spark runs on (17 or 21)", remedy=_REMEDY)
    return java


def _locate() -> Path:
    home = os.environ.get("JAVA_HOME")
    if home:
        # Spark's launcher does not fall back to PATH, so neither do we.
        executable = Path(home) / "bin" / "java"
        if not os.access(executable, os.X_OK):
            raise UsageError(f"JAVA_HOME is '{home}', but '{executable}' is not a program", remedy=_REMEDY)
        return executable
    found = shutil.which("java")
    if found is None:
        raise UsageError("Java is missing: JAVA_HOME is not set and PATH holds no 'java'", remedy=_REMEDY)
    return Path(found)


def _read_version(executable: Path) -> str:
    try:
        answer = subprocess.run(
            [executable, "-version"], capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"'{executable} -version' failed: {error}", remedy=_REMEDY) from error
    # Every vendor writes it to standard error; the line may follow "Picked up JAVA_TOOL_OPTIONS".
    match = re.search(r'version "([^"]+)"', answer.stderr + answer.stdout)
    if answer.returncode != 0 or match is None:
        lines = (answer.stderr + answer.stdout).strip().splitlines() or [f"exit code {answer.returncode}"]
        raise UsageError(f"'{executable} -version' names no version: {lines[0]}", remedy=_REMEDY)
    return match.group(1)


def _major(version: str) -> int:
    # Up to Java 8 the feature release came second: 1.8.0_392.
    match = re.match(r"(?:1\.)?(\d+)", version)
    return int(match.group(1)) if match else 0
