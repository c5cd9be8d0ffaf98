"""What the pipeline tests share: running stages, and copies of the finished warehouse that a test may change."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from recbatch.config import Config
from recbatch.context import Progress, StageContext
from recbatch.flow import STAGES, Stage
from recbatch.runner import Runner, StageOutcome
from recbatch.tables.store import TableStore, Transaction
from tests.pipeline.slice import Slice

QUIET = Progress(lambda _: None, lambda *_: None)
# Compiling each method once and quickly pays for a short run, if what was compiled has room: 48 MB would not do.
SHORT_RUN_JVM = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"
PUBLISHED = ("recommendations", "recommendations_by_user", "default_recommendations", "releases")


@dataclass(frozen=True)
class Release:
    """The slice taken from raw files to published tables once. Tests that write do it in a copy."""

    spark: SparkSession
    slice: Slice
    warehouse: Path
    config: Config
    outcomes: list[StageOutcome]

    def table(self, name: str) -> pa.Table:
        return read(self.warehouse, name)

    def copy(self, target: Path, *overrides: str) -> Config:
        """The configuration of a copy of the warehouse in `target`."""
        shutil.copytree(self.warehouse, target)
        return self.slice.config(target, *overrides)

    def context(self, config: Config | None = None, version: int = 1) -> StageContext:
        """What a stage is given, outside of the ledger."""
        chosen = config or self.config
        store = TableStore(self.spark, chosen.warehouse)
        return StageContext(self.spark, chosen, store, "by-hand", Transaction("by-hand", version), None, QUIET)


def run(
    spark: SparkSession, config: Config, stages: Sequence[Stage] = STAGES, run_id: str = "test-run"
) -> list[StageOutcome]:
    return Runner(spark, config, run_id=run_id, as_of=None, progress=QUIET).run(stages)


def read(warehouse: Path | str, name: str) -> pa.Table:
    """A table as readers without Spark see it."""
    return DeltaTable(f"{warehouse}/{name}").to_pyarrow_table()


def rows(warehouse: Path | str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read(warehouse, name).to_pylist()
    return found


def versions(warehouse: Path | str, names: Sequence[str] = PUBLISHED) -> dict[str, int]:
    return {name: DeltaTable(f"{warehouse}/{name}").version() for name in names}
