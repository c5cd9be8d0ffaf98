"""Which rows may be duplicates and which users may be bots, found by sorting hashes: no row is looked at as a whole.

What a hash clears is clear: rows with different hashes differ. What it accuses is only suspected, and a collision
accuses an innocent; `verdicts` looks at those few rows themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

Integers = NDArray[np.int64]

USER_HASH = "user_hash"
KEY_HASH = "key_hash"
SECOND = "second"
KIND = "kind"
HASH = "hash"
KEYS, USERS = 0, 1
SECONDS = {"day": 86_400, "minute": 60}

_KEY_SEED = 1
_SCHEMA = f"{KIND} int, {HASH} long"
# Rows sorted at a time: 24 bytes each, and as much again while they are sorted.
_ROWS_A_TASK = 4_000_000


def user_hash(user: Column) -> Column:
    """64 bits of a user_id."""
    return F.xxhash64(user)


def key_hash(key: Sequence[str]) -> Column:
    """64 bits of the columns of a duplicate key."""
    return F.xxhash64(F.lit(_KEY_SEED), *key)


def suspects(hashed: DataFrame, limits: Mapping[str, int], rows: int, cores: int) -> DataFrame:
    """(kind, hash): key hashes that several rows share (kind 0) and hashes of users who may exceed a limit (kind 1).

    Args:
        hashed: user_hash, key_hash and second (of event_time), one row an event.
        limits: distinct events that a user may have a "day" or a "minute"; empty where nobody asks.
        rows: about how many rows there are; with `cores` it decides the number of tasks.
    """

    def search(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = [[batch.column(n).to_numpy() for n in range(3)] for batch in batches]
        if not parts:
            return
        users, keys, seconds = (np.concatenate(column) for column in zip(*parts, strict=True))
        for kind, found in ((KEYS, repeated(keys)), (USERS, crowded(users, keys, seconds, limits))):
            kinds = np.full(len(found), kind, dtype=np.int32)
            yield pa.RecordBatch.from_arrays([pa.array(kinds), pa.array(found)], names=[KIND, HASH])

    tasks = max(cores, -(-rows // _ROWS_A_TASK))
    # Rows with equal keys have the same user, so both searches find theirs in one task.
    return hashed.select(USER_HASH, KEY_HASH, SECOND).repartition(tasks, USER_HASH).mapInArrow(search, _SCHEMA)


def repeated(hashes: Integers) -> Integers:
    """The distinct values that occur more than once in `hashes` (n,)."""
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def crowded(users: Integers, keys: Integers, seconds: Integers, limits: Mapping[str, int]) -> Integers:
    """Hashes of the users with at least the limit's number of distinct `keys` in one UTC day or minute; all (n,).

    At least and not more than: two keys that collide count once here.
    """
    if not limits:
        return np.empty(0, dtype=np.int64)
    # Hardly anyone has as many events in all, which a sort of one column tells.
    many = _at_least(users, min(limits.values()))
    mine = np.isin(users, many)
    users, keys, seconds = users[mine], keys[mine], seconds[mine]
    _, first = np.unique(keys, return_index=True)
    users, seconds = users[first], seconds[first]
    found = []
    for span, limit in limits.items():
        order = np.lexsort((seconds // SECONDS[span], users))
        cells = np.stack([users[order], seconds[order] // SECONDS[span]])
        starts = np.flatnonzero(np.any(np.diff(cells, prepend=cells[:, :1] - 1), axis=0))
        sizes = np.diff(starts, append=cells.shape[1])
        found.append(cells[0, starts[sizes >= limit]])
    return np.unique(np.concatenate(found))


def _at_least(values: Integers, n: int) -> Integers:
    ordered = np.sort(values)
    return np.unique(ordered[n - 1 :][ordered[n - 1 :] == ordered[: len(ordered) - n + 1]])
