"""The plan of a scoring run counts what a run would do, writes nothing, and says what is missing."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recbatch.context import StageContext
from recbatch.errors import InputContractError, ModelError
from recbatch.stages.score import plan_scoring
from recbatch.tables import schemas
from recbatch.tables.store import Transaction
from tests.pipeline.support import Release, read


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in found}


def test_the_plan_counts_what_a_run_does_and_writes_nothing(release: Release) -> None:
    changed = release.config.scoring.model_copy(update={"k": 7, "tile_items": 256, "batch_users": 9, "partitions": 3})
    before = _files(release.warehouse)
    plan = plan_scoring(StageContext.read_only(release.spark, release.config.model_copy(update={"scoring": changed})))
    assert _files(release.warehouse) == before
    products = pq.read_table(release.slice.folder / "products")
    assert plan.users == len(set(read(release.warehouse, "recommendations")["user_id"].to_pylist()))
    assert plan.items == products["discontinued_on"].null_count
    assert plan.rows == plan.users * 7
    assert (plan.tiles, plan.batch_users, plan.tasks, plan.cores) == (-(-plan.items // 256), 9, 3, 2)
    assert plan.seconds > 0
    assert not plan.mapped
    parts = StageContext.read_only(
        release.spark,
        release.config.model_copy(update={"scoring": changed.model_copy(update={"item_shards": 2})}),
    )
    assert plan_scoring(parts).screen_bytes == plan.screen_bytes // 2


def test_the_plan_of_an_empty_warehouse_names_the_missing_table(release: Release, tmp_path: Path) -> None:
    empty = StageContext.read_only(release.spark, release.slice.config(tmp_path / "empty"))
    with pytest.raises(InputContractError, match="'user_sequences' does not exist"):
        plan_scoring(empty)


def test_the_plan_without_a_champion_or_a_user_says_so(release: Release, tmp_path: Path) -> None:
    context = StageContext.read_only(release.spark, release.copy(tmp_path / "warehouse"))
    tables = context.tables
    tables.replace(schemas.MODELS, tables.read(schemas.MODELS).limit(0), Transaction("test", 1))
    with pytest.raises(ModelError, match="no model has passed its evaluation yet"):
        plan_scoring(context)
    tables.replace(schemas.USER_SEQUENCES, tables.read(schemas.USER_SEQUENCES).limit(0), Transaction("test", 1))
    with pytest.raises(ModelError, match="'user_sequences' has no user"):
        plan_scoring(context)
