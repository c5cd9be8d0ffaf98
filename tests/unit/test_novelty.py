"""Novelty and the share of the long tail against tables worked out by hand, a slow loop, and what defines them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbatch.evaluation.novelty import Known, novelty_metrics

# Of 8 users: self-information 0, 1, 2, 3 bits, and 3 for the item that nobody took. Of five items that somebody took,
# counting the one at index 5, the most popular one is the short head.
KNOWN = Known(np.array([8, 4, 2, 1, 0, 3]), 8)
#   first user   0 1 2 3     second user  4 0, a list of two     third user  none
RECOMMENDED = np.array([[0, 1, 2, 3], [4, 0, -1, -1], [-1, -1, -1, -1]], dtype=np.int32)

BY_HAND: dict[str, list[float]] = {
    "novelty@1": [0, 3, 0],
    "novelty@2": [1 / 2, 3 / 2, 0],
    "novelty@4": [6 / 4, 3 / 2, 0],
    "aplt@1": [0, 1, 0],
    "aplt@2": [1 / 2, 1 / 2, 0],
    "aplt@4": [3 / 4, 1 / 2, 0],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_metric_is_as_worked_out_by_hand(name: str) -> None:
    values = novelty_metrics(RECOMMENDED, KNOWN, [1, 2, 4])[name]

    assert values.dtype == np.float64
    assert values == pytest.approx(BY_HAND[name], abs=1e-12)


@pytest.mark.parametrize(
    ("item_users", "tail"),
    [
        # A fifth of ten is two.
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 1], [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]),
        # Of six it is rounded up to two, wherever they stand; items that nobody took are in the tail and not counted.
        ([0, 1, 2, 9, 3, 0, 8, 4, 0], [1, 1, 1, 0, 1, 1, 0, 1, 1]),
        # Whatever is as popular as the last one of the head belongs to it.
        ([5, 5, 5, 1], [0, 0, 0, 1]),
        ([0, 0], [1, 1]),
    ],
)
def test_the_head_is_the_fifth_that_most_users_took(item_users: list[int], tail: list[int]) -> None:
    assert Known(np.array(item_users), 10).in_long_tail.astype(int).tolist() == tail


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Known]:
    users = draw(st.integers(1, 40))
    item_users = draw(st.lists(st.integers(0, users), min_size=1, max_size=12))
    length = draw(st.integers(1, 6))
    item = st.integers(0, len(item_users) - 1)
    lists = draw(st.lists(st.lists(item, max_size=length, unique=True), min_size=1, max_size=4))
    padded = [items + [-1] * (length - len(items)) for items in lists]
    return np.array(padded), Known(np.array(item_users), users)


@given(cases())
def test_equals_a_loop_over_users_and_ranks(case: tuple[np.ndarray, Known]) -> None:
    recommended, known = case
    cutoffs = range(1, recommended.shape[1] + 1)
    metrics = novelty_metrics(recommended, known, cutoffs)

    ranking = sorted((int(count) for count in known.item_users if count), reverse=True)
    head = ranking[: math.ceil(len(ranking) / 5)]
    for user, items in enumerate(recommended.tolist()):
        for k in cutoffs:
            counts = [int(known.item_users[item]) for item in items[:k] if item >= 0]
            bits = [-math.log2(max(count, 1) / known.users) for count in counts]
            tail = [not head or count < head[-1] for count in counts]
            expected = {"novelty": bits, "aplt": tail}
            for name, values in expected.items():
                mean = sum(values) / len(values) if values else 0.0
                assert metrics[f"{name}@{k}"][user] == pytest.approx(mean, abs=1e-12), (name, k)


@pytest.mark.parametrize(
    ("recommended", "cutoffs", "message"),
    [
        ([[6]], [1], "item_idx 6 is not among the 6 items"),
        ([[1, 1]], [2], "item_idx 1 in row 0"),
        ([[1, 2]], [3], r"within 1\.\.2"),
        ([[-2]], [1], "found -2"),
        (np.empty((0, 3), dtype=np.int64), [1], "at least one user"),
    ],
)
def test_lists_that_cannot_be_measured_are_an_error(
    recommended: list[list[int]], cutoffs: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        novelty_metrics(np.array(recommended), KNOWN, cutoffs)


@pytest.mark.parametrize(
    ("item_users", "users", "message"),
    [([1], 0, "there are 0"), ([5, 2], 4, "found 5"), ([1, -1], 4, "found -1")],
)
def test_counts_that_no_log_has_are_an_error(item_users: list[int], users: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Known(np.array(item_users), users)
