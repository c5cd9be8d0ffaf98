"""What is ranked and what comes out: items as one matrix, and ragged lists of the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbatch.errors import ModelError

_CHECKED_ROWS = 1 << 16


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
        self.tie_rank = tie_rank.numpy().astype(np.int64, copy=False)

    @classmethod
    def trusted(cls, vectors: Tensor, bias: Tensor, tie_rank: Tensor) -> ItemMatrix:
        """Of what was one already: nothing is read, nor copied."""
        items = object.__new__(cls)
        items.vectors, items.bias, items.tie_rank = vectors, bias, tie_rank.numpy()
        return items

    def between(self, start: int, stop: int) -> ItemMatrix:
        """Items start..stop-1, as views, with the order that they have among all."""
        tie_rank = torch.from_numpy(self.tie_rank[start:stop])
        return ItemMatrix.trusted(self.vectors[start:stop], self.bias[start:stop], tie_rank)

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
    # Part by part: the check of a large matrix at once takes more memory than the matrix.
    if all(bool(torch.isfinite(part).all()) for part in torch.split(values, _CHECKED_ROWS)):
        return
    broken = ~torch.isfinite(values)
    where = [int(i) for i in broken.nonzero()[0]]
    raise ModelError(
        f"{what} {where[0]} holds {float(values[tuple(where)])}; {int(broken.sum())} of {values.numel()} do",
        remedy="the model diverged or its artifact is damaged: train again, or score with an earlier model",
    )
