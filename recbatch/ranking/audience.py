"""The exact M best users of chosen items, gathered while batches of users pass by."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.ranking.candidates import LOWEST
from recbatch.ranking.csr import Csr
from recbatch.ranking.exact import ItemMatrix
from recbatch.ranking.screen import Arithmetic, Screen, narrow
from recbatch.ranking.topk import pair_scores

_ITEM, _SCORE, _USER_ID, _USER_BUCKET = "item", "score", "user_id", "user_bucket"
ENTRIES = pa.schema([(_ITEM, pa.int32()), (_SCORE, pa.float32()), (_USER_ID, pa.string()), (_USER_BUCKET, pa.int32())])


class Audiences:
    """Running lists of the `size` best users of each of J chosen items.

    A score has the bits that it has in the user's own list. Equal ones are ordered by user id in UTF-8 byte order: so
    the lists depend neither on the order of the users nor on batches, and those of several parts of the users hold
    all that the lists of all users are made of. Memory: 2 x J x size entries, and those of one batch.
    """

    def __init__(self, items: ItemMatrix, chosen: NDArray[np.int32], size: int, *, tile_items: int = 1024) -> None:
        """items: all I of them. chosen: (J,), distinct places among them, multiplied `tile_items` at a time."""
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.chosen, self.size = np.sort(chosen), size
        at = torch.from_numpy(self.chosen).long()
        self._items = ItemMatrix(items.vectors[at], items.bias[at], torch.from_numpy(items.tie_rank[self.chosen]))
        self._screen = Screen.create(self._items.vectors, self._items.bias, Arithmetic.FLOAT32, tile_items)
        self._slot = np.full(len(items), -1, np.int32)
        self._slot[self.chosen] = np.arange(len(self.chosen), dtype=np.int32)
        self._cut = np.full(len(self.chosen), LOWEST)  # a score that `size` users reach
        self._entries = [ENTRIES.empty_table()]
        self._fresh = 0

    def add(
        self, users: Tensor, user_ids: pa.Array, buckets: pa.Array, excluded: Csr | None, additions: Csr | None
    ) -> None:
        """Let B users compete for the lists: users (B, d) float32; excluded, additions: Csr of B rows over all items.

        Raises:
            ModelError: a user vector or a score is NaN or infinite.
        """
        if not len(self.chosen) or not len(users):
            return
        added = None if additions is None else self._among_chosen(additions)
        row, slot = self._reaching(users, None if excluded is None else self._among_chosen(excluded), added)
        score = pair_scores(users, self._items, row, slot, added)
        kept = score >= self._cut[slot]
        taken = pa.array(row[kept])
        columns = [pa.array(slot[kept].astype(np.int32)), pa.array(score[kept]), user_ids.take(taken)]
        self._entries.append(pa.table([*columns, buckets.take(taken)], schema=ENTRIES))
        self._fresh += len(taken)
        if self._fresh >= len(self.chosen) * self.size:
            self._drop_surplus()

    def entries(self) -> pa.Table:
        """The lists so far, rows of ENTRIES by item, best first; `item` is the place among all items."""
        self._drop_surplus()
        table = self._entries[0]
        return table.set_column(0, _ITEM, pa.array(self.chosen[table[_ITEM].to_numpy()], pa.int32()))

    def _reaching(
        self, users: Tensor, excluded: Csr | None, additions: Csr | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(N,) each: rows and slots of all pairs whose score may reach the cut, by a product with its error bound."""
        n_users, screen = len(users), self._screen
        allowed = np.ones((n_users, len(self.chosen)), np.bool_)
        if excluded is not None:
            allowed[excluded.entry_rows().numpy(), excluded.indices.numpy()] = False
        raised, most = np.zeros(allowed.shape, np.float32), np.zeros(n_users)
        if additions is not None and additions.values is not None:
            raised[additions.entry_rows().numpy(), additions.indices.numpy()] = additions.values.numpy()
            most = np.abs(raised).max(1).astype(np.float64)
        errors, margins = screen.errors(narrow(users, Arithmetic.FLOAT32), most)
        products = torch.empty(n_users * int(np.diff(screen.bounds).max()))
        for t in range(len(errors)):
            part = slice(int(screen.bounds[t]), int(screen.bounds[t + 1]))
            highest = (
                screen.multiply(users, t, products, None).numpy() + self._items.bias[part].numpy() + raised[:, part]
            )
            highest += errors[t][:, None] * screen.norm[part] + margins[t][:, None]
            # Not `>=`: a score that is not a number passes on to where it is named.
            allowed[:, part] &= ~(highest < self._cut[part])
        row, slot = np.nonzero(allowed)
        return row, slot

    def _among_chosen(self, csr: Csr) -> Csr:
        """The entries of chosen items, by slot."""
        slots = self._slot[csr.indices.numpy()]
        inside = slots >= 0
        counted = np.concatenate([[0], inside.cumsum()])
        values = None if csr.values is None else csr.values[torch.from_numpy(inside)]
        indptr = torch.from_numpy(counted[csr.indptr.numpy()])
        return Csr(indptr, torch.from_numpy(slots[inside]), values, csr.trusted)

    def _drop_surplus(self) -> None:
        order = [(_ITEM, "ascending"), (_SCORE, "descending"), (_USER_ID, "ascending")]
        table = pa.concat_tables(self._entries).sort_by(order)
        slot = table[_ITEM].to_numpy()
        rank = np.arange(len(slot)) - np.searchsorted(slot, slot)
        last = rank == self.size - 1
        self._cut[slot[last]] = table[_SCORE].to_numpy()[last]
        self._entries = [table.filter(pa.array(rank < self.size)).combine_chunks()]
        self._fresh = 0
