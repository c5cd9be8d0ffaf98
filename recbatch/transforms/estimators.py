"""Filling a missing attribute from the item's other attributes, by scikit-learn: the part that needs no Spark.

A frame has a row an item and a column an attribute: text or None, or float64 with NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits

NEIGHBOURS = 5
# Ridge regression solves a dense system of this size at most, for this many values of a category.
_INDICATORS, _CLASSES = 2000, 1000
_EVERY, _MOST_HIDDEN = 10, 1000
# Distances between rows that lie in memory at a time.
_WORKING_MEMORY_MIB = 128


Kind = Literal["category", "number"]
Strategy = Literal["knn", "regression"]


@dataclass(frozen=True)
class Field:
    """An attribute as a column of a frame; `separator` stands between the values of a category that has several."""

    name: str
    kind: Kind
    separator: str | None = None


@dataclass(frozen=True)
class Estimator:
    """A fitted model of `target` given `others`."""

    model: Any
    target: Field
    others: tuple[Field, ...]

    def fill(self, rows: pd.DataFrame) -> pd.Series:
        """The predictions for the rows without a target, None or NaN in all others.

        Equal items are predicted once. One thread is used, because every core of an executor has a task already.
        """
        names = [field.name for field in self.others]
        missing = rows[self.target.name].isna().to_numpy()
        filled = pd.Series(_empty(self.target.kind, len(rows)), index=rows.index)
        if not missing.any():
            return filled
        asked = rows.loc[missing, names]
        number = asked.groupby(names, dropna=False, sort=False).ngroup().to_numpy()
        _, first = np.unique(number, return_index=True)
        with threadpool_limits(1), config_context(working_memory=_WORKING_MEMORY_MIB):
            predicted = self.model.predict(prepare(asked.iloc[first], self.others))
        filled[missing] = predicted[number]
        return filled


@dataclass(frozen=True)
class Check:
    """How well a strategy guesses hidden values that are known, beside the best group mean.

    errors: root mean square error of a number, in its unit, or the share of wrong guesses of a category; of the
    strategy, of the mean (for categories, the most frequent value) in the best grouping, and over all rows.
    best_group: the category whose grouping is best, None where no other attribute is a category.
    """

    hidden: int
    strategy_error: float
    group_mean_error: float
    overall_error: float
    best_group: str | None


def fit(strategy: Strategy, known: pd.DataFrame, target: Field, others: Sequence[Field], neighbours: int) -> Estimator:
    """Fit to the rows of `known`, which all have a target; at least one.

    knn: the mean, or the most frequent value, of the nearest rows. A category that differs counts as one standard
    deviation of a number; a missing number as the mean; a missing category as a value of its own.
    regression: ridge regression, or a ridge classifier over the most frequent values, on the same columns.
    """
    values = known[target.name].to_numpy()
    rows = prepare(known, others)
    if target.kind == "category" and len(set(values)) == 1:
        return Estimator(DummyClassifier().fit(rows, values), target, tuple(others))
    if strategy == "knn":
        nearest = KNeighborsClassifier if target.kind == "category" else KNeighborsRegressor
        model = make_pipeline(_columns(others, None), nearest(min(neighbours, len(known))))
    elif target.kind == "number":
        model = make_pipeline(_columns(others, _INDICATORS), _ridge())
    else:
        model = make_pipeline(_columns(others, _INDICATORS), RidgeClassifier(fit_intercept=False, solver="cholesky"))
        frequent = _frequent(values, _CLASSES)
        rows, values = rows[frequent], values[frequent]
    return Estimator(model.fit(rows, values), target, tuple(others))


def check(
    strategy: Strategy, known: pd.DataFrame, target: Field, others: Sequence[Field], neighbours: int
) -> Check | None:
    """Hide every tenth of the rows, at most 1,000 spread evenly, and fit to the rest; None for fewer than 20 rows."""
    step = max(_EVERY, math.ceil(len(known) / _MOST_HIDDEN))
    if len(known) < 2 * step:
        return None
    at = np.arange(len(known)) % step == 0
    hidden, rest = known[at], known[~at]
    truth = hidden[target.name]
    asked = hidden.assign(**{target.name: None if target.kind == "category" else np.nan})
    guessed = fit(strategy, rest, target, others, neighbours).fill(asked)
    categories = [field.name for field in others if field.kind == "category"]
    groups = {name: group_errors(rest, hidden, target, name) for name in categories}
    best = min(groups, key=lambda name: groups[name], default=None)
    overall = error(truth, pd.Series(average(rest[target.name], target.kind), index=truth.index), target.kind)
    group_mean = overall if best is None else groups[best]
    return Check(len(hidden), error(truth, guessed, target.kind), group_mean, overall, best)


def group_errors(rest: pd.DataFrame, hidden: pd.DataFrame, target: Field, by: str) -> float:
    """The error of the average in the group of `by`, and over all rows for a group that `rest` does not know."""
    grouped = rest.groupby(by)[target.name]
    if target.kind == "number":
        averages = grouped.mean()
    else:  # as `average` does it, for all groups at once
        counts = grouped.value_counts().rename("n").reset_index()
        counts = counts.sort_values(["n", target.name], ascending=[False, True])
        averages = counts.drop_duplicates(by).set_index(by)[target.name]
    guessed = hidden[by].map(averages)
    return error(hidden[target.name], guessed.fillna(average(rest[target.name], target.kind)), target.kind)


def average(values: pd.Series, kind: str) -> Any:
    """The mean of numbers, or the most frequent category; of equally frequent ones the smallest."""
    return values.mean() if kind == "number" else values.mode().iloc[0]


def error(truth: pd.Series, guessed: pd.Series, kind: str) -> float:
    """Root mean square error of numbers, or the share of categories that differ."""
    if kind == "category":
        return float((truth != guessed).mean())
    return float(np.sqrt(((truth - guessed) ** 2).mean()))


def prepare(rows: pd.DataFrame, others: Sequence[Field]) -> pd.DataFrame:
    """The columns of `others` as the transformers take them: a missing category is an empty text."""
    return pd.DataFrame(
        {
            field.name: rows[field.name].fillna("") if field.kind == "category" else rows[field.name].astype(float)
            for field in others
        }
    )


def _columns(others: Sequence[Field], most: int | None) -> ColumnTransformer:
    """Standardised numbers, an indicator for each value of a category, and a column of ones for the intercept.

    most: indicators of all categories together, the most frequent values of each; None for no limit.
    """
    categories = [field for field in others if field.kind == "category"]
    limit = None if most is None else most // max(1, len(categories))
    parts: list[tuple[str, Any, Any]] = [("intercept", FunctionTransformer(_ones), [others[0].name])]
    for field in categories:
        split = partial(values_of, separator=field.separator)
        parts.append((field.name, CountVectorizer(binary=True, analyzer=split, max_features=limit), field.name))
    numbers = [field.name for field in others if field.kind == "number"]
    if numbers:
        standardised = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
        parts.append(("numbers", standardised, numbers))
    # Two different values differ in two indicators, so that their distance becomes 1.
    weights = {field.name: math.sqrt(0.5) for field in categories}
    return ColumnTransformer(parts, transformer_weights=weights, sparse_threshold=1.0)


def values_of(text: str, separator: str | None) -> list[str]:
    """The values in the text of a category; a missing one has the empty value."""
    if separator is None:
        return [text]
    return [value for part in text.split(separator) if (value := part.strip())] or [""]


def _ones(rows: pd.DataFrame) -> NDArray[np.float64]:
    return np.ones((len(rows), 1))


def _ridge() -> Pipeline:
    # The intercept is among the columns, where a sparse matrix can be solved directly.
    return TransformedTargetRegressor(Ridge(fit_intercept=False, solver="cholesky"), transformer=StandardScaler())


def _frequent(values: NDArray[Any], most: int) -> NDArray[np.bool_]:
    """The rows that have one of the most frequent values; of equally frequent ones, the smaller."""
    distinct, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = np.empty(len(distinct), int)
    rank[np.lexsort((np.arange(len(distinct)), -counts))] = np.arange(len(distinct))
    return rank[place] < most


def _empty(kind: str, length: int) -> NDArray[Any]:
    return np.full(length, None, object) if kind == "category" else np.full(length, np.nan)
