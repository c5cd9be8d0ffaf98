"""An input that breaks its contract ends the stage with an error that names it, before anything is written."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from recbatch.config.inputs import ItemsInput
from recbatch.errors import InputContractError, RecbatchError, UsageError
from recbatch.stages.clean import clean
from recbatch.tables.schemas import ALL
from tests.spark.support import EVENT_MAPPING, csv_text, event, events_input, make_config, make_context, write_csv

# Random users: what compresses well would be read whole with the header.
MANY = csv_text([event(user=os.urandom(8).hex(), basket=str(n)) for n in range(20_000)])


def _missing(folder: Path) -> dict[str, Any]:
    return {"path": str(folder / "nowhere")}


def _empty_folder(folder: Path) -> dict[str, Any]:
    return {}


def _only_empty_files(folder: Path) -> dict[str, Any]:
    (folder / "log.csv").touch()
    return {}


def _no_rows(folder: Path) -> dict[str, Any]:
    write_csv(folder / "log.csv", [])
    return {}


def _a_column_less(folder: Path) -> dict[str, Any]:
    write_csv(folder / "a.csv", [event()])
    row = event()
    del row["basket"]
    write_csv(folder / "log.csv", [row], list(row))
    return {}


def _a_column_less_in_parquet(folder: Path) -> dict[str, Any]:
    row = event()
    pq.write_table(pa.Table.from_pylist([row]), folder / "a.parquet")
    del row["basket"]
    pq.write_table(pa.Table.from_pylist([row]), folder / "log.parquet")
    return {"format": "parquet"}


def _a_column_less_in_json(folder: Path) -> dict[str, Any]:
    (folder / "log.json").write_text('{"user": "u1"}\n')
    return {"format": "json"}


def _other_types_in_parquet(folder: Path) -> dict[str, Any]:
    pq.write_table(pa.Table.from_pylist([event() | {"qty": 1}]), folder / "a.parquet")
    pq.write_table(pa.Table.from_pylist([event() | {"qty": [1]}]), folder / "log.parquet")
    return {"format": "parquet"}


def _no_parquet(folder: Path) -> dict[str, Any]:
    (folder / "log.parquet").write_bytes(b"PAR1 this is none PAR1")
    return {"format": "parquet"}


def _broken_parquet(folder: Path) -> dict[str, Any]:
    file = folder / "log.parquet"
    pq.write_table(pa.Table.from_pylist([event(user=str(n)) for n in range(1000)]), file, compression="none")
    content = bytearray(file.read_bytes())
    # The footer stays whole: the damage shows when the pages are read.
    content[4:400] = bytes(396)
    file.write_bytes(bytes(content))
    return {"format": "parquet"}


def _no_gzip(folder: Path) -> dict[str, Any]:
    (folder / "log.csv.gz").write_text(csv_text([event()]))
    return {}


def _gzip_broken_in_the_header(folder: Path) -> dict[str, Any]:
    (folder / "log.csv.gz").write_bytes(gzip.compress(csv_text([event()]).encode())[:40])
    return {}


def _gzip_broken_in_the_rows(folder: Path) -> dict[str, Any]:
    whole = gzip.compress(MANY.encode())
    (folder / "log.csv.gz").write_bytes(whole[: len(whole) // 2])
    return {}


def _broken_json_gzip(folder: Path) -> dict[str, Any]:
    whole = gzip.compress(MANY.encode())
    (folder / "log.json.gz").write_bytes(whole[: len(whole) // 2])
    return {"format": "json"}


def _no_delta(folder: Path) -> dict[str, Any]:
    write_csv(folder / "log.csv", [event()])
    return {"format": "delta"}


def _wrong_sql(folder: Path) -> dict[str, Any]:
    write_csv(folder / "log.csv", [event()])
    return {"columns": EVENT_MAPPING | {"price": {"sql": "price *"}}}


def _sql_on_another_column(folder: Path) -> dict[str, Any]:
    write_csv(folder / "log.csv", [event()])
    return {"columns": EVENT_MAPPING | {"price": {"sql": "amount * 2"}}}


def _sql_that_fails_on_a_value(folder: Path) -> dict[str, Any]:
    write_csv(folder / "log.csv", [event(price="dear")])
    return {"columns": EVENT_MAPPING | {"price": {"sql": "cast(price AS double)"}}}


INPUTS: list[tuple[Callable[[Path], dict[str, Any]], str]] = [
    (_missing, "nowhere' has no files"),
    (_empty_folder, "raw' has no files"),
    (_only_empty_files, "raw' is empty"),
    (_no_rows, "raw' has no rows"),
    (_a_column_less, r"log\.csv' has no column 'basket'"),
    (_a_column_less_in_parquet, r"log\.parquet' has no column 'basket'"),
    (_a_column_less_in_json, "raw' has no column 'item'"),
    (_other_types_in_parquet, r"column 'qty' of file '.*log\.parquet' holds nested, and held number"),
    (_no_parquet, r"log\.parquet' cannot be read as parquet"),
    (_broken_parquet, r"log\.parquet' cannot be read"),
    (_no_gzip, r"log\.csv\.gz' cannot be read"),
    (_gzip_broken_in_the_header, r"log\.csv\.gz' cannot be read"),
    (_gzip_broken_in_the_rows, r"log\.csv\.gz' cannot be read"),
    (_broken_json_gzip, r"log\.json\.gz' cannot be read"),
    (_no_delta, "raw' cannot be read"),
    (_wrong_sql, r"mapping.*raw'.*SYNTAX"),
    (_sql_on_another_column, "mapping.*raw'.*`amount`"),
    (_sql_that_fails_on_a_value, "raw'.*'dear'"),
]


def _clean(spark: SparkSession, tmp_path: Path, sections: dict[str, Any], **changes: Any) -> RecbatchError:
    """The error that the stage ends with; no table may exist then."""
    items = changes.pop("items", None)
    source = events_input(changes.pop("path", tmp_path / "raw"), **changes)
    context = make_context(spark, make_config(tmp_path / "warehouse", source, items, **sections))
    with pytest.raises(RecbatchError) as caught:
        clean(context)
    assert [spec.name for spec in ALL.values() if context.tables.version(spec) is not None] == []
    return caught.value


@pytest.mark.parametrize(("broken", "message"), INPUTS, ids=[broken.__name__[1:] for broken, _ in INPUTS])
def test_a_broken_input_is_named(
    spark: SparkSession, tmp_path: Path, broken: Callable[[Path], dict[str, Any]], message: str
) -> None:
    (tmp_path / "raw").mkdir()
    error = _clean(spark, tmp_path, {}, **broken(tmp_path / "raw"))
    assert type(error) is InputContractError
    assert error.remedy
    assert re.search(message, error.what), error.what


def test_a_broken_catalogue_stops_before_the_events_are_written(spark: SparkSession, tmp_path: Path) -> None:
    write_csv(tmp_path / "raw" / "log.csv", [event()])
    write_csv(tmp_path / "items.csv", [{"id": "i1"}], ["id"])
    items = ItemsInput.model_validate({"path": str(tmp_path / "items.csv"), "item_id": "id", "title": "name"})
    error = _clean(spark, tmp_path, {}, items=items)
    assert "items.csv' has no column 'name'" in error.what


def test_too_many_rejected_rows_stop_the_stage(spark: SparkSession, tmp_path: Path) -> None:
    rows = [event(user=f"u{n}") for n in range(7)] + [event(price="x"), event(price="x"), event(user="")]
    write_csv(tmp_path / "raw" / "log.csv", rows)
    error = _clean(spark, tmp_path, {"cleaning": {"max_rejected_share": 0.29}})
    assert type(error) is InputContractError
    assert "3 of 10 rows" in error.what
    assert "invalid_price: 2, missing_user_id: 1" in error.what


def test_a_wrong_rule_is_a_wrong_configuration(spark: SparkSession, tmp_path: Path) -> None:
    write_csv(tmp_path / "raw" / "log.csv", [event()])
    error = _clean(spark, tmp_path, {"cleaning": {"rules": [{"reason": "dear", "when": "amount >"}]}})
    assert type(error) is UsageError
    assert "rule 'dear'" in error.what
    assert "user_id" in error.remedy


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "yyyy-MM-dd QQQQQQ"},
        {"zone": "Mars/Olympus"},
        {"earliest": "2024-13-01"},
        {"latest": "soon"},
    ],
    ids=str,
)
def test_a_time_that_no_one_can_read_is_a_wrong_configuration(
    spark: SparkSession, tmp_path: Path, wrong: dict[str, str]
) -> None:
    write_csv(tmp_path / "raw" / "log.csv", [event()])
    error = _clean(spark, tmp_path, {}, time=wrong)
    assert type(error) is UsageError
    ((_, value),) = wrong.items()
    assert f"'{value}'" in error.what
