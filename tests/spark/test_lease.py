"""One run at a time: who comes second is told, and a dead holder does not block anybody."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from recbatch.errors import LockedError
from recbatch.tables.lease import lease
from recbatch.tables.schemas import LEASES
from recbatch.tables.store import TableStore


def _owner(store: TableStore, stage: str) -> str | None:
    rows = DeltaTable(store.path(LEASES)).to_pyarrow_table().to_pylist()
    (owner,) = [row["owner"] for row in rows if row["stage"] == stage]
    return None if owner is None else str(owner)


def _claim(store: TableStore, owner: str, expires: dt.datetime) -> None:
    values = {"owner": f"'{owner}'", "expires_at": str(int(expires.timestamp()))}
    DeltaTable(store.path(LEASES)).update(updates=values, predicate="stage = 'clean'")


def test_a_lease_is_held_by_one_and_given_back(spark: SparkSession, tmp_path: Path) -> None:
    store = TableStore(spark, str(tmp_path))
    with lease(store, "clean"):
        assert str(os.getpid()) in str(_owner(store, "clean"))
        with pytest.raises(LockedError, match=f"stage 'clean' of the warehouse .*{os.getpid()}"), lease(store, "clean"):
            pass
        with lease(store, "score"):
            assert _owner(store, "score") is not None
    assert _owner(store, "clean") is None
    with pytest.raises(ValueError, match="from within"), lease(store, "clean"):
        raise ValueError("from within")
    assert _owner(store, "clean") is None


def test_a_dead_or_late_holder_gives_way(spark: SparkSession, tmp_path: Path) -> None:
    store = TableStore(spark, str(tmp_path))
    with lease(store, "clean"):
        pass
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    _claim(store, "elsewhere:1:abc", soon)
    with pytest.raises(LockedError, match="elsewhere:1:abc until"), lease(store, "clean"):
        pass
    _claim(store, "elsewhere:1:abc", dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    with lease(store, "clean"):
        pass
    gone = subprocess.run(
        [sys.executable, "-c", "import os, socket; print(socket.gethostname(), os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    _claim(store, f"{gone[0]}:{gone[1]}:abc", soon)
    with lease(store, "clean"):
        assert str(os.getpid()) in str(_owner(store, "clean"))


def test_of_many_at_once_one_gets_it(spark: SparkSession, tmp_path: Path) -> None:
    store = TableStore(spark, str(tmp_path))
    with lease(store, "clean"):
        pass
    entered: list[int] = []

    def run(number: int) -> bool:
        try:
            with lease(store, "clean"):
                entered.append(number)
                assert len(entered) - entered.count(-1) * 2 == 1
                entered.append(-1)
            return True
        except LockedError:
            return False

    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(run, range(6)))
    assert any(taken)
    assert _owner(store, "clean") is None
