"""Every metric against a table worked out by hand, a slow loop over users, and the properties that define it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.evaluation.metrics import Truth, auc, catalogue_coverage, ranking_metrics, summary, user_coverage


def truth_of(*items_per_user: Sequence[int]) -> Truth:
    lengths = [len(items) for items in items_per_user]
    return Truth(
        np.cumsum([0, *lengths]), np.array([item for items in items_per_user for item in items], dtype=np.int32)
    )


# Ranks of the hits, k = 2 and k = 4:
#   first user   relevant 10, 30        hits at 1, 3
#   second user  relevant 8, 6, 7       hits at 2, 3, and a list of three
#   third user   relevant 9             none
#   fourth user  relevant 3             hit at 1, and a list of one
RECOMMENDED = np.array([[10, 20, 30, 40], [5, 6, 7, -1], [1, 2, 3, 4], [3, -1, -1, -1]], dtype=np.int32)
RELEVANT = truth_of([10, 30], [8, 6, 7], [9], [3])

# Discounts 1 / log2(rank + 1): 1, 0.6309297536, 0.5, 0.4306765581. Ideal of two 1.6309297536, of three 2.1309297536.
BY_HAND: dict[str, list[float]] = {
    "accuracy@1": [1, 0, 0, 1],
    "hit_rate@2": [1, 1, 0, 1],
    "recall@2": [1 / 2, 1 / 3, 0, 1],
    "precision@2": [1 / 2, 1 / 2, 0, 1 / 2],
    "f1@2": [1 / 2, 2 / 5, 0, 2 / 3],
    "ndcg@2": [0.6131471928, 0.3868528072, 0, 1],
    "mrr@2": [1, 1 / 2, 0, 1],
    "map@2": [1 / 2, 1 / 4, 0, 1],
    "hit_rate@4": [1, 1, 0, 1],
    "recall@4": [1, 2 / 3, 0, 1],
    "precision@4": [1 / 2, 1 / 2, 0, 1 / 4],
    "f1@4": [2 / 3, 4 / 7, 0, 2 / 5],
    "ndcg@4": [0.9197207891, 0.5307212740, 0, 1],
    "mrr@4": [1, 1 / 2, 0, 1],
    "map@4": [5 / 6, 7 / 18, 0, 1],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_metric_is_as_worked_out_by_hand(name: str) -> None:
    metrics = ranking_metrics(RECOMMENDED, RELEVANT, [2, 4])

    assert metrics[name] == pytest.approx(BY_HAND[name], abs=1e-9)


def test_summary_is_the_mean_over_users_of_every_metric_at_every_cutoff() -> None:
    assert summary(ranking_metrics(RECOMMENDED, RELEVANT, [2, 4])) == pytest.approx(
        {name: sum(values) / 4 for name, values in BY_HAND.items()}
    )


def test_no_hit_at_all_is_zero_everywhere_as_float() -> None:
    for values in ranking_metrics(np.array([[1, 2], [-1, -1]]), truth_of([0], [7]), [2]).values():
        assert values.dtype == np.float64
        assert values.tolist() == [0.0, 0.0]


def test_an_item_beyond_all_relevant_ones_is_not_taken_for_an_item_of_the_next_user() -> None:
    # With the largest relevant item 4, item 5 of the first user would share its key with item 0 of the second.
    metrics = ranking_metrics(np.array([[5, 6], [1, 2]]), truth_of([4], [0]), [2])

    assert metrics["hit_rate@2"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("recommended", "cutoffs", "message"),
    [
        ([[1, 2]], [1], r"for 2 users"),
        ([[1, 2], [3, 4]], [3], r"within 1\.\.2"),
        ([[1, 2], [3, 4]], [0, 1], r"within 1\.\.2"),
        ([[1, 2], [3, 4]], [], r"within 1\.\.2"),
        ([[1, 2], [4, 4]], [2], r"item_idx 4 in row 1"),
        ([[1, 2], [3, -2]], [2], r"found -2"),
    ],
)
def test_lists_that_cannot_be_measured_are_an_error(
    recommended: list[list[int]], cutoffs: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ranking_metrics(np.array(recommended), truth_of([1], [2]), cutoffs)


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0], [], "at least one user"),
        ([0, 1, 1, 2], [4, 5], r"1 users have no relevant item, the first in row 1"),
        ([0, 0], [], "no relevant item"),
        ([0, 1], [4, 5], "from 0 to the 2 indices"),
        ([1, 2], [4, 5], "from 0 to the 2 indices"),
        ([0, 1, 3], [4, 5, 5], r"item_idx 5 of the user in row 1"),
        ([0, 2], [4, -1], "must not be negative"),
    ],
)
def test_truth_that_is_not_one_is_an_error(indptr: list[int], indices: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Truth(np.array(indptr), np.array(indices, dtype=np.int64))


def test_the_mean_of_no_users_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"ndcg@10"):
        summary({"ndcg@10": np.array([], dtype=np.float64)})


# No deadline: on a busy machine the time of one example says nothing.
quick = settings(max_examples=50, deadline=None)
Case = tuple[list[list[int]], list[list[int]]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Lists of the same length K padded with -1, and the relevant items, of one to five users over few items."""
    length = draw(st.integers(1, 7))
    users = draw(st.integers(1, 5))
    item = st.integers(0, 11)
    lists = [draw(st.lists(item, max_size=length, unique=True)) for _ in range(users)]
    relevant = [draw(st.lists(item, min_size=1, max_size=9, unique=True)) for _ in range(users)]
    return [items + [-1] * (length - len(items)) for items in lists], relevant


def measure(lists: list[list[int]], relevant: list[list[int]]) -> dict[str, np.ndarray]:
    recommended = np.array(lists, dtype=np.int32)
    return ranking_metrics(recommended, truth_of(*relevant), range(1, recommended.shape[1] + 1))


def slow_metrics(items: list[int], relevant: list[int], k: int) -> dict[str, float]:
    """One user, straight from the definitions, step by step and with none of the algebra of the fast form."""
    flags = [item in relevant for item in items[:k]]
    precisions = [sum(flags[:rank]) / rank for rank in range(1, k + 1)]
    recall, precision = sum(flags) / len(relevant), precisions[-1]
    ideal = [True] * min(k, len(relevant))
    return {
        "hit_rate": float(any(flags)),
        "recall": recall,
        "precision": precision,
        "f1": 0.0 if not any(flags) else 2 * precision * recall / (precision + recall),
        "ndcg": dcg(flags) / dcg(ideal),
        "mrr": next((1 / rank for rank, flag in enumerate(flags, start=1) if flag), 0.0),
        "map": sum(p for p, flag in zip(precisions, flags, strict=True) if flag) / len(ideal),
    }


def dcg(flags: list[bool]) -> float:
    return sum(flag / math.log2(rank + 1) for rank, flag in enumerate(flags, start=1))


@quick
@given(cases())
def test_equals_a_loop_over_users_and_ranks(case: Case) -> None:
    lists, relevant = case
    metrics = measure(lists, relevant)

    for user, (items, wanted) in enumerate(zip(lists, relevant, strict=True)):
        for k in range(1, len(items) + 1):
            for name, value in slow_metrics(items, wanted, k).items():
                assert metrics[f"{name}@{k}"][user] == pytest.approx(value, abs=1e-12), (name, k)


@quick
@given(cases())
def test_accuracy_is_hit_rate_and_precision_at_the_first_rank_whatever_the_cutoffs(case: Case) -> None:
    metrics = measure(*case)

    for name in ("hit_rate@1", "precision@1"):
        assert metrics["accuracy@1"].tolist() == metrics[name].tolist()
    longest = len(case[0][0])
    alone = ranking_metrics(np.array(case[0]), truth_of(*case[1]), [longest])
    assert alone["accuracy@1"].tolist() == metrics["accuracy@1"].tolist()


@quick
@given(cases())
def test_values_are_within_zero_and_one(case: Case) -> None:
    for name, values in measure(*case).items():
        assert ((values >= 0.0) & (values <= 1.0)).all(), name


@quick
@given(st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=8, unique=True), min_size=1, max_size=5))
def test_a_perfect_ranking_has_every_metric_at_its_maximum(relevant: list[list[int]]) -> None:
    metrics = measure([items + list(range(100, 108 - len(items))) for items in relevant], relevant)
    counts = np.array([len(items) for items in relevant])

    for k in range(1, 9):
        for name in ("hit_rate", "ndcg", "mrr", "map"):
            assert (metrics[f"{name}@{k}"] == 1.0).all(), name
        assert metrics[f"recall@{k}"] == pytest.approx(np.minimum(k, counts) / counts)
        assert metrics[f"precision@{k}"] == pytest.approx(np.minimum(k, counts) / k)


@quick
@given(cases(), st.integers(1, 6))
def test_what_comes_after_the_cutoff_does_not_matter(case: Case, k: int) -> None:
    lists, relevant = case
    k = min(k, len(lists[0]))
    after = [items[:k] + items[k:][::-1] for items in lists]
    cut = np.array([items[:k] for items in lists])

    expected = ranking_metrics(cut, truth_of(*relevant), [k])
    for variant in (lists, after):
        found = ranking_metrics(np.array(variant), truth_of(*relevant), [k])
        assert {name: values.tolist() for name, values in found.items()} == {
            name: values.tolist() for name, values in expected.items()
        }


@quick
@given(cases(), st.permutations(range(12)), st.data())
def test_neither_the_item_index_nor_the_order_of_the_truth_matters(
    case: Case, renamed: list[int], data: st.DataObject
) -> None:
    lists, relevant = case
    other_lists = [[-1 if item == -1 else renamed[item] for item in items] for items in lists]
    other_relevant = [data.draw(st.permutations([renamed[item] for item in items])) for items in relevant]

    found = measure(other_lists, [list(items) for items in other_relevant])
    for name, values in measure(lists, relevant).items():
        assert found[name].tolist() == values.tolist(), name


def test_auc_is_as_worked_out_by_hand() -> None:
    # Best first, R relevant: "R N R N N" wins 3 and 2 of 3 each; one R tied with three N; "N N R"; "R (R N) N".
    truth = truth_of([0, 2], [5], [1], [0, 1])
    above, tied = np.array([0, 2, 0, 2, 0, 1]), np.array([0, 0, 3, 0, 0, 1])

    assert auc(above, tied, np.array([5, 4, 3, 4]), truth).tolist() == pytest.approx([5 / 6, 1 / 2, 0, 3.5 / 4])


def ranked(scores: list[int], relevant: set[int]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array(scores)
    chosen = sorted(relevant)
    above = np.array([(values > values[item]).sum() for item in chosen])
    return above, np.array([(values == values[item]).sum() - 1 for item in chosen])


@st.composite
def scored(draw: st.DrawFn) -> list[tuple[list[int], set[int]]]:
    """Users with few distinct scores, so that many tie, and at least one relevant item."""
    users = []
    for _ in range(draw(st.integers(1, 4))):
        scores = draw(st.lists(st.integers(0, 4), min_size=1, max_size=9))
        users.append((scores, draw(st.sets(st.integers(0, len(scores) - 1), min_size=1))))
    return users


@quick
@given(scored())
def test_auc_equals_a_count_over_pairs_of_a_relevant_and_an_irrelevant_item(
    users: list[tuple[list[int], set[int]]],
) -> None:
    above, tied = (np.concatenate(parts) for parts in zip(*(ranked(*user) for user in users), strict=True))
    found = auc(above, tied, np.array([len(scores) for scores, _ in users]), truth_of(*(sorted(r) for _, r in users)))

    for value, (scores, relevant) in zip(found, users, strict=True):
        irrelevant = set(range(len(scores))) - relevant
        won = sum((scores[i] > scores[j]) + (scores[i] == scores[j]) / 2 for i in relevant for j in irrelevant)
        expected = won / (len(relevant) * len(irrelevant)) if irrelevant else 0.5
        assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("above", "tied", "candidates", "message"),
    [
        ([0, 1], [0, 0], [1], "row 0 has more relevant items than candidates"),
        ([0, 1], [0], [5], "each of the 2 relevant items"),
        ([0, 1], [0, 0], [5, 5], "each of the 1 users"),
        ([0, -1], [0, 0], [5], "0 or more"),
        ([0, 4], [0, 1], [5], "less than the number of candidates"),
        ([0, 0], [0, 0], [5], "no ranking has the counts of the user in row 0"),
        ([4, 4], [0, 0], [5], "no ranking has the counts of the user in row 0"),
    ],
)
def test_auc_of_impossible_counts_is_an_error(
    above: list[int], tied: list[int], candidates: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        auc(np.array(above), np.array(tied), np.array(candidates), truth_of([3, 8]))


def test_catalogue_coverage_counts_distinct_items_and_no_absent_ones() -> None:
    recommended = np.array([[4, 9, -1], [9, 4, 2], [-1, -1, -1]])

    assert catalogue_coverage(recommended, 10) == pytest.approx(3 / 10)
    assert catalogue_coverage(recommended[:, :1], 10) == pytest.approx(2 / 10)
    assert catalogue_coverage(recommended[2:], 10) == 0.0


def test_catalogue_coverage_beyond_the_catalogue_is_an_error() -> None:
    with pytest.raises(ValueError, match="catalogue of 2 items cannot hold the 3"):
        catalogue_coverage(np.array([[0, 1, 2]]), 2)
    with pytest.raises(ValueError, match="catalogue of 0 items"):
        catalogue_coverage(np.array([[-1]]), 0)
    with pytest.raises(ValueError, match="found -3"):
        catalogue_coverage(np.array([[0, -3]]), 2)


def test_user_coverage_is_the_share_of_users_with_an_item_and_needs_a_user() -> None:
    assert user_coverage(np.array([[4, -1], [-1, -1], [0, 1], [3, 2]])) == pytest.approx(3 / 4)

    with pytest.raises(ValueError, match="at least one user"):
        user_coverage(np.empty((0, 5), dtype=np.int32))
