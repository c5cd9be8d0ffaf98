"""Specification of ranking under many weights of co-occurrence: as if all items were ranked for each of them."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recbatch.model.fusion import Fusion, Popularity
from recbatch.model.histories import Sequences
from recbatch.model.neighbours import Neighbours
from recbatch.ranking.csr import Csr
from recbatch.ranking.exact import ItemMatrix
from recbatch.training.fused_ranking import FusedRanking
from recbatch.training.validation import Validation, Window

BEHAVIOURS, DECAY = 3, 0.5


def histories(random: np.random.Generator, n_users: int, n_items: int) -> Sequences:
    """Users of 2 to 6 behaviours, the last of each at time 10 and the others before it."""
    sizes = random.integers(2, 7, n_users)
    offsets = np.concatenate([[0], sizes.cumsum()])
    time = np.arange(offsets[-1]) - np.repeat(offsets[1:], sizes) + 11
    zeros = np.zeros(offsets[-1], np.float32)
    columns: dict[str, NDArray[np.generic]] = {
        "item_idx": random.integers(0, n_items, offsets[-1]).astype(np.int32),
        "event_type": zeros.astype(np.int32),
        "event_time": time,
        "price": zeros,
        "quantity": zeros,
    }
    return Sequences(offsets, columns)


def random_neighbours(random: np.random.Generator, n_items: int, share: float) -> Neighbours:
    present = random.random((n_items, n_items)) < share
    indptr = np.concatenate([[0], present.sum(1).cumsum()])
    weights = random.integers(1, 4, indptr[-1]).astype(np.float32)
    return Neighbours(
        Csr(
            torch.from_numpy(indptr), torch.from_numpy(present.nonzero()[1].astype(np.int32)), torch.from_numpy(weights)
        )
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    n_items=st.integers(2, 60),
    n_users=st.integers(1, 8),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    new_only=st.booleans(),
    dim=st.sampled_from([4, 8]),
)
def test_lists_are_those_of_ranking_all_items(
    seed: int, n_items: int, n_users: int, share: float, new_only: bool, dim: int
) -> None:
    random = np.random.default_rng(seed)
    # A user of her own repeats nothing, so that some target is new whatever is drawn.
    parts = [histories(random, n_users, n_items), _fresh(n_items)]
    validation = Validation(parts, Window(10, 11), new_only, n_items, seed % 100)
    # Whole numbers: scores are exact in any order, and many of them are equal.
    users = torch.from_numpy(random.integers(-2, 3, (len(validation), dim)).astype(np.float32))
    vectors = torch.from_numpy(random.integers(-2, 3, (n_items, dim)).astype(np.float32))
    items = ItemMatrix(
        vectors, torch.from_numpy(random.integers(-3, 4, n_items).astype(np.float32)), validation.tie_rank
    )
    taken = torch.from_numpy(random.integers(0, 9, n_items).astype(np.float32))
    popularity, neighbours = Popularity(taken, taken), random_neighbours(random, n_items, share)
    ranking = FusedRanking(validation, users, items, popularity, neighbours, BEHAVIOURS, DECAY)
    for lam, eps, network_bias, trend in ((0.0, 1.0, 1.0, 0.0), (1.0, 1.0, 1.0, 0.0), (4.0, 0.1, 0.0, 2.0)):
        fusion = Fusion(lam, eps, BEHAVIOURS, DECAY, network_bias, trend)
        additions = neighbours.additions(validation.past, fusion)
        fused = ItemMatrix(vectors, fusion.bias(items.bias, popularity), validation.tie_rank)
        expected, _ = validation.best(users, fused, additions)
        assert ranking.lists(fusion).tolist() == expected.tolist()
        assert ranking.ndcg(fusion).tolist() == validation.ndcg_of_lists(expected).tolist()


def _fresh(n_items: int) -> Sequences:
    sequences = histories(np.random.default_rng(0), 1, 1)
    items = sequences.columns["item_idx"] * 0
    items[-1] = n_items - 1
    return Sequences(sequences.offsets, sequences.columns | {"item_idx": items})
