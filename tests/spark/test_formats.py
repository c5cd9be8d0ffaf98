"""The same events in every format that a log may have."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from recbatch.tables import columns as c
from tests.spark.support import csv_text, event, events_input, judged

ROWS = [
    event(user="u1", qty="2"),
    event(user="u2", item="茶", basket="a,b"),
    event(user="u3", type="look", price=""),
    event(user="", item="i9"),
]
MOMENT = dt.datetime(2024, 3, 1, 10)


def _cleaned(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    names = (c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.EVENT_TYPE, c.QUANTITY, c.PRICE, c.BASKET_ID)
    # None sorts before any text.
    return sorted(((*(row[name] for name in names), *row["reasons"]) for row in found), key=lambda row: row[0] or "")


EXPECTED = [
    (None, "i9", MOMENT, "purchase", 1.0, 2.5, None, "missing_user_id"),
    ("u1", "i1", MOMENT, "purchase", 2.0, 2.5, None),
    ("u2", "茶", MOMENT, "purchase", 1.0, 2.5, "a,b"),
    ("u3", "i1", MOMENT, "view", 1.0, None, None),
]


def test_csv_plain_and_compressed(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv_text(ROWS[:2]), encoding="utf-8")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(csv_text(ROWS[2:]).encode()))
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b""))
    assert _cleaned(judged(spark, events_input(tmp_path))) == EXPECTED


def test_json_lines_with_numbers_nulls_and_absent_fields(spark: SparkSession, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in ROWS]
    rows[0]["qty"] = 2
    rows[1]["price"] = 2.5
    rows[2]["price"] = None
    del rows[3]["user"]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "log.json").write_text("\n".join([*lines, '{"user": "u4", ', ""]), encoding="utf-8")
    found = judged(spark, events_input(tmp_path, format="json"))
    malformed = [row for row in found if row["reasons"] == ["malformed_record"]]
    assert [row[c.RAW_RECORD].strip() for row in malformed] == ['{"user": "u4",']
    assert _cleaned([row for row in found if row not in malformed]) == EXPECTED


def _typed_rows() -> list[dict[str, Any]]:
    return [
        {name: None if value == "" else value for name, value in row.items()}
        | {"qty": int(row["qty"]), "price": float(row["price"]) if row["price"] else None, "time": MOMENT}
        for row in ROWS
    ]


def test_parquet_with_typed_columns(spark: SparkSession, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(_typed_rows())
    local = pa.timestamp("us")
    assert table.schema.field("time").type == local
    pq.write_table(table, tmp_path / "wall clock.parquet")
    # The clock on the wall said 10:00 in Berlin, at 09:00 UTC.
    found = judged(spark, events_input(tmp_path, format="parquet", time={"zone": "Europe/Berlin"}))
    utc = MOMENT - dt.timedelta(hours=1)
    assert _cleaned(found) == [(user, item, utc, *others) for user, item, _, *others in EXPECTED]
    at = table.schema.get_field_index("time")
    instants = table.set_column(at, "time", table["time"].cast(pa.timestamp("us", "UTC")))
    pq.write_table(instants, tmp_path / "wall clock.parquet")
    assert _cleaned(judged(spark, events_input(tmp_path, format="parquet", time={"zone": "Europe/Berlin"}))) == EXPECTED


def test_parquet_files_whose_columns_are_ordered_differently(spark: SparkSession, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(_typed_rows())
    pq.write_table(table.slice(0, 2), tmp_path / "a.parquet")
    pq.write_table(table.slice(2).select(table.column_names[::-1]), tmp_path / "b.parquet")
    assert _cleaned(judged(spark, events_input(tmp_path, format="parquet"))) == EXPECTED


def test_a_delta_table(spark: SparkSession, tmp_path: Path) -> None:
    frame = spark.createDataFrame(pa.Table.from_pylist(_typed_rows()))
    for rows, mode in ((frame, "append"), (frame, "overwrite")):
        rows.write.format("delta").mode(mode).save(str(tmp_path / "log"))
    found = judged(spark, events_input(tmp_path / "log", format="delta"))
    assert _cleaned(found) == EXPECTED
    assert all(row[c.SOURCE_FILE].endswith(".parquet") for row in found)
