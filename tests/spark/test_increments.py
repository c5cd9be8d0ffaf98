"""Features of new events alone, of runs that were killed, and of two runs at once: the tables of one whole run."""

from __future__ import annotations

import datetime as dt
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import to_arrow_schema

from recbatch.config.inputs import ItemsInput
from recbatch.context import Progress, StageContext
from recbatch.features.index import extend_index
from recbatch.features.jobs import USER_TABLES
from recbatch.stages.features import build_features
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.bulk import replace_buckets_by_files
from recbatch.tables.schemas import TableSpec
from recbatch.tables.store import TableStore
from tests.spark.support import events_input, make_config, make_context, rows_of

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
FEATURES = {
    "buckets": 3,
    "holdout_days": 10,
    "validation_days": 5,
    "cut_alignment_days": 7,
    "sequence_length": 6,
    "recent_days": 9,
    "neighbours": {"window": 3, "per_item": 4},
}
DERIVED = (
    *USER_TABLES,
    schemas.ITEM_NEIGHBOURS,
    schemas.EVALUATION_ITEM_NEIGHBOURS,
    schemas.VALIDATION_ITEM_NEIGHBOURS,
    schemas.ITEM_POPULARITY,
    schemas.EVALUATION_ITEM_POPULARITY,
    schemas.VALIDATION_ITEM_POPULARITY,
    schemas.ITEM_FEATURES,
    schemas.EVALUATION_ITEM_FEATURES,
    schemas.NORMALIZATION,
    schemas.EVALUATION_NORMALIZATION,
    schemas.SNAPSHOTS,
)


class Shop:
    """A warehouse with cleaned tables that grow by batches; item `lost` is in events before it is in the catalogue."""

    def __init__(self, spark: SparkSession, folder: Path, seed: int) -> None:
        items = ItemsInput.model_validate({"path": "unused", "item_id": "id", "attributes": {"brand": {"source": "b"}}})
        self.config = make_config(
            folder, events_input("unused"), items, cleaning={"price": "median"}, features=FEATURES
        )
        self.spark, self.random, self.notes = spark, np.random.default_rng(seed), list[str]()
        self.folder = folder

    def add(self, users: int, items: int, days: tuple[int, int], number: int) -> None:
        """Append random events, of some moments only, so that they meet in time."""
        rows = []
        for _ in range(number):
            moment = (
                START + DAY * int(self.random.integers(*days)) + dt.timedelta(hours=int(self.random.integers(0, 3)))
            )
            imputed = self.random.random() < 0.2
            row = dict.fromkeys(schemas.EVENTS.schema.names) | {
                c.USER_ID: f"user {int(self.random.zipf(1.5)) % users}",
                c.ITEM_ID: f"item {self.random.integers(0, items)}",
                c.EVENT_TYPE: "purchase" if self.random.random() < 0.5 else "view",
                c.EVENT_TIME: moment,
                c.EVENT_DATE: moment.date(),
                c.QUANTITY: float(self.random.integers(1, 4)),
                c.PRICE: float(self.random.integers(1, 60)) / 7,
                c.IMPUTED: [c.PRICE] if imputed else [],
            }
            rows.append(row)
        self._write(schemas.EVENTS, rows, "append")

    def offer(self, items: int) -> None:
        row = dict.fromkeys(schemas.ITEM_HISTORY.schema.names) | {c.NUMBERS: [], c.IMPUTED: []}
        self._write(
            schemas.ITEM_HISTORY,
            [row | {c.ITEM_ID: f"item {n}", c.CATEGORIES: [("brand", [f"b{n % 3}"])]} for n in range(items)],
            "overwrite",
        )

    def _write(self, spec: TableSpec, rows: list[dict[str, Any]], mode: Any) -> None:
        table = pa.Table.from_pylist(rows, to_arrow_schema(spec.schema, timezone="UTC"))
        write_deltalake(self.folder / spec.name, table, mode=mode, partition_by=list(spec.partition_by))

    def context(self, version: int, as_of: dt.datetime | None = None) -> StageContext:
        made = make_context(self.spark, self.config, version=version, as_of=as_of)
        progress = Progress(self.notes.append, lambda *_: None)
        return StageContext(made.spark, made.config, made.tables, made.run_id, made.transaction, made.as_of, progress)

    def build(self, version: int, as_of: dt.datetime | None = None) -> dict[str, list[Any]]:
        """Run the stage; the tables as they are then. `self.notes` tells whether all events were read."""
        self.notes.clear()
        context = self.context(version, as_of)
        build_features(context)
        return {spec.name: _sorted(rows_of(context, spec)) for spec in DERIVED}

    def forget(self) -> None:
        """Make the next run read all events."""
        DeltaTable(self.folder / schemas.FEATURE_STATE.name).delete()

    def rebuilt(self) -> bool:
        return any(note.startswith("all events are read") for note in self.notes)


def _sorted(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as text, every digit of them, so that a missing number equals another one."""
    return sorted(repr({name: value for name, value in row.items() if name != c.RUN_ID}) for row in rows)


def _same(one: dict[str, list[Any]], other: dict[str, list[Any]]) -> None:
    for name, rows in one.items():
        assert rows == other[name], name


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(spark, tmp_path_factory.mktemp("shop"), seed=5)
    made.offer(9)
    made.add(users=8, items=9, days=(0, 40), number=160)
    made.build(1)
    assert made.rebuilt()
    return made


def test_new_events_give_the_tables_of_a_whole_run(shop: Shop) -> None:
    """Late ones, ones of one moment, new users, new items, and cuts that stay or move."""
    before = {spec.name: shop.context(1).tables.version(spec) for spec in USER_TABLES}
    shop.add(users=8, items=9, days=(39, 41), number=3)
    found = shop.build(2)
    assert not shop.rebuilt()
    written = {name for name, version in before.items() if shop.context(1).tables.version(schemas.ALL[name]) != version}
    assert schemas.EVALUATION_USER_SEQUENCES.name not in written
    assert schemas.USER_SEQUENCES.name in written
    shop.offer(12)
    shop.add(users=14, items=12, days=(0, 44), number=30)
    shop.add(users=14, items=12, days=(43, 50), number=20)
    found = shop.build(3)
    assert not shop.rebuilt()
    assert len(found[schemas.EARLIER_BEHAVIOURS.name]) > 2
    shop.forget()
    whole = shop.build(4)
    assert shop.rebuilt()
    _same(found, whole)


def test_a_killed_run_leaves_nothing_to_the_next(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it has committed of what is built upon: here new events, twice over, in the first two tables."""
    shop.add(users=14, items=12, days=(0, 51), number=10)

    class Killed(BaseException):
        pass

    def stop_at_targets(folder: str, spec: TableSpec, *arguments: Any) -> None:
        if spec is schemas.EVALUATION_TARGETS:
            raise Killed
        replace_buckets_by_files(folder, spec, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr("recbatch.features.deliveries.replace_buckets_by_files", stop_at_targets)
        with pytest.raises(Killed):
            shop.build(10)
    assert not shop.rebuilt()
    found = shop.build(10)
    assert not shop.rebuilt()
    shop.forget()
    _same(found, shop.build(11))


def test_removed_rows_and_a_step_back_in_time_make_all_events_be_read(shop: Shop) -> None:
    shop.build(20, as_of=START + DAY * 45)
    assert shop.rebuilt()
    # What it left out is read when the time has come.
    later = shop.build(21)
    assert not shop.rebuilt()
    DeltaTable(shop.folder / "events").delete("user_id = 'user 1'")
    without = shop.build(22)
    assert shop.rebuilt()
    assert any("'user 1'" in row for row in later[schemas.USER_SEQUENCES.name])
    assert not any("'user 1'" in row for row in without[schemas.USER_SEQUENCES.name])


@pytest.mark.slow
def test_other_storage_gets_the_same_tables(shop: Shop, tmp_path: Path) -> None:
    """A file system whose paths workers cannot open: what they make travels through Spark."""
    here = shop.build(30)
    mounted = shop.spark.sparkContext._jsc.hadoopConfiguration()
    mounted.set("fs.viewfs.mounttable.shop.link./data", tmp_path.as_uri())
    for name in ("events", "item_history", "item_index", "category_index"):
        shutil.copytree(shop.folder / name, tmp_path / name)
    config = shop.config.model_copy(update={"warehouse": "viewfs://shop/data"})
    context = make_context(shop.spark, config, version=1)
    assert context.tables.local_folder(schemas.EVENTS) is None
    build_features(context)
    there = {spec.name: _sorted(DeltaTable(tmp_path / spec.name).to_pyarrow_table().to_pylist()) for spec in DERIVED}
    _same(here, there)


def test_runs_at_once_number_every_item_once(spark: SparkSession, tmp_path: Path) -> None:
    tables = TableStore(spark, str(tmp_path))
    offered = [pa.table({c.ITEM_ID: [f"item {n}" for n in range(start, start + 40)]}) for start in (0, 10, 20, 30)]
    start = threading.Barrier(len(offered))
    failures: list[BaseException] = []

    def extend(values: pa.Table, run_id: str) -> None:
        try:
            start.wait()
            extend_index(tables, schemas.ITEM_INDEX, values, [c.ITEM_ID], c.ITEM_IDX, 0, run_id)
        except BaseException as error:  # a thread has nobody else to tell
            failures.append(error)

    threads = [threading.Thread(target=extend, args=(values, f"run {n}")) for n, values in enumerate(offered)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    rows = DeltaTable(tmp_path / "item_index").to_pyarrow_table().to_pylist()
    assert sorted(row[c.ITEM_ID] for row in rows) == sorted(f"item {n}" for n in range(70))
    assert sorted(row[c.ITEM_IDX] for row in rows) == list(range(70))
