"""Files that workers write into tables: every row is in them, however rows come and row groups end."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbatch.tables import part_file

SCHEMA = pa.schema([("user_id", pa.string()), ("quantity", pa.float64())])


@pytest.mark.parametrize("sizes", [[1], [4], [3, 1], [4, 4], [2, 3, 4], [9]])
def test_every_row_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    monkeypatch.setattr(part_file, "ROW_GROUP", 4)
    file = part_file.PartFile(str(tmp_path), "event_date=2024-03-01", SCHEMA, ["user_id"])
    rows = pa.table({"user_id": [f"u{n}" for n in range(sum(sizes))], "quantity": [1.0] * sum(sizes)}, SCHEMA)
    start = 0
    for size in sizes:
        file.add(
            pa.RecordBatch.from_arrays([column.chunk(0) for column in rows.slice(start, size).columns], schema=SCHEMA)
        )
        start += size
    assert file.close() == (tmp_path / file.path).stat().st_size
    assert file.path.startswith("event_date=2024-03-01/")
    found = pq.ParquetFile(tmp_path / file.path)
    assert found.read() == rows
    assert file.rows == len(rows)
    assert all(found.metadata.row_group(group).num_rows <= 4 for group in range(found.num_row_groups))
