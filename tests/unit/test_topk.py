"""Specification of the exact top K: a brute force in plain numpy float64 says what every list must be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recbatch.errors import ModelError
from recbatch.ranking.csr import Csr
from recbatch.ranking.screen import Arithmetic
from recbatch.ranking.topk import Catalogue, ItemMatrix, TopK, top_k, top_k_of

Lists = list[list[tuple[int, float]]]


def make_csr(dense: NDArray[np.bool_], values: NDArray[np.float32] | None = None) -> Csr:
    indptr = np.concatenate([[0], dense.sum(1).cumsum()]).astype(np.int64)
    picked = None if values is None else torch.from_numpy(values[dense])
    return Csr(torch.from_numpy(indptr), torch.from_numpy(np.nonzero(dense)[1].astype(np.int32)), picked)


def halving_sum(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    width = 1
    while width < terms.shape[-1]:
        width *= 2
    padded = np.zeros((*terms.shape[:-1], width))
    padded[..., : terms.shape[-1]] = terms
    while padded.shape[-1] > 1:
        half = padded.shape[-1] // 2
        padded = padded[..., :half] + padded[..., half:]
    return padded[..., 0]


def brute_force(
    users: torch.Tensor,
    items: ItemMatrix,
    k: int,
    excluded: NDArray[np.bool_],
    additions: NDArray[np.float32],
    eligible: NDArray[np.bool_],
) -> Lists:
    vectors = items.vectors.numpy().astype(np.float64)
    lists = []
    for b, user in enumerate(users.numpy().astype(np.float64)):
        score = (halving_sum(user * vectors) + items.bias.numpy() + additions[b].astype(np.float64)).astype(np.float32)
        candidates = [i for i in range(len(score)) if eligible[i] and not excluded[b, i]]
        candidates.sort(key=lambda i, s=score: (-s[i], items.tie_rank[i]))  # type: ignore[misc]
        lists.append([(i, float(score[i])) for i in candidates[:k]])
    return lists


def as_lists(result: TopK) -> Lists:
    bounds = result.indptr.tolist()
    pairs = list(zip(result.item_idx.tolist(), result.score.tolist(), strict=True))
    return [pairs[low:high] for low, high in itertools.pairwise(bounds)]


def same_bits(left: TopK, right: TopK) -> bool:
    return (
        torch.equal(left.indptr, right.indptr)
        and torch.equal(left.item_idx, right.item_idx)
        and torch.equal(left.score.view(torch.int32), right.score.view(torch.int32))
    )


def draw_case(seed: int, n_users: int, n_items: int, d: int, kind: str) -> tuple[torch.Tensor, ItemMatrix]:
    rng = np.random.default_rng(seed)
    users, vectors = rng.normal(size=(n_users, d)), rng.normal(size=(n_items, d))
    bias = rng.normal(size=n_items)
    if kind == "integers":  # many equal scores
        users, vectors, bias = users.round(), vectors.round(), bias.round()
    elif kind == "duplicates":  # equal vectors: scores tie exactly
        vectors, bias = vectors[rng.integers(0, max(1, n_items // 8), n_items)], np.zeros(n_items)
    elif kind == "close":  # float32 cannot tell the scores apart before the last bits
        vectors, bias = 1.0 + 1e-7 * vectors, np.zeros(n_items)
    elif kind == "ascending":  # every tile beats all before it
        bias = np.arange(n_items, dtype=np.float64)
    elif kind == "wide":  # magnitudes from 1e-12 to 1e12 in one product
        users, vectors = users * 10.0 ** rng.integers(-6, 7, d), vectors * 10.0 ** rng.integers(-6, 7, (n_items, d))
    ties = torch.from_numpy(rng.permutation(n_items))
    return (
        torch.from_numpy(users.astype(np.float32)),
        ItemMatrix(torch.from_numpy(vectors.astype(np.float32)), torch.from_numpy(bias.astype(np.float32)), ties),
    )


@settings(max_examples=250, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n_users=st.integers(0, 5),
    n_items=st.integers(0, 150),
    d=st.integers(1, 19),
    k=st.integers(1, 40),
    tile=st.sampled_from([1, 7, 16, 64, 1000]),
    kind=st.sampled_from(["normal", "integers", "duplicates", "close", "ascending", "wide"]),
    share_excluded=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    share_added=st.sampled_from([0.0, 0.2, 1.0]),
    share_eligible=st.sampled_from([0.0, 0.5, 1.0]),
    arithmetic=st.sampled_from(Arithmetic),
    typical_norm=st.sampled_from([0.1, 1.0, 30.0]),
    n_masks=st.integers(0, 2),
)
def test_equals_brute_force(
    seed: int,
    n_users: int,
    n_items: int,
    d: int,
    k: int,
    tile: int,
    kind: str,
    share_excluded: float,
    share_added: float,
    share_eligible: float,
    arithmetic: Arithmetic,
    typical_norm: float,
    n_masks: int,
) -> None:
    users, items = draw_case(seed, n_users, n_items, d, kind)
    rng = np.random.default_rng(seed + 1)
    excluded = rng.random((n_users, n_items)) < share_excluded
    added = rng.random((n_users, n_items)) < share_added
    additions = np.where(added, rng.normal(size=added.shape).round(1), 0).astype(np.float32)
    eligible = rng.random(n_items) < share_eligible
    masks = rng.random((n_masks, n_items)) < 0.3
    mask_of_user = rng.integers(-1, n_masks, n_users)
    catalogue = Catalogue.create(
        items,
        eligible=torch.from_numpy(eligible),
        masks=torch.from_numpy(masks),
        typical_norm=typical_norm,
        arithmetic=arithmetic,
        tile_items=tile,
    )
    result = top_k_of(
        users,
        catalogue,
        k,
        excluded=make_csr(excluded),
        additions=make_csr(added, additions),
        mask_of_user=mask_of_user,
    )
    for user in np.flatnonzero(mask_of_user >= 0):
        excluded[user] |= ~masks[mask_of_user[user]]
    assert as_lists(result) == brute_force(users, items, k, excluded, additions, eligible)


@pytest.mark.parametrize("kind", ["normal", "integers", "duplicates", "close", "ascending", "wide"])
def test_tiles_batches_and_threads_do_not_matter(kind: str) -> None:
    users, items = draw_case(3, 50, 20_000, 24, kind)
    whole = top_k(users, items, 30, tile_items=4096)
    threads = torch.get_num_threads()
    for tile, batch, n_threads in ((511, 50, 1), (20_000, 7, 2), (1000, 1, 1)):
        torch.set_num_threads(n_threads)
        try:
            parts = [top_k(users[b : b + batch], items, 30, tile_items=tile) for b in range(0, 50, batch)]
        finally:
            torch.set_num_threads(threads)
        lengths = torch.cat([part.indptr.diff() for part in parts])
        joined = TopK(
            torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
            torch.cat([part.item_idx for part in parts]),
            torch.cat([part.score for part in parts]),
        )
        assert same_bits(joined, whole)


def test_a_catalogue_of_equal_items_is_ranked_by_tie_rank_alone() -> None:
    n_items, n_users, k = 60_000, 12, 20  # 720,000 equal scores: more than the pool holds
    ties = torch.from_numpy(np.random.default_rng(0).permutation(n_items))
    items = ItemMatrix(torch.ones(n_items, 3), torch.zeros(n_items), ties)
    result = top_k(torch.full((n_users, 3), 0.1), items, k)
    assert result.item_idx.view(n_users, k).tolist() == [ties.argsort()[:k].tolist()] * n_users


def test_default_is_all_items_and_no_sparse_terms() -> None:
    users, items = draw_case(5, 4, 90, 8, "normal")
    nothing, zero = np.zeros((4, 90), dtype=bool), np.zeros((4, 90), dtype=np.float32)
    expected = brute_force(users, items, 200, nothing, zero, ~nothing[0])
    assert as_lists(top_k(users, items, 200)) == expected
    assert [len(row) for row in expected] == [90] * 4


def test_an_addition_decides_between_equal_items() -> None:
    items = ItemMatrix(torch.zeros(3, 2), torch.zeros(3), torch.tensor([0, 1, 2]))
    additions = Csr(torch.tensor([0, 1]), torch.tensor([2], dtype=torch.int32), torch.tensor([0.5]))
    assert as_lists(top_k(torch.zeros(1, 2), items, 2, additions=additions)) == [[(2, 0.5), (0, 0.0)]]


def test_values_that_are_not_finite_are_named() -> None:
    users, items = draw_case(1, 3, 10, 4, "normal")
    users[1, 2] = torch.nan
    with pytest.raises(ModelError, match="user vector 1 holds nan"):
        top_k(users, items, 2)
    vectors = items.vectors.clone()
    vectors[7, 0] = torch.inf
    with pytest.raises(ModelError, match="item vector 7 holds inf"):
        ItemMatrix(vectors, items.bias, torch.arange(10))
    with pytest.raises(ModelError, match="item bias 4 holds nan"):
        ItemMatrix(items.vectors, torch.where(torch.arange(10) == 4, torch.nan, 0.0), torch.arange(10))
    additions = Csr(torch.tensor([0, 1, 1, 1]), torch.tensor([2], dtype=torch.int32), torch.tensor([torch.inf]))
    with pytest.raises(ModelError, match="score addition 0 holds inf"):
        top_k(torch.zeros(3, 4), items, 2, additions=additions)
    with pytest.raises(ModelError, match="beyond float32"):
        top_k(torch.full((1, 4), 1e30), ItemMatrix(torch.full((10, 4), 1e10), items.bias, torch.arange(10)), 2)


def test_reduced_matmul_precision_is_refused() -> None:
    users, items = draw_case(1, 3, 10, 4, "normal")
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(ModelError, match="precision 'medium'"):
            top_k(users, items, 2)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_arguments_that_do_not_fit_are_refused() -> None:
    users, items = draw_case(1, 3, 10, 4, "normal")
    one_row = Csr(torch.tensor([0, 1]), torch.tensor([2], dtype=torch.int32), torch.tensor([1.0]))
    outside = Csr(torch.tensor([0, 1, 1, 1]), torch.tensor([10], dtype=torch.int32), torch.tensor([1.0]))
    no_values = Csr(torch.tensor([0, 1, 1, 1]), torch.tensor([2], dtype=torch.int32))
    with pytest.raises(ValueError, match=r"\(B, 4\)"):
        top_k(users[:, :3], items, 2)
    with pytest.raises(ValueError, match="at least 1"):
        top_k(users, items, 0)
    with pytest.raises(ValueError, match="1 rows for 3 users"):
        top_k(users, items, 2, excluded=one_row)
    with pytest.raises(ValueError, match=r"outside 0\.\.9"):
        top_k(users, items, 2, additions=outside)
    with pytest.raises(ValueError, match="no values"):
        top_k(users, items, 2, additions=no_values)
    with pytest.raises(ValueError, match="eligible"):
        top_k(users, items, 2, eligible=torch.ones(9, dtype=torch.bool))
    with pytest.raises(ValueError, match="distinct"):
        ItemMatrix(items.vectors, items.bias, torch.zeros(10, dtype=torch.int64))


@pytest.mark.parametrize(
    ("indptr", "indices", "values", "message"),
    [
        ([0, 2], [1, 1], None, "ascending"),
        ([0, 1, 3], [1, 5, 2], None, "ascending"),
        ([0, 2], [1], None, "boundaries"),
        ([0, 2, 1], [1], None, "boundaries"),
        ([0, 1], [1], [0.5, 0.5], "values"),
    ],
)
def test_csr_refuses(indptr: list[int], indices: list[int], values: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Csr(
            torch.tensor(indptr),
            torch.tensor(indices, dtype=torch.int32),
            None if values is None else torch.tensor(values),
        )


def test_csr_rows() -> None:
    csr = Csr(torch.tensor([0, 2, 2, 3]), torch.tensor([4, 9, 1], dtype=torch.int32), torch.tensor([0.1, 0.2, 0.3]))
    assert csr.entry_rows().tolist() == [0, 0, 2]
    part = csr.rows(1, 3)
    assert (part.indptr.tolist(), part.indices.tolist()) == ([0, 0, 1], [1])
    assert part.values is not None
    assert part.values.tolist() == pytest.approx([0.3])
