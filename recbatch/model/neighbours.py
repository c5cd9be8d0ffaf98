"""Co-occurrence as a sparse addition to the scores: what the items of a user's last behaviours lead to."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.model.cooccurrence import renumbered, strongest_evidence, sum_contributions
from recbatch.model.fusion import Fusion
from recbatch.model.histories import Sequences
from recbatch.ranking.csr import Csr
from recbatch.ranking.exact import TopK


class Neighbours:
    """item -> neighbour weights of I items, each row ascending by neighbour."""

    def __init__(self, csr: Csr) -> None:
        if csr.values is None:
            raise ValueError("neighbours need weights")
        self.csr = csr
        self._indptr, self._indices = csr.indptr.numpy(), csr.indices.numpy()
        self._weights = csr.values.numpy()

    @classmethod
    def from_arrow(cls, table: pa.Table, n_items: int) -> Neighbours:
        """From the rows of `item_neighbours`, in any order, over items 0..n_items-1."""
        lists = table["neighbours"].combine_chunks()
        item = np.repeat(table["item_idx"].to_numpy().astype(np.int64), np.diff(np.asarray(lists.offsets)))
        neighbour = lists.flatten().to_numpy()
        order = np.argsort(item * n_items + neighbour, kind="stable")
        indptr = np.concatenate([[0], np.bincount(item, minlength=n_items).cumsum()])
        weights = table["weights"].combine_chunks().flatten().to_numpy()[order]
        return cls(
            Csr(
                torch.from_numpy(indptr),
                torch.from_numpy(neighbour[order].astype(np.int32)),
                torch.from_numpy(weights.astype(np.float32)),
            )
        )

    def __len__(self) -> int:
        return self.csr.n_rows

    @property
    def weights(self) -> Tensor:
        """(entries,) float32, of `csr`."""
        return torch.from_numpy(self._weights)

    def renumbered(self, order: NDArray[np.int64], position: NDArray[np.int32]) -> Neighbours:
        """As it is among items in another order: position[i] is the new number of item i, order the inverse."""
        moved = renumbered(self._indptr, self._indices, self._weights, order, position)
        indptr, indices, weights = map(torch.from_numpy, moved)
        return Neighbours(Csr(indptr, indices, weights))

    def additions(self, sequences: Sequences, fusion: Fusion) -> Csr:
        """The score additions of all users of `sequences`, where they are not zero; rows in the order of the users.

        Each c(u, i) is summed over the user's own behaviours in time order in float64: it does not depend on the batch.
        """
        indptr, neighbour, total = self.cooccurrence(sequences, fusion.behaviours, fusion.decay)
        np.divide(total, fusion.eps, out=total)
        np.log1p(total, out=total)
        values = np.multiply(total, fusion.lam, out=total).astype(np.float32)
        return Csr(torch.from_numpy(indptr), torch.from_numpy(neighbour), torch.from_numpy(values), trusted=True)

    def cooccurrence(
        self, sequences: Sequences, behaviours: int, decay: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
        """c(u, i) where it is not zero: row boundaries (N + 1,), items and sums, items ascending within a row."""
        start, stop = sequences.last(behaviours)
        powers = decay ** np.arange(behaviours, dtype=np.float64)
        return sum_contributions(
            self._indptr, self._indices, self._weights, sequences.columns["item_idx"], start, stop, powers
        )

    def evidence(
        self,
        behaviours: NDArray[np.int64],
        best: TopK,
        similarity: NDArray[np.float32],
        fusion: Fusion,
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """As `cooccurrence.strongest_evidence`, for the lists `best` of the users of `behaviours`."""
        counted = fusion.behaviours if fusion.lam else 0  # else nothing is read of what may only be mapped
        return strongest_evidence(
            self._indptr,
            self._indices,
            self._weights,
            behaviours,
            fusion.decay ** np.arange(counted, dtype=np.float64),
            best.indptr.numpy(),
            best.item_idx.numpy(),
            similarity,
            fusion.lam,
            fusion.eps,
        )
