"""Item features as a model takes them: normalised as when it was trained, whatever the features were fitted to."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from recbatch.errors import ModelError
from recbatch.stages.inputs import normalised_features
from recbatch.transforms.parameters import Parameters

NAN = math.nan
FITTED = {
    "events.price": Parameters("zscore", 1.0, 1.0),
    "items.size": Parameters("zscore", 5.0, 10.0),
    "items.item_price": Parameters("minmax", 0.0, 4.0),
    "items.age": Parameters("none", 0.0, 1.0),
}


def _rows(numbers: list[list[float]]) -> pa.Table:
    columns = {
        "item_idx": pa.array(range(len(numbers)), pa.int32()),
        "categories": pa.array([[[1]]] * len(numbers), pa.list_(pa.list_(pa.int32()))),
        "numbers": pa.array(numbers, pa.list_(pa.float32())),
    }
    return pa.table(columns)


def test_numbers_are_in_the_order_of_the_table_and_missing_ones_are_zero() -> None:
    # age, size, item_price
    rows = _rows([[7.0, 15.0, 2.0], [NAN, NAN, NAN]])
    found = normalised_features(rows, FITTED, FITTED)
    assert found.numbers.tolist() == [[7.0, 1.0, 0.5], [0.0, 0.0, 0.0]]
    assert found.field_sizes == (2,)


def test_a_champion_keeps_its_own_normalisation() -> None:
    trained = FITTED | {
        "items.size": Parameters("log1p", 1.0, 2.0),
        "items.item_price": Parameters("robust", 1.0, 2.0, fill=5.0),
    }
    found = normalised_features(_rows([[0.0, -3.0, 2.0], [0.0, NAN, NAN]]), FITTED, trained)
    np.testing.assert_allclose(found.numbers, [[0.0, (-math.log(4) - 1) / 2, 0.5], [0.0, 0.0, 2.0]], rtol=1e-6)


def test_a_model_of_other_attributes_is_refused() -> None:
    trained = {name: one for name, one in FITTED.items() if name != "items.age"} | {"items.weight": FITTED["items.age"]}
    with pytest.raises(ModelError, match="attributes age, size, item_price, the model was trained on size, weight"):
        normalised_features(_rows([[1.0, 2.0, 3.0]]), FITTED, trained)
