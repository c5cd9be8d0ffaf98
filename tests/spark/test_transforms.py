"""Fitted transforms against numpy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, RobustScaler, StandardScaler

from recbatch.config.inputs import Missing
from recbatch.config.sections import Normalization
from recbatch.transforms import imputation, normalization
from recbatch.transforms.parameters import Parameters, normalise

RANDOM = np.random.default_rng(5)
VALUES = {
    "even": RANDOM.lognormal(2.0, 1.5, 40).round(3),
    "odd": RANDOM.normal(-3.0, 20.0, 41).round(1),
    "often": RANDOM.integers(0, 6, 40).astype(float),
    "constant": np.full(40, 7.5),
    "one": np.array([3.0]),
    "empty": np.array([]),
}
LENGTH = 60


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    """Every column with missing values at places of its own, in five partitions."""
    columns = {"n": list(range(LENGTH))}
    for name, values in VALUES.items():
        cells: list[float | None] = [*values.tolist(), *[None] * (LENGTH - len(values))]
        columns[name] = [cells[at] for at in RANDOM.permutation(LENGTH)]
    schema = pa.schema([("n", pa.int64()), *[(name, pa.float64()) for name in VALUES]])
    return spark.createDataFrame(pa.table(columns, schema)).repartition(5).cache()


SCALERS = {
    "zscore": StandardScaler(),
    "minmax": MinMaxScaler(),
    "robust": RobustScaler(),
    "log1p": make_pipeline(FunctionTransformer(lambda x: np.sign(x) * np.log1p(np.abs(x))), StandardScaler()),
}


@pytest.mark.parametrize("name", [name for name in VALUES if name != "empty"])
def test_values_are_scaled_as_by_scikit_learn(frame: DataFrame, name: str) -> None:
    given = np.array([row[0] for row in frame.select(name).collect()], dtype=float)
    for method, scaler in SCALERS.items():
        (parameters,) = normalization.fit(frame.select(name), {name: method}).values()
        assert parameters.method == method
        expected = np.nan_to_num(scaler.fit(VALUES[name][:, None]).transform(given[:, None])[:, 0])
        np.testing.assert_allclose(normalise(given, parameters), expected, rtol=1e-6, atol=1e-7)


def test_a_column_without_a_value_has_center_0_and_scale_1(frame: DataFrame) -> None:
    for method in SCALERS:
        assert normalization.fit(frame, {"empty": method})["empty"] == Parameters(method, 0.0, 1.0)


EDGES = [0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, -1e300, 0.1, 7.0, np.inf, -np.inf, np.nan, np.nan]


@pytest.mark.parametrize("method", ["zscore", "minmax", "robust", "log1p", "none"])
def test_a_column_and_an_array_are_normalised_alike(spark: SparkSession, method: Normalization) -> None:
    wide = RANDOM.normal(0, 1, 2000) * 10.0 ** RANDOM.integers(-6, 7, 2000)
    values = np.concatenate([EDGES, wide])
    cells = [None if at == len(EDGES) - 1 else value for at, value in enumerate(values.tolist())]
    frame = spark.createDataFrame(pa.table({"at": range(len(cells)), "x": pa.array(cells, pa.float64())}))
    choices = [Parameters(method, *one) for one in ((0.0, 1.0), (3.7, 0.013), (-2.0, 1e4, 5.5), (1e5, 3.0, 0.0))]
    columns = [normalization.apply(F.col("x"), one).alias(f"c{at}") for at, one in enumerate(choices)]
    found = frame.select("at", *columns).toPandas().sort_values("at")
    for at, one in enumerate(choices):
        column, array = found[f"c{at}"].to_numpy(), normalise(values, one)
        assert column.dtype == array.dtype == np.float32
        if method == "log1p":  # the logarithms of Java and of numpy may differ in the last of 53 bits
            np.testing.assert_allclose(column, array, rtol=3e-7, atol=1e-9)
        else:
            np.testing.assert_array_equal(column, array)


def test_none_is_the_identity_and_a_missing_value_is_zero(frame: DataFrame) -> None:
    parameters = normalization.fit(frame, {"odd": "none", "even": "zscore"})
    assert parameters["odd"] == Parameters("none", 0.0, 1.0)
    given = [row[0] for row in frame.select("odd").collect()]
    scaled = [row[0] for row in frame.select(normalization.apply(F.col("odd"), parameters["odd"])).collect()]
    np.testing.assert_array_equal(np.float32(scaled), np.float32([value or 0.0 for value in given]))
    assert normalization.fit(frame, {}) == {}


def _mode(values: np.ndarray) -> float:
    distinct, counts = np.unique(values, return_counts=True)
    return float(distinct[counts.argmax()])


@pytest.mark.parametrize("name", ["even", "odd", "often", "constant", "one"])
def test_fills(frame: DataFrame, name: str) -> None:
    expected = {"mean": VALUES[name].mean(), "median": np.median(VALUES[name]), "mode": _mode(VALUES[name])}
    for strategy, value in expected.items():
        missing = Missing.model_validate(strategy)
        fills = imputation.fit(frame, {name: missing})
        assert fills[name].value == pytest.approx(value, rel=1e-12)
        rows = imputation.apply(frame, fills).select("n", name, "imputed").collect()
        before = {row["n"]: row[name] for row in frame.select("n", name).collect()}
        assert {row["n"]: row["imputed"] for row in rows} == {
            n: [name] if given is None else [] for n, given in before.items()
        }
        assert {row["n"]: row[name] for row in rows} == {
            n: fills[name].value if given is None else given for n, given in before.items()
        }


def test_what_cannot_be_learned_is_not_filled(frame: DataFrame) -> None:
    strategies = {"empty": "mean", "often": "keep", "even": {"strategy": "constant", "value": 0}}
    fills = imputation.fit(frame, {name: Missing.model_validate(how) for name, how in strategies.items()})
    assert {name: fill.value for name, fill in fills.items()} == {"empty": None, "even": 0}
    rows = imputation.apply(frame, fills).collect()
    assert {tuple(row["imputed"]) for row in rows} == {(), ("even",)}
    assert all(row["empty"] is None and row["even"] is not None for row in rows)
    assert any(row["often"] is None for row in rows)


def test_two_filled_cells_of_a_row_are_both_flagged(frame: DataFrame) -> None:
    fills = imputation.fit(frame, {"even": Missing.model_validate("mean"), "often": Missing.model_validate("mode")})
    flags = {(row["even"] is None, row["often"] is None): row["imputed"] for row in _joined(frame, fills).collect()}
    assert flags[True, True] == ["even", "often"]
    assert flags[False, True] == ["often"]
    assert flags[False, False] == []


def _joined(frame: DataFrame, fills: dict[str, imputation.Fill]) -> DataFrame:
    return frame.select("n", "even", "often").join(imputation.apply(frame, fills).select("n", "imputed"), on="n")
