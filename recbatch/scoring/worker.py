"""What runs in a Python worker: batches of users in, their lists out. No Spark session and no table is at hand here."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pyspark import Accumulator, Broadcast, SparkFiles
from torch import Tensor

from recbatch.allocator import keep_freed_memory
from recbatch.model.recommender import user_vectors
from recbatch.ranking.audience import Audiences
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import TopK, top_k_of
from recbatch.scoring.bundle import Scorer, open_scorer
from recbatch.scoring.explain import explain
from recbatch.tables import columns as c

LISTS = pa.schema(
    [
        (c.USER_ID, pa.string()),
        (c.RANK, pa.int32()),
        (c.ITEM_ID, pa.string()),
        (c.SCORE, pa.float32()),
        (c.BECAUSE_ITEM_ID, pa.string()),
        (c.REASON, pa.string()),
        (c.USER_FINGERPRINT, pa.int64()),
        (c.USER_BUCKET, pa.int32()),
    ]
)
AUDIENCE_RANK = 0  # what tells rows of audiences from those of lists
# One entry: a worker serves one model at a time, and keeps it between tasks because Spark reuses the process.
_loaded: dict[str, Scorer] = {}


@dataclass(frozen=True)
class Shipped:
    """How workers get the scorer of this digest: as a broadcast, or as a file that Spark brought to the host."""

    digest: str
    content: Broadcast[bytes] | None
    file_name: str | None

    def open(self) -> Scorer:
        """The scorer; opened once a worker."""
        if self.digest not in _loaded:
            _loaded.clear()
            source = Path(SparkFiles.get(self.file_name)) if self.file_name else None
            _loaded[self.digest] = open_scorer(source or self.content.value)  # type: ignore[union-attr]
        return _loaded[self.digest]


@dataclass(frozen=True)
class Meters:
    """Over all tasks: users scored and buckets done (once an item shard), seconds, a worker's most memory in MiB."""

    users: Accumulator[int]
    buckets: Accumulator[int]
    encoding: Accumulator[float]
    ranking: Accumulator[float]
    explaining: Accumulator[float]
    writing: Accumulator[float]
    peak_mb: Accumulator[float]


@dataclass(frozen=True)
class ChosenItems:
    """Items, by place in the scorer's catalogue, whose `size` best users are wanted."""

    places: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Request:
    """What is asked of the kernel: of all items, or of the part `shard` of `shards` equal ones.

    audience: besides, the best users of these items.
    """

    k: int
    filter_viewed: bool
    batch_users: int
    shard: int = 0
    shards: int = 1
    audience: ChosenItems | None = None


@dataclass(frozen=True)
class Task:
    """Scores the users of one partition; `audiences` is filled while `lists` is read."""

    scorer: Scorer
    request: Request
    meters: Meters
    audiences: Audiences | None

    @classmethod
    def begin(cls, shipped: Shipped, request: Request, meters: Meters) -> Task:
        # Executors share a machine: every worker computes on the one core that Spark counts for its task.
        torch.set_num_threads(1)
        keep_freed_memory()
        scorer, chosen = shipped.open(), request.audience
        if chosen is None:
            return cls(scorer, request, meters, None)
        places = np.array(chosen.places, np.int32)
        return cls(scorer, request, meters, Audiences(scorer.catalogue.items, places, chosen.size))

    def lists(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows of `user_sequences` with a fingerprint to rows of LISTS."""
        for batch in batches:
            for start in range(0, batch.num_rows, self.request.batch_users):
                some = batch.slice(start, self.request.batch_users)
                yield score_batch(self.scorer, some, self.request, self.meters, self.audiences)
        self.meters.peak_mb.add(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    def audience(self) -> pa.Table:
        """Rows of LISTS, too, but of rank 0: the best users of the chosen items among those that have passed by."""
        if self.audiences is None:
            return LISTS.empty_table()
        entries = self.audiences.entries()
        columns = {
            c.USER_ID: entries["user_id"],
            c.RANK: pa.repeat(pa.scalar(AUDIENCE_RANK, pa.int32()), len(entries)),
            c.ITEM_ID: self.scorer.item_ids.take(entries["item"].combine_chunks()),
            c.SCORE: entries["score"],
            c.USER_BUCKET: entries["user_bucket"],
        }
        return pa.table([columns.get(f.name, pa.nulls(len(entries), f.type)) for f in LISTS], schema=LISTS)


def counted(batches: Iterable[pa.RecordBatch], meters: Meters) -> Iterator[pa.RecordBatch]:
    """The batches as they are; when the last one is taken, their buckets have been counted."""
    buckets: set[int] = set()
    for batch in batches:
        yield batch
        buckets.update(batch.column(c.USER_BUCKET).unique().to_pylist())
    meters.buckets.add(len(buckets))


def score_partition(
    shipped: Shipped, request: Request, meters: Meters
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: users to the rows of their lists, and then to those of audiences, whose rank is 0."""

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        task = Task.begin(shipped, request, meters)
        yield from task.lists(counted(batches, meters))
        yield from task.audience().to_batches()

    return score


def score_batch(
    scorer: Scorer,
    batch: pa.RecordBatch,
    request: Request,
    meters: Meters | None = None,
    audiences: Audiences | None = None,
) -> pa.RecordBatch:
    """The lists of the users of `batch`, users in the order of the batch. They compete for `audiences` as well.

    Raises:
        ModelError: a vector or score is not finite.
    """
    histories, fusion, items = scorer.histories(batch), scorer.fusion, scorer.catalogue.items
    began = time.perf_counter()
    users = user_vectors(scorer.model, items.vectors, histories)
    encoded = time.perf_counter()
    seen = _seen(scorer, batch) if request.filter_viewed else None
    additions = None if fusion is None else scorer.neighbours.additions(histories, fusion)
    best = _best(scorer, users, request, seen, additions)
    if audiences is not None:
        audiences.add(users, batch.column(c.USER_ID), batch.column(c.USER_BUCKET), seen, additions)
    ranked = time.perf_counter()
    evidence = explain(items.vectors, scorer.kappa, scorer.neighbours, fusion, histories, best)
    if meters is not None:
        meters.users.add(batch.num_rows)
        meters.encoding.add(encoded - began)
        meters.ranking.add(ranked - encoded)
        meters.explaining.add(time.perf_counter() - ranked)
    lengths = np.diff(best.indptr.numpy())
    row = np.repeat(np.arange(batch.num_rows), lengths)
    taken = pa.array(row)
    return pa.RecordBatch.from_arrays(
        [
            batch.column(c.USER_ID).take(taken),
            pa.array((np.arange(len(row)) - best.indptr.numpy()[row] + 1).astype(np.int32)),
            scorer.item_ids.take(pa.array(best.item_idx.numpy())),
            pa.array(best.score.numpy()),
            scorer.item_ids.take(pa.array(evidence.because, mask=evidence.because < 0)),
            evidence.reason,
            batch.column(c.USER_FINGERPRINT).take(taken),
            batch.column(c.USER_BUCKET).take(taken),
        ],
        schema=LISTS,
    )


def _best(scorer: Scorer, users: Tensor, request: Request, excluded: Csr | None, additions: Csr | None) -> TopK:
    if request.shards == 1:
        return top_k_of(users, scorer.catalogue, request.k, excluded=excluded, additions=additions)
    part, first = scorer.part(request.shard, request.shards)
    stop = first + len(part.items)
    best = top_k_of(
        users,
        part,
        request.k,
        excluded=None if excluded is None else excluded.between(first, stop),
        additions=None if additions is None else additions.between(first, stop),
    )
    return TopK(best.indptr, best.item_idx + first, best.score)


def _seen(scorer: Scorer, batch: pa.RecordBatch) -> Csr:
    column = batch.column(c.SEEN)
    offsets = np.asarray(column.offsets, dtype=np.int64) - column.offsets[0].as_py()
    n_items = len(scorer.position)
    # Row and place as one number: sorting those orders every row by place.
    keys = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)) * n_items
    keys += scorer.position[column.flatten().to_numpy()]
    keys.sort()
    return Csr(torch.from_numpy(offsets), torch.from_numpy((keys % n_items).astype(np.int32)), trusted=True)
