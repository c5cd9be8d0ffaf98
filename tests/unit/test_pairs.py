"""Specification of the scores of single pairs: those that the same pairs have in a list, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbatch.errors import ModelError
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import ItemMatrix, pair_scores, top_k


@pytest.mark.parametrize("d", [1, 3, 16, 20, 64])
@pytest.mark.parametrize("with_additions", [True, False])
def test_a_pair_has_the_bits_that_it_has_in_a_list(d: int, with_additions: bool) -> None:
    rng = np.random.default_rng(d)
    n_users, n_items = 5, 300
    users = torch.from_numpy(rng.normal(size=(n_users, d)).astype(np.float32))
    vectors, bias = rng.normal(size=(n_items, d)).astype(np.float32), rng.normal(size=n_items).astype(np.float32)
    items = ItemMatrix(torch.from_numpy(vectors), torch.from_numpy(bias), torch.arange(n_items))
    dense = rng.random((n_users, n_items)) < 0.1
    dense[2] = False
    indptr = torch.from_numpy(np.concatenate([[0], dense.sum(1).cumsum()]))
    values = torch.from_numpy(rng.random(int(dense.sum())).astype(np.float32))
    additions = Csr(indptr, torch.from_numpy(np.nonzero(dense)[1].astype(np.int32)), values) if with_additions else None
    best = top_k(users, items, n_items, additions=additions)
    row = np.repeat(np.arange(n_users), np.diff(best.indptr.numpy()))
    order = rng.permutation(len(row))
    item = best.item_idx.numpy().astype(np.int64)
    scores = pair_scores(users, items, row[order], item[order], additions)
    assert scores.view(np.int32).tolist() == best.score.numpy()[order].view(np.int32).tolist()


def test_zero_has_no_sign() -> None:
    items = ItemMatrix(torch.zeros(1, 2), torch.tensor([-0.0]), torch.arange(1))
    scores = pair_scores(torch.full((1, 2), -1.0), items, np.zeros(1, np.int64), np.zeros(1, np.int64), None)
    assert scores.view(np.int32).tolist() == [0]


def test_a_user_vector_that_is_not_finite_is_an_error() -> None:
    items = ItemMatrix(torch.zeros(1, 2), torch.zeros(1), torch.arange(1))
    with pytest.raises(ModelError, match="user vector 0 holds nan"):
        pair_scores(torch.full((1, 2), float("nan")), items, np.zeros(1, np.int64), np.zeros(1, np.int64), None)
