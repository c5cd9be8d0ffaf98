"""Where a log that is cleaned batch by batch stands, so that every batch is cleaned once, whatever interrupts it.

A generation is all batches that were cleaned by the same options into the same tables; other options begin a new one,
whose first batch replaces the tables. Its folder holds the checkpoint of the stream, which knows the files that have
been taken, and a record a batch. The record names the versions of the tables that the batch is judged against, so that
a batch that is made again sees what it saw before, also where it has committed some of its tables already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pyspark.sql import SparkSession

from recbatch.tables.files import folder_names, read_text, remove, write_text
from recbatch.transforms.imputation import Fill

_FOLDER = "_streams/clean"


@dataclass(frozen=True)
class Batch:
    """Files (path, bytes, modified in epoch ms) of a batch, the tables' versions before it, and what it counted.

    counts is None until the batch is judged; done is set once all of its tables are committed. kinds: of the columns of
    the input so far. missing: cells of its accepted rows by column, before they were filled.
    """

    number: int
    run_id: str
    files: tuple[tuple[str, int, int], ...]
    versions: Mapping[str, int | None]
    counts: Mapping[str, int] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    done: bool = False


@dataclass
class Generation:
    """`name` is part of every transaction of its batches."""

    spark: SparkSession
    root: str
    name: str
    batches: dict[int, Batch] = field(default_factory=dict)

    @property
    def checkpoint(self) -> str:
        return f"{self.root}/{self.name}/checkpoint"

    @property
    def number(self) -> int:
        """Counts the generations of a warehouse, from 0."""
        return int(self.name.split("-")[0])

    def items_state(self) -> dict[str, Any]:
        """What `keep_items_state` was given last; empty before that."""
        text = read_text(self.spark, f"{self.root}/{self.name}/items.json")
        return {} if text is None else dict(json.loads(text))

    def keep_items_state(self, state: Mapping[str, Any]) -> None:
        """Remember which catalogue the table `items` was made of."""
        write_text(self.spark, f"{self.root}/{self.name}/items.json", json.dumps(state))

    def record(self, batch: Batch) -> None:
        """Keep `batch` in place of what was known of it."""
        write_text(self.spark, f"{self.root}/{self.name}/batches/{batch.number:08d}.json", json.dumps(asdict(batch)))
        self.batches[batch.number] = batch

    def taken(self) -> dict[str, tuple[int, int]]:
        """Bytes and modification time of every file of a finished batch, by path; of a path given twice the last."""
        return {path: (size, time) for one in self.done() for path, size, time in one.files}

    def done(self) -> list[Batch]:
        """The finished batches, in order."""
        return [self.batches[number] for number in sorted(self.batches) if self.batches[number].done]

    def started(self) -> bool:
        """Whether the tables belong to this generation already."""
        return any(one.counts and one.counts["read"] for one in self.done())

    def kinds(self) -> dict[str, str]:
        """The kinds of the input's columns in the batches so far."""
        return {name: kind for one in self.done() for name, kind in one.kinds.items()}

    def keep_fills(self, fills: Mapping[str, Fill]) -> None:
        """Keep how missing values of events are filled, for all batches that follow; no event is filled by a model."""
        records = []
        for name, fill in fills.items():
            records.append({"column": name, "strategy": fill.strategy, "value": fill.value, "by": fill.by})
            if fill.groups is not None:
                fill.groups.write.mode("overwrite").parquet(f"{self.root}/{self.name}/fills/{name}")
        write_text(self.spark, f"{self.root}/{self.name}/fills.json", json.dumps(records))

    def fills(self) -> dict[str, Fill] | None:
        """What `keep_fills` was given; None before that."""
        text = read_text(self.spark, f"{self.root}/{self.name}/fills.json")
        return None if text is None else {one["column"]: self._fill(one) for one in json.loads(text)}

    def _fill(self, record: dict[str, Any]) -> Fill:
        folder = f"{self.root}/{self.name}/fills/{record['column']}"
        groups = None if record["by"] is None else self.spark.read.parquet(folder)
        return Fill(record["strategy"], record["value"], record["by"], groups)

    def forget_others(self) -> None:
        """Remove the folders of the generations before this one."""
        for name in folder_names(self.spark, self.root):
            if name != self.name:
                remove(self.spark, f"{self.root}/{name}")


def fingerprint(options: Mapping[str, Any]) -> str:
    """A short hash of the options that the tables of a generation depend on."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]


def latest(spark: SparkSession, warehouse: str) -> Generation | None:
    """The generation that the tables belong to, or that was begun to replace them."""
    root = f"{warehouse}/{_FOLDER}"
    names = folder_names(spark, root)
    if not names:
        return None
    generation = Generation(spark, root, names[-1])
    for file in folder_names(spark, f"{root}/{names[-1]}/batches"):
        text = read_text(spark, f"{root}/{names[-1]}/batches/{file}") if file.endswith(".json") else None
        if text is not None:
            batch = _parse(json.loads(text))
            generation.batches[batch.number] = batch
    return generation


def begin(spark: SparkSession, warehouse: str, options: str) -> Generation:
    """A new generation under the fingerprint `options`, without batches."""
    last = latest(spark, warehouse)
    number = 0 if last is None else last.number + 1
    generation = Generation(spark, f"{warehouse}/{_FOLDER}", f"{number:06d}-{options}")
    write_text(spark, f"{generation.root}/{generation.name}/options", options)
    return generation


def _parse(record: dict[str, Any]) -> Batch:
    files = tuple((str(path), int(size), int(time)) for path, size, time in record.pop("files"))
    return replace(Batch(**{**record, "files": files}), notices=tuple(record["notices"]))
