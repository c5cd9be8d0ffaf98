"""Columns of text as the bytes of CSV or JSON lines."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbatch.synthetic import columns as names
from recbatch.synthetic.rows import Rows
from recbatch.synthetic.shop import Shop

HEADER = ",".join(names.RAW) + "\n"
# What JSON has in quotes; search texts come with theirs.
_QUOTED = (names.USER, names.ITEM, names.TYPE)


def event_lines(shop: Shop, rows: Rows) -> list[pa.Buffer | bytes]:
    """What is appended to a file for `rows`."""
    malformed = rows.at("malformed_record")
    good = rows if len(malformed) == 0 else rows.take(np.setdiff1d(np.arange(len(rows)), malformed))
    parts = [_content(_lines(shop, good))]
    if len(malformed):
        whole, numbers = _lines(shop, rows.take(malformed)).to_pylist(), rows.log.number[malformed].tolist()
        torn = (_torn(shop, line, number) for line, number in zip(whole, numbers, strict=True))
        parts.append("".join(torn).encode())
    return parts


def _lines(shop: Shop, rows: Rows) -> pa.Array:
    columns = names.as_text(shop, rows, names.typed(shop, rows, shop.format))
    return _csv(columns) if shop.format == "csv" else _json(columns, shop.time == "text")


def _csv(columns: dict[str, pa.Array]) -> pa.Array:
    *values, last = [columns[name] for name in names.RAW]
    # The last column is missing more often than not.
    ended = pc.binary_join_element_wise(last, "", "\n", null_handling="replace", null_replacement="")
    return pc.binary_join_element_wise(*values, ended, ",", null_handling="replace", null_replacement="")


def _json(columns: dict[str, pa.Array], text_times: bool) -> pa.Array:
    pieces: list[pa.Array | str] = []
    for place, name in enumerate(names.RAW):
        column = columns[name]
        if name in _QUOTED or (name == names.TIME and text_times):
            column = pc.binary_join_element_wise('"', column, '"', "")
        pieces += [("{" if place == 0 else ",") + f'"{name}":', column]
    return pc.binary_join_element_wise(*pieces, "}\n", "", null_handling="replace", null_replacement="null")


def _content(lines: pa.Array) -> pa.Buffer:
    """The bytes of all texts of an array, one after another."""
    lines = lines.combine_chunks() if isinstance(lines, pa.ChunkedArray) else lines
    offsets = np.frombuffer(lines.buffers()[1], dtype=np.int32)
    first, last = int(offsets[lines.offset]), int(offsets[lines.offset + len(lines)])
    return lines.buffers()[2].slice(first, last - first)


def _torn(shop: Shop, line: str, number: int) -> str:
    """A line that ends too early, or in CSV too late."""
    if shop.format == "json":
        return line[: len(line) // 2] + "\n"
    return ",".join(line.split(",")[:3]) + "\n" if number % 2 else line[:-1] + ",1,2\n"
