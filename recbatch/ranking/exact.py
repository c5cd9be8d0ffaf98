"""The reference score of a (user, item) pair, how far a float32 matrix product may be from it, and the final order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.errors import ModelError
from recbatch.ranking.csr import Csr

_CHUNK = 1 << 11  # pairs rescored at a time: (2048, 64) float64 products stay in the second-level cache
_UNIT_ROUNDOFF = 2.0**-24  # of float32
_ULP = 2.0**-23

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


class ItemMatrix:
    """All items as one matrix, checked once.

    vectors: (I, d) float32. bias: (I,) float32. tie_rank: (I,) integer, distinct: the order of items of equal score.

    Raises:
        ModelError: a vector or bias is NaN or infinite.
        ValueError: shapes or types do not fit, or tie ranks repeat.
    """

    def __init__(self, vectors: Tensor, bias: Tensor, tie_rank: Tensor) -> None:
        n_items = len(vectors)
        if vectors.ndim != 2 or bias.shape != (n_items,) or tie_rank.shape != (n_items,):
            raise ValueError(f"items {tuple(vectors.shape)}, bias {tuple(bias.shape)}, ties {tuple(tie_rank.shape)}")
        if vectors.dtype != torch.float32 or bias.dtype != torch.float32:
            raise ValueError(f"item vectors and bias must be float32, got {vectors.dtype} and {bias.dtype}")
        if len(torch.unique(tie_rank)) != n_items:
            raise ValueError("tie ranks must be distinct, else the order of equal scores is undefined")
        check_finite(vectors, "item vector")
        check_finite(bias, "item bias")
        self.vectors, self.bias = vectors.contiguous(), bias
        self.tie_rank = tie_rank.numpy().astype(np.int64)
        self.max_norm = float(torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64).max()) if n_items else 0.0
        self.max_bias = float(bias.abs().max()) if n_items else 0.0

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class TopK:
    """The best items of B users, ragged: user b has entries indptr[b]..indptr[b+1]-1, best first.

    indptr: (B + 1,) int64. item_idx: (N,) int32. score: (N,) float32.
    """

    indptr: Tensor
    item_idx: Tensor
    score: Tensor


def check_finite(values: Tensor, what: str) -> None:
    """Raise ModelError naming `what` and the first row that holds NaN or infinity."""
    broken = ~torch.isfinite(values)
    if bool(broken.any()):
        where = [int(i) for i in broken.nonzero()[0]]
        raise ModelError(
            f"{what} {where[0]} holds {float(values[tuple(where)])}; {int(broken.sum())} of {values.numel()} do",
            remedy="the model diverged or its artifact is damaged: train again, or score with an earlier model",
        )


def error_margin(users: Tensor, items: ItemMatrix, largest_addition: float) -> NDArray[np.float64]:
    """(B,): an item whose float32 score is lower than another's by more than this is ranked strictly below it.

    A float32 sum of n = d + 2 rounded terms in any order differs from the real one by at most
    gamma_n * sum|terms|, gamma_n = n u / (1 - n u) (Higham, Accuracy and Stability, 2nd ed., 3.1 and 3.3), and by
    Cauchy-Schwarz sum|terms| <= |u||v| + |b| + |a|. Both scores may err, hence twice; one ulp more keeps the two
    apart after the rounding of the reference score to float32. The last term covers underflow.
    """
    n = users.shape[1] + 3
    gamma = n * _UNIT_ROUNDOFF / (1 - n * _UNIT_ROUNDOFF)
    norms = torch.linalg.vector_norm(users, dim=1, dtype=torch.float64).numpy()
    reach = (norms * items.max_norm + items.max_bias + largest_addition) * (1 + 2.0**-30)
    if reach.size and reach.max() > 2.0**126:
        raise ModelError(
            f"the score of user vector {int(reach.argmax())} can reach {reach.max():.3g}, beyond float32",
            remedy="the model diverged: train again with a lower learning rate",
        )
    margin: NDArray[np.float64] = reach * (2 * gamma + _ULP + 2.0**-40) + n * 2.0**-124
    return margin


def exact_scores(users: Tensor, items: ItemMatrix, pairs: Pairs, additions: Csr | None) -> NDArray[np.float32]:
    """(N,) reference scores of N (user row, item) pairs.

    Products of float32 are exact in float64; they are summed by adding the upper half of the (zero-padded) dimensions
    to the lower half until one is left, then bias, then addition, and rounded once to float32. Only elementwise
    operations take part, so the result does not depend on who else is in the batch or on the number of threads.
    """
    rows, cols = torch.from_numpy(pairs[0]), torch.from_numpy(pairs[1])
    d, n_pairs = users.shape[1], len(rows)
    width = 1 << max(d - 1, 0).bit_length()
    total = torch.empty(n_pairs, dtype=torch.float64)
    products = torch.zeros(min(n_pairs, _CHUNK), width, dtype=torch.float64)
    users64 = users.double()
    for start in range(0, n_pairs, _CHUNK):
        chunk = slice(start, min(start + _CHUNK, n_pairs))
        product = products[: chunk.stop - start]
        torch.mul(users64[rows[chunk]], items.vectors[cols[chunk]], out=product[:, :d])
        half = width // 2
        while half:
            product[:, :half] += product[:, half : 2 * half]
            half //= 2
        total[chunk] = product[:, 0]
    total += items.bias[cols]
    if additions is not None:
        total += torch.from_numpy(_values_at(additions, pairs, len(items)))
    scores: NDArray[np.float32] = total.float().numpy()
    return scores


def best_k(pairs: Pairs, scores: NDArray[np.float32], tie_rank: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Positions of the k best pairs of every user row, ordered by row, then score descending, then tie rank."""
    rows, cols = pairs
    order = np.lexsort((tie_rank[cols], -scores, rows))
    sorted_rows = rows[order]
    first = np.searchsorted(sorted_rows, sorted_rows)
    best: NDArray[np.int64] = order[np.arange(len(order)) - first < k]
    return best


def _values_at(csr: Csr, pairs: Pairs, n_items: int) -> NDArray[np.float64]:
    """The value of every pair, 0 where the Csr has none."""
    values = np.zeros(len(pairs[0]))
    if csr.values is not None and len(csr.indices):
        keys = (csr.entry_rows() * n_items + csr.indices).numpy()
        wanted = pairs[0] * n_items + pairs[1]
        at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        found = keys[at] == wanted
        values[found] = csr.values.numpy()[at[found]]
    return values
