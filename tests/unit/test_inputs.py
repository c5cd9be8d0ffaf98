"""Item features as a model takes them: normalised as when it was trained, whatever the features were fitted to."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest
import torch

from recbatch.config.learning import ModelSection
from recbatch.errors import ModelError
from recbatch.model.artifact import Artifact
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import Recommender, Shape
from recbatch.ranking.csr import Csr
from recbatch.stages.inputs import features_of_model, normalised_features
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
        "vectors": pa.array([[0.6, 0.8]] * len(numbers), pa.list_(pa.float32())),
    }
    return pa.table(columns)


def test_numbers_are_in_the_order_of_the_table_and_missing_ones_are_zero() -> None:
    # age, size, item_price
    rows = _rows([[7.0, 15.0, 2.0], [NAN, NAN, NAN]])
    found = normalised_features(rows, FITTED, FITTED)
    assert found.numbers.tolist() == [[7.0, 1.0, 0.5], [0.0, 0.0, 0.0]]
    assert found.field_sizes == (2,)
    assert found.vectors.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]] * 2


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


@pytest.mark.parametrize(("field_sizes", "n_vector"), [((2,), 0), ((2,), 3), ((2, 2), 2), ((2,), 2)])
def test_a_model_of_other_categories_or_vectors_is_refused(field_sizes: tuple[int, ...], n_vector: int) -> None:
    model = Recommender(ModelSection(dim=4, context_length=4), Shape(1, field_sizes, 3, 1, n_vector))
    nobody = Neighbours(Csr(torch.tensor([0, 0]), torch.empty(0, dtype=torch.int32), torch.empty(0)))
    loaded = Artifact(model, nobody, None, "", {name: asdict(one) for name, one in FITTED.items()}, {}, {})
    if (field_sizes, n_vector) == ((2,), 2):
        features = features_of_model(_rows([[1.0, 2.0, 3.0]]), FITTED, loaded)
        assert model.item_vectors(features)[0].shape == (1, 4)
        return
    sizes = f"{len(field_sizes)} and {n_vector}"
    with pytest.raises(ModelError, match=f"1 category and text attributes and 2 numbers in vectors, .* on {sizes}"):
        features_of_model(_rows([[1.0, 2.0, 3.0]]), FITTED, loaded)
