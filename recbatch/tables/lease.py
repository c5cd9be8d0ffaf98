"""A lease on the tables of a stage: one run at a time writes them, and a run that died does not block the next.

One row a name in the table `leases`, taken by a conditional UPDATE: of two runs that try at the same time Delta commits
one, and the other finds the row taken. The holder moves the end of its lease on while it works.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from delta.tables import DeltaTable as SparkTable
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from pyspark.errors import PySparkException
from pyspark.sql import Column
from pyspark.sql import functions as F

from recbatch.errors import LockedError
from recbatch.tables import columns as c
from recbatch.tables.schemas import LEASES
from recbatch.tables.store import TableStore, Transaction

LASTS_SECONDS = 300
_RENEWED_AFTER_SECONDS = LASTS_SECONDS / 5


@contextmanager
def lease(store: TableStore, name: str) -> Iterator[None]:
    """Hold the lease `name` while the block runs.

    Raises:
        LockedError: another run holds it.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    _ensure_row(store, name)
    _take(store, name, owner)
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(store, name, owner, stop), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join()
        _update(store, f"{_of(name)} AND {c.OWNER} = '{owner}'", None)


def _take(store: TableStore, name: str, owner: str) -> None:
    free = f"({c.OWNER} IS NULL OR {c.EXPIRES_AT} < {int(time.time())})"
    holder = _holder(store, name)
    if holder is not None and _is_dead(holder[c.OWNER]):
        free = f"({free} OR {c.OWNER} = '{holder[c.OWNER]}')"
    _update(store, f"{_of(name)} AND {free}", owner)
    holder = _holder(store, name)
    if holder is None or holder[c.OWNER] != owner:
        who = "another run" if holder is None else f"{holder[c.OWNER]} until {_clock(holder[c.EXPIRES_AT])}"
        raise LockedError(
            f"stage '{name}' of the warehouse '{store.root}' is being run by {who}",
            remedy="wait for it; a run on a host that died gives its lease up at that time",
        )


def _clock(seconds: int) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _is_dead(owner: str) -> bool:
    """Whether the holder was a process of this host that is gone. Of other hosts nobody knows."""
    host, process, _ = owner.rsplit(":", 2)
    return host == socket.gethostname() and not Path(f"/proc/{process}").exists()


def _renew(store: TableStore, name: str, owner: str, stop: threading.Event) -> None:
    while not stop.wait(_RENEWED_AFTER_SECONDS):
        _update(store, f"{_of(name)} AND {c.OWNER} = '{owner}'", owner)


def _of(name: str) -> str:
    return f"{c.STAGE} = '{name}'"


def _ensure_row(store: TableStore, name: str) -> None:
    if store.version(LEASES) is not None and _row(store, name) is not None:
        return
    rows = [{c.STAGE: name, c.OWNER: None, c.EXPIRES_AT: None}]
    with suppress(DeltaError, PySparkException):  # of several that add the row at once Delta lets one, which is enough
        store.append_few(LEASES, rows, Transaction(f"lease/{name}", 0))


def _row(store: TableStore, name: str) -> dict[str, Any] | None:
    folder = store.local_folder(LEASES)
    if folder is None:
        rows = [row.asDict() for row in store.read(LEASES).where(F.col(c.STAGE) == name).collect()]
    else:
        rows = DeltaTable(folder).to_pyarrow_table(filters=[(c.STAGE, "=", name)]).to_pylist()
    return rows[0] if rows else None


def _holder(store: TableStore, name: str) -> dict[str, Any] | None:
    row = _row(store, name)
    return None if row is None or row[c.OWNER] is None else row


def _update(store: TableStore, condition: str, owner: str | None) -> None:
    """Set owner and end where `condition` holds; a conflict means that another run was quicker."""
    values = {c.OWNER: "NULL", c.EXPIRES_AT: "NULL"}
    if owner is not None:
        values = {c.OWNER: f"'{owner}'", c.EXPIRES_AT: f"{int(time.time()) + LASTS_SECONDS}"}
    folder = store.local_folder(LEASES)
    try:
        if folder is None:
            expressions: dict[str, str | Column] = {**values}
            SparkTable.forPath(store.spark, store.path(LEASES)).update(condition, expressions)
        else:
            DeltaTable(folder).update(updates=values, predicate=condition)
    except (CommitFailedError, PySparkException):
        return
