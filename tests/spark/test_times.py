"""Every way a log can say when something happened."""

from __future__ import annotations

import datetime as dt

import pytest
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from recbatch.cleaning import parsing
from recbatch.config.inputs import TimeFormat

# (zone, wall clock, UTC): an hour that does not exist is moved on, of one that occurs twice the earlier is meant.
WALL_CLOCKS = [
    ("UTC", "2024-03-31 02:30:00", "2024-03-31 02:30:00"),
    ("Europe/Berlin", "2024-03-31 01:59:59", "2024-03-31 00:59:59"),
    ("Europe/Berlin", "2024-03-31 02:30:00", "2024-03-31 01:30:00"),
    ("Europe/Berlin", "2024-03-31 03:00:00", "2024-03-31 01:00:00"),
    ("Europe/Berlin", "2024-10-27 01:59:59", "2024-10-26 23:59:59"),
    ("Europe/Berlin", "2024-10-27 02:30:00", "2024-10-27 00:30:00"),
    ("Europe/Berlin", "2024-10-27 03:00:00", "2024-10-27 02:00:00"),
    ("America/New_York", "2024-11-03 01:30:00", "2024-11-03 05:30:00"),
    ("Asia/Kolkata", "2024-01-01 00:00:00", "2023-12-31 18:30:00"),
]


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def _parsed(spark: SparkSession, values: list[object], kind: str, time: TimeFormat) -> list[int | None]:
    """Epoch microseconds, which no zone of driver or session can distort."""
    frame = spark.createDataFrame([(n, value) for n, value in enumerate(values)], f"n int, moment {kind}")
    column = F.unix_micros(_timestamp(frame, time))
    return [row["micros"] for row in frame.select("n", column.alias("micros")).orderBy("n").collect()]


def _timestamp(frame: DataFrame, time: TimeFormat) -> Column:
    raw = F.col("moment")
    return parsing.timestamp(raw, parsing.text(raw), frame.schema["moment"].dataType, time)


def _micros(text: str) -> int:
    return int(_moment(text).timestamp()) * 1_000_000


@pytest.mark.parametrize("zone", sorted({zone for zone, _, _ in WALL_CLOCKS}))
def test_wall_clocks_of_a_zone(spark: SparkSession, zone: str) -> None:
    cases = [(wall, utc) for name, wall, utc in WALL_CLOCKS if name == zone]
    expected = [_micros(utc) for _, utc in cases]
    assert _parsed(spark, [wall for wall, _ in cases], "string", TimeFormat(zone=zone)) == expected
    walls = [dt.datetime.fromisoformat(wall) for wall, _ in cases]
    assert _parsed(spark, list(walls), "timestamp_ntz", TimeFormat(zone=zone)) == expected


def test_a_timestamp_is_kept_and_a_date_is_midnight_of_the_zone(spark: SparkSession) -> None:
    time = TimeFormat(zone="Europe/Berlin")
    moment = _moment("2024-07-01 12:00:00")
    assert _parsed(spark, [moment, None], "timestamp", time) == [_micros("2024-07-01 12:00:00"), None]
    assert _parsed(spark, [dt.date(2024, 7, 1)], "date", time) == [_micros("2024-06-30 22:00:00")]


def test_a_format_with_an_offset(spark: SparkSession) -> None:
    time = TimeFormat(format="yyyy-MM-dd'T'HH:mm:ss[.SSS]XXX")
    values = ["2024-01-01T02:00:00+02:00", "2024-01-01T00:00:00.000Z", "2024-01-01 00:00:00"]
    assert _parsed(spark, list(values), "string", time) == [*[_micros("2024-01-01 00:00:00")] * 2, None]


@pytest.mark.parametrize("kind", ["string", "long", "double"])
def test_epoch_seconds(spark: SparkSession, kind: str) -> None:
    convert = {"string": str, "long": int, "double": float}[kind]
    values = [0, 1_709_287_200, -1, None]
    given = [None if value is None else convert(value) for value in values]
    expected = [None if value is None else value * 1_000_000 for value in values]
    assert _parsed(spark, given, kind, TimeFormat(unit="seconds", zone="Europe/Berlin")) == expected


def test_epoch_milliseconds_are_exact(spark: SparkSession) -> None:
    values = list(range(1_709_287_200_000, 1_709_287_201_000))
    found = _parsed(spark, list(values), "long", TimeFormat(unit="milliseconds"))
    assert found == [value * 1000 for value in values]


def test_numbers_that_are_no_time(spark: SparkSession) -> None:
    values = ["", "soon", "NaN", "inf", "1e300", "-1e300", "1709287200d", "2024-03-01 10:00:00"]
    for unit in ("seconds", "milliseconds"):
        time = TimeFormat.model_validate({"unit": unit})
        assert _parsed(spark, list(values), "string", time) == [None] * len(values)


def test_milliseconds_taken_for_seconds_are_out_of_range(spark: SparkSession) -> None:
    time = TimeFormat(unit="seconds", earliest="2000-01-01", latest="2030-01-01")
    frame = spark.createDataFrame([("1709287200",), ("1709287200000",), ("1",)], "moment string")
    moment = _timestamp(frame, time)
    column = F.coalesce(parsing.outside(moment, time), parsing.unparsed(F.col("moment"), moment))
    assert [row[0] for row in frame.select(column).collect()] == [False, True, True]
