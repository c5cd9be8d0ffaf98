"""Models of missing attributes against scikit-learn used directly, and against hidden values."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import KNNImputer
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from recbatch.transforms.estimators import Field, Strategy, check, error, fit, group_errors, values_of

RANDOM = np.random.default_rng(11)
N = 300
BRAND, SIZE, WEIGHT, TAGS = (
    Field("brand", "category"),
    Field("size", "number"),
    Field("weight", "number"),
    Field("tags", "category", "|"),
)
FIELDS = [BRAND, SIZE, WEIGHT, TAGS]


def _items() -> pd.DataFrame:
    """Sizes and weights go together, and depend on the brand; about a fifth of every column is missing."""
    kind = RANDOM.integers(0, 6, N)
    size = 10.0 * kind + RANDOM.normal(0, 1, N)
    frame = pd.DataFrame(
        {
            "brand": np.array(["Acme", "Bolt", "Cask", "Dune", "Echo", "Fern"], object)[kind],
            "size": size,
            "weight": size * 3 + RANDOM.normal(0, 2, N),
            "tags": np.array(["a|b", "b", "c | a", "c", "", "d|b"], object)[kind],
        }
    )
    for name in frame:
        frame.loc[RANDOM.random(N) < 0.2, name] = None
    return frame


ITEMS = _items()


def test_nearest_neighbours_of_numbers_are_those_of_knn_imputer() -> None:
    frame = ITEMS[["size", "weight"]].assign(depth=RANDOM.normal(0, 5, N))
    frame["weight"] = frame["weight"].fillna(0.0)
    known = frame[frame["size"].notna()]
    found = fit("knn", known, SIZE, [WEIGHT, Field("depth", "number")], 4).fill(frame)
    scaled = StandardScaler().fit(known[["weight", "depth"]]).transform(frame[["weight", "depth"]])
    expected = KNNImputer(n_neighbors=4).fit_transform(np.column_stack([frame["size"], scaled]))[:, 0]
    missing = frame["size"].isna().to_numpy()
    np.testing.assert_allclose(found[missing], expected[missing])
    assert found[~missing].isna().all()


def _encoded(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Indicators of brand, a missing one included, and the standardised weight."""
    brands = OneHotEncoder(sparse_output=False).fit_transform(rows[["brand"]].fillna(""))
    weight = rows[["weight"]].fillna(rows["weight"].mean())
    return brands, StandardScaler().fit_transform(weight)


def test_regression_of_a_number_is_ridge_regression() -> None:
    known = ITEMS[ITEMS["size"].notna()].reset_index(drop=True)
    brands, weight = _encoded(known)
    columns = np.hstack([np.ones((len(known), 1)), brands * np.sqrt(0.5), weight])
    target = StandardScaler().fit(known[["size"]])
    expected = Ridge(fit_intercept=False).fit(columns, target.transform(known[["size"]])[:, 0]).predict(columns)
    asked = known.assign(size=np.nan)
    found = fit("regression", known, SIZE, [BRAND, WEIGHT], 5).fill(asked)
    np.testing.assert_allclose(found, target.inverse_transform(expected[:, None])[:, 0], rtol=1e-9)


@pytest.mark.parametrize("strategy", ["knn", "regression"])
def test_a_category_is_that_of_the_classifier(strategy: Strategy) -> None:
    known = ITEMS[ITEMS["tags"].notna()].reset_index(drop=True)
    brands, weight = _encoded(known)
    columns = np.hstack([np.ones((len(known), 1)), brands * np.sqrt(0.5), weight])
    model = KNeighborsClassifier(7) if strategy == "knn" else RidgeClassifier(fit_intercept=False)
    expected = model.fit(columns, known["tags"]).predict(columns)
    found = fit(strategy, known, Field("tags", "category"), [BRAND, WEIGHT], 7).fill(known.assign(tags=None))
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("strategy", ["knn", "regression"])
@pytest.mark.parametrize("target", [BRAND, SIZE], ids=lambda field: field.name)
def test_a_model_beats_the_group_mean_where_attributes_go_together(strategy: Strategy, target: Field) -> None:
    others = [field for field in FIELDS if field != target]
    found = check(strategy, ITEMS[ITEMS[target.name].notna()], target, others, 5)
    assert found is not None
    assert found.hidden == pytest.approx(0.1 * ITEMS[target.name].notna().sum(), abs=1)
    assert found.strategy_error < found.overall_error / 2
    assert found.group_mean_error < found.overall_error


def test_noise_is_not_learned() -> None:
    noise = ITEMS.assign(noise=RANDOM.normal(0, 1, N))
    found = check("knn", noise, Field("noise", "number"), [BRAND], 5)
    assert found is not None
    assert found.strategy_error > 0.9 * found.overall_error
    assert found.best_group == "brand"
    assert check("knn", noise[:19], Field("noise", "number"), [BRAND], 5) is None


def test_errors_and_groups() -> None:
    rest = pd.DataFrame({"by": ["x", "x", "y", None], "n": [1.0, 3.0, 8.0, 100.0], "k": ["b", "a", "c", "c"]})
    hidden = pd.DataFrame({"by": ["x", "y", "z"], "n": [2.0, 5.0, 28.0], "k": ["a", "c", "c"]})
    assert group_errors(rest, hidden, Field("n", "number"), "by") == pytest.approx(np.sqrt(9 / 3))
    # In x both are as frequent, and the smaller one counts; z is not known, and c the most frequent of all.
    assert group_errors(rest, hidden, Field("k", "category"), "by") == 0.0
    assert error(pd.Series(["a", "b"]), pd.Series(["a", "c"]), "category") == 0.5


def test_one_value_only_and_fewer_rows_than_neighbours() -> None:
    known = pd.DataFrame({"brand": ["Acme", "Acme"], "size": [1.0, np.nan]})
    for strategy in ("knn", "regression"):
        asked = pd.DataFrame({"brand": [None, "Zeta", None], "size": [3.0, 3.0, np.nan]})
        assert fit(strategy, known, BRAND, [SIZE], 5).fill(asked).tolist() == ["Acme", None, "Acme"]
    assert fit("knn", known.assign(size=[1.0, 3.0]), SIZE, [BRAND], 5).fill(known).dropna().tolist() == [2.0]


def test_a_model_that_was_shipped_predicts_the_same() -> None:
    known = ITEMS[ITEMS["brand"].notna()]
    estimator = fit("knn", known, BRAND, [SIZE, WEIGHT, TAGS], 5)
    again = pickle.loads(pickle.dumps(estimator))
    assert again.fill(ITEMS).dropna().tolist() == estimator.fill(ITEMS).dropna().tolist()


def test_several_values_of_a_category() -> None:
    assert values_of(" b | a||b ", "|") == ["b", "a", "b"]
    assert values_of("", "|") == values_of("|", "|") == [""]
    assert values_of("A|B", None) == ["A|B"]
