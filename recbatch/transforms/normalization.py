"""Normalisation by stored parameters: x -> (x - center) / scale, where a missing value becomes 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recbatch.config.sections import Normalization


@dataclass(frozen=True)
class Parameters:
    """What was fitted for one column."""

    method: Normalization
    center: float
    scale: float


def fit(rows: DataFrame, methods: Mapping[str, Normalization]) -> dict[str, Parameters]:
    """Fit every column in one pass: `zscore` by mean and population deviation, `minmax` by minimum and range.

    A column that is constant or empty keeps scale 1, and `none` is the identity.
    """
    aggregates = []
    for name in methods:
        column = F.col(name)
        aggregates += [
            F.avg(column).alias(f"{name}:mean"),
            F.stddev_pop(column).alias(f"{name}:deviation"),
            F.min(column).alias(f"{name}:min"),
            F.max(column).alias(f"{name}:max"),
        ]
    found = rows.agg(*aggregates).first() if aggregates else None
    values = {name: float(value) for name, value in (found.asDict() if found else {}).items() if value is not None}
    return {name: _parameters(method, name, values) for name, method in methods.items()}


def _parameters(method: Normalization, name: str, values: Mapping[str, float]) -> Parameters:
    if method == "none" or f"{name}:mean" not in values:
        return Parameters(method, 0.0, 1.0)
    if method == "zscore":
        return Parameters(method, values[f"{name}:mean"], values[f"{name}:deviation"] or 1.0)
    low, high = values[f"{name}:min"], values[f"{name}:max"]
    return Parameters(method, low, (high - low) or 1.0)


def apply(column: Column, parameters: Parameters) -> Column:
    """The normalised column as float32, with 0 for a missing value."""
    normalised = (column - F.lit(parameters.center)) / F.lit(parameters.scale)
    return F.coalesce(normalised, F.lit(0.0)).cast("float")


def rescaling(current: Parameters, stored: Parameters) -> tuple[float, float]:
    """(a, b) such that a * x + b is a value normalised by `stored`, for x normalised by `current`."""
    return current.scale / stored.scale, (current.center - stored.center) / stored.scale
