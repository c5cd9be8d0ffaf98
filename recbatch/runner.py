"""Runs stages: works out what is already done, records every attempt in `runs`, and turns outcomes into exit codes."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from recbatch import __version__
from recbatch.config.sections import Config
from recbatch.context import Progress, Request, StageContext
from recbatch.flow import Stage
from recbatch.tables.files import list_files
from recbatch.tables.lease import lease
from recbatch.tables.ledger import Ledger, StageResult
from recbatch.tables.store import TableStore


@dataclass(frozen=True)
class StageOutcome:
    """What became of a stage: `result` is None where there was nothing to do."""

    stage: Stage
    result: StageResult | None
    seconds: float


class Runner:
    """One invocation: a session, a configuration, a warehouse and its ledger."""

    def __init__(
        self,
        spark: SparkSession,
        config: Config,
        *,
        run_id: str,
        as_of: dt.datetime | None,
        progress: Progress,
        request: Request | None = None,
    ) -> None:
        self._spark, self._config = spark, config
        self._run_id, self._as_of, self._progress = run_id, as_of, progress
        self._request = request or Request()
        self.tables = TableStore(spark, config.warehouse)
        self.ledger = Ledger(self.tables, config.pipeline)

    def run(self, stages: Sequence[Stage]) -> list[StageOutcome]:
        """Run the stages in order; each is skipped where its inputs, options and outputs are those of its last run.

        Raises:
            LockedError: another run is at the stage; the stages before it have been run.
            RecbatchError: what the failing stage raised; the attempt is recorded as failed.
        """
        self.tables.ensure_writable()
        return [self._run_alone(stage) for stage in stages]

    def is_current(self, stage: Stage) -> bool:
        """Whether running the stage now would change nothing."""
        fingerprint, _ = self._fingerprint(stage)
        return self.ledger.is_current(stage.name, fingerprint, self._outputs(stage))

    def _run_alone(self, stage: Stage) -> StageOutcome:
        """Run the stage while nobody else does, from what the ledger says once that is sure."""
        with lease(self.tables, stage.name):
            self.ledger = Ledger(self.tables, self._config.pipeline)
            return self._run(stage)

    def _run(self, stage: Stage) -> StageOutcome:
        began = time.monotonic()
        fingerprint, inputs = self._fingerprint(stage)
        asked_for = stage.reads_raw and self._request != Request()
        if not asked_for and self.ledger.is_current(stage.name, fingerprint, self._outputs(stage)):
            self._progress.notify(f"{stage.name}: nothing to do")
            return StageOutcome(stage, None, time.monotonic() - began)
        configuration = self._config.model_dump_json()
        attempt = self.ledger.begin(stage.name, fingerprint, self._run_id, inputs=inputs, configuration=configuration)
        context = StageContext(
            self._spark,
            self._config,
            self.tables,
            attempt.run_id,
            self.ledger.transaction(attempt),
            self._as_of,
            self._progress,
            self._request,
            self.ledger.last_done(stage.name),
        )
        self._progress.notify(f"{stage.name}: {stage.summary}")
        try:
            result = stage.run(context)
        except Exception as error:
            self.ledger.fail(attempt, str(error))
            raise
        self.ledger.finish(attempt, result, self._outputs(stage))
        seconds = time.monotonic() - began
        self._progress.notify(f"{stage.name}: {result.message} ({seconds:.1f} s)")
        return StageOutcome(stage, result, seconds)

    def _outputs(self, stage: Stage) -> dict[str, int]:
        """Versions of the tables that the stage has written; one that was not asked for does not exist."""
        versions = {spec.name: self.tables.version(spec) for spec in stage.writes}
        return {name: version for name, version in versions.items() if version is not None}

    def _fingerprint(self, stage: Stage) -> tuple[str, dict[str, str]]:
        """A hash of all that the result depends on, and the inputs among it."""
        inputs = {spec.name: str(self.tables.version(spec)) for spec in stage.reads}
        if stage.reads_raw:
            inputs |= self._raw_files()
        basis = {
            "code": __version__,
            "stage": stage.name,
            "inputs": inputs,
            "options": {name: self._option(name) for name in stage.options},
            "as_of": None if self._as_of is None or not stage.uses_as_of else self._as_of.isoformat(),
        }
        return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest(), inputs

    def _option(self, name: str) -> Any:
        """The value of a section or, with a dot, of one option in it."""
        value: Any = self._config.model_dump(mode="json")
        for part in name.split("."):
            value = value[part]
        return value

    def _raw_files(self) -> dict[str, str]:
        """A hash of names, sizes and times of the raw files: a rewritten file is another input."""
        source = self._config.input
        paths = {"events": source.events.path} | ({"items": source.items.path} if source.items is not None else {})
        return {
            f"raw_{name}": hashlib.sha256(json.dumps(list_files(self._spark, path)).encode()).hexdigest()[:16]
            for name, path in paths.items()
        }
