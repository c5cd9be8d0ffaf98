"""What the last run left, so that the next one has to look at new events only."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recbatch.tables import columns as c
from recbatch.tables.arrow import read_arrow
from recbatch.tables.changes import changes
from recbatch.tables.schemas import EARLIER_BEHAVIOURS, EVENTS, FEATURE_STATE, USER_SEQUENCES
from recbatch.tables.store import TableStore, Transaction

# Raise it where what is in the tables of the state, or its meaning, changes.
_FORMAT = 1


@dataclass(frozen=True)
class State:
    """A finished run. signature: of what users' pasts depend on besides the events. table_versions: what it wrote.

    complete: whether it saw all events of the version that it read. unindexed_events: those whose item has no number.
    """

    signature: str
    events_version: int
    table_versions: Mapping[str, int]
    as_of: dt.datetime
    evaluation_as_of: dt.datetime
    complete: bool
    unindexed_events: int
    run_id: str

    @classmethod
    def read(cls, tables: TableStore) -> State | None:
        if not tables.has_contract(FEATURE_STATE):
            return None
        rows = read_arrow(tables, FEATURE_STATE).to_pylist()
        return cls(**rows[0] | {c.TABLE_VERSIONS: dict(rows[0][c.TABLE_VERSIONS])}) if rows else None

    def write(self, tables: TableStore, transaction: Transaction) -> None:
        tables.replace_few(FEATURE_STATE, [asdict(self)], transaction)


def signature(event_types: Sequence[str], buckets: int, sequence_length: int, forgotten: Sequence[str]) -> str:
    basis = [_FORMAT, list(event_types), buckets, sequence_length, sorted(forgotten)]
    return hashlib.sha256(json.dumps(basis).encode()).hexdigest()


@dataclass(frozen=True)
class NewEvents:
    """rows: of `events`, before the run's `as_of`. base: the run that knows all others; None: these are all.

    because: why it is all, for people.
    """

    rows: DataFrame
    base: State | None
    because: str | None = None


def new_events(tables: TableStore, version: int, as_of: dt.datetime, mark: str, *, more_items: bool) -> NewEvents:
    """The events of `version` that the last run did not know, or all where its results cannot be built upon."""
    base = State.read(tables)
    reason = _rebuild_reason(tables, base, as_of, mark, more_items=more_items)
    before = F.col(c.EVENT_TIME) < F.lit(as_of)
    if base is not None and reason is None:
        found = changes(tables, EVENTS, base.events_version, version)
        if found is None:
            reason = f"the log of 'events' does not go back to version {base.events_version}"
        elif found.removed:
            reason = "rows of 'events' were removed or replaced"
        else:
            return NewEvents(_added(tables, base, found.files).where(before), base)
    return NewEvents(tables.read(EVENTS, version).where(before), None, reason)


def _added(tables: TableStore, base: State, files: list[str]) -> DataFrame:
    columns = EVENTS.schema.names
    parts = [tables.spark.createDataFrame([], EVENTS.schema)]
    if files:
        # The date of the partition is that of the event as well.
        schema = [field for field in EVENTS.schema if field.name != c.EVENT_DATE]
        stored = tables.spark.read.schema(type(EVENTS.schema)(schema)).parquet(*files)
        parts.append(stored.withColumn(c.EVENT_DATE, F.to_date(c.EVENT_TIME)).select(*columns))
    if not base.complete:
        left_out = tables.read(EVENTS, base.events_version).where(F.col(c.EVENT_DATE) >= F.lit(base.as_of.date()))
        parts.append(left_out.where(F.col(c.EVENT_TIME) >= F.lit(base.as_of)).select(*columns))
    return reduce(DataFrame.unionByName, parts)


def _rebuild_reason(
    tables: TableStore, base: State | None, as_of: dt.datetime, mark: str, *, more_items: bool
) -> str | None:
    if base is None:
        return "there is no earlier run"
    if base.signature != mark:
        return "buckets, event types, lengths or strategies for missing values have changed"
    if as_of < base.as_of:
        return f"the last run knew events up to {base.as_of:%Y-%m-%d %H:%M}"
    if more_items and base.unindexed_events:
        return "items were added that events had before"
    if any(tables.local_folder(spec) is None for spec in (USER_SEQUENCES, EARLIER_BEHAVIOURS)):
        return "workers cannot open the files of the last run on this storage"
    return None
