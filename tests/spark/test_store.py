"""Delta tables as stages write them, and the ledger that says what was done."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from chispa import assert_df_equality
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as t

from recbatch.errors import InputContractError, UsageError
from recbatch.tables.arrow import export_buckets, read_arrow
from recbatch.tables.contracts import in_contract
from recbatch.tables.ledger import Attempt, Ledger, StageResult, last_runs
from recbatch.tables.schemas import ALL, EVALUATION_TARGETS, ITEM_INDEX, ITEMS, TableSpec
from recbatch.tables.store import TableStore, Transaction


def _index(spark: SparkSession, *ids: str) -> DataFrame:
    return spark.createDataFrame([(one, n, "run") for n, one in enumerate(ids)], ITEM_INDEX.schema)


def test_a_transaction_is_written_once_and_never_by_an_older_one(spark: SparkSession, tmp_path: Path) -> None:
    store = TableStore(spark, f"{tmp_path}/")
    assert store.version(ITEM_INDEX) is None
    assert store.replace(ITEM_INDEX, _index(spark, "a"), Transaction("one", 1)) == 0
    assert store.append(ITEM_INDEX, _index(spark, "b"), Transaction("one", 2)) == 1
    # The same transaction again, and one that is older, change nothing.
    for version in (2, 1):
        assert store.append(ITEM_INDEX, _index(spark, "c"), Transaction("one", version)) == 1
        assert store.replace(ITEM_INDEX, _index(spark, "d"), Transaction("one", version)) == 1
    assert store.version(ITEM_INDEX) == 1
    assert_df_equality(
        store.read(ITEM_INDEX),
        _index(spark, "a").union(_index(spark, "b")),
        ignore_row_order=True,
        ignore_nullable=True,
    )
    # Another application has versions of its own.
    assert store.append(ITEM_INDEX, _index(spark, "e"), Transaction("other", 1)) == 2
    assert store.rows(ITEM_INDEX) == 3
    assert_df_equality(store.read(ITEM_INDEX, version=0), _index(spark, "a"), ignore_nullable=True)
    with pytest.raises(InputContractError, match="'item_index' cannot be read at version 7"):
        store.read(ITEM_INDEX, version=7)


def test_a_table_of_an_older_release_gains_the_columns_that_it_lacks(spark: SparkSession, tmp_path: Path) -> None:
    store = TableStore(spark, str(tmp_path))
    _index(spark, "a").drop("run_id").write.format("delta").save(store.path(ITEM_INDEX))
    for _ in range(2):
        store.append(ITEM_INDEX, _index(spark, "b"), Transaction("one", 1))
    assert store.has_contract(ITEM_INDEX)
    assert sorted((row.item_id, row.run_id) for row in store.read(ITEM_INDEX).collect()) == [("a", None), ("b", "run")]


def test_what_an_older_release_did_not_write_is_read_as_nothing(spark: SparkSession, tmp_path: Path) -> None:
    store = TableStore(spark, str(tmp_path))
    items = spark.createDataFrame([("a", {"size": 2.0})], "item_id string, numbers map<string,double>")
    items.write.format("delta").save(store.path(ITEMS))
    (row,) = store.read(ITEMS).collect()
    assert (row.item_id, row.numbers, row.vectors, row.imputed, row.title) == ("a", {"size": 2.0}, {}, [], None)
    assert in_contract(ITEMS, store.read(ITEMS)).columns == ITEMS.schema.names
    arrow = read_arrow(store, ITEMS)
    assert arrow.schema.names == ITEMS.schema.names
    (found,) = arrow.to_pylist()
    expected = {"item_id": "a", "numbers": [("size", 2.0)], "vectors": [], "imputed": [], "title": None}
    assert {name: found[name] for name in expected} == expected
    assert not store.has_contract(ITEMS)


def test_a_table_that_is_not_there_is_named(spark: SparkSession, tmp_path: Path) -> None:
    store = TableStore(spark, str(tmp_path))
    with pytest.raises(InputContractError, match="table 'item_index' does not exist") as caught:
        store.read(ITEM_INDEX)
    assert caught.value.remedy


def test_a_warehouse_that_is_a_file_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file' cannot be written"):
        TableStore(spark, str(tmp_path / "file")).ensure_writable()
    TableStore(spark, str(tmp_path / "a" / "b")).ensure_writable()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_runs_that_begin_at_once_find_the_warehouse_writable(spark: SparkSession, tmp_path: Path) -> None:
    store = TableStore(spark, str(tmp_path / "warehouse"))
    with ThreadPoolExecutor(8) as pool:
        for check in [pool.submit(store.ensure_writable) for _ in range(80)]:
            check.result()
    assert list((tmp_path / "warehouse").iterdir()) == []


def test_rows_out_of_contract_are_not_written(spark: SparkSession, tmp_path: Path) -> None:
    store, rows = TableStore(spark, str(tmp_path)), _index(spark, "a")
    with pytest.raises(ValueError, match="'item_index': the column 'run_id' of its contract is missing"):
        store.replace(ITEM_INDEX, rows.drop("run_id"), Transaction("one", 1))
    with pytest.raises(ValueError, match="column 'item_idx' is bigint, its contract says int"):
        store.append(ITEM_INDEX, rows.withColumn("item_idx", F.lit(1).cast("long")), Transaction("one", 1))
    with pytest.raises(ValueError, match="column 'targets' is array<bigint>, its contract says array<int>"):
        in_contract(EVALUATION_TARGETS, spark.sql("SELECT 'u' AS user_id, 1 AS user_bucket, array(1L) AS targets"))
    assert store.version(ITEM_INDEX) is None
    extra = rows.select(F.lit(1).alias("extra"), *reversed(rows.columns))
    assert in_contract(ITEM_INDEX, extra).columns == ITEM_INDEX.schema.names


PUBLISHED = [spec for spec in ALL.values() if spec.published]


def _protocol(folder: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (folder / "_delta_log" / f"{0:020}.json").read_text().splitlines()]
    (protocol,) = (line["protocol"] for line in lines if "protocol" in line)
    return dict(protocol)


@pytest.mark.parametrize("spec", PUBLISHED, ids=lambda spec: spec.name)
def test_published_tables_are_open_to_every_delta_reader(spark: SparkSession, tmp_path: Path, spec: TableSpec) -> None:
    assert not any(isinstance(field.dataType, t.TimestampNTZType | t.VariantType) for field in spec.schema)
    store = TableStore(spark, str(tmp_path))
    store.replace(spec, spark.createDataFrame([], spec.schema), Transaction("one", 1))
    protocol = _protocol(tmp_path / spec.name)
    assert protocol["minReaderVersion"] == 1
    assert "readerFeatures" not in protocol
    assert "writerFeatures" not in protocol
    other = DeltaTable(store.path(spec))
    assert [field.name for field in other.schema().fields] == spec.schema.names
    assert other.metadata().partition_columns == list(spec.partition_by)
    assert other.metadata().configuration == {}


def test_buckets_are_exported_in_the_order_of_users(spark: SparkSession, tmp_path: Path) -> None:
    rows = [(f"u{n:02}", n % 3, [n, n + 1]) for n in range(20)]
    store = TableStore(spark, str(tmp_path / "warehouse"))
    frame = spark.createDataFrame(rows[::-1], EVALUATION_TARGETS.schema).repartition(2)
    store.replace(EVALUATION_TARGETS, frame, Transaction("one", 1))
    one = read_arrow(store, EVALUATION_TARGETS, columns=["user_id", "targets"], bucket=1)
    assert one.column_names == ["user_id", "targets"]
    assert sorted(one["user_id"].to_pylist()) == [user for user, bucket, _ in rows if bucket == 1]
    assert len(read_arrow(store, EVALUATION_TARGETS)) == 20
    files = export_buckets(store, EVALUATION_TARGETS, [0, 2, 7], tmp_path / "export")
    assert [file.name for file in files] == ["00000.arrow", "00002.arrow"]
    for file, bucket in zip(files, (0, 2), strict=True):
        with pa.memory_map(str(file)) as source:
            found = pa.ipc.open_file(source).read_all().to_pylist()
        assert [(row["user_id"], row["user_bucket"], row["targets"]) for row in found] == [
            row for row in rows if row[1] == bucket
        ]


class Book:
    """A ledger that is read anew for every step, as every process does."""

    def __init__(self, store: TableStore) -> None:
        self.store = store

    def begin(self, stage: str, fingerprint: str, run_id: str) -> Attempt:
        return Ledger(self.store, "shop").begin(
            stage, fingerprint, run_id, inputs={"raw": fingerprint}, configuration='{"k": 1}'
        )

    def is_current(self, stage: str, fingerprint: str, outputs: Mapping[str, int | None]) -> bool:
        return Ledger(self.store, "shop").is_current(stage, fingerprint, outputs)


def test_the_ledger_takes_up_an_interrupted_attempt_and_nothing_else(spark: SparkSession, tmp_path: Path) -> None:
    book = Book(TableStore(spark, str(tmp_path)))
    assert not book.is_current("clean", "f1", {"events": None})
    first = book.begin("clean", "f1", "run 1")
    assert (first.version, first.run_id) == (1, "run 1")
    # It was killed: the next attempt at the same work continues it, whether it had failed or said nothing.
    again = book.begin("clean", "f1", "run 2")
    assert (again.version, again.run_id) == (1, "run 1")
    Ledger(book.store, "shop").fail(again, "out of memory")
    third = book.begin("clean", "f1", "run 3")
    assert (third.version, third.run_id) == (1, "run 1")
    assert Ledger(book.store, "shop").transaction(third) == Transaction("shop/clean", 1)
    assert not book.is_current("clean", "f1", {"events": 0})

    # Another input: another version. The first one is never used again, since Delta would skip its writes.
    other = book.begin("clean", "f2", "run 4")
    assert (other.version, other.run_id) == (2, "run 4")
    back = book.begin("clean", "f1", "run 5")
    assert (back.version, back.run_id) == (3, "run 5")
    # Stages do not share versions.
    assert book.begin("train", "f1", "run 5").version == 1

    ledger = Ledger(book.store, "shop")
    ledger.finish(back, StageResult({"read": 7}, {"loss": 0.5}, "fine"), {"events": 4, "items": 2})
    for current in (ledger, book):
        assert current.is_current("clean", "f1", {"events": 4, "items": 2})
        assert not current.is_current("clean", "f2", {"events": 4, "items": 2})
        assert not current.is_current("clean", "f1", {"events": 5, "items": 2})
        assert not current.is_current("train", "f1", {"events": 4, "items": 2})
    # What is finished is not taken up, though its outputs were changed since.
    assert book.begin("clean", "f1", "run 6").version == 4

    rows = read_arrow(book.store, ALL["runs"]).to_pylist()
    assert len(rows) == 9
    assert book.store.version(ALL["runs"]) == 8
    (done,) = last_runs(rows).values()
    assert (done["run_id"], done["message"], dict(done["row_counts"])) == ("run 5", "fine", {"read": 7})
    assert dict(done["figures"]) == {"loss": 0.5}
    assert dict(done["inputs"]) == {"raw": "f1"}
    assert done["started_at"] <= done["finished_at"] <= dt.datetime.now(dt.UTC)
    assert [row["message"] for row in rows if row["status"] == "failed"] == ["out of memory"]


def test_the_folder_of_a_table_is_absolute_wherever_a_worker_runs(spark: SparkSession, tmp_path: Path) -> None:
    expected = f"{tmp_path}/{ITEM_INDEX.name}"
    assert TableStore(spark, str(tmp_path)).local_folder(ITEM_INDEX) == expected
    assert TableStore(spark, f"file://{tmp_path}").local_folder(ITEM_INDEX) == expected
    relative = TableStore(spark, "data/warehouse").local_folder(ITEM_INDEX)
    assert relative is not None
    assert relative.startswith("/")


def test_few_rows_of_the_driver_make_the_table_that_spark_would_write(spark: SparkSession, tmp_path: Path) -> None:
    spec, store = ALL["staged_scoring"], TableStore(spark, str(tmp_path))
    row = {
        "model_version": "m1",
        "scorer_digest": "d",
        "as_of": dt.datetime(2018, 1, 1, 5, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        "run_id": "r1",
        "txn_version": 3,
    }
    by_spark = TableStore(spark, str(tmp_path / "by spark"))
    made = spark.createDataFrame([tuple({**row, "as_of": dt.datetime(2018, 1, 1, 3)}.values())], spec.schema)
    by_spark.replace(spec, made, Transaction("shop/score", 3))
    store.replace_few(spec, [row], Transaction("shop/score", 3))
    assert_df_equality(store.read(spec), by_spark.read(spec), ignore_nullable=True)
    # Once more is once; Spark sees the mark, too; another version replaces.
    store.replace_few(spec, [row | {"run_id": "r2"}], Transaction("shop/score", 3))
    store.replace(spec, made.withColumn("run_id", F.lit("r3")), Transaction("shop/score", 3))
    assert read_arrow(store, spec)["run_id"].to_pylist() == ["r1"]
    store.replace_few(spec, [row | {"run_id": "r4"}], Transaction("shop/score", 4))
    assert read_arrow(store, spec)["run_id"].to_pylist() == ["r4"]
