"""Published tables without a JVM: what any Delta reader sees, by path, with no knowledge of the pipeline."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow.parquet import filters_to_expression

from recbatch.errors import InputContractError

Filter = tuple[str, str, Any]


class WarehouseReader:
    """The tables under `root`, a local path or an object-store address that the `deltalake` package reads."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/").removeprefix("file://")

    def exists(self, name: str) -> bool:
        return DeltaTable.is_deltatable(f"{self.root}/{name}")

    def read(self, name: str, *, columns: list[str] | None = None, filters: list[Filter] | None = None) -> pa.Table:
        """The rows that pass `filters` ((column, "=", value), all of them must hold).

        Raises:
            InputContractError: the table does not exist or cannot be read from here.
        """
        try:
            return self._table(name).to_pyarrow_table(columns=columns, filters=filters)
        except (DeltaError, OSError) as error:
            raise InputContractError(f"table '{name}' in {self.root} cannot be read: {error}") from error

    def rows(
        self, name: str, *, columns: list[str] | None = None, filters: list[Filter] | None = None
    ) -> list[dict[str, Any]]:
        """The same as Python rows, for tables that are small after filtering."""
        found: list[dict[str, Any]] = self.read(name, columns=columns, filters=filters).to_pylist()
        return found

    def head(self, name: str, limit: int, *, filters: list[Filter] | None = None) -> list[dict[str, Any]]:
        """At most `limit` rows that pass `filters`; no more of the table is read than that takes."""
        condition = None if filters is None else filters_to_expression(filters)
        found: list[dict[str, Any]] = self._table(name).to_pyarrow_dataset().head(limit, filter=condition).to_pylist()
        return found

    def _table(self, name: str) -> DeltaTable:
        if not self.exists(name):
            raise InputContractError(
                f"table '{name}' does not exist in {self.root}", remedy="run the pipeline first: `recbatch run`"
            )
        return DeltaTable(f"{self.root}/{name}")
