"""The protocol of the sequence benchmarks against a slow loop over items, and the traps it is there to avoid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.sequences.movielens import sequence_lines
from benchmarks.sequences.protocol import (
    Items,
    Questions,
    full_rows,
    leave_one_out,
    rank_metrics,
    ranks,
    read_sequences,
)

# No deadline: on a busy machine the time of one example says nothing.
quick = settings(max_examples=100, deadline=None)

Case = tuple[list[list[int]], list[int], list[list[float]]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Histories, targets and scores of one to five users; few items and few values of scores, so that many tie."""
    n_items = draw(st.integers(1, 14))
    item = st.integers(1, n_items)
    users = draw(st.integers(1, 5))
    histories = [draw(st.lists(item, min_size=1, max_size=6)) for _ in range(users)]
    targets = [draw(item) for _ in range(users)]
    value = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0])
    scores = [draw(st.lists(value, min_size=n_items + 1, max_size=n_items + 1)) for _ in range(users)]
    return histories, targets, scores


def slow_rank(history: list[int], target: int, scores: list[float]) -> float:
    """The mean place of the target, from 0, where those that share its score may stand in any order."""
    others = [item for item in range(1, len(scores)) if item not in history and item != target]
    ahead = sum(scores[item] > scores[target] for item in others)
    level = sum(scores[item] == scores[target] for item in others)
    return sum(ahead + place for place in range(level + 1)) / (level + 1)


def questions_of(histories: Sequence[Sequence[int]], targets: Sequence[int]) -> Questions:
    return Questions([np.array(history, dtype=np.int64) for history in histories], np.array(targets, dtype=np.int64))


class Table:
    """Scores that were made up, handed out in the order in which they are asked for."""

    def __init__(self, scores: Sequence[Sequence[float]]) -> None:
        self.scores, self.asked = np.array(scores, dtype=np.float32), 0

    def __call__(self, histories: Sequence[Items]) -> NDArray[np.float32]:
        self.asked += len(histories)
        return self.scores[self.asked - len(histories) : self.asked]


@quick
@given(cases(), st.integers(1, 6))
def test_ranks_are_those_of_a_loop_over_items(case: Case, batch: int) -> None:
    histories, targets, scores = case

    found = ranks(Table(scores), questions_of(histories, targets), batch)

    assert found.tolist() == [slow_rank(*user) for user in zip(histories, targets, scores, strict=True)]


@quick
@given(cases())
def test_metrics_are_means_over_the_users_of_the_slow_ranks(case: Case) -> None:
    histories, targets, scores = case
    slow = [slow_rank(*user) for user in zip(histories, targets, scores, strict=True)]

    metrics = rank_metrics(Table(scores), questions_of(histories, targets))

    assert metrics["recall@10"] == pytest.approx(sum(rank < 10 for rank in slow) / len(slow))
    assert metrics["ndcg@10"] == pytest.approx(sum(1 / math.log2(rank + 2) for rank in slow if rank < 10) / len(slow))


@quick
@given(cases(), st.integers(0, 99))
def test_the_numbers_of_items_do_not_matter(case: Case, seed: int) -> None:
    histories, targets, scores = case
    n_items = len(scores[0]) - 1
    new = [0, *np.random.default_rng(seed).permutation(n_items) + 1]
    turned = [[row[new.index(item)] for item in range(n_items + 1)] for row in scores]

    found = ranks(Table(scores), questions_of(histories, targets))
    again = ranks(Table(turned), questions_of([[new[i] for i in h] for h in histories], [new[t] for t in targets]))

    assert again.tolist() == found.tolist()


def test_figures_worked_out_by_hand() -> None:
    # Left out are items 1 and 2. Ranks: target 3 behind 4, so 1; target 5 behind 3 and 4, level with 6, so 2.5.
    scores = [[9, 8, 8, 2, 3, 1, 0], [9, 8, 8, 2, 3, 1, 1]]

    metrics = rank_metrics(Table(scores), questions_of([[1, 2], [2, 1]], [3, 5]))

    assert metrics == pytest.approx({"recall@10": 1.0, "ndcg@10": (1 / math.log2(3) + 1 / math.log2(4.5)) / 2})


def test_a_model_that_tells_nothing_apart_finds_nothing_among_many_items() -> None:
    metrics = rank_metrics(Table([[0.0] * 101]), questions_of([[7]], [1]))

    assert metrics == {"recall@10": 0.0, "ndcg@10": 0.0}


@pytest.mark.parametrize("item", [1, 2, 3])
def test_a_score_that_is_not_a_number_is_an_error(item: int) -> None:
    scores = [[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]]
    scores[1][item] = math.nan
    with pytest.raises(ValueError, match=r"users 0\.\.1 is not a number"):
        ranks(Table(scores), questions_of([[1], [1]], [2, 2]))


def test_the_score_of_padding_is_not_looked_at() -> None:
    assert ranks(Table([[math.nan, 1.0, 2.0]]), questions_of([[1]], [2])).tolist() == [0.0]


def test_the_mean_of_no_users_is_an_error() -> None:
    with pytest.raises(ValueError, match="No users"):
        rank_metrics(Table([]), questions_of([], []))


def test_every_part_of_the_split_sees_what_came_before_it_only() -> None:
    split = leave_one_out([np.array([1, 2, 3, 4]), np.array([5, 6, 7])])

    assert split.n_items == 7
    assert [sequence.tolist() for sequence in split.train] == [[1, 2], [5]]
    assert [history.tolist() for history in split.validation.histories] == [[1, 2], [5]]
    assert split.validation.targets.tolist() == [3, 6]
    assert [history.tolist() for history in split.test.histories] == [[1, 2, 3], [5, 6]]
    assert split.test.targets.tolist() == [4, 7]


def test_a_sequence_that_is_too_short_to_split_is_an_error() -> None:
    with pytest.raises(ValueError, match="Sequence 1 has 2 items"):
        leave_one_out([np.array([1, 2, 3]), np.array([1, 2])])


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "sequences.txt"
    path.write_text("".join(f"u{user} " + " ".join(f"i{user + k}" for k in range(30)) + "\n" for user in range(20)))
    return path


def test_items_are_renumbered_at_random_and_otherwise_as_in_the_file(lines: Path) -> None:
    sequences, again, other = (read_sequences(lines, seed) for seed in (1, 1, 2))

    assert sorted(np.unique(np.concatenate(sequences))) == list(range(1, 50))
    names = [line.split()[1:] for line in lines.read_text().splitlines()]
    pairs = {pair for row in zip(names, sequences, strict=True) for pair in zip(*row, strict=True)}
    assert len(pairs) == 49  # one number a name
    first_seen = np.array(list(dict.fromkeys(np.concatenate(sequences).tolist())))
    assert abs(np.corrcoef(first_seen, np.arange(49))[0, 1]) < 0.5
    assert [row.tolist() for row in again] == [row.tolist() for row in sequences]
    assert [row.tolist() for row in other] != [row.tolist() for row in sequences]


def test_a_line_without_an_item_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "sequences.txt"
    path.write_text("1 5 6 7\n2\n")
    with pytest.raises(ValueError, match=r"Line 2 of .*sequences\.txt has no item"):
        read_sequences(path)


@quick
@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=9), st.integers(1, 5))
def test_full_rows_hold_whole_sequences_behind_one_another(sequences: list[list[int]], length: int) -> None:
    arrays = [np.array(sequence, dtype=np.int64) for sequence in sequences]
    total = sum(map(len, sequences))
    if total <= length:
        with pytest.raises(ValueError, match=f"{total} items do not fill a row of {length + 1}"):
            full_rows(arrays, length)
        return

    rows = full_rows(arrays, length, seed=3)

    order = np.random.default_rng(3).permutation(len(sequences))
    items = [item for row in order for item in sequences[row]]
    assert rows.shape == (total // (length + 1), length + 1)
    assert rows.ravel().tolist() == items[: rows.size]


@pytest.mark.parametrize("header", ["", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"])
def test_ratings_become_sequences_in_order_of_time_then_of_the_file(header: str) -> None:
    ratings = "7\ta\t5\t100\n8\tb\t1\t9\n7\tc\t2\t99\n7\td\t3\t100\n7\ta2\t3\t99.5\n"

    assert sequence_lines(header + ratings) == ["7 c a2 a d", "8 b"]
