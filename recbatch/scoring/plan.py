"""What a scoring run will take, from a measurement of a few seconds on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pyarrow as pa

from recbatch.config.sections import ScoringSection
from recbatch.ranking.screen import Arithmetic
from recbatch.scoring.bundle import Scorer
from recbatch.scoring.shipping import is_mapped
from recbatch.scoring.worker import Request, score_batch
from recbatch.tables import columns as c


@dataclass(frozen=True)
class Calibration:
    """seconds_a_user: of one core, for encoding, ranking and explaining. bytes_a_row: of a list in Arrow."""

    seconds_a_user: float
    bytes_a_row: float


@dataclass(frozen=True)
class Plan:
    """What scoring every user takes, and what it makes.

    users, items: to be scored, and that may be recommended. k: rows a user, at most. cores, tasks: of the executors.
    arithmetic: of the first pass. scorer_bytes: of the model as it is brought to the workers; mapped: as a file, else
    as a broadcast. screen_bytes: of the items of one shard as the first pass takes them. calibration: as measured here.
    """

    users: int
    items: int
    k: int
    tile_items: int
    batch_users: int
    cores: int
    tasks: int
    arithmetic: Arithmetic
    scorer_bytes: int
    mapped: bool
    screen_bytes: int
    calibration: Calibration

    @classmethod
    def create(
        cls, scorer: Scorer, section: ScoringSection, calibration: Calibration, *, users: int, cores: int, tasks: int
    ) -> Plan:
        catalogue = scorer.catalogue
        size, screen = scorer.n_bytes, catalogue.screen
        # In float32 the first pass reads the vectors of the scorer itself.
        narrow = 0 if catalogue.arithmetic is Arithmetic.FLOAT32 else screen.rows.nbytes
        return cls(
            users,
            catalogue.eligible,
            section.k,
            catalogue.tile_items,
            section.batch_users,
            cores,
            tasks,
            catalogue.arithmetic,
            size,
            is_mapped(section, size),
            (narrow + screen.step.nbytes + screen.norm.nbytes) // section.item_shards,
            calibration,
        )

    @property
    def pairs(self) -> int:
        return self.users * self.items

    @property
    def tiles(self) -> int:
        """Tiles of items that a batch of users walks over; it skips those that cannot reach a list."""
        return -(-self.items // self.tile_items)

    @property
    def product_bytes(self) -> int:
        """Of one tile's products with a batch of users: int32 or float32; bfloat16 has a buffer of its own besides."""
        width = 6 if self.arithmetic is Arithmetic.BFLOAT16 else 4
        return self.batch_users * min(self.tile_items, self.items) * width

    @property
    def worker_bytes(self) -> int:
        """Of one worker alone, besides Python and torch. Of a broadcast it holds the bytes and the tensors."""
        return self.screen_bytes + self.product_bytes + (0 if self.mapped else 2 * self.scorer_bytes)

    @property
    def shared_bytes(self) -> int:
        """Of all workers of a host together."""
        return self.scorer_bytes if self.mapped else 0

    @property
    def seconds(self) -> float:
        """Expected for encoding, ranking and explaining, on cores like the one that was measured."""
        return self.users * self.calibration.seconds_a_user / min(self.cores, self.tasks)

    @property
    def rows(self) -> int:
        """Of the lists, at most: a user who has seen nearly all items has a shorter one."""
        return self.users * min(self.k, self.items)

    @property
    def output_bytes(self) -> int:
        """Of the rows in Arrow, before Parquet compresses them."""
        return round(self.rows * self.calibration.bytes_a_row)

    def figures(self) -> list[tuple[str, str, str]]:
        """Name, value and meaning of every figure, for people."""
        own = "items of the first pass and products of one tile"
        own += "" if self.mapped else ", and the scorer twice (as a broadcast and as tensors)"
        rate = 1 / self.calibration.seconds_a_user
        return [
            ("users", f"{self.users:,}", "scored if all of their lists have to be made anew"),
            ("items", f"{self.items:,}", "that may be recommended"),
            ("pairs", f"{self.pairs:,}", "users x items"),
            ("tiles", f"{self.tiles:,}", f"of {self.tile_items:,} items, for {self.batch_users:,} users at a time"),
            ("first pass", str(self.arithmetic), "the fastest on one core of this machine"),
            ("tasks", f"{self.tasks:,}", f"on {self.cores:,} cores"),
            ("memory a worker", _size(self.worker_bytes), f"{own}; Python and torch come on top"),
            ("memory a host", _size(self.shared_bytes), "the scorer, a file that its workers map and share"),
            ("time", f"{self.seconds:,.1f} s", f"{rate:,.0f} users a second and core, measured here"),
            ("rows", f"{self.rows:,}", f"at most, {self.k:,} a user"),
            ("size", _size(self.output_bytes), "of the rows in memory, before Parquet compresses them"),
        ]


def _size(n_bytes: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes} bytes"


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
