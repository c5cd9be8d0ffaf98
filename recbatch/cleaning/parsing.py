"""Text to typed values. Nothing raises: what does not parse is null, and the caller gives the row a reason."""

from __future__ import annotations

from functools import reduce

from pyspark.errors import PySparkException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as t

from recbatch.config.inputs import TimeFormat
from recbatch.errors import UsageError

# Timestamps outside these years overflow in Spark's own conversions; as epoch seconds.
_FIRST_SECOND = -62135596800
_LAST_SECOND = 253402300799


def text(column: Column) -> Column:
    """Trimmed text; an empty one is missing."""
    return F.nullif(F.trim(column.cast("string")), F.lit(""))


def number(trimmed: Column) -> Column:
    """Trimmed text as a finite double, or null."""
    value = trimmed.try_cast("double")
    # Spark takes the literals of Java ("5d", "5f") for numbers. NaN is larger than infinity to it.
    suffixed = reduce(Column.__or__, [trimmed.endswith(letter) for letter in "dfDF"])
    return F.when((F.abs(value) < F.lit(float("inf"))) & ~suffixed, value)


def unparsed(trimmed: Column, parsed: Column) -> Column:
    """Whether a value was given and could not be parsed."""
    return trimmed.isNotNull() & parsed.isNull()


def timestamp(raw: Column, trimmed: Column, kind: t.DataType, time: TimeFormat) -> Column:
    """A raw column of the type `kind` as a UTC timestamp, read as `time` declares; one that is a timestamp is kept.

    Text and wall-clock timestamps are taken to be in `time.zone`; of an hour that a clock change repeats, the
    earlier one is meant, as Spark's `to_utc_timestamp` does.
    """
    if isinstance(kind, t.TimestampType):
        return raw
    if isinstance(kind, t.TimestampNTZType | t.DateType):
        return F.to_utc_timestamp(raw.cast("timestamp"), time.zone)
    if time.unit == "text":
        return F.to_utc_timestamp(F.try_to_timestamp(trimmed, F.lit(time.format)), time.zone)
    return _moment(number(trimmed) / (1000.0 if time.unit == "milliseconds" else 1.0))


def in_other_unit(trimmed: Column, kind: t.DataType, time: TimeFormat) -> Column:
    """The time that a number stands for if it is in seconds where milliseconds are declared, or the other way round."""
    if time.unit == "text" or isinstance(kind, t.TimestampType | t.TimestampNTZType | t.DateType):
        return F.lit(None).cast("timestamp")
    return _moment(number(trimmed) / (1.0 if time.unit == "milliseconds" else 1000.0))


def _moment(seconds: Column) -> Column:
    # Microseconds are rounded: a double just below one would lose it.
    micros = F.round(seconds * 1_000_000.0).cast("long")
    return F.when(seconds.between(_FIRST_SECOND, _LAST_SECOND), F.timestamp_micros(micros))


def check_time(spark: SparkSession, time: TimeFormat) -> None:
    """Try a time format out on constants, before any file is read.

    Raises:
        UsageError: the pattern, the zone or an end of the range is not one that Spark understands.
    """
    trials = {
        "format": (
            time.format,
            F.coalesce(F.try_to_timestamp(F.lit(""), F.lit(time.format)), F.lit(0).cast("timestamp")),
        ),
        "zone": (time.zone, F.to_utc_timestamp(F.lit(0).cast("timestamp"), time.zone)),
        "earliest": (time.earliest, F.lit(time.earliest).try_cast("timestamp")),
        "latest": (time.latest, F.lit(time.latest).try_cast("timestamp")),
    }
    for option, (value, trial) in trials.items():
        if value is None:
            continue
        try:
            row = spark.sql("SELECT 1").select(trial.cast("string")).first()
            cause = "" if row is not None and row[0] is not None else "not a timestamp"
        except PySparkException as error:
            cause = str(error).strip().splitlines()[0]
        if cause:
            raise UsageError(
                f"'{value}' cannot be used as the option '{option}' of an input's time: {cause}",
                remedy="patterns and zones are those of Spark SQL, for example yyyy-MM-dd HH:mm:ss and Europe/Berlin",
            )


def outside(moment: Column, time: TimeFormat) -> Column:
    """Whether a timestamp lies outside the declared range."""
    early = moment < F.lit(time.earliest).cast("timestamp") if time.earliest else F.lit(False)
    late = moment > F.lit(time.latest).cast("timestamp") if time.latest else F.lit(False)
    return early | late
