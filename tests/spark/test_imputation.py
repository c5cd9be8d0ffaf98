"""Filling by groups and by models in Spark, and how the tables say what was filled."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.impute import SimpleImputer

from recbatch.cleaning.imputations import check_figures, check_lines, imputations
from recbatch.config.inputs import ItemAttribute, Missing
from recbatch.tables import columns as c
from recbatch.tables.schemas import IMPUTATIONS
from recbatch.tables.store import in_contract
from recbatch.transforms import estimators, imputation
from recbatch.transforms.attributes import attribute_column, fields, strategies

RANDOM = np.random.default_rng(21)
N = 240
ATTRIBUTES = {
    "brand": ItemAttribute.model_validate({"source": "brand", "missing": {"strategy": "knn", "neighbours": 3}}),
    "shelf": ItemAttribute.model_validate({"source": "shelf"}),
    "size": ItemAttribute.model_validate(
        {"source": "size", "kind": "number", "missing": {"strategy": "group_mean", "by": "shelf"}}
    ),
    "weight": ItemAttribute.model_validate({"source": "weight", "kind": "number", "missing": "regression"}),
}
STRATEGIES = strategies({name: one.missing for name, one in ATTRIBUTES.items()})


def _items() -> pd.DataFrame:
    kind = RANDOM.integers(0, 4, N)
    frame = pd.DataFrame(
        {
            "brand": np.array(["Acme", "Bolt", "Cask", "Dune"], object)[kind],
            "shelf": np.array(["low", "low", "high", "top"], object)[kind],
            "size": 5.0 * kind + RANDOM.normal(0, 1, N),
            "weight": 9.0 * kind + RANDOM.normal(0, 1, N),
        }
    )
    for name in frame:
        frame.loc[RANDOM.random(N) < 0.15, name] = None
    frame.loc[frame["shelf"] == "top", "size"] = np.nan  # a group without a value
    return frame.rename(columns=attribute_column).assign(item_id=[f"i{n:03}" for n in range(N)])


ITEMS = _items()


@pytest.fixture(scope="module")
def items(spark: SparkSession) -> DataFrame:
    kinds = ", ".join(f"{name} {'string' if is_text else 'double'}" for name, is_text in _texts().items())
    cells = ITEMS.astype(object).where(ITEMS.notna(), None).to_numpy().tolist()
    return spark.createDataFrame(cells, kinds).repartition(5, "item_id").cache()


def _texts() -> dict[str, bool]:
    return {name: ITEMS[name].dtype == object for name in ITEMS}


@pytest.fixture(scope="module")
def fills(items: DataFrame) -> dict[str, imputation.Fill]:
    return imputation.fit(items, STRATEGIES, fields(ATTRIBUTES), checked=True)


@pytest.fixture(scope="module")
def filled(items: DataFrame, fills: dict[str, imputation.Fill]) -> DataFrame:
    return imputation.apply(items, fills).cache()


def _column(filled: DataFrame, name: str) -> pd.Series:
    return filled.select("item_id", name).toPandas().set_index("item_id").sort_index()[name]


def test_group_means_and_the_mean_for_what_has_no_group(filled: DataFrame) -> None:
    sizes, shelves = ITEMS[attribute_column("size")], ITEMS[attribute_column("shelf")]
    means = sizes.groupby(shelves).mean()
    expected = sizes.fillna(shelves.map(means)).fillna(sizes.mean())
    np.testing.assert_allclose(_column(filled, attribute_column("size")), expected)
    assert shelves[sizes.isna()].isna().any()
    assert math.isnan(means["top"])


@pytest.mark.parametrize("name", ["brand", "weight"])
def test_models_fill_as_on_the_driver_and_only_what_is_missing(filled: DataFrame, name: str) -> None:
    all_fields = {field.name: field for field in fields(ATTRIBUTES)}
    target = all_fields.pop(attribute_column(name))
    # Rows come to the driver in the order of a hash, which decides between neighbours that are equally near.
    ordered = ITEMS.set_index("item_id").loc[_by_hash(filled)].reset_index()
    known = ordered[ordered[target.name].notna()]
    strategy = ATTRIBUTES[name].missing.strategy
    assert strategy in ("knn", "regression")
    expected = estimators.fit(strategy, known, target, list(all_fields.values()), 3).fill(ITEMS)
    found = _column(filled, target.name).reset_index(drop=True)
    given = ITEMS[target.name]
    assert given.isna().sum() > 20
    pd.testing.assert_series_equal(found, given.fillna(expected), check_names=False, check_dtype=False)


def _by_hash(rows: DataFrame) -> list[str]:
    return [row[0] for row in rows.select("item_id").orderBy(F.xxhash64("item_id"), "item_id").collect()]


def test_filled_cells_are_flagged_and_the_others_are_as_they_were(filled: DataFrame) -> None:
    flags = _column(filled, c.IMPUTED)
    for n, row in enumerate(ITEMS.to_dict("records")):
        missing = {name for name in STRATEGIES if STRATEGIES[name].strategy != "keep" and pd.isna(row[name])}
        assert set(flags.iloc[n]) == missing
    assert _column(filled, attribute_column("shelf")).isna().sum() == ITEMS[attribute_column("shelf")].isna().sum()


@pytest.mark.parametrize(("strategy", "theirs"), [("mean", "mean"), ("median", "median"), ("mode", "most_frequent")])
def test_simple_fills_are_those_of_simple_imputer(items: DataFrame, strategy: str, theirs: str) -> None:
    rounded = items.withColumn("size", F.round(attribute_column("size"), 0))
    fills = imputation.fit(rounded, {"size": Missing.model_validate(strategy)})
    column = np.round(ITEMS[[attribute_column("size")]].to_numpy(float), 0)
    assert fills["size"].value == pytest.approx(SimpleImputer(strategy=theirs).fit(column).statistics_[0])


def test_the_table_says_what_was_filled_how_and_how_often(filled: DataFrame, fills: dict[str, imputation.Fill]) -> None:
    by = {attribute_column("shelf"): F.col(attribute_column("shelf"))}
    named = filled.withColumn(c.IMPUTED, F.transform(c.IMPUTED, lambda name: F.replace(name, F.lit("attribute_"))))
    rows = imputations(named, fills, by, "items").withColumn(c.RUN_ID, F.lit("run"))
    found = {(row[c.COLUMN_NAME], row[c.GROUP]): row for row in in_contract(IMPUTATIONS, rows).collect()}
    sizes, shelves = ITEMS[attribute_column("size")], ITEMS[attribute_column("shelf")]
    counts = shelves[sizes.isna()].value_counts(dropna=False)
    assert {key: row[c.ROWS] for key, row in found.items()} == {
        ("brand", None): ITEMS[attribute_column("brand")].isna().sum(),
        ("weight", None): ITEMS[attribute_column("weight")].isna().sum(),
        ("size", "low"): counts["low"],
        ("size", "high"): counts["high"],
        ("size", None): counts["top"] + counts[[pd.isna(name) for name in counts.index]].sum(),
    }
    assert float(found["size", None][c.VALUE]) == pytest.approx(sizes.mean())
    assert float(found["size", "low"][c.VALUE]) == pytest.approx(sizes[shelves == "low"].mean())
    assert (found["brand", None][c.VALUE], found["brand", None][c.STRATEGY]) == (None, "knn")


def test_models_are_compared_with_group_means(fills: dict[str, imputation.Fill]) -> None:
    figures = check_figures(fills)
    assert figures.keys() == {
        f"imputation:{name}_error"
        for name in ("brand:knn", "weight:regression", "brand:group_mean", "weight:group_mean")
    }
    lines = check_lines(fills)
    assert len(lines) == 2
    for name, strategy, line in zip(("brand", "weight"), ("knn", "regression"), lines, strict=True):
        better = figures[f"imputation:{name}:{strategy}_error"] < figures[f"imputation:{name}:group_mean_error"]
        assert line.startswith(f"{strategy} for {name} {'beats' if better else 'does not beat'} the ")
        assert "hidden values" in line


def test_a_column_without_a_value_stays_empty(spark: SparkSession) -> None:
    rows = spark.createDataFrame([("a", "x", None), ("b", None, None)], "item_id string, brand string, size double")
    known = [estimators.Field("brand", "category"), estimators.Field("size", "number")]
    for how in ("regression", {"strategy": "group_mean", "by": "brand"}):
        fills = imputation.fit(rows, {"size": Missing.model_validate(how)}, known, checked=True)
        found = imputation.apply(rows, fills).collect()
        assert [(row["size"], row[c.IMPUTED]) for row in found] == [(None, []), (None, [])]
