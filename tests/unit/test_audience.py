"""Specification of item audiences: a sort of all users by exact score says what every list must be."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recbatch.errors import ModelError
from recbatch.ranking.audience import Audiences
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import ItemMatrix, top_k

Entries = list[tuple[int, float, str, int]]


def make_csr(dense: NDArray[np.bool_], values: NDArray[np.float32] | None = None) -> Csr:
    indptr = np.concatenate([[0], dense.sum(1).cumsum()]).astype(np.int64)
    picked = None if values is None else torch.from_numpy(values[dense])
    return Csr(torch.from_numpy(indptr), torch.from_numpy(np.nonzero(dense)[1].astype(np.int32)), picked)


def as_entries(table: pa.Table) -> Entries:
    return [tuple(row.values()) for row in table.to_pylist()]  # type: ignore[misc]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_users=st.integers(0, 70),
    n_items=st.integers(1, 40),
    d=st.integers(1, 9),
    size=st.integers(1, 80),
    batch=st.integers(1, 40),
    tile=st.integers(1, 20),
    whole=st.booleans(),
)
def test_the_best_users_are_those_of_a_full_sort(
    seed: int, n_users: int, n_items: int, d: int, size: int, batch: int, tile: int, whole: bool
) -> None:
    """Scores are those of the users' own lists; equal ones, of which whole numbers make many, go by user id."""
    rng = np.random.default_rng(seed)
    draw = (lambda *shape: rng.integers(-2, 3, shape)) if whole else (lambda *shape: rng.normal(size=shape))
    users = torch.from_numpy(draw(n_users, d).astype(np.float32))
    items = ItemMatrix(
        torch.from_numpy(draw(n_items, d).astype(np.float32)),
        torch.from_numpy(draw(n_items).astype(np.float32)),
        torch.from_numpy(rng.permutation(n_items)),
    )
    excluded, added = rng.random((n_users, n_items)) < 0.2, rng.random((n_users, n_items)) < 0.2
    values = draw(n_users, n_items).astype(np.float32)
    chosen = rng.permutation(n_items)[: rng.integers(0, n_items + 1)].astype(np.int32)
    ids = [f"{prefix}{i}" for i, prefix in enumerate(rng.choice(["u", "é", "Z", "漢"], n_users))]
    buckets = rng.integers(0, 8, n_users)

    own = top_k(users, items, n_items, excluded=make_csr(excluded), additions=make_csr(added, values))
    row = np.repeat(np.arange(n_users), np.diff(own.indptr.numpy()))
    scores = {(int(b), int(i)): float(s) for b, i, s in zip(row, own.item_idx, own.score, strict=True)}
    expected: Entries = []
    for item in sorted(chosen.tolist()):
        competing = [(-score, ids[b].encode(), b) for (b, i), score in scores.items() if i == item]
        expected += [(item, -score, ids[b], int(buckets[b])) for score, _, b in sorted(competing)[:size]]

    audiences = Audiences(items, chosen, size, tile_items=tile)
    order = rng.permutation(n_users)
    for start in range(0, n_users, batch):
        some = order[start : start + batch]
        audiences.add(
            users[torch.from_numpy(some)],
            pa.array([ids[b] for b in some], pa.string()),
            pa.array(buckets[some], pa.int32()),
            make_csr(excluded[some]),
            make_csr(added[some], values[some]),
        )
    assert as_entries(audiences.entries()) == expected


def test_lists_do_not_outgrow_their_size_while_users_pass_by() -> None:
    """Equal users: none can be ruled out by its score, and memory stays bounded all the same."""
    items = ItemMatrix(torch.ones(3, 4), torch.zeros(3), torch.arange(3))
    audiences = Audiences(items, np.array([0, 2], np.int32), 5)
    for start in range(1000, 0, -10):
        ids = pa.array([f"{i:04}" for i in range(start, start - 10, -1)])
        audiences.add(torch.ones(10, 4), ids, pa.array([0] * 10, pa.int32()), None, None)
        assert sum(len(part) for part in audiences._entries) <= 2 * 2 * 5 + 2 * 10
    assert as_entries(audiences.entries()) == [(item, 4.0, f"{i:04}", 0) for item in (0, 2) for i in range(1, 6)]


def test_what_cannot_be_listed_is_refused() -> None:
    items = ItemMatrix(torch.ones(3, 4), torch.zeros(3), torch.arange(3))
    with pytest.raises(ValueError, match="size must be at least 1"):
        Audiences(items, np.array([0], np.int32), 0)
    audiences = Audiences(items, np.array([0], np.int32), 1)
    broken = torch.tensor([[0.0] * 4, [float("nan")] * 4])
    with pytest.raises(ModelError, match="user vector 1 holds nan"):
        audiences.add(broken, pa.array(["a", "b"]), pa.array([0, 0], pa.int32()), None, None)
