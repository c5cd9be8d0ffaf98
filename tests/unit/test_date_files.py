"""Files of events that workers write: every row is in them, however rows come and row groups end."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbatch.cleaning import direct

SCHEMA = pa.schema([("user_id", pa.string()), ("quantity", pa.float64())])


@pytest.mark.parametrize("sizes", [[1], [4], [3, 1], [4, 4], [2, 3, 4], [9]])
def test_every_row_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    monkeypatch.setattr(direct, "_ROW_GROUP", 4)
    file = direct.DateFile(str(tmp_path), 19_783, SCHEMA)
    rows = pa.table({"user_id": [f"u{n}" for n in range(sum(sizes))], "quantity": [1.0] * sum(sizes)}, SCHEMA)
    start = 0
    for size in sizes:
        file.add(
            pa.RecordBatch.from_arrays([column.chunk(0) for column in rows.slice(start, size).columns], schema=SCHEMA)
        )
        start += size
    (written,) = file.close().to_pylist()
    assert written["path"].startswith("event_date=2024-03-01/")
    found = pq.ParquetFile(tmp_path / written["path"])
    assert found.read() == rows
    assert written["rows"] == len(rows)
    assert written["size"] == (tmp_path / written["path"]).stat().st_size
    assert all(found.metadata.row_group(group).num_rows <= 4 for group in range(found.num_row_groups))
