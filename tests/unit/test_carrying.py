"""Users whose fingerprint is the same keep their lists, row by row; all others are passed on to be scored."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.scoring.carrying import Carrier
from recbatch.scoring.files import PATH, ROWS, BucketFile
from recbatch.scoring.worker import LISTS

USERS = st.dictionaries(st.sampled_from([f"u{i}" for i in range(12)]), st.integers(0, 3), max_size=12)


def _bucket(user: str) -> int:
    return int(user[1:]) % 3


def _lists(users: dict[str, int]) -> pa.RecordBatch:
    """Lists of one to three rows."""
    rows = [
        {
            "user_id": user,
            "rank": rank,
            "item_id": f"i{rank}",
            "score": np.float32(1 / rank),
            "because_item_id": None,
            "reason": "often_follows",
            "user_fingerprint": fingerprint,
            "user_bucket": _bucket(user),
        }
        for user, fingerprint in users.items()
        for rank in range(1, 2 + int(user[1:]) % 3)
    ]
    return pa.RecordBatch.from_pylist(rows, LISTS)


def _as_set(table: pa.Table) -> set[tuple[object, ...]]:
    return {tuple(row.values()) for row in table.to_pylist()}


@settings(max_examples=60, deadline=None)
@given(before=USERS, now=USERS, files=st.integers(1, 2), cut=st.integers(1, 5), batch_users=st.integers(1, 5))
def test_nothing_is_lost_and_nothing_stale_is_kept(
    before: dict[str, int], now: dict[str, int], files: int, cut: int, batch_users: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        previous: dict[int, list[str]] = defaultdict(list)
        for part in range(files):
            for bucket in range(3):
                chosen = {u: f for u, f in before.items() if _bucket(u) == bucket and int(u[1:]) % files == part}
                if chosen:
                    file = BucketFile.of_lists(folder, bucket, 1)
                    file.add(_lists(chosen))
                    previous[bucket].append(f"{folder}/{file.close().column(PATH)[0].as_py()}")
        ordered = sorted(now, key=lambda user: (_bucket(user), user))
        rows = pa.RecordBatch.from_pydict(
            {
                "user_id": pa.array(ordered, pa.string()),
                "user_fingerprint": pa.array([now[user] for user in ordered], pa.int64()),
                "user_bucket": pa.array([_bucket(user) for user in ordered], pa.int32()),
            }
        )
        carrier = Carrier(previous, batch_users, folder, 2)
        changed = list(carrier.changed(rows.slice(start, cut) for start in range(0, len(ordered), cut)))
        assert [user for part in changed for user in part.column("user_id").to_pylist()] == [
            user for user in ordered if before.get(user) != now[user]
        ]
        same = {user: now[user] for user in now if before.get(user) == now[user]}
        written = [
            pq.read_table(Path(folder) / part.column(PATH)[0].as_py(), partitioning=None) for part in carrier.written
        ]
        stored = [name for name in LISTS.names if name != "user_bucket"]
        expected = pa.Table.from_batches([_lists(same)]).select(stored)
        assert {row for table in written for row in _as_set(table)} == _as_set(expected)
        assert [part.column(ROWS)[0].as_py() for part in carrier.written] == [len(table) for table in written]
        assert all(table.schema.field("user_id").type == pa.string() for table in written)
