"""Filling of missing values: fitted to the values that are there, applied to any rows, every filled cell flagged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf

from recbatch.config.inputs import MODELS, Missing
from recbatch.tables import columns as c
from recbatch.transforms import estimators
from recbatch.transforms.estimators import Check, Estimator, Field, Kind, Strategy

GROUP_MEAN = "group_mean"
_LEARNED = ("mean", "median", "mode", GROUP_MEAN, *MODELS)
# Rows that a model is fitted to, at most: they come to the driver.
_SAMPLE_ROWS = 200_000
# Groups that are sent to every executor; more are joined by a shuffle.
_BROADCAST_GROUPS = 2_000_000


@dataclass(frozen=True)
class Fill:
    """How the missing cells of one column are filled.

    value: what a cell gets that neither its group nor the model has a value for; None leaves it empty.
    groups: columns `by` and `value`, a row a group; for `group_mean`.
    estimator: for `knn` and `regression`, where there is a value to learn from; check: of that, where it was asked for.
    """

    strategy: str
    value: str | float | None = None
    by: str | None = None
    groups: DataFrame | None = None
    estimator: Estimator | None = None
    check: Check | None = None


def fit(
    rows: DataFrame, strategies: Mapping[str, Missing], fields: Sequence[Field] = (), *, checked: bool = False
) -> dict[str, Fill]:
    """How each column with a filling strategy is filled; the scalars of all columns are found in one pass.

    The median of an even number of values is the mean of the middle two; of equally frequent values the mode is the
    smallest, so that the result does not depend on the order of the rows. A model is fitted on the driver to at most
    200,000 rows, those with the smallest hashes of `item_id`.

    Args:
        fields: the columns that a model may use, and `rows` have.
        checked: compare models with group means on hidden values, which takes another fit of each.
    """
    filling = {name: missing for name, missing in strategies.items() if missing.strategy not in ("keep", "drop")}
    values = _scalars(rows, filling)
    fills = {}
    for name, missing in filling.items():
        groups = None if missing.by is None else _group_means(rows, name, missing.by)
        fills[name] = Fill(missing.strategy, values.get(name), missing.by, groups)
    modelled = [name for name, missing in filling.items() if missing.strategy in MODELS]
    sample = _sample(rows, modelled, fields) if modelled else pd.DataFrame()
    for name in modelled:
        fills[name] = _modelled(sample, name, filling[name], fields, checked=checked)
    return fills


def _scalars(rows: DataFrame, strategies: Mapping[str, Missing]) -> dict[str, str | float | None]:
    aggregates: dict[str, Column] = {}
    for name, missing in strategies.items():
        if missing.strategy in ("mean", GROUP_MEAN):
            aggregates[name] = F.avg(name)
        elif missing.strategy == "median":
            aggregates[name] = F.median(name)
        elif missing.strategy == "mode":
            aggregates[name] = F.mode(name, True)
    found = rows.agg(*[one.alias(name) for name, one in aggregates.items()]).first() if aggregates else None
    constants = {name: missing.value for name, missing in strategies.items() if missing.strategy == "constant"}
    return constants | ({} if found is None else found.asDict())


def _group_means(rows: DataFrame, name: str, by: str) -> DataFrame:
    known = rows.where(F.col(name).isNotNull() & F.col(by).isNotNull())
    return known.groupBy(by).agg(F.avg(name).alias(c.VALUE)).localCheckpoint(eager=True)


def _sample(rows: DataFrame, modelled: Sequence[str], fields: Sequence[Field]) -> pd.DataFrame:
    """The columns of `fields` and `modelled`, of the same rows in the same order in every run."""
    names = list(dict.fromkeys([*modelled, *(field.name for field in fields)]))
    ordered = rows.orderBy(F.xxhash64(c.ITEM_ID), c.ITEM_ID).limit(_SAMPLE_ROWS)
    return ordered.select(*names).toPandas()


def _modelled(sample: pd.DataFrame, name: str, missing: Missing, fields: Sequence[Field], *, checked: bool) -> Fill:
    known = sample[sample[name].notna()]
    if known.empty:
        return Fill(missing.strategy)
    kind: Kind = "number" if pd.api.types.is_float_dtype(known[name]) else "category"
    target, others = Field(name, kind), [field for field in fields if field.name != name]
    strategy: Strategy = "knn" if missing.strategy == "knn" else "regression"
    neighbours = missing.neighbours or estimators.NEIGHBOURS
    check = estimators.check(strategy, known, target, others, neighbours) if checked else None
    return Fill(strategy, estimator=estimators.fit(strategy, known, target, others, neighbours), check=check)


def apply(rows: DataFrame, fills: Mapping[str, Fill]) -> DataFrame:
    """Fill the columns named in `fills` and list the names of the filled cells of each row in `imputed`."""
    kinds = {field.name: field.dataType for field in rows.schema}
    found, values, flags = rows, {}, []
    for name, fill in fills.items():
        candidates = [] if fill.value is None else [F.lit(fill.value).cast(kinds[name])]
        if fill.groups is not None and fill.by is not None:
            found = _with_groups(found, fill.groups, fill.by, f"_group_{name}")
            candidates.insert(0, F.col(f"_group_{name}"))
        if fill.estimator is not None:
            found = found.withColumn(f"_predicted_{name}", _prediction(rows, fill.estimator))
            candidates.insert(0, F.col(f"_predicted_{name}"))
        if candidates:
            filling = F.coalesce(*candidates)
            values[name] = F.coalesce(F.col(name), filling)
            flags.append(F.when(F.col(name).isNull() & filling.isNotNull(), F.lit(name)))
    imputed = F.array_compact(F.array(*flags)) if flags else F.array().cast("array<string>")
    filled = found.withColumn(c.IMPUTED, imputed).withColumns(values)
    return filled.select(*[name for name in rows.columns if name != c.IMPUTED], c.IMPUTED)


def _with_groups(rows: DataFrame, groups: DataFrame, by: str, name: str) -> DataFrame:
    renamed = groups.withColumnRenamed(c.VALUE, name)
    few = groups.count() <= _BROADCAST_GROUPS
    return rows.join(F.broadcast(renamed) if few else renamed, on=by, how="left")


def _prediction(rows: DataFrame, estimator: Estimator) -> Column:
    """What the estimator says of the rows without a target, null in all others; made by the executors."""
    shipped = rows.sparkSession.sparkContext.broadcast(estimator)

    def predict(cells: pd.DataFrame) -> pd.Series:
        return shipped.value.fill(cells)

    kind = "string" if estimator.target.kind == "category" else "double"
    names = [estimator.target.name, *(field.name for field in estimator.others)]
    filled: Column = pandas_udf(predict, kind)(F.struct(*names))  # type: ignore[call-overload]
    return filled


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
