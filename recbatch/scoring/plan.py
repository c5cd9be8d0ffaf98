"""What a scoring run will take, from a measurement of a few seconds on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pyarrow as pa

from recbatch.scoring.bundle import Scorer
from recbatch.scoring.worker import Request, score_batch
from recbatch.tables import columns as c


@dataclass(frozen=True)
class Calibration:
    """seconds_a_user: of one core, for encoding, ranking and explaining. bytes_a_row: of a list in Arrow."""

    seconds_a_user: float
    bytes_a_row: float


def calibrate(scorer: Scorer, sample: pa.RecordBatch, request: Request, least_seconds: float = 2.0) -> Calibration:
    """Score a batch of the sample over and over for that time, after once that is not counted (it compiles)."""
    if c.USER_FINGERPRINT not in sample.schema.names:
        sample = sample.append_column(c.USER_FINGERPRINT, pa.nulls(sample.num_rows, pa.int64()))
    batch = sample.slice(0, request.batch_users)
    lists = score_batch(scorer, batch, request)
    done, began = 0, time.perf_counter()
    while done == 0 or time.perf_counter() - began < least_seconds:
        score_batch(scorer, batch, request)
        done += batch.num_rows
    seconds = (time.perf_counter() - began) / done
    return Calibration(seconds, lists.nbytes / max(lists.num_rows, 1))


def bucket_groups(buckets: list[int], expected_seconds: float, commit_seconds: float) -> list[list[int]]:
    """Buckets in groups that are committed together, each of about `commit_seconds` of work."""
    n = min(len(buckets), max(1, round(expected_seconds / commit_seconds)))
    return [buckets[len(buckets) * i // n : len(buckets) * (i + 1) // n] for i in range(n)]
