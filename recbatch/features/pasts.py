"""Whole pasts of users: behaviours in flat columns, put together from what earlier runs left and what is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recbatch.features import ordering
from recbatch.tables import columns as c

# The columns of a behaviour, with their types: those of the lists in `user_sequences`.
TYPES: dict[str, np.dtype[Any]] = {
    c.ITEM_IDX: np.dtype(np.int32),
    c.EVENT_TYPE: np.dtype(np.int32),
    c.EVENT_TIME: np.dtype(np.int64),
    c.PRICE: np.dtype(np.float32),
    c.QUANTITY: np.dtype(np.float32),
}


@dataclass(frozen=True)
class Part:
    """Some behaviours of users: user n has the next lengths[n] of every flat column."""

    user_ids: pa.Array
    buckets: NDArray[np.int32]
    lengths: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]

    @classmethod
    def of_events(cls, rows: pa.Table) -> Part:
        """Rows of `behaviours`: a user may have many, in any order."""
        columns = {name: _flat(rows[name], kind) for name, kind in TYPES.items()}
        ones = np.ones(len(rows), np.int64)
        return cls(_whole(rows[c.USER_ID]), _flat(rows[c.USER_BUCKET], np.dtype(np.int32)), ones, columns)

    @classmethod
    def of_lists(cls, rows: pa.Table, bucket: int) -> Part:
        """Rows with a list in every column, as in `user_sequences`."""
        lists = {name: _whole(rows[name]) for name in TYPES}
        offsets: NDArray[np.int64] = np.asarray(lists[c.ITEM_IDX].offsets, np.int64)
        lengths = offsets[1:] - offsets[:-1]
        columns = {name: column.flatten().to_numpy() for name, column in lists.items()}
        return cls(_whole(rows[c.USER_ID]), np.full(len(rows), bucket, np.int32), lengths, columns)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) and whole.num_chunks else whole


def _flat(column: pa.ChunkedArray, kind: np.dtype[Any]) -> NDArray[Any]:
    # A null becomes NaN, for which `user_sequences` has one bit pattern only.
    values = column.to_numpy().astype(kind, copy=False)
    return np.where(np.isnan(values), np.float32("nan"), values).astype(kind) if kind.kind == "f" else values


@dataclass(frozen=True)
class Pasts:
    """N users in the order of bucket and id, with all their behaviours in the order of time.

    user n has offsets[n]..offsets[n + 1] - 1 of every flat column.
    """

    user_ids: pa.Array
    buckets: NDArray[np.int32]
    offsets: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]

    @classmethod
    def combine(cls, kept: Sequence[Part], fresh: Part, item_hashes: NDArray[np.uint64]) -> Pasts:
        """All behaviours of all users.

        kept: what a user has in these, in their order, is in the order of time. item_hashes: (I,).
        """
        parts = [*kept, fresh]
        ids = pa.concat_arrays([part.user_ids for part in parts]).dictionary_encode()
        number = ids.indices.to_numpy()
        bucket_of = np.empty(len(ids.dictionary), np.int32)
        bucket_of[number] = np.concatenate([part.buckets for part in parts])
        order = pc.sort_indices(
            pa.table({"bucket": bucket_of, "id": ids.dictionary}),
            sort_keys=[("bucket", "ascending"), ("id", "ascending")],
        ).to_numpy()
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        owner = np.repeat(rank[number], np.concatenate([part.lengths for part in parts]))
        sizes = np.bincount(owner, minlength=len(order))
        n_fresh = int(fresh.lengths.sum())
        offsets = np.concatenate([[0], sizes.cumsum()])
        places = ordering.place(owner, offsets[:-1].copy())
        columns = {}
        for name, kind in TYPES.items():
            columns[name] = np.empty(len(owner), kind)
            columns[name][places] = np.concatenate([part.columns[name] for part in parts])
        touched = np.bincount(owner[len(owner) - n_fresh :], minlength=len(order)) > 0
        mixed = cls(ids.dictionary.take(pa.array(order)), bucket_of[order], offsets, columns)
        return mixed._in_order(touched, item_hashes) if n_fresh else mixed

    def _in_order(self, touched: NDArray[np.bool_], item_hashes: NDArray[np.uint64]) -> Pasts:
        bits = [self.columns[name].view(np.uint32) for name in (c.PRICE, c.QUANTITY)]
        names = (c.ITEM_IDX, c.EVENT_TYPE)
        ties = ordering.tie_breakers(
            self.offsets, text_hashes(self.user_ids), item_hashes, *[self.columns[name] for name in names], *bits
        )
        order = ordering.time_order(self.offsets, touched, self.columns[c.EVENT_TIME], ties)
        columns = {name: column[order] for name, column in self.columns.items()}
        return Pasts(self.user_ids, self.buckets, self.offsets, columns)

    def __len__(self) -> int:
        return len(self.buckets)

    def lists(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> dict[str, pa.Array]:
        """The behaviours start[m]..stop[m] - 1 of the flat columns as a list of every column, for M users."""
        places = ordering.ranges(start, stop)
        offsets = pa.array(np.concatenate([[0], (stop - start).cumsum()]).astype(np.int32))
        return {
            name: pa.ListArray.from_arrays(offsets, pa.array(column[places])) for name, column in self.columns.items()
        }


def text_hashes(texts: pa.Array) -> NDArray[np.uint64]:
    """(N,): a hash of every text."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    hashes: NDArray[np.uint64] = ordering.hash_texts(bounds, np.frombuffer(data or b"\0", np.uint8))
    return hashes
