"""Fitted transforms against numpy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recbatch.config.inputs import Missing
from recbatch.transforms import imputation, normalization
from recbatch.transforms.normalization import Parameters

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


def _scaled(frame: DataFrame, name: str, parameters: Parameters) -> tuple[list[float], list[float | None]]:
    rows = frame.select(normalization.apply(F.col(name), parameters), name).collect()
    return [row[0] for row in rows], [row[1] for row in rows]


@pytest.mark.parametrize("name", VALUES)
def test_zscore_and_minmax(frame: DataFrame, name: str) -> None:
    values = VALUES[name]
    mean, deviation = (values.mean(), values.std()) if len(values) else (0.0, 1.0)
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    for method, center, scale in (("zscore", mean, deviation or 1.0), ("minmax", low, (high - low) or 1.0)):
        (parameters,) = normalization.fit(frame.select(name), {name: method}).values()
        assert parameters.method == method
        np.testing.assert_allclose((parameters.center, parameters.scale), (center, scale), rtol=1e-12)
        scaled, given = _scaled(frame, name, parameters)
        expected = [0.0 if value is None else (value - center) / scale for value in given]
        np.testing.assert_allclose(scaled, expected, rtol=1e-6, atol=1e-7)


def test_none_is_the_identity_and_a_missing_value_is_zero(frame: DataFrame) -> None:
    parameters = normalization.fit(frame, {"odd": "none", "even": "zscore"})
    assert parameters["odd"] == Parameters("none", 0.0, 1.0)
    scaled, given = _scaled(frame, "odd", parameters["odd"])
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
        assert fills[name] == pytest.approx(value, rel=1e-12)
        rows = imputation.apply(frame, fills).select("n", name, "imputed").collect()
        before = {row["n"]: row[name] for row in frame.select("n", name).collect()}
        assert {row["n"]: row["imputed"] for row in rows} == {
            n: [name] if given is None else [] for n, given in before.items()
        }
        assert {row["n"]: row[name] for row in rows} == {
            n: fills[name] if given is None else given for n, given in before.items()
        }


def test_what_cannot_be_learned_is_not_filled(frame: DataFrame) -> None:
    strategies = {"empty": "mean", "often": "keep", "even": {"strategy": "constant", "value": 0}}
    fills = imputation.fit(frame, {name: Missing.model_validate(how) for name, how in strategies.items()})
    assert fills == {"empty": None, "even": 0}
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
