"""Slices of a test against truths restricted by hand, and what they keep of the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbatch.evaluation.figures import Figure, Resampling, difference_figure, metric_figures, slice_figures
from recbatch.evaluation.metrics import Truth, ranking_metrics
from recbatch.evaluation.protocol import Outcome
from recbatch.evaluation.slices import (
    LARGEST_VALUES,
    METRICS,
    Attribute,
    Slice,
    by_age,
    by_category,
    by_history,
    restricted,
    slice_metrics,
)

# Three users and six items. Item 3 is new.
TRUTH = Truth(np.array([0, 2, 3, 5]), np.array([1, 3, 3, 0, 2]))
LISTS = np.array([[3, 4, 5, 0, -1, -1, -1, -1, -1, -1], [0, 3] + [-1] * 8, [2, 0] + [-1] * 8])
NEW, OLD = by_age(np.array([True, True, True, False, True, True]))


def _pairs(truth: Truth, part: Slice) -> dict[int, list[int]]:
    users, relevant = restricted(truth, part)
    if relevant is None:
        return {}
    bounds = relevant.indptr
    return {int(user): relevant.indices[bounds[n] : bounds[n + 1]].tolist() for n, user in enumerate(users)}


def test_slices_of_items_restrict_what_is_relevant() -> None:
    assert (NEW.name, OLD.name) == ("new_items", "old_items")
    assert _pairs(TRUTH, NEW) == {0: [3], 1: [3]}
    assert _pairs(TRUTH, OLD) == {0: [1], 2: [0, 2]}
    assert _pairs(TRUTH, Slice("none", items=np.zeros(6, dtype=np.bool_))) == {}


def test_slices_of_users_restrict_the_users() -> None:
    light, heavy = by_history(np.array([3, 1, 8]))

    # The median is 3: who has as much as that is heavy.
    assert (light.name, _pairs(TRUTH, light)) == ("light_users", {1: [3]})
    assert (heavy.name, _pairs(TRUTH, heavy)) == ("heavy_users", {0: [1, 3], 2: [0, 2]})


def test_the_metrics_of_a_slice_are_as_worked_out_by_hand() -> None:
    # New: the only relevant item at rank 1 and at rank 2. Old: no hit; both items in both places.
    new, old = slice_metrics(LISTS, TRUTH, NEW), slice_metrics(LISTS, TRUTH, OLD)

    assert new.keys() == old.keys() == set(METRICS) == {"ndcg@10", "recall@10"}
    assert new["ndcg@10"] == pytest.approx([1, 0.6309297536])
    assert new["recall@10"].tolist() == [1, 1]
    assert old["ndcg@10"].tolist() == old["recall@10"].tolist() == [0, 1]
    assert slice_metrics(LISTS, TRUTH, Slice("nobody", users=np.zeros(3, dtype=np.bool_))) == {}


def _attribute(codes: list[list[int]]) -> Attribute:
    flat = [code for item in codes for code in item]
    values = {code: f"v{code}" for code in flat if code}
    return Attribute(np.cumsum([0, *map(len, codes)]), np.array(flat, dtype=np.int64), values)


def test_categories_are_the_values_with_the_most_relevant_pairs() -> None:
    # Relevant pairs of the items: 1, 1, 1, 2, 0, 0. Of the codes: 1 has 2, 2 has 3, 3 has 1, 4 none, missing ones none.
    attributes = {"brand": _attribute([[1], [1, 3], [0], [2], [4], [4]]), "size": _attribute([[0]] * 6)}
    slices = by_category(attributes, Truth(np.array([0, 2, 3, 5]), np.array([1, 3, 3, 0, 2])))

    assert [part.name for part in slices] == ["brand=v1", "brand=v2", "brand=v3"]
    assert [np.flatnonzero(part.items).tolist() for part in slices if part.items is not None] == [[0, 1], [3], [1]]


def test_small_categories_have_no_slice() -> None:
    truth = Truth(np.array([0, 10]), np.arange(10))
    slices = by_category({"brand": _attribute([[code] for code in [7, 7, *range(1, 9)]])}, truth)

    # The code 7 is that of three items, the largest; the others are equally large.
    assert [part.name for part in slices] == ["brand=v7", *(f"brand=v{code}" for code in range(1, LARGEST_VALUES))]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Truth, np.ndarray, Slice]:
    relevant = draw(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=6, unique=True), min_size=1, max_size=5))
    lists = [draw(st.permutations(range(12)))[:10] for _ in relevant]
    masks = st.lists(st.booleans(), min_size=len(relevant), max_size=len(relevant))
    users, items = draw(st.none() | masks), draw(st.none() | st.lists(st.booleans(), min_size=8, max_size=8))
    part = Slice("part", None if users is None else np.array(users), None if items is None else np.array(items))
    flat = np.array([item for one in relevant for item in one])
    return Truth(np.cumsum([0, *map(len, relevant)]), flat), np.array(lists), part


@given(cases())
def test_equals_a_loop_over_users_and_items(case: tuple[Truth, np.ndarray, Slice]) -> None:
    truth, lists, part = case
    expected: dict[int, list[int]] = {}
    for user, (low, high) in enumerate(pairwise(truth.indptr)):
        for item in truth.indices[low:high].tolist():
            if (part.users is None or part.users[user]) and (part.items is None or part.items[item]):
                expected.setdefault(user, []).append(item)

    assert _pairs(truth, part) == expected
    found = slice_metrics(lists, truth, part)
    recalls = [len(set(lists[user]) & set(items)) / len(items) for user, items in expected.items()]
    assert found.get("recall@10", np.empty(0)) == pytest.approx(recalls)
    if part.users is None and part.items is None:
        assert found["ndcg@10"].tolist() == ranking_metrics(lists, truth, [10])["ndcg@10"].tolist()


def _outcome(ndcg: list[float]) -> Outcome:
    return Outcome(LISTS, {"ndcg@10": np.array(ndcg), "auc": np.array(ndcg) / 2}, {"coverage@10": 0.25})


def test_figures_name_scorer_slice_and_metric() -> None:
    outcomes = {"model": _outcome([0.5, 0.25, 0.75]), "popularity": _outcome([0.5, 0.0, 0.25])}
    resampling = Resampling(200, 3)
    whole = metric_figures("new", outcomes, resampling)
    gain = difference_figure("new", outcomes, "model", "popularity", resampling)
    parts = slice_figures(
        "new", {"model": outcomes["model"]}, TRUTH, [NEW, Slice("none", items=np.zeros(6, bool))], resampling
    )

    assert [(one.scorer, one.slice, one.metric, one.users) for one in whole] == [
        (scorer, "all", metric, 3) for scorer in outcomes for metric in ("ndcg@10", "auc", "coverage@10")
    ]
    assert whole[0].mean == pytest.approx(0.5)
    assert whole[2] == Figure("model", "new", "all", "coverage@10", 0.25, None, None, 3)
    assert (gain.scorer, gain.metric, gain.mean) == ("model - popularity", "ndcg@10", pytest.approx(0.25))
    assert gain.low is not None
    assert gain.high is not None
    # Differences 0, 0.25 and 0.5.
    assert 0 <= gain.low < 0.25 < gain.high <= 0.5
    assert [(one.slice, one.metric, one.users) for one in parts] == [("new_items", metric, 2) for metric in METRICS]
