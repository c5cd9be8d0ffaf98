"""Co-occurrence as a sparse addition to the scores: what the items of a user's last behaviours lead to."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from recbatch.model.fusion import Fusion
from recbatch.model.histories import Sequences
from recbatch.ranking.csr import Csr


class Neighbours:
    """item -> neighbour weights of I items, each row ascending by neighbour."""

    def __init__(self, csr: Csr) -> None:
        if csr.values is None:
            raise ValueError("neighbours need weights")
        self.csr = csr
        self._indptr, self._indices = csr.indptr.numpy(), csr.indices.numpy()
        self._weights = csr.values.numpy()
        self._keys = csr.entry_rows().numpy() * len(self) + self._indices

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

    def additions(self, sequences: Sequences, fusion: Fusion) -> Csr:
        """The score additions of all users of `sequences`, where they are not zero; rows in the order of the users.

        Each c(u, i) is summed over the user's own behaviours in time order in float64: it does not depend on the batch.
        """
        indptr, neighbour, total = self.cooccurrence(sequences, fusion.behaviours, fusion.decay)
        values = (fusion.lam * np.log1p(total / fusion.eps)).astype(np.float32)
        return Csr(torch.from_numpy(indptr), torch.from_numpy(neighbour), torch.from_numpy(values))

    def cooccurrence(
        self, sequences: Sequences, behaviours: int, decay: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
        """c(u, i) where it is not zero: row boundaries (N + 1,), items and sums, items ascending within a row."""
        start, stop = sequences.last(behaviours)
        row = np.repeat(np.arange(len(sequences)), stop - start)
        at = np.arange(len(row)) + np.repeat(start - ((stop - start).cumsum() - (stop - start)), stop - start)
        item = sequences.columns["item_idx"][at].astype(np.int64)
        row, at, item = (values[item < len(self)] for values in (row, at, item))  # a newer item has no neighbours yet
        from_end = stop[row] - 1 - at
        size = np.diff(self._indptr)[item]
        entry = np.arange(size.sum()) + np.repeat(self._indptr[item] - (size.cumsum() - size), size)
        # A user's pairs come as ascending runs, one a behaviour, which a stable merge sort joins in little time.
        key = np.repeat(row, size) * len(self) + self._indices[entry]
        order = np.argsort(key, kind="stable")
        key, term = key[order], (np.repeat(decay**from_end, size) * self._weights[entry])[order]
        is_first = np.diff(key, prepend=-1) != 0
        total = np.bincount(is_first.cumsum() - 1, weights=term)
        user, neighbour = np.divmod(key[is_first], max(len(self), 1))
        indptr = np.searchsorted(user, np.arange(len(sequences) + 1)).astype(np.int64)
        return indptr, neighbour.astype(np.int32), total.astype(np.float64)

    def contributions(
        self, sequences: Sequences, row: NDArray[np.int64], item: NDArray[np.int64], fusion: Fusion
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """What each behaviour gave to c(u, i), for P pairs of a user row and an item: the evidence for a rank.

        Returns the behaviours' item_idx (P, W), the last behaviour first, -1 where the user has fewer, and their
        terms decay^w * w(h -> i) (P, W); a row of terms sums to c(u, i).
        """
        start, stop = sequences.last(fusion.behaviours)
        back = np.arange(fusion.behaviours)
        at = stop[row][:, None] - 1 - back
        real = at >= start[row][:, None]
        behaviour = np.full(real.shape, -1, dtype=np.int64)
        behaviour[real] = sequences.columns["item_idx"][at[real]]
        term = np.zeros(real.shape)
        if len(self._keys):
            known = real & (behaviour < len(self)) & (item < len(self))[:, None]
            key = behaviour * len(self) + item[:, None]
            place = np.searchsorted(self._keys, key).clip(max=len(self._keys) - 1)
            found = known & (self._keys[place] == key)
            term[found] = (fusion.decay**back * self._weights[place])[found]
        return behaviour, term
