"""Columns of text as the bytes of CSV or JSON lines."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbatch.synthetic import columns as names
from recbatch.synthetic.rows import Rows
from recbatch.synthetic.shop import Shop

HEADER = ",".join(names.RAW) + "\n"
# Which values JSON writes without quotes; search texts come quoted.
_BARE = (names.QUANTITY, names.PRICE, names.VISIT, names.QUERY)


def event_lines(shop: Shop, rows: Rows) -> list[pa.Buffer | bytes]:
    """What is appended to a file for `rows`."""
    malformed = rows.at("malformed_record")
    good = rows if len(malformed) == 0 else rows.take(np.setdiff1d(np.arange(len(rows)), malformed))
    parts = [_content(_lines(shop, good))]
    if len(malformed):
        torn = _lines(shop, rows.take(malformed)).to_pylist()
        parts.append("".join(_torn(shop, line, n) for n, line in enumerate(torn)).encode())
    return parts


def _lines(shop: Shop, rows: Rows) -> pa.Array:
    columns = names.as_text(rows, names.typed(shop, rows, shop.format))
    return _csv(columns) if shop.format == "csv" else _json(shop, columns)


def _csv(columns: dict[str, pa.Array]) -> pa.Array:
    *values, last = [columns[name] for name in names.RAW]
    # The last column is missing more often than not.
    ended = pc.binary_join_element_wise(last, "", "\n", null_handling="replace", null_replacement="")
    return pc.binary_join_element_wise(*values, ended, ",", null_handling="replace", null_replacement="")


def _json(shop: Shop, columns: dict[str, pa.Array]) -> pa.Array:
    pieces: list[pa.Array | str] = []
    for place, name in enumerate(names.RAW):
        bare = name in _BARE or (name == names.TIME and shop.time == "milliseconds")
        column = columns[name]
        if not bare:
            column = pc.binary_join_element_wise('"', column, '"', "")
        pieces += [("{" if place == 0 else ",") + f'"{name}":', column]
    return pc.binary_join_element_wise(*pieces, "}\n", "", null_handling="replace", null_replacement="null")


def _content(lines: pa.Array) -> pa.Buffer:
    """The bytes of all texts of an array, one after another."""
    lines = lines.combine_chunks() if isinstance(lines, pa.ChunkedArray) else lines
    offsets = np.frombuffer(lines.buffers()[1], dtype=np.int32)
    first, last = int(offsets[lines.offset]), int(offsets[lines.offset + len(lines)])
    return lines.buffers()[2].slice(first, last - first)


def _torn(shop: Shop, line: str, n: int) -> str:
    """A line that ends too early, or in CSV too late."""
    if shop.format == "json":
        return line[: len(line) // 2] + "\n"
    return ",".join(line.split(",")[:3]) + "\n" if n % 2 else line[:-1] + ",1,2\n"
