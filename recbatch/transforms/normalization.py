"""Normalisation by stored parameters in Spark: fitted in one pass, applied as a column expression."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recbatch.config.sections import Normalization
from recbatch.transforms.parameters import Parameters


def _spread(column: Column) -> tuple[Column, Column]:
    return F.avg(column), F.stddev_pop(column)


def _range(column: Column) -> tuple[Column, Column]:
    return F.min(column), F.max(column) - F.min(column)


def _quartiles(column: Column) -> tuple[Column, Column]:
    found = F.percentile(column, [0.25, 0.5, 0.75])
    return found[1], found[2] - found[0]


def _log_spread(column: Column) -> tuple[Column, Column]:
    return _spread(_signed_log(column))


# Center and scale of every method but `none`, as aggregates.
_FITS: dict[str, Callable[[Column], tuple[Column, Column]]] = {
    "zscore": _spread,
    "minmax": _range,
    "robust": _quartiles,
    "log1p": _log_spread,
}


def fit(rows: DataFrame, methods: Mapping[str, Normalization]) -> dict[str, Parameters]:
    """Fit every column in one pass over its values that are there (neither null nor NaN).

    `zscore`: mean and population deviation. `minmax`: minimum and range. `robust`: median and interquartile range, both
    interpolated linearly between values. `log1p`: as zscore, of sign(x) * log(1 + |x|). `none` is the identity. A
    column that is empty has center 0, and one without spread scale 1. The quartiles are exact: while they are found,
    every distinct value and its count is held in memory.
    """
    aggregates = []
    for name, method in methods.items():
        if method in _FITS:
            center, scale = _FITS[method](_present(F.col(name)))
            aggregates += [center.alias(f"{name}:center"), scale.alias(f"{name}:scale")]
    found = rows.agg(*aggregates).first() if aggregates else None
    values = {} if found is None else found.asDict()
    return {
        name: Parameters(method, float(values.get(f"{name}:center") or 0.0), float(values.get(f"{name}:scale") or 1.0))
        for name, method in methods.items()
    }


def apply(column: Column, parameters: Parameters) -> Column:
    """The column, null or NaN where missing, normalised: float32, never null; as `parameters.normalise` does it."""
    value = _present(column.cast("double"))
    if parameters.fill is not None:
        value = F.coalesce(value, F.lit(parameters.fill))
    lifted = _signed_log(value) if parameters.method == "log1p" else value
    normalised = (lifted - F.lit(parameters.center)) / F.lit(parameters.scale)
    return F.coalesce(normalised, F.lit(0.0)).cast("float")


def _present(column: Column) -> Column:
    return F.nanvl(column, F.lit(None).cast("double"))


def _signed_log(column: Column) -> Column:
    return F.signum(column) * F.log1p(F.abs(column))
