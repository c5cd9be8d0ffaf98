"""The scoring stage on made-up tables of any shape: Delta to Delta, with encoding, fusion, reasons and all rows."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import peers
import pyarrow as pa
import torch
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import Tensor

from recbatch.config import Config, load_config
from recbatch.config.learning import ModelSection
from recbatch.context import Progress, StageContext
from recbatch.model.artifact import Artifact
from recbatch.model.fusion import Fusion, Popularity
from recbatch.model.histories import Sequences
from recbatch.model.items import ItemFeatures
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import Recommender, Shape, user_vectors
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import ItemMatrix
from recbatch.scoring.bundle import Scorer
from recbatch.scoring.explain import measure
from recbatch.scoring.recommend import create_meters
from recbatch.scoring.shipping import shipped_to_workers
from recbatch.session import build_session
from recbatch.stages.inputs import RELEASE
from recbatch.stages.score import load_scorer, stage_lists
from recbatch.tables import columns as c
from recbatch.tables import schemas
from recbatch.tables.store import TableStore, Transaction
from recbatch.transforms.parameters import Parameters

_BUCKETS, _LENGTH, _NEIGHBOURS = 64, 50, 100
_AS_THEY_ARE = Parameters("none", 0.0, 1.0)
# What a Python worker of Spark imports for Arrow, and torch; prints KiB.
_TORCH_WORKER = """
import re, pandas, pyarrow, pyspark.worker, torch
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
_QUIET = Progress(lambda _: None, lambda *_: None)


@dataclass(frozen=True)
class EndToEnd:
    """A warehouse with `user_sequences` of 50 behaviours, and a scorer with random weights, so that nothing is easy."""

    spark: SparkSession
    config: Config
    scorer: Scorer
    users: int
    threads: int

    @classmethod
    def create(cls, folder: Path, users: int, items: int, dim: int, k: int, threads: int) -> EndToEnd:
        config = Config.model_validate(
            {
                "warehouse": str(folder / "warehouse"),
                "input": {"events": {"path": "none", "columns": {"user_id": "u", "item_id": "i", "event_time": "t"}}},
                "spark": {"master": f"local[{threads}]", "driver_memory": "3g"},
                "features": {"buckets": _BUCKETS},
                "scoring": {"k": k},
            }
        )
        spark = build_session(config.spark, "recbatch-benchmark")
        made = cls(spark, config, _scorer(items, dim, config.scoring.tile_items), users, threads)
        made._store(spark.createDataFrame(_sequences(users, items)), 1)
        tables = made._context(0).tables
        release = spark.createDataFrame([(RELEASE, dt.datetime(2026, 1, 1), "benchmark")], schemas.SNAPSHOTS.schema)
        tables.replace(schemas.SNAPSHOTS, release, Transaction("benchmark", 1))
        return made

    def fused(self) -> EndToEnd:
        """The same with what the shipped default adds to the score: co-occurrence of 50 behaviours, 100 items each."""
        fusion = Fusion(1.0, 0.1, _LENGTH, 1.0)
        return replace(self, scorer=replace(self.scorer, fusion=fusion))

    def measure(self, first_version: int) -> dict[str, float]:
        """Rates in million pairs a second, and seconds of all cores by what they were spent on, of the shortest run."""
        cold, _ = self._stage(first_version)
        warm, meters = min((self._stage(first_version + run) for run in (1, 2, 3)), key=lambda run: run[0])
        pairs = self.users * len(self.scorer.position) / 1e6
        busy = {
            "encoding": meters.encoding.value,
            "kernel": meters.ranking.value,
            "explaining": meters.explaining.value,
            "writing": meters.writing.value,
        }
        seconds = {f"seconds_{name}": value / self.threads for name, value in busy.items()}
        return seconds | {
            "seconds_spark": warm - sum(seconds.values()),
            "seconds_warm": warm,
            "seconds_cold": cold,
            "spark": pairs / warm,
            "spark_cold": pairs / cold,
            "spark_kernel": self._kernel_alone(),
            "worker_peak_mb": meters.peak_mb.value,
        }

    def growth(self) -> dict[str, float]:
        """Seconds of a warm run, and MiB of the largest worker beyond torch and beyond the item matrix."""
        self._stage(1)
        seconds, meters = min((self._stage(version) for version in (2, 3)), key=lambda run: run[0])
        items = self.scorer.catalogue.items.vectors
        bare = int(subprocess.run([sys.executable, "-c", _TORCH_WORKER], capture_output=True, check=True).stdout) / 1024
        return {
            "seconds": seconds,
            "encoding": meters.encoding.value / self.threads,
            "kernel": meters.ranking.value / self.threads,
            "million_pairs_a_second": self.users * len(items) / seconds / 1e6,
            "worker_peak_mb": meters.peak_mb.value,
            "torch_mb": bare,
            "item_matrix_mb": items.nbytes / (1 << 20),
            "beyond_mb": meters.peak_mb.value - bare - items.nbytes / (1 << 20),
        }

    def incremental(self, first_version: int) -> dict[str, float]:
        """A run after 1% of the users, spread at random, have changed, as shares of a run of all just before it."""
        self._change_and_score(first_version, 0)  # so that both are warm
        return self._change_and_score(first_version + 2, 1)

    def _change_and_score(self, first_version: int, chosen: int) -> dict[str, float]:
        full, before = self._stage(first_version)
        sequences = self._context(0).tables.read(schemas.USER_SEQUENCES)
        changed = F.pmod(F.xxhash64(F.reverse(c.USER_ID)), F.lit(100)) == chosen
        shorter = {
            name: F.when(changed, F.expr(f"slice({name}, 1, size({name}) - 1)")).otherwise(F.col(name))
            for name in (c.ITEM_IDX, c.EVENT_TYPE, c.EVENT_TIME, c.PRICE, c.QUANTITY)
        }
        self._store(self.spark.createDataFrame(sequences.withColumns(shorter).toArrow()), first_version + 1)
        seconds, after = self._stage(first_version + 1, everyone=False)
        busy = [meters.encoding.value + meters.ranking.value for meters in (before, after)]
        return {
            "changed_users": after.users.value / self.users,
            "encoding_and_kernel": busy[1] / busy[0],
            "stage": seconds / full,
            "seconds": seconds,
            "full_seconds": full,
        }

    def skewed(self, first_version: int) -> dict[str, float]:
        """One user who has seen nine items in ten, and one item that everybody has seen, against the plain table."""
        self._stage(first_version)
        _, plain = self._stage(first_version + 1)
        longest = self._longest_task()
        n_items = len(self.scorer.position)
        everything = F.sequence(F.lit(0), F.lit(n_items * 9 // 10))
        with_first = F.array_sort(F.array_distinct(F.concat(F.array(F.lit(0)), c.SEEN)))
        seen = F.when(F.col(c.USER_ID) == "user-0", everything).otherwise(with_first)
        sequences = self._context(0).tables.read(schemas.USER_SEQUENCES)
        self._store(self.spark.createDataFrame(sequences.withColumn(c.SEEN, seen).toArrow()), first_version + 2)
        _, skewed = self._stage(first_version + 2)
        return {
            "worker_peak": skewed.peak_mb.value / plain.peak_mb.value,
            "longest_task": self._longest_task() / longest,
        }

    def _store(self, rows: DataFrame, version: int) -> None:
        # A file a bucket, as the stage `features` leaves it.
        spread = rows.repartition(_BUCKETS, c.USER_BUCKET)
        self._context(0).tables.replace(schemas.USER_SEQUENCES, spread, Transaction("benchmark", version))

    def _longest_task(self) -> float:
        """Seconds of the longest task of the last stage that had as many as scoring has."""
        store = self.spark.sparkContext._jsc.sc().statusStore()  # type: ignore[union-attr]
        tasks = 4 * self.threads
        jobs = store.jobsList(None)
        latest = max(jobs.apply(i).stageIds().head() for i in range(jobs.size()) if jobs.apply(i).numTasks() == tasks)
        rows = store.taskList(latest, 0, tasks)
        return max(rows.apply(i).duration().get() for i in range(rows.size())) / 1000

    def _context(self, version: int) -> StageContext:
        store = TableStore(self.spark, self.config.warehouse)
        return StageContext(
            self.spark, self.config, store, "benchmark", Transaction("benchmark", version), None, _QUIET
        )

    def _stage(self, version: int, *, everyone: bool = True) -> tuple[float, Any]:
        """Seconds of the stage from its first step on; every user is scored, as for a new model, or the changed."""
        if everyone:
            shutil.rmtree(self._context(version).tables.path(schemas.STAGED_SCORING), ignore_errors=True)
        began = time.perf_counter()
        meters = create_meters(self.spark.sparkContext)
        with shipped_to_workers(self.spark.sparkContext, self.scorer, self.config.scoring) as shipped:
            stage_lists(
                self._context(version), self.scorer, shipped, meters, {c.MODEL_VERSION: "benchmark"}, self.users
            )
        return time.perf_counter() - began, meters

    def _kernel_alone(self) -> float:
        """The kernel without Spark on vectors of the same users and items, without exclusions and additions."""
        items = self.scorer.catalogue.items
        table = _sequences(min(self.users, 8192), len(items))
        histories = self.scorer.histories(table.combine_chunks().to_batches()[0])
        users = user_vectors(self.scorer.model, items.vectors, histories)
        users = users.repeat(-(-self.users // len(users)), 1)[: self.users]
        norm = self.scorer.catalogue.typical_norm
        return peers.kernel(users, items, self.config.scoring.k, self.threads, norm)


def trained_vectors(warehouse: Path, users: int) -> tuple[Tensor, ItemMatrix]:
    """Vectors of the demo's model: of histories cut after each of many behaviours, and of all items."""
    spark = build_session(_demo(warehouse).spark, "recbatch-benchmark")
    try:
        store = TableStore(spark, str(warehouse))
        context = StageContext(spark, _demo(warehouse), store, "b", Transaction("b", 1), None, _QUIET)
        scorer = load_scorer(context, DeltaTable(warehouse / "models").to_pyarrow_table()["path"].to_pylist()[-1])
    finally:
        spark.stop()
    rows = DeltaTable(warehouse / "user_sequences").to_pyarrow_table().combine_chunks()
    histories = scorer.histories(rows.to_batches()[0])
    lengths = np.diff(histories.offsets)
    generator = np.random.default_rng(0)
    user = generator.integers(0, len(lengths), users)
    stop = histories.offsets[user] + 1 + (generator.random(users) * lengths[user]).astype(np.int64)
    start = np.maximum(histories.offsets[user], stop - scorer.model.config.context_length)
    items = scorer.catalogue.items
    return user_vectors(scorer.model, items.vectors, histories.select(start, stop)), items


def _demo(warehouse: Path) -> Config:
    return load_config([Path("conf/demo.yaml")], [f"warehouse={warehouse}"])


def _scorer(items: int, dim: int, tile_items: int) -> Scorer:
    torch.manual_seed(0)
    model = Recommender(ModelSection(dim=dim), Shape(items, (), 0, 3)).eval()
    torch.nn.init.normal_(model.items.id.weight, std=dim**-0.5)
    model.items.trained.fill_(True)
    features = ItemFeatures((), torch.zeros(items, 0))
    measured = measure(model, model.item_vectors(features)[0], _as_sequences(_sequences(64, items)))
    normalization = {f"events.{name}": asdict(_AS_THEY_ARE) for name in (c.PRICE, c.QUANTITY)}
    made = Artifact(model, _neighbours(items), None, "", normalization, {}, {}, *measured)
    none = Popularity(torch.zeros(items), torch.zeros(items))
    ids = [f"item-{i}" for i in range(items)]
    return Scorer.create(made, features, none, ids, np.ones(items, np.bool_), tile_items)


def _neighbours(items: int) -> Neighbours:
    """100 neighbours an item, spread over the catalogue."""
    each = min(_NEIGHBOURS, items)
    generator = np.random.default_rng(0)
    indptr = np.arange(items + 1, dtype=np.int64) * each
    start = generator.integers(0, items, items, dtype=np.int32)[:, None]
    stride = max(1, items // each)
    indices = (start + np.arange(each, dtype=np.int32) * stride) % items
    indices.sort(1)
    weights = generator.random(items * each, dtype=np.float32)
    return Neighbours(Csr(torch.from_numpy(indptr), torch.from_numpy(indices.ravel()), torch.from_numpy(weights)))


def _as_sequences(table: pa.Table) -> Sequences:
    return Sequences.from_arrow(table.combine_chunks().to_batches()[0]).normalised(_AS_THEY_ARE, _AS_THEY_ARE)


def _sequences(users: int, items: int) -> pa.Table:
    """`user_sequences` of users with 50 behaviours each, whose items are all they have seen."""
    generator = np.random.default_rng(1)
    n = users * _LENGTH
    offsets = pa.array(np.arange(users + 1, dtype=np.int32) * _LENGTH)
    # Popular items more often, distinct within a user.
    drawn = (items * generator.random((users, 1)) ** 2 + np.arange(_LENGTH) * max(1, items // _LENGTH)).astype(np.int64)
    item = (drawn % items).astype(np.int32)
    columns = {
        c.ITEM_IDX: item.ravel(),
        c.EVENT_TYPE: generator.integers(0, 3, n).astype(np.int32),
        c.EVENT_TIME: (1_500_000_000 + np.arange(n) % _LENGTH * 86_400).astype(np.int64),
        c.PRICE: generator.normal(size=n).astype(np.float32),
        c.QUANTITY: generator.normal(size=n).astype(np.float32),
        c.SEEN: np.sort(item, 1).ravel(),
    }
    names = pa.array([f"user-{i}" for i in range(users)])
    bucket = pa.array((np.arange(users) * 7919 % _BUCKETS).astype(np.int32))
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in columns.items()}
    return pa.table({c.USER_ID: names, c.USER_BUCKET: bucket} | lists)
