"""What a worker makes of the events of some buckets: users' lists for the tables, counts, and pairs of items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark import Broadcast

from recbatch.allocator import keep_freed_memory
from recbatch.features import counting, ordering
from recbatch.features.counts import N_CUTS, Counts
from recbatch.features.cuts import Cuts, Decay
from recbatch.features.delivery import Delivery, arrow, parquet
from recbatch.features.pasts import TYPES, Part, Pasts
from recbatch.tables import columns as c

RELEASED, EVALUATED, EARLIER, TARGETS = (
    "user_sequences",
    "evaluation_user_sequences",
    "earlier_behaviours",
    "evaluation_targets",
)
COUNTS, PAIRS = "counts", "pairs"
PAIR_COLUMNS = ("source", "target", "slot")
_CODED = [c.ITEM_IDX, c.EVENT_TYPE, c.PRICE, c.QUANTITY]


@dataclass(frozen=True)
class Recipe:
    """What is made, and what of. item_hashes: broadcast (I,) uint64. n_parts: of the pairs, by source.

    previous: by bucket, the files with what earlier runs left: (`earlier_behaviours`, `user_sequences`). unchanged:
    whether an earlier run's lists of the evaluation hold where nothing came before its cut.
    """

    cuts: Cuts
    decay: Broadcast[Decay]
    item_hashes: Broadcast[NDArray[np.uint64]]
    sequence_length: int
    recent_days: int
    window: int
    n_parts: int
    logarithms: tuple[str, ...]
    distinct: tuple[str, ...]
    previous: Mapping[int, tuple[Sequence[str], Sequence[str]]]
    unchanged: bool

    @property
    def part_width(self) -> int:
        """Item numbers a part of the pairs."""
        return -(-len(self.item_hashes.value) // self.n_parts) or 1


def build(recipe: Recipe, delivery: Delivery) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: rows of `behaviours` to rows of `delivery.FILES`.

    Each bucket that is to be built has a row without a user, so that it is known also where nothing is new.
    """

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        keep_freed_memory()
        waiting = [batch for batch in batches if batch.num_rows]
        if not waiting:
            return
        rows = pa.Table.from_batches(waiting)
        del waiting
        yield from _build(recipe, delivery, rows)

    return work


def _build(recipe: Recipe, delivery: Delivery, rows: pa.Table) -> Iterator[pa.RecordBatch]:
    buckets = sorted(rows.filter(pc.is_null(rows[c.USER_ID]))[c.USER_BUCKET].to_pylist())
    known = rows.filter(pc.is_valid(rows[c.USER_ID]))
    fresh = Part.of_events(known.filter(pc.is_valid(known[c.ITEM_IDX])))
    kept = [part for bucket in buckets for part in _previous(recipe, bucket)]
    pasts = Pasts.combine(kept, fresh, recipe.item_hashes.value)
    del kept
    stamps = np.full((N_CUTS + 1, len(recipe.item_hashes.value)), -1, np.int64)
    yield from _lists(recipe, delivery, pasts, buckets, fresh, stamps[0])
    stamps[0] = -1
    counts = Counts.zero(stamps.shape[1])
    counts.add_amounts(pasts.columns, recipe.cuts, recipe.logarithms, recipe.distinct)
    yield from _pairs(recipe, delivery, pasts, _firsts(recipe, pasts, counts, stamps), counts)
    unindexed = len(known) - len(fresh.lengths)
    yield delivery.deliver(COUNTS, unindexed, pa.py_buffer(counts.to_bytes()), len(pasts), "{}.npz")


def _previous(recipe: Recipe, bucket: int) -> Iterator[Part]:
    for files in recipe.previous.get(bucket, ()):
        for file in files:
            yield Part.of_lists(pq.read_table(file, columns=[c.USER_ID, *TYPES], partitioning=None), bucket)


def _lists(
    recipe: Recipe, delivery: Delivery, pasts: Pasts, buckets: list[int], fresh: Part, stamp: NDArray[np.int64]
) -> Iterator[pa.RecordBatch]:
    """The files of every bucket, but those for which an earlier run's still stand."""
    early = fresh.columns[c.EVENT_TIME] < recipe.cuts.evaluation
    lists = _Lists(delivery, pasts, recipe.sequence_length, stamp)
    cut = ordering.stops_before(pasts.offsets, pasts.columns[c.EVENT_TIME], recipe.cuts.evaluation)
    bounds = np.searchsorted(pasts.buckets, [*buckets, buckets[-1] + 1]).tolist()
    touched, late = set(fresh.buckets.tolist()), set(fresh.buckets[early].tolist())
    new_targets = set(fresh.buckets[~early].tolist())
    for bucket, low, high in zip(buckets, bounds[:-1], bounds[1:], strict=True):
        start, known, stop = pasts.offsets[low:high], cut[low:high], pasts.offsets[low + 1 : high + 1]
        everything = bucket not in recipe.previous
        if everything or bucket in touched:
            yield from lists.sequences(RELEASED, bucket, slice(low, high), start, stop)
            yield from lists.earlier(bucket, slice(low, high), start, stop)
        if everything or not recipe.unchanged or bucket in late:
            yield from lists.sequences(EVALUATED, bucket, slice(low, high), start, known)
        if everything or not recipe.unchanged or bucket in new_targets:
            yield from lists.targets(bucket, slice(low, high), known, stop)


class _Lists:
    """Makes the files of a bucket, whose users are a slice of `pasts`."""

    def __init__(self, delivery: Delivery, pasts: Pasts, length: int, stamp: NDArray[np.int64]) -> None:
        self._delivery, self._pasts, self._length = delivery, pasts, length
        self._stamp, self._next_stamp = stamp, 0

    def sequences(
        self, kind: str, bucket: int, users: slice, start: NDArray[np.int64], stop: NDArray[np.int64]
    ) -> Iterator[pa.RecordBatch]:
        """The last behaviours of those who have any in start..stop - 1, and all items in it."""
        recent = np.maximum(stop - self._length, start)
        seen = {c.SEEN: self._distinct(start, stop)}
        yield from self._file(kind, bucket, users, stop > start, self._pasts.lists(recent, stop) | seen)

    def earlier(
        self, bucket: int, users: slice, start: NDArray[np.int64], stop: NDArray[np.int64]
    ) -> Iterator[pa.RecordBatch]:
        """What comes before the last behaviours."""
        recent = np.maximum(stop - self._length, start)
        yield from self._file(EARLIER, bucket, users, recent > start, self._pasts.lists(start, recent))

    def targets(
        self, bucket: int, users: slice, start: NDArray[np.int64], stop: NDArray[np.int64]
    ) -> Iterator[pa.RecordBatch]:
        yield from self._file(TARGETS, bucket, users, stop > start, {c.TARGETS: self._distinct(start, stop)})

    def _distinct(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> pa.Array:
        items, bounds = ordering.distinct_items(
            start, stop, self._pasts.columns[c.ITEM_IDX], self._stamp, self._next_stamp
        )
        self._next_stamp += len(start)
        return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(items))

    def _file(
        self, kind: str, bucket: int, users: slice, there: NDArray[np.bool_], lists: dict[str, pa.Array]
    ) -> Iterator[pa.RecordBatch]:
        ids = self._pasts.user_ids[users.start : users.stop]
        rows = pa.table({c.USER_ID: ids} | lists)
        if not there.all():
            rows = rows.filter(pa.array(there))
        if len(rows):
            path = f"{c.USER_BUCKET}={bucket}/part-{{}}.snappy.parquet"
            yield self._delivery.deliver(kind, bucket, parquet(rows, _CODED), len(rows), path)


def _firsts(recipe: Recipe, pasts: Pasts, counts: Counts, stamps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Count the users of items; (M,): whether a behaviour is its user's first with the item."""
    cuts = recipe.cuts.seconds()
    first: NDArray[np.bool_] = counting.count_users(
        pasts.offsets,
        pasts.columns[c.ITEM_IDX],
        pasts.columns[c.EVENT_TIME],
        cuts,
        cuts - recipe.recent_days * 86_400,
        counts.of_items("ever"),
        counts.of_items("recent"),
        stamps,
        0,
    )
    return first


def _pairs(
    recipe: Recipe, delivery: Delivery, pasts: Pasts, first: NDArray[np.bool_], counts: Counts
) -> Iterator[pa.RecordBatch]:
    decay, item, width = recipe.decay.value, pasts.columns[c.ITEM_IDX], recipe.part_width
    slots = counting.slots_of(pasts.columns[c.EVENT_TIME], recipe.cuts.seconds(), decay.first_day)
    sizes = np.zeros(recipe.n_parts, np.int64)
    weights, totals = decay.weights, counts.of_items("target")
    counting.count_pairs(pasts.offsets, item, first, slots, weights, recipe.window, width, totals, sizes)
    bounds = np.concatenate([[0], sizes.cumsum()])
    pairs = counting.write_pairs(pasts.offsets, item, first, slots, recipe.window, width, bounds)
    for part in np.flatnonzero(sizes).tolist():
        some = [pa.array(column[bounds[part] : bounds[part + 1]]) for column in pairs]
        rows = pa.RecordBatch.from_arrays(some, names=list(PAIR_COLUMNS))
        yield delivery.deliver(PAIRS, part, arrow(rows), len(rows), f"{part}/{{}}.arrow")
