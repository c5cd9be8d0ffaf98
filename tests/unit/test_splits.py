"""Splits against sequences split by hand, and what every split keeps: all behaviours, once, in order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbatch.evaluation.splits import Holdout, Split, global_time_split, leave_one_out

# Users with four, two, none and three behaviours.
OFFSETS = np.array([0, 4, 6, 6, 9])


def _spelled(part: Holdout) -> dict[int, tuple[list[int], list[int]]]:
    """User -> positions of the history, positions of the targets."""
    ranges = zip(part.users, part.start, part.middle, part.stop, strict=True)
    return {int(user): (list(range(low, mid)), list(range(mid, high))) for user, low, mid, high in ranges}


def test_leave_one_out_is_as_split_by_hand() -> None:
    split = leave_one_out(OFFSETS)

    assert split.train_stop.tolist() == [2, 6, 6, 7]
    assert _spelled(split.validation) == {0: ([0, 1], [2]), 3: ([6], [7])}
    # The test knows the validation's item.
    assert _spelled(split.test) == {0: ([0, 1, 2], [3]), 3: ([6, 7], [8])}


def test_a_global_time_split_is_as_split_by_hand() -> None:
    times = np.array([1, 5, 6, 9, 6, 7, 2, 3, 4])
    split = global_time_split(OFFSETS, times, 5, 7)

    assert split.train_stop.tolist() == [1, 4, 6, 9]
    # The second user has no history before the validation, and is kept with an empty one.
    assert _spelled(split.validation) == {0: ([0], [1, 2]), 1: ([], [4])}
    assert _spelled(split.test) == {0: ([0, 1, 2], [3]), 1: ([4], [5])}


def test_an_empty_validation_leaves_train_and_test() -> None:
    split = global_time_split(np.array([0, 2]), np.array([1.5, 2.5]), 2.0, 2.0)

    assert split.train_stop.tolist() == [1]
    assert split.validation.users.size == 0
    assert _spelled(split.test) == {0: ([0], [1])}


@st.composite
def sequences(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    users = draw(st.lists(st.lists(st.integers(0, 9), max_size=7).map(sorted), max_size=6))
    times = np.array([time for user in users for time in user], dtype=np.int64)
    return np.cumsum([0, *map(len, users)]), times


def _assert_complete(split: Split, offsets: np.ndarray) -> None:
    """Every position of every user is in train, then validation, then test, once and in order."""
    validation, test = _spelled(split.validation), _spelled(split.test)
    for user, (low, high) in enumerate(pairwise(offsets)):
        train = list(range(low, split.train_stop[user]))
        validated, tested = validation.get(user, (train, [])), test.get(user, ([], []))
        assert train + validated[1] + tested[1] == list(range(low, high))
        # A history is all that comes before its targets, and nothing else.
        assert validated[0] == train
        assert user not in test or tested[0] == train + validated[1]
    for part in (split.validation, split.test):
        assert (np.diff(part.users) > 0).all()
        assert (part.stop > part.middle).all()


@given(sequences())
def test_leave_one_out_loses_nothing_and_holds_out_one_each(data: tuple[np.ndarray, np.ndarray]) -> None:
    offsets, _ = data
    split = leave_one_out(offsets)

    _assert_complete(split, offsets)
    lengths = np.diff(offsets)
    for part in (split.validation, split.test):
        assert part.users.tolist() == np.flatnonzero(lengths >= 3).tolist()
        assert (part.stop - part.middle == 1).all()
        assert (part.middle > part.start).all()


@given(sequences(), st.integers(0, 10), st.integers(0, 10))
def test_a_global_time_split_loses_nothing_and_keeps_to_the_moments(
    data: tuple[np.ndarray, np.ndarray], one: int, other: int
) -> None:
    offsets, times = data
    validation_from, test_from = sorted((one, other))
    split = global_time_split(offsets, times, validation_from, test_from)

    _assert_complete(split, offsets)
    train = [at for low, high in zip(offsets[:-1], split.train_stop, strict=True) for at in range(low, high)]
    assert (times[train] < validation_from).all()
    for part, low, high in ((split.validation, validation_from, test_from), (split.test, test_from, np.inf)):
        for history, targets in _spelled(part).values():
            assert (times[history] < low).all()
            assert ((times[targets] >= low) & (times[targets] < high)).all()


@pytest.mark.parametrize("offsets", [[], [1, 2], [0, 3, 2], [[0, 1]]])
def test_offsets_that_are_none_are_an_error(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="must start at 0 and never fall"):
        leave_one_out(np.array(offsets, dtype=np.int64))


@pytest.mark.parametrize(
    ("times", "moments", "message"),
    [
        ([1, 2, 3], (1, 2), r"offsets end at 4; times have the shape \(3,\)"),
        ([1, 2, 1, 0], (1, 2), "they do at position 3"),
        ([1, 2, 1, 2], (3, 2), "begins at 3, after the test, which begins at 2"),
    ],
)
def test_times_that_cannot_be_split_are_an_error(times: list[int], moments: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        global_time_split(np.array([0, 2, 4]), np.array(times), *moments)
