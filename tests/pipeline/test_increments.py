"""Scoring that was killed, and scoring after few users changed, end in the table of an undisturbed full run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import functions as F

from recbatch.context import StageContext
from recbatch.stages.score import score
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.ledger import StageResult
from recbatch.tables.store import Transaction
from tests.pipeline.slice import ROOT
from tests.pipeline.support import Release, read, rows

Entries = list[tuple[object, ...]]
ONE_BUCKET_A_COMMIT = "scoring.commit_seconds=0.000001"
DIFFERENT = {"run_id", "as_of", "txn_version"}


def _entries(warehouse: Path | str, ignored: set[str] = DIFFERENT) -> Entries:
    lists = read(warehouse, "staged_recommendations")
    lists = lists.sort_by([("user_id", "ascending"), ("rank", "ascending")])
    kept = [name for name in lists.column_names if name not in ignored]
    return list(zip(*(lists[name].to_pylist() for name in kept), strict=True))


def _score(release: Release, warehouse: Path, version: int, *overrides: str) -> StageResult:
    return score(release.context(release.slice.config(warehouse, *overrides), version=version))


def _change_users(context: StageContext, changed: list[str], gone: list[str]) -> None:
    """Take the last behaviour from some users, and others away altogether."""
    sequences = context.tables.read(schemas.USER_SEQUENCES).where(~F.col(c.USER_ID).isin(gone))
    shorter = {
        name: F.when(F.col(c.USER_ID).isin(changed), F.expr(f"slice({name}, 1, size({name}) - 1)")).otherwise(
            F.col(name)
        )
        for name in (c.ITEM_IDX, c.EVENT_TYPE, c.EVENT_TIME, c.PRICE, c.QUANTITY)
    }
    rows = context.spark.createDataFrame(sequences.withColumns(shorter).toArrow())
    context.tables.replace(schemas.USER_SEQUENCES, rows, Transaction("changed-by-hand", 1))


@pytest.mark.parametrize("item_shards", [1, 2], ids=["written by workers", "written by Spark"])
def test_after_few_changes_only_those_users_are_scored_and_the_table_is_that_of_a_full_run(
    release: Release, tmp_path: Path, item_shards: int
) -> None:
    config = release.copy(tmp_path / "warehouse")
    warehouse = tmp_path / "warehouse"
    users = sorted(set(read(warehouse, "user_sequences")["user_id"].to_pylist()))
    changed, gone = users[3:6], users[-1:]
    _change_users(release.context(config), changed, gone)
    result = _score(release, warehouse, 7, f"scoring.item_shards={item_shards}")
    assert result.row_counts["users_scored"] == len(changed)
    assert result.row_counts["users"] == len(users) - len(gone)
    incremental = _entries(warehouse)
    assert {entry[0] for entry in incremental} == set(users) - set(gone)
    # The same work on a warehouse without staged lists.
    shutil.rmtree(warehouse / "staged_recommendations")
    full = _score(release, warehouse, 8)
    assert full.row_counts["users_scored"] == len(users) - len(gone)
    assert _entries(warehouse) == incremental


def test_other_options_score_every_user_again(release: Release, tmp_path: Path) -> None:
    release.copy(tmp_path / "warehouse")
    result = _score(release, tmp_path / "warehouse", 7, "scoring.k=5")
    assert result.row_counts["users_scored"] == result.row_counts["users"]
    assert {entry[1] for entry in _entries(tmp_path / "warehouse")} == set(range(1, 6))


def test_buckets_of_a_finer_division_do_not_stay_behind(release: Release, tmp_path: Path) -> None:
    config = release.copy(tmp_path / "warehouse")
    context = release.context(config)
    staged = context.tables.read(schemas.STAGED_RECOMMENDATIONS)
    stray = staged.where(F.col(c.RANK) == 1).withColumn(c.USER_BUCKET, F.lit(config.features.buckets + 3))
    context.tables.append(schemas.STAGED_RECOMMENDATIONS, stray, Transaction("stray", 1))
    _score(release, tmp_path / "warehouse", 7)
    assert _entries(tmp_path / "warehouse") == _entries(release.warehouse)


def test_a_table_of_an_older_release_is_replaced(release: Release, tmp_path: Path) -> None:
    config = release.copy(tmp_path / "warehouse")
    tables = release.context(config).tables
    older = tables.read(schemas.STAGED_RECOMMENDATIONS).drop(c.USER_FINGERPRINT, c.TXN_VERSION)
    rows = release.spark.createDataFrame(older.toArrow())
    path = tables.path(schemas.STAGED_RECOMMENDATIONS)
    rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(path)
    _score(release, tmp_path / "warehouse", 7, ONE_BUCKET_A_COMMIT)
    assert _entries(tmp_path / "warehouse") == _entries(release.warehouse)


def _command(release: Release, warehouse: Path) -> list[str]:
    options = [*release.slice.options(warehouse), ONE_BUCKET_A_COMMIT]
    settings = [part for option in options for part in ("--set", option)]
    return [
        str(Path(sys.executable).with_name("recbatch")),
        "score",
        "--config",
        str(ROOT / "conf" / "demo.yaml"),
        *settings,
    ]


def _kill_after_commits(command: list[str], log: Path, commits: int) -> None:
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    while len(list(log.glob("*.json"))) < commits:
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"the run ended with {process.wait(timeout=0.05)} before it was killed")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow  # two programs with a JVM each
def test_a_killed_run_continues_with_the_buckets_that_are_missing(release: Release, tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse"
    release.copy(warehouse)
    shutil.rmtree(warehouse / "staged_recommendations")
    _kill_after_commits(_command(release, warehouse), warehouse / "staged_recommendations" / "_delta_log", 3)
    done = set(read(warehouse, "staged_recommendations")["user_bucket"].to_pylist())
    users = read(warehouse, "user_sequences")["user_bucket"].to_pylist()
    left = [bucket for bucket in users if bucket not in done]
    assert 0 < len(left) < len(users)
    subprocess.run(_command(release, warehouse), check=True, stdout=subprocess.DEVNULL)
    finished = [row for row in rows(warehouse, "runs") if row["stage"] == "score" and row["status"] == "done"]
    last = max(finished, key=lambda row: row["finished_at"])
    assert dict(last["row_counts"])["users_scored"] == len(left)
    assert _entries(warehouse) == _entries(release.warehouse)
