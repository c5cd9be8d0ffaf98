"""Cleaning that is killed, or run twice at once, ends in the tables of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from recbatch.errors import EXIT_DONE, EXIT_NOTHING_TO_DO, LockedError
from tests.pipeline.slice import ROOT, Slice
from tests.pipeline.support import read

TABLES = ("events", "rejected_events", "items", "bots")


def _start(raw: Slice, warehouse: Path) -> subprocess.Popen[bytes]:
    settings = [part for option in raw.options(warehouse) for part in ("--set", option)]
    command = [str(Path(sys.executable).with_name("recbatch")), "clean", "--config", str(ROOT / "conf" / "demo.yaml")]
    return subprocess.Popen([*command, *settings], start_new_session=True, stdout=subprocess.DEVNULL)


def _content(warehouse: Path) -> dict[str, Counter[str]]:
    """The rows of every table without what names the run."""
    tables = {name: read(warehouse, name) for name in TABLES}
    return {name: Counter(map(str, table.drop_columns(["run_id"]).to_pylist())) for name, table in tables.items()}


@pytest.fixture(scope="module")
def undisturbed(raw: Slice, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counter[str]]:
    warehouse = tmp_path_factory.mktemp("undisturbed") / "warehouse"
    assert _start(raw, warehouse).wait() == EXIT_DONE
    return _content(warehouse)


@pytest.mark.slow  # programs with a JVM each
@pytest.mark.parametrize("table", ["rejected_events", "events", "items"])
def test_a_run_that_is_killed_after_a_commit_is_taken_up(
    raw: Slice, undisturbed: dict[str, Counter[str]], tmp_path: Path, table: str
) -> None:
    process = _start(raw, tmp_path)
    while not list((tmp_path / table / "_delta_log").glob("*.json")):
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"the run ended with {process.wait(timeout=0.05)} before it was killed")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # The lease of the dead process does not hold up the next one.
    assert _start(raw, tmp_path).wait() == EXIT_DONE
    assert _content(tmp_path) == undisturbed


@pytest.mark.slow  # programs with a JVM each
def test_of_two_runs_at_once_one_does_the_work(
    raw: Slice, undisturbed: dict[str, Counter[str]], tmp_path: Path
) -> None:
    codes = sorted(process.wait() for process in [_start(raw, tmp_path) for _ in range(2)])
    assert codes[0] == EXIT_DONE
    assert codes[1] in (LockedError.exit_code, EXIT_NOTHING_TO_DO)
    assert _content(tmp_path) == undisturbed
