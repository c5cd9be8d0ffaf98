"""What was added to a table between two of its versions, by Delta's own log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from recbatch.tables.files import file_header, file_system, hadoop_path
from recbatch.tables.schemas import TableSpec
from recbatch.tables.store import TableStore


@dataclass(frozen=True)
class Changes:
    """files: addresses of the Parquet files that hold the new rows. removed: whether rows went as well."""

    files: list[str]
    removed: bool


def changes(store: TableStore, spec: TableSpec, after: int, until: int) -> Changes | None:
    """The changes of the versions after + 1 to `until`; None where the log does not tell (any more).

    Files that were only put together anew change nothing.
    """
    added: list[str] = []
    removed = False
    for version in range(after + 1, until + 1):
        entry = _entry(store, spec, version)
        if entry is None:
            return None
        for action in entry:
            add, remove = action.get("add"), action.get("remove")
            if add is not None and add["dataChange"]:
                added.append(f"{store.path(spec)}/{unquote(add['path'])}")
            removed |= remove is not None and remove["dataChange"]
    return Changes(added, removed)


def _entry(store: TableStore, spec: TableSpec, version: int) -> list[dict[str, Any]] | None:
    address = f"{store.path(spec)}/_delta_log/{version:020d}.json"
    path = hadoop_path(store.spark, address)
    system = file_system(store.spark, path)
    if not system.exists(path):
        return None
    text = file_header(store.spark, address, system.getFileStatus(path).getLen()).decode()
    return list(_actions(text))


def _actions(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.strip():
            yield json.loads(line)
