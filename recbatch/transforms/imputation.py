"""Filling of missing values: fitted in one pass, applied to any rows, every filled cell flagged."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recbatch.config.inputs import Missing
from recbatch.tables import columns as c

Fill = str | float | None
_LEARNED = ("mean", "median", "mode")


def fit(rows: DataFrame, strategies: Mapping[str, Missing]) -> dict[str, Fill]:
    """The value that fills each column with a filling strategy; None where the column has no value to learn from.

    The median of an even number of values is the mean of the middle two; of equally frequent values the mode is the
    smallest, so that the result does not depend on the order of the rows.
    """
    aggregates: dict[str, Column] = {}
    for name, missing in strategies.items():
        column = F.col(name)
        if missing.strategy == "mean":
            aggregates[name] = F.avg(column)
        elif missing.strategy == "median":
            aggregates[name] = F.median(column)
        elif missing.strategy == "mode":
            aggregates[name] = F.mode(column, True)
    fills: dict[str, Fill] = {
        name: missing.value for name, missing in strategies.items() if missing.strategy == "constant"
    }
    if aggregates:
        row = rows.agg(*[aggregate.alias(name) for name, aggregate in aggregates.items()]).first()
        fills |= row.asDict() if row is not None else dict.fromkeys(aggregates)
    return fills


def apply(rows: DataFrame, fills: Mapping[str, Fill]) -> DataFrame:
    """Fill the columns named in `fills` and list the names of the filled cells of each row in `imputed`."""
    useful = {name: value for name, value in fills.items() if value is not None}
    flags = [F.when(F.col(name).isNull(), F.lit(name)) for name in useful]
    imputed = F.array_compact(F.array(*flags)) if flags else F.array().cast("array<string>")
    kinds = {field.name: field.dataType for field in rows.schema}
    filled = {name: F.coalesce(F.col(name), F.lit(value).cast(kinds[name])) for name, value in useful.items()}
    return rows.withColumn(c.IMPUTED, imputed).withColumns(filled)


def learned(strategies: Mapping[str, Missing]) -> dict[str, Missing]:
    """Those of `strategies` whose fill depends on the rows it is fitted on."""
    return {name: missing for name, missing in strategies.items() if missing.strategy in _LEARNED}


def forget(rows: DataFrame, strategies: Mapping[str, Missing]) -> DataFrame:
    """`rows` with the filled cells of the columns in `strategies` empty again."""
    return rows.withColumns({name: F.when(~F.array_contains(c.IMPUTED, name), F.col(name)) for name in strategies})


def to_drop(strategies: Mapping[str, Missing]) -> dict[str, Column]:
    """The rejection conditions of the strategy `drop`, by reason code."""
    return {
        f"missing_{name}": F.col(name).isNull() for name, missing in strategies.items() if missing.strategy == "drop"
    }
