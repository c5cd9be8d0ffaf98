"""Who is ranked for, and what the lists of a scorer are worth, on a catalogue small enough to rank by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbatch.errors import InputContractError
from recbatch.evaluation.baselines import popularity
from recbatch.evaluation.novelty import Known
from recbatch.evaluation.protocol import Cases, make_cases, rank
from recbatch.model.histories import Sequences
from recbatch.ranking.csr import Csr

# Item 4 is not valid at the cut.
ELIGIBLE = np.array([True, True, True, True, False])
COUNTS = torch.tensor([5.0, 4.0, 3.0, 1.0, 9.0])


def _csr(*rows: list[int]) -> Csr:
    indptr = torch.tensor(np.cumsum([0, *map(len, rows)]), dtype=torch.int64)
    return Csr(indptr, torch.tensor([item for row in rows for item in row], dtype=torch.int32))


def _histories(seen: Csr) -> Sequences:
    items = seen.indices.numpy()
    zeros = np.zeros(len(items))
    columns = {"item_idx": items, "event_type": zeros.astype(np.int32), "event_time": zeros.astype(np.int64)}
    amounts = {name: zeros.astype(np.float32) for name in ("price", "quantity")}
    return Sequences(seen.indptr.numpy(), columns | amounts)


def _cases(targets: Csr, *, new_only: bool) -> tuple[Cases, list[int]]:
    seen = _csr([0, 2], [1], [0, 1])
    cases, users = make_cases(_histories(seen), seen, targets, ELIGIBLE, new_only=new_only)
    return cases, users.tolist()


def test_targets_are_new_and_valid_items_where_only_those_are_recommended() -> None:
    targets = _csr([0, 3], [1, 4], [3])
    cases, users = _cases(targets, new_only=True)
    assert users == [0, 2]
    assert (cases.truth.indptr.tolist(), cases.truth.indices.tolist()) == ([0, 1, 2], [3, 3])
    assert cases.histories.columns["item_idx"].tolist() == [0, 2, 0, 1]
    assert cases.excluded is not None
    assert cases.excluded.indices.tolist() == [0, 2, 0, 1]

    cases, users = _cases(targets, new_only=False)
    assert users == [0, 1, 2]
    assert cases.truth.indices.tolist() == [0, 3, 1, 3]
    assert cases.excluded is None


@pytest.mark.parametrize(("new_only", "kind"), [(True, "new"), (False, "all")])
def test_nobody_to_rank_for_is_named(new_only: bool, kind: str) -> None:
    with pytest.raises(InputContractError, match=f"target of kind '{kind}'"):
        _cases(_csr([4], [], []), new_only=new_only)


def test_an_outcome_is_as_ranked_by_hand() -> None:
    cases, _ = _cases(_csr([3], [1, 2], [2]), new_only=True)
    scores = popularity(COUNTS, 3, torch.arange(5))
    outcome = rank(cases, scores, Known(np.array([4, 2, 1, 1, 4]), 4), [1, 3], tile_items=2)

    # Valid, not had, most popular first.
    assert outcome.lists.tolist() == [[1, 3, -1], [0, 2, 3], [2, 3, -1]]
    assert outcome.per_user["accuracy@1"].tolist() == [0, 0, 1]
    assert outcome.per_user["recall@3"].tolist() == [1, 1, 1]
    # Bits 0, 1, 2 and 2.
    assert outcome.per_user["novelty@3"] == pytest.approx([3 / 2, 4 / 3, 2])
    # Items 0 and 4 are the most popular fifth of five: equal ones are both of the head.
    assert outcome.per_user["aplt@3"] == pytest.approx([1, 2 / 3, 1])
    # The relevant item comes last, in the middle and first among the candidates.
    assert outcome.per_user["auc"].tolist() == [0, 0.5, 1]
    assert outcome.coverage == {"coverage@1": 3 / 4, "coverage@3": 1}


def test_a_user_who_took_all_that_was_left_is_no_error() -> None:
    seen = _csr([0, 1, 2])
    cases, _ = make_cases(_histories(seen), seen, _csr([3]), ELIGIBLE, new_only=True)
    outcome = rank(cases, popularity(COUNTS, 1, torch.arange(5)), Known(COUNTS.numpy().astype(int), 9), [2], 2)
    assert outcome.lists.tolist() == [[3, -1]]
    assert outcome.per_user["recall@2"].tolist() == [1]
    assert outcome.per_user["auc"].tolist() == [0.5]
