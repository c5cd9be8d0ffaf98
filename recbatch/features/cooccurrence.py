"""Directed, time-decayed co-occurrence: which item leads to which, from the order of every user's behaviours.

A pair h -> i is counted where h is among the `window` behaviours before a user's *first* interaction with i. What a
user comes back to says that the user likes it, which the sequence shows already; what leads to something new is what
a recommendation of something new needs. A pair of age a weighs 2^(-a / half_life_days), see `cuts.Decay`.

The weight of a neighbour is n(h, i) / (n(h, ·)^source_power * n(·, i)^target_power): powers of 0 give decayed counts,
1 and 0 the conditional probability, 0.5 and 0.5 the cosine (Deshpande and Karypis, "Item-based top-N recommendation
algorithms", ACM TOIS 2004).

The workers that have whole pasts before them (`building`) write all pairs down, divided by source; here the pairs of a
source are added up and its neighbours chosen. So no pair is shuffled as a row, and no sum of a pair is ever stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Broadcast

from recbatch.allocator import keep_freed_memory
from recbatch.config.sections import NeighboursSection
from recbatch.features import counting
from recbatch.features.building import PAIR_COLUMNS
from recbatch.features.cuts import UNIT, Decay
from recbatch.features.delivery import CONTENT, PLACE, Delivery, parquet, read_arrow_stream
from recbatch.tables import columns as c

NEIGHBOURS = ("validation_item_neighbours", "evaluation_item_neighbours", "item_neighbours")  # in the order of cuts


@dataclass(frozen=True)
class Strongest:
    """How neighbours are chosen. damping: broadcast (C, I) float64, n(., i)^target_power as of each cut.

    files: by part, where its pairs are; a part that is not among them is in the rows themselves.
    """

    section: NeighboursSection
    decay: Broadcast[Decay]
    item_hashes: Broadcast[NDArray[np.uint64]]
    damping: Broadcast[NDArray[np.float64]]
    part_width: int
    files: Mapping[int, Sequence[str]]


def target_damping(totals: NDArray[np.int64], section: NeighboursSection) -> NDArray[np.float64]:
    """(C, I): n(., i)^target_power; totals: (C, I) int64, in units of `cuts.UNIT`."""
    damping: NDArray[np.float64] = np.power(totals / UNIT, section.target_power)
    return damping


def choose(strongest: Strongest, delivery: Delivery) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: parts of the pairs, as rows of `delivery.FILES`, to files with their sources' neighbours."""

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        keep_freed_memory()
        sent: dict[int, list[pa.Table]] = {}
        for batch in batches:
            for part, content in zip(batch.column(PLACE).to_pylist(), batch.column(CONTENT), strict=True):
                pairs = sent.setdefault(part, [])
                if content.is_valid:
                    pairs.append(read_arrow_stream(None, content.as_buffer()))
        for part, pairs in sorted(sent.items()):
            pairs += [read_arrow_stream(file, None) for file in strongest.files.get(part, ())]
            if pairs:
                yield from _neighbours(strongest, delivery, part, pairs)

    return work


def _neighbours(strongest: Strongest, delivery: Delivery, part: int, pairs: list[pa.Table]) -> Iterator[pa.RecordBatch]:
    first = part * strongest.part_width
    bounds, targets, slots = _grouped(pairs, strongest.part_width)
    for cut, name in enumerate(NEIGHBOURS):
        sizes, neighbours, weights = counting.neighbours_of_all(
            bounds,
            targets,
            slots,
            strongest.decay.value.weights[cut],
            strongest.damping.value[cut],
            float(UNIT),
            strongest.section.source_power,
            strongest.item_hashes.value,
            strongest.section.per_item,
        )
        some = np.flatnonzero(sizes)
        if not len(some):
            continue
        offsets = pa.array(np.concatenate([[0], sizes[some].cumsum()]).astype(np.int32))
        rows = pa.table(
            {
                c.ITEM_IDX: (some + first).astype(np.int32),
                c.NEIGHBOURS: pa.ListArray.from_arrays(offsets, pa.array(neighbours)),
                c.WEIGHTS: pa.ListArray.from_arrays(offsets, pa.array(weights)),
            }
        )
        yield delivery.deliver(name, part, parquet(rows, []), len(rows), "part-{}.snappy.parquet")


def _grouped(pairs: list[pa.Table], width: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint16]]:
    """(W + 1,) where each source's pairs begin, their targets, and their slots."""
    chunks = [
        [column.to_numpy() for column in batch.select(PAIR_COLUMNS).columns]
        for table in pairs
        for batch in table.to_batches()
    ]
    sizes = np.zeros(width, np.int64)
    for source, *_ in chunks:
        sizes += np.bincount(source, minlength=width)
    bounds = np.concatenate([[0], sizes.cumsum()])
    targets, slots = np.empty(bounds[-1], np.int32), np.empty(bounds[-1], np.uint16)
    free = bounds[:-1].copy()
    for source, target, slot in chunks:
        counting.group_pairs(source, target, slot, free, targets, slots)
    return bounds, targets, slots
