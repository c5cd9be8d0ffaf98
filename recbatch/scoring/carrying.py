"""Lists of an earlier run, carried forward file by file for the users whose fingerprint is still the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recbatch.scoring.files import CODED, BucketFile, by_bucket
from recbatch.tables import columns as c


class Carrier:
    """Lets the users of a task through that have to be scored, and writes the lists of the others.

    files: by bucket, the Parquet files that hold its lists so far. They are read a row group at a time; what is in
    memory are the ids and fingerprints of one bucket, and at most `batch_users` users that wait to be scored.
    """

    def __init__(self, files: Mapping[int, Sequence[str]], batch_users: int, folder: str, version: int) -> None:
        self._files, self._batch_users, self._folder, self._version = files, batch_users, folder, version
        self.written: list[pa.RecordBatch] = []  # rows of FILES

    def changed(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The users without a list of their fingerprint, in batches; users of a bucket come and go together."""
        waiting: list[pa.RecordBatch] = []
        bucket, previous, kept = -1, _Previous([]), list[pa.Array]()
        for batch in batches:
            for its_bucket, users in by_bucket(batch):
                if its_bucket != bucket:
                    self._carry(bucket, previous, kept)
                    bucket, previous, kept = its_bucket, _Previous(self._files.get(its_bucket, [])), []
                same = previous.has_lists_of(users)
                kept.append(users.column(c.USER_ID).filter(pa.array(same)))
                waiting.append(users.filter(pa.array(~same)))
            if sum(part.num_rows for part in waiting) >= self._batch_users:
                yield from _together(waiting)
                waiting = []
        self._carry(bucket, previous, kept)
        yield from _together(waiting)

    def _carry(self, bucket: int, previous: _Previous, kept: list[pa.Array]) -> None:
        users = pa.concat_arrays(kept) if kept else pa.array([], pa.string())
        if not len(users):
            return
        file = BucketFile.of_carried_lists(self._folder, bucket, self._version)
        for rows in previous.rows_of(users):
            file.add(rows)
        self.written.append(file.close())


class _Previous:
    """What an earlier run has left of a bucket."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files
        needed = [c.USER_ID, c.USER_FINGERPRINT, c.RANK]
        parts = [pq.read_table(Path(file), columns=needed, partitioning=None) for file in files]
        heads = [part.filter(pc.equal(part[c.RANK], 1)) for part in parts]
        self._ids = pa.concat_arrays([chunk for part in heads for chunk in part[c.USER_ID].chunks] or [_NO_IDS])
        found = [part[c.USER_FINGERPRINT].to_numpy() for part in heads]
        self._fingerprints = np.concatenate([*found, np.empty(0, np.int64)])

    def has_lists_of(self, users: pa.RecordBatch) -> NDArray[np.bool_]:
        """(N,): whether the user has a list of the same fingerprint."""
        if not len(self._ids):
            return np.zeros(users.num_rows, np.bool_)
        at = pc.index_in(users.column(c.USER_ID), self._ids).fill_null(-1).to_numpy()
        same = (at >= 0) & (self._fingerprints[at] == users.column(c.USER_FINGERPRINT).to_numpy())
        return np.asarray(same, np.bool_)

    def rows_of(self, users: pa.Array) -> Iterator[pa.RecordBatch]:
        """The lists of these users."""
        for name in self._files:
            with pq.ParquetFile(name, read_dictionary=CODED) as file:
                for group in range(file.num_row_groups):
                    for rows in file.read_row_group(group).to_batches():
                        coded = rows.column(c.USER_ID)
                        wanted = pc.is_in(coded.dictionary, users)
                        yield rows.filter(wanted.take(coded.indices))


_NO_IDS = pa.array([], pa.string())


def _together(parts: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    if any(part.num_rows for part in parts):
        yield from pa.Table.from_batches(parts).combine_chunks().to_batches()
