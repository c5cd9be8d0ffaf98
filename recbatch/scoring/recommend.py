"""The kernel under mapInArrow: user sequences in, ranked lists out, nothing shuffled and nothing collected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import torch
from pyspark import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.config.sections import ScoringSection
from recbatch.model.recommender import user_vectors
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import top_k
from recbatch.scoring.bundle import Scorer
from recbatch.scoring.explain import explain
from recbatch.tables import columns as c

_LISTS = (c.ITEM_IDX, c.EVENT_TYPE, c.EVENT_TIME, c.PRICE, c.QUANTITY)
_OUTPUT = pa.schema(
    [
        (c.USER_ID, pa.string()),
        (c.USER_BUCKET, pa.int32()),
        (c.RANK, pa.int32()),
        (c.ITEM_ID, pa.string()),
        (c.SCORE, pa.float32()),
        (c.BECAUSE_ITEM_ID, pa.string()),
        (c.REASON, pa.string()),
    ]
)
_OUTPUT_DDL = (
    f"{c.USER_ID} string, {c.USER_BUCKET} int, {c.RANK} int, {c.ITEM_ID} string, {c.SCORE} float, "
    f"{c.BECAUSE_ITEM_ID} string, {c.REASON} string"
)
# One entry: a worker serves one model at a time, and keeps it between tasks because Spark reuses the process.
_loaded: dict[str, Scorer] = {}


def recommend(
    sequences: DataFrame,
    files: Broadcast[dict[str, bytes]],
    model_version: str,
    section: ScoringSection,
    partitions: int,
) -> DataFrame:
    """`section.k` rows a user: the exact best items over all eligible ones, with score and reason.

    sequences: rows of `user_sequences`. files: a broadcast `Scorer.to_bytes()`. A bucket is scored by one task, so
    that writing by bucket makes one file a bucket.
    """
    behaviours = _behaviours_used(files)
    tail = f"slice({{0}}, greatest(size({{0}}) - {behaviours - 1}, 1), {behaviours})"
    lean = sequences.select(
        c.USER_ID, c.USER_BUCKET, *[F.expr(tail.format(name)).alias(name) for name in _LISTS], c.SEEN
    )
    # Without a number of its own the stage would be coalesced to one task.
    spread = lean.repartitionById(partitions, c.USER_BUCKET)
    return spread.mapInArrow(_score_partition(files, model_version, section), _OUTPUT_DDL)


def _behaviours_used(files: Broadcast[dict[str, bytes]]) -> int:
    artifact = Scorer.from_bytes(files.value, "broadcast").artifact
    fused = 0 if artifact.fusion is None else artifact.fusion.behaviours
    return max(artifact.model.config.context_length, fused)


def _score_partition(
    files: Broadcast[dict[str, bytes]], model_version: str, section: ScoringSection
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Executors share a machine: every worker computes on the one core that Spark counts for its task.
        torch.set_num_threads(1)
        if model_version not in _loaded:
            _loaded.clear()
            _loaded[model_version] = Scorer.from_bytes(files.value, model_version)
        for batch in batches:
            for start in range(0, batch.num_rows, section.batch_users):
                yield score_batch(_loaded[model_version], batch.slice(start, section.batch_users), section)

    return score


def score_batch(scorer: Scorer, batch: pa.RecordBatch, section: ScoringSection) -> pa.RecordBatch:
    """The lists of the users of `batch` (rows of `user_sequences`), users in the order of the batch.

    Raises:
        ModelError: a vector or score is not finite.
    """
    histories = scorer.histories(batch)
    artifact = scorer.artifact
    users = user_vectors(artifact.model, scorer.items.vectors, histories)
    fusion = artifact.fusion
    best = top_k(
        users,
        scorer.items,
        section.k,
        excluded=_seen(batch) if section.filter_viewed else None,
        additions=None if fusion is None else artifact.neighbours.additions(histories, fusion),
        eligible=scorer.eligible,
        tile_items=section.tile_items,
    )
    lengths = np.diff(best.indptr.numpy())
    row = np.repeat(np.arange(batch.num_rows), lengths)
    evidence = explain(scorer.items.vectors, scorer.kappa, artifact.neighbours, fusion, histories, best)
    taken = pa.array(row)
    return pa.RecordBatch.from_arrays(
        [
            batch.column(c.USER_ID).take(taken),
            batch.column(c.USER_BUCKET).take(taken),
            pa.array((np.arange(len(row)) - best.indptr.numpy()[row] + 1).astype(np.int32)),
            scorer.item_ids.take(pa.array(best.item_idx.numpy())),
            pa.array(best.score.numpy()),
            scorer.item_ids.take(pa.array(evidence.because, mask=evidence.because < 0)),
            pa.array(evidence.reason, pa.string()),
        ],
        schema=_OUTPUT,
    )


def _seen(batch: pa.RecordBatch) -> Csr:
    column = batch.column(c.SEEN)
    offsets = np.asarray(column.offsets, dtype=np.int64)
    return Csr(torch.from_numpy(offsets - offsets[0]), torch.from_numpy(column.flatten().to_numpy().copy()))
