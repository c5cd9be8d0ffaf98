"""Text to typed values. Nothing raises: what does not parse is null, and the caller gives the row a reason."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as t

from recbatch.config.sections import TimeFormat

# Timestamps outside these years overflow in Spark's own conversions; as epoch seconds.
_FIRST_SECOND = -62135596800
_LAST_SECOND = 253402300799


def text(column: Column) -> Column:
    """Trimmed text; an empty one is missing."""
    trimmed = F.trim(column.cast("string"))
    return F.when(trimmed != "", trimmed)


def number(column: Column) -> Column:
    """A finite double, or null."""
    value = text(column).try_cast("double")
    return F.when(~F.isnan(value) & (F.abs(value) < F.lit(float("inf"))), value)


def unparsed(raw: Column, parsed: Column) -> Column:
    """Whether a value was given and could not be parsed."""
    return text(raw).isNotNull() & parsed.isNull()


def timestamp(frame: DataFrame, name: str, time: TimeFormat) -> Column:
    """The column `name` as a UTC timestamp, read as `time` declares; a column that is a timestamp already is kept.

    Text and wall-clock timestamps are taken to be in `time.zone`; of an hour that a clock change repeats, the
    earlier one is meant, as Spark's `to_utc_timestamp` does.
    """
    raw = F.col(name)
    kind = frame.schema[name].dataType
    if isinstance(kind, t.TimestampType):
        return raw
    if isinstance(kind, t.TimestampNTZType | t.DateType):
        return F.to_utc_timestamp(raw.cast("timestamp"), time.zone)
    if time.unit == "text":
        return F.to_utc_timestamp(F.try_to_timestamp(text(raw), F.lit(time.format)), time.zone)
    seconds = text(raw).try_cast("double") / (1000.0 if time.unit == "milliseconds" else 1.0)
    return F.when(seconds.between(_FIRST_SECOND, _LAST_SECOND), F.timestamp_seconds(seconds))


def outside(moment: Column, time: TimeFormat) -> Column:
    """Whether a timestamp lies outside the declared range."""
    early = moment < F.lit(time.earliest).cast("timestamp") if time.earliest else F.lit(False)
    late = moment > F.lit(time.latest).cast("timestamp") if time.latest else F.lit(False)
    return early | late
