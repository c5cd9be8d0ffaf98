"""The search for suspects on arrays: nobody who is guilty goes unnoticed, and hardly anybody else is accused."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recbatch.cleaning.suspects import crowded, repeated

HASHES = st.integers(-(2**63), 2**63 - 1)


def _array(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@given(st.lists(st.integers(-3, 3) | HASHES, max_size=60))
def test_what_occurs_more_than_once(hashes: list[int]) -> None:
    assert repeated(_array(hashes)).tolist() == sorted(value for value, n in Counter(hashes).items() if n > 1)


EVENTS = st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 40), st.integers(-100_000, 100_000)), max_size=80)


@given(EVENTS, st.integers(1, 6), st.integers(1, 4))
def test_everyone_who_exceeds_a_limit_is_suspected(
    events: list[tuple[int, int, int]], a_day: int, a_minute: int
) -> None:
    # A key belongs to one user and one moment.
    distinct = {key: (user, key, second) for user, key, second in reversed(events)}
    rows = [distinct[key] for _, key, _ in events]
    users, keys, seconds = (_array(list(column)) for column in zip(*rows, strict=True)) if rows else [_array([])] * 3
    limits = {"day": a_day, "minute": a_minute}
    spans = {"day": 86_400, "minute": 60}
    expected = {
        user
        for span, limit in limits.items()
        for (user, _), n in Counter((user, second // spans[span]) for user, _, second in set(rows)).items()
        if n >= limit
    }
    assert set(crowded(users, keys, seconds, limits).tolist()) == expected


def test_nobody_is_suspected_where_nobody_asks() -> None:
    assert crowded(_array([1] * 50), _array(list(range(50))), _array([0] * 50), {}).size == 0
