"""The memory of the system: one row in `runs` when a stage starts and one when it ends, and what they imply.

A stage whose fingerprint (code, configuration, inputs) and outputs are those of its last finished run has nothing to
do. A stage that was interrupted takes up its run id and transaction version, so that Delta skips what it had written.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recbatch import __version__
from recbatch.tables import columns as c
from recbatch.tables.arrow import read_arrow
from recbatch.tables.schemas import RUNS
from recbatch.tables.store import TableStore, Transaction

STARTED = "started"
DONE = "done"
FAILED = "failed"


@dataclass(frozen=True)
class Attempt:
    """One try at a stage; `version` is its transaction version in every table it writes."""

    run_id: str
    stage: str
    fingerprint: str
    version: int
    inputs: Mapping[str, str]
    configuration: str
    started_at: dt.datetime


@dataclass(frozen=True)
class StageResult:
    """What a stage reports: rows in and out by name, and figures worth keeping."""

    row_counts: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


class Ledger:
    """The `runs` table of one warehouse, read once and kept up to date as this process adds to it."""

    def __init__(self, store: TableStore, pipeline: str) -> None:
        self._store = store
        self._pipeline = pipeline
        self._rows: list[dict[str, Any]] = []
        if store.version(RUNS) is not None:
            rows = read_arrow(store, RUNS).to_pylist()
            self._rows = sorted(({**row, **_maps(row)} for row in rows), key=_order)

    def last_done(self, stage: str) -> dict[str, Any] | None:
        """The latest finished run of `stage`, as a row of `runs`."""
        return next((row for row in reversed(self._rows) if row[c.STAGE] == stage and row[c.STATUS] == DONE), None)

    def is_current(self, stage: str, fingerprint: str, outputs: Mapping[str, int]) -> bool:
        """Whether the last finished run had this fingerprint and its tables are still the versions it wrote."""
        last = self.last_done(stage)
        return last is not None and last[c.FINGERPRINT] == fingerprint and last[c.OUTPUTS] == dict(outputs)

    def begin(
        self, stage: str, fingerprint: str, run_id: str, *, inputs: Mapping[str, str], configuration: str
    ) -> Attempt:
        """Record that `stage` starts; an interrupted attempt at the same work is taken up instead of a new one."""
        tried = [row for row in self._rows if row[c.STAGE] == stage]
        version = max((row[c.TXN_VERSION] for row in tried), default=0) + 1
        # Only the very last attempt may be taken up: Delta skips in silence what has a lower version than another.
        if tried and tried[-1][c.STATUS] != DONE and tried[-1][c.FINGERPRINT] == fingerprint:
            version, run_id = tried[-1][c.TXN_VERSION], tried[-1][c.RUN_ID]
        attempt = Attempt(run_id, stage, fingerprint, version, inputs, configuration, _now())
        self._append(attempt, STARTED, StageResult(), {}, None)
        return attempt

    def finish(self, attempt: Attempt, result: StageResult, outputs: Mapping[str, int]) -> None:
        self._append(attempt, DONE, result, outputs, _now())

    def fail(self, attempt: Attempt, message: str) -> None:
        self._append(attempt, FAILED, StageResult(message=message), {}, _now())

    def transaction(self, attempt: Attempt) -> Transaction:
        return Transaction(f"{self._pipeline}/{attempt.stage}", attempt.version)

    def _append(
        self,
        attempt: Attempt,
        status: str,
        result: StageResult,
        outputs: Mapping[str, int],
        finished_at: dt.datetime | None,
    ) -> None:
        row: dict[str, Any] = {
            c.RUN_ID: attempt.run_id,
            c.STAGE: attempt.stage,
            c.STATUS: status,
            c.FINGERPRINT: attempt.fingerprint,
            c.TXN_VERSION: attempt.version,
            c.STARTED_AT: attempt.started_at,
            c.FINISHED_AT: finished_at,
            c.INPUTS: dict(attempt.inputs),
            c.OUTPUTS: dict(outputs),
            c.ROW_COUNTS: dict(result.row_counts),
            c.FIGURES: dict(result.figures),
            c.CONFIGURATION: attempt.configuration,
            c.MESSAGE: result.message,
            c.CODE_VERSION: __version__,
        }
        # The ledger's own version is the number of its rows: every row is a commit of its own.
        transaction = Transaction(f"{self._pipeline}/ledger/{attempt.run_id}", len(self._rows))
        self._store.append_few(RUNS, [row], transaction)
        self._rows.append(row)


def last_runs(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The latest finished run of every stage, by stage."""
    done = sorted((row for row in rows if row[c.STATUS] == DONE), key=_order)
    return {row[c.STAGE]: row for row in done}


def configuration_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved configuration that a run was made with."""
    configuration: dict[str, Any] = json.loads(row[c.CONFIGURATION])
    return configuration


def _order(row: Mapping[str, Any]) -> tuple[dt.datetime, dt.datetime]:
    started = row[c.STARTED_AT]
    return started, row[c.FINISHED_AT] or started


def _maps(row: Mapping[str, Any]) -> dict[str, Any]:
    """Arrow gives a map as a list of pairs."""
    return {name: dict(row[name]) for name in (c.INPUTS, c.OUTPUTS, c.ROW_COUNTS, c.FIGURES)}


def _now() -> dt.datetime:
    # The ledger records when work was done; nothing that is computed depends on it.
    return dt.datetime.now(dt.UTC)
