"""How missing values were filled: the table `imputations`, and what a run says about its models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recbatch.tables import columns as c
from recbatch.transforms.attributes import attribute_name
from recbatch.transforms.estimators import Check
from recbatch.transforms.imputation import Fill

_USED = "_used"


def imputations(filled: DataFrame, fills: Mapping[str, Fill], groups: Mapping[str, Column], table: str) -> DataFrame:
    """A row a filled column, and one a group of it: strategy, value, and how many rows of `filled` have it.

    filled: rows with `imputed`. fills: by column; working columns of attributes count under the attribute's name.
    groups: the value of each `by` that `fills` name, over `filled`.
    """
    fills = {attribute_name(name): fill for name, fill in fills.items()}
    spark = filled.sparkSession
    overall = [
        (name, fill.strategy, None if fill.value is None else str(fill.value), None) for name, fill in fills.items()
    ]
    parameters = spark.createDataFrame(overall, "column_name string, strategy string, value string, `group` string")
    for name, fill in fills.items():
        if fill.groups is not None and fill.by is not None:
            columns = [F.lit(name), F.lit(fill.strategy), F.col(c.VALUE).cast("string"), F.col(fill.by)]
            parameters = parameters.union(fill.groups.select(*columns))
    used = _used(filled, fills, groups, parameters)
    if all(fill.groups is None for fill in fills.values()):
        used = F.broadcast(used)  # a row a column
    same = parameters[c.COLUMN_NAME].eqNullSafe(used[c.COLUMN_NAME]) & parameters[c.GROUP].eqNullSafe(used[c.GROUP])
    rows = parameters.join(used, on=same, how="left").select(parameters["*"], F.coalesce(_USED, F.lit(0)).alias(c.ROWS))
    return rows.withColumn(c.TABLE_NAME, F.lit(table))


def _used(
    filled: DataFrame, fills: Mapping[str, Fill], groups: Mapping[str, Column], parameters: DataFrame
) -> DataFrame:
    """Filled cells by column and group; those whose group has no value of its own are of the group null."""
    column = F.col(c.COLUMN_NAME)
    nobody = F.lit(None).cast("string")
    grouped = [(name, groups[fill.by]) for name, fill in fills.items() if fill.by is not None]
    group = reduce(lambda other, one: F.when(column == one[0], one[1]).otherwise(other), grouped, nobody)
    cells = filled.select("*", F.explode(c.IMPUTED).alias(c.COLUMN_NAME)).select(column, group.alias(c.GROUP))
    counts = cells.groupBy(c.COLUMN_NAME, c.GROUP).agg(F.count(F.lit(1)).alias(_USED))
    if not grouped:
        return counts
    known = parameters.where(F.col(c.GROUP).isNotNull()).select(c.COLUMN_NAME, c.GROUP, F.lit(True).alias("_known"))
    own = counts.join(known, on=[c.COLUMN_NAME, c.GROUP], how="left")
    named = own.withColumn(c.GROUP, F.when(F.col("_known"), F.col(c.GROUP)))
    return named.groupBy(c.COLUMN_NAME, c.GROUP).agg(F.sum(_USED).alias(_USED))


def check_figures(fills: Mapping[str, Fill]) -> dict[str, float]:
    """What a model gets wrong of hidden values, and the best group mean of the same, by figure."""
    figures = {}
    for name, fill in fills.items():
        if fill.check is not None:
            start = f"imputation:{attribute_name(name)}"
            figures[f"{start}:{fill.strategy}_error"] = fill.check.strategy_error
            figures[f"{start}:group_mean_error"] = fill.check.group_mean_error
    return figures


def check_lines(fills: Mapping[str, Fill]) -> list[str]:
    """For every model that was checked one line for people: whether it beats the group mean."""
    return [_line(attribute_name(name), fill, fill.check) for name, fill in fills.items() if fill.check is not None]


def _line(name: str, fill: Fill, check: Check) -> str:
    number = fill.estimator is not None and fill.estimator.target.kind == "number"
    what = "mean" if number else "most frequent value"
    group = what if check.best_group is None else f"{what} of each {attribute_name(check.best_group)}"
    verdict = "beats" if check.strategy_error < check.group_mean_error else "does not beat"
    errors = (check.strategy_error, check.group_mean_error)
    mine, other = (f"{one:.4g} RMSE" if number else f"{one:.1%} wrong" for one in errors)
    return f"{fill.strategy} for {name} {verdict} the {group}: {mine} against {other} on {check.hidden:,} hidden values"
