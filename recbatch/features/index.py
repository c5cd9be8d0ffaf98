"""Dense, append-only indices: an entry keeps its number for ever, so that old models and new tables agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbatch.features.pasts import text_hashes
from recbatch.tables import columns as c
from recbatch.tables.arrow import read_arrow
from recbatch.tables.schemas import TableSpec
from recbatch.tables.store import TableStore


def extend_index(
    tables: TableStore, spec: TableSpec, values: pa.Table, key: Sequence[str], number: str, first: int, run_id: str
) -> bool:
    """Number those of `values` that the index `spec` lacks; returns whether there were any.

    The new entries are committed on top of the very version that they were computed from. Where another run came first,
    they are computed again: so no entry gets two numbers, and no number two entries.
    """
    tables.create_missing(spec)
    added = False
    while True:
        version = tables.version(spec) or 0
        fresh = new_entries(values, read_arrow(tables, spec, version=version), key, number, first=first)
        added |= len(fresh) > 0
        rows = fresh.append_column(c.RUN_ID, pa.repeat(run_id, len(fresh)))
        if not len(rows) or tables.append_unique(spec, rows, version, [key, [number]]):
            return added


def new_entries(values: pa.Table, known: pa.Table, key: Sequence[str], number: str, *, first: int) -> pa.Table:
    """The rows of `values` that `known` lacks, numbered without holes after the entries of `known`.

    Args:
        values: has the columns `key`, which are text.
        known: the index so far.
        number: the name of the number's column.
        first: the number of the very first entry.

    New entries are ordered by a hash of their key: a number that followed the id's own order would carry into the
    model what the shop's ids give away, such as an item's age.
    """
    wanted, there = _joined(values, key).unique(), _joined(known, key)
    joined = wanted.filter(pc.invert(pc.is_in(wanted, value_set=there)))
    hashes = text_hashes(joined)
    order = np.lexsort([pc.rank(joined, tiebreaker="dense").to_numpy(), hashes])
    joined = joined.take(pa.array(order))
    taken = pc.max(known[number]).as_py() if len(known) else first - 1
    numbers = pa.array(np.arange(taken + 1, taken + 1 + len(joined)), pa.int32())
    parts = pc.split_pattern(joined, _BETWEEN, max_splits=len(key) - 1) if len(key) > 1 else None
    columns = {name: joined if parts is None else pc.list_element(parts, at) for at, name in enumerate(key)}
    return pa.table(columns | {number: numbers})


_BETWEEN = "\0"  # in no name of a field


def _joined(rows: pa.Table, key: Sequence[str]) -> pa.Array:
    """The key of every row as one text."""
    columns = [rows[name].combine_chunks() for name in key]
    whole = columns[0] if len(columns) == 1 else pc.binary_join_element_wise(*columns, _BETWEEN)
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
