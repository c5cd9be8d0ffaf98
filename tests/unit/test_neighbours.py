"""Specification of the co-occurrence additions against a dictionary in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.model.fusion import Fusion
from recbatch.model.histories import Sequences
from recbatch.model.neighbours import Neighbours
from recbatch.ranking.exact import TopK

N_ITEMS = 12


def make_sequences(histories: list[list[int]]) -> Sequences:
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    items = np.array([item for h in histories for item in h], dtype=np.int32)
    zeros = np.zeros(len(items))
    return Sequences(
        offsets,
        {
            "item_idx": items,
            "event_type": zeros.astype(np.int32),
            "event_time": zeros.astype(np.int64),
            "price": zeros.astype(np.float32),
            "quantity": zeros.astype(np.float32),
        },
    )


def make_neighbours(weights: dict[int, dict[int, float]]) -> Neighbours:
    table = pa.table(
        {
            "item_idx": pa.array(list(weights), pa.int32()),
            "neighbours": pa.array([list(row) for row in weights.values()], pa.list_(pa.int32())),
            "weights": pa.array([list(row.values()) for row in weights.values()], pa.list_(pa.float32())),
        }
    )
    return Neighbours.from_arrow(table, N_ITEMS)


def expected_cooccurrence(
    history: list[int], weights: dict[int, dict[int, float]], behaviours: int, decay: float
) -> dict[int, float]:
    totals: dict[int, float] = {}
    for back, h in enumerate(reversed(history[-behaviours:])):
        for i, w in weights.get(h, {}).items():
            totals[i] = totals.get(i, 0.0) + decay**back * w
    return totals


weight_tables = st.dictionaries(
    st.integers(0, N_ITEMS - 1),
    st.dictionaries(st.integers(0, N_ITEMS - 1), st.sampled_from([0.25, 1.0, 3.5]), max_size=5),
    max_size=N_ITEMS,
)
# Items 12 and 13 came after the neighbours were made.
history_lists = st.lists(st.lists(st.integers(0, N_ITEMS + 1), max_size=9), max_size=6)


@settings(max_examples=150, deadline=None)
@given(weights=weight_tables, histories=history_lists, behaviours=st.integers(1, 5))
def test_additions_equal_the_formula(
    weights: dict[int, dict[int, float]], histories: list[list[int]], behaviours: int
) -> None:
    fusion = Fusion(lam=0.7, eps=0.3, behaviours=behaviours, decay=0.8)
    additions = make_neighbours(weights).additions(make_sequences(histories), fusion)
    assert additions.n_rows == len(histories)
    assert additions.values is not None
    for u, history in enumerate(histories):
        row = additions.rows(u, u + 1)
        assert row.values is not None
        found = dict(zip(row.indices.tolist(), row.values.tolist(), strict=True))
        totals = expected_cooccurrence(history, weights, behaviours, 0.8)
        expected = {i: 0.7 * math.log(1 + c / 0.3) for i, c in totals.items()}
        assert found == pytest.approx(expected, rel=1e-6)


@settings(max_examples=100, deadline=None)
@given(weights=weight_tables, histories=history_lists)
def test_additions_do_not_depend_on_the_batch(weights: dict[int, dict[int, float]], histories: list[list[int]]) -> None:
    neighbours, fusion = make_neighbours(weights), Fusion(0.7, 0.3, 4, 0.8)
    whole = neighbours.additions(make_sequences(histories), fusion)
    for u, history in enumerate(histories):
        alone, row = neighbours.additions(make_sequences([history]), fusion), whole.rows(u, u + 1)
        assert torch.equal(alone.indices, row.indices)
        assert alone.values is not None
        assert row.values is not None
        assert torch.equal(alone.values, row.values)


@settings(max_examples=150, deadline=None)
@given(
    weights=weight_tables,
    histories=history_lists,
    listed=st.lists(st.integers(0, N_ITEMS + 1), unique=True, max_size=6),
    context=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_the_evidence_is_what_the_score_loses_without_the_behaviour(
    weights: dict[int, dict[int, float]], histories: list[list[int]], listed: list[int], context: int, seed: int
) -> None:
    fusion = Fusion(lam=0.7, eps=0.3, behaviours=4, decay=0.5)
    n = len(listed)
    best = TopK(
        torch.arange(len(histories) + 1) * n,
        torch.tensor(listed * len(histories), dtype=torch.int32),
        torch.zeros(n * len(histories)),
    )
    recent = [list(reversed(history[-4:])) for history in histories]
    behaviours = np.array([row + [-1] * (4 - len(row)) for row in recent], dtype=np.int64).reshape(-1, 4)
    similarity = np.random.default_rng(seed).normal(size=(n * len(histories), context)).astype(np.float32)
    chosen, by_count = make_neighbours(weights).evidence(behaviours, best, similarity, fusion)
    for entry in range(len(chosen)):
        row, item = recent[entry // n], listed[entry % n]
        share = [0.5**back * weights.get(h, {}).get(item, 0.0) for back, h in enumerate(row)]
        # Without a behaviour those before it are one place nearer to the end.
        left = [sum(share[:back]) + sum(share[back + 1 :]) / 0.5 for back in range(len(row))]
        drop = [0.7 * (math.log1p(sum(share) / 0.3) - math.log1p(one / 0.3)) for one in left]
        network = [float(similarity[entry, back]) if back < context else 0.0 for back in range(len(row))]
        evidence = [left + right for left, right in zip(drop, network, strict=True)]
        if row:
            assert evidence[chosen[entry]] == pytest.approx(max(evidence), abs=1e-9)
            assert by_count[entry] == (drop[chosen[entry]] > network[chosen[entry]])
        else:
            assert chosen[entry] == -1


def test_a_neighbour_listed_twice_is_refused() -> None:
    table = pa.table(
        {
            "item_idx": pa.array([3], pa.int32()),
            "neighbours": pa.array([[5, 5]], pa.list_(pa.int32())),
            "weights": pa.array([[1.0, 2.0]], pa.list_(pa.float32())),
        }
    )
    with pytest.raises(ValueError, match="ascending"):
        Neighbours.from_arrow(table, N_ITEMS)
