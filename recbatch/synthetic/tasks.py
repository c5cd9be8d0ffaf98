"""What one Spark task makes: one file of events, or one of items, and what it counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from recbatch.synthetic import catalogue, columns
from recbatch.synthetic.behaviour import World
from recbatch.synthetic.catalogue import MALFORMED, ItemPlan, good_items, item_lines, planted_items
from recbatch.synthetic.crowds import crowd_rows
from recbatch.synthetic.faults import FAULTS
from recbatch.synthetic.lines import HEADER, event_lines
from recbatch.synthetic.plan import MAIN, MORE, Plan
from recbatch.synthetic.rows import Rows, rows_of_users
from recbatch.synthetic.shop import Shop
from recbatch.synthetic.writing import line_file, parquet_file

# Rows that a worker holds at a time, about: some hundred bytes each while they are made.
_ROWS = 200_000
ITEMS, GOOD = "items", "good"
ITEMS_A_FILE = 500_000
TRUTH = "truth"
_SUFFIX = {"csv": "csv", "json": "json", "parquet": "parquet", "delta": "parquet"}


@dataclass(frozen=True)
class Work:
    """File `number` of `files` of a part of the delivery."""

    part: str
    number: int
    files: int


@dataclass(frozen=True)
class Factory:
    """What all tasks know. folder: where the delivery is written. truth_rows: whether accepted rows are written too."""

    shop: Shop
    plans: dict[str, Plan]
    items: ItemPlan
    folder: Path
    truth_rows: bool

    def work(self, files: int) -> list[Work]:
        """All files, those of the log in `files` parts."""
        every = [Work(part, n, files) for part in self.plans for n in range(files)]
        item_files = -(-self.shop.items // ITEMS_A_FILE)
        return every + [Work(ITEMS, n, item_files) for n in range(item_files)]

    def make(self, work: Work) -> Counter[str]:
        """Write one file; returns its rows by what was planted, and all others as GOOD."""
        if work.part == ITEMS:
            return self._make_items(work)
        with ExitStack() as stack:
            write = self._writer(stack, work)
            write_truth = self._truth_writer(stack, work)
            found = np.zeros(len(FAULTS) + 1, dtype=np.int64)
            for rows, accepted in self._chunks(work):
                write(rows)
                if write_truth is not None:
                    write_truth(columns.cleaned(self.shop, accepted))
                found += np.bincount(rows.code + 1, minlength=len(found))
        names = [GOOD, *[fault.name for fault in FAULTS]]
        return Counter({name: int(n) for name, n in zip(names, found, strict=True) if n})

    def _chunks(self, work: Work) -> Iterator[tuple[Rows, Rows]]:
        plan = self.plans[work.part]
        worlds = self._worlds()
        users = self.shop.users
        first, last = users * work.number // work.files, users * (work.number + 1) // work.files
        step = min(max(1, users * _ROWS // max(1, plan.rows)), _ROWS)
        for begin in range(first, last, step):
            yield rows_of_users(plan, worlds, np.arange(begin, min(last, begin + step)))
        crowd = plan.groups * plan.group_rows
        for begin in range(work.number, crowd, work.files * _ROWS):
            numbers = np.arange(begin, min(crowd, begin + work.files * _ROWS), work.files)
            rows = crowd_rows(plan, worlds[MAIN], numbers)
            yield rows, rows.take(rows.at("busy_user"))

    def _worlds(self) -> dict[str, World]:
        return {name: self.shop.world(plan.good, more=name == MORE) for name, plan in self.plans.items()}

    def _path(self, work: Work) -> Path:
        return self.folder / work.part / f"{work.part}-{work.number:05d}.{_SUFFIX[self.shop.format]}"

    def _writer(self, stack: ExitStack, work: Work) -> Callable[[Rows], None]:
        if self.shop.writes_lines:
            header = HEADER if self.shop.format == "csv" else ""
            file = stack.enter_context(line_file(self._path(work), header))

            def write_lines(rows: Rows) -> None:
                for part in event_lines(self.shop, rows):
                    file.write(part)

            return write_lines
        writer = stack.enter_context(parquet_file(self._path(work), columns.schema(self.shop)))

        def write_table(rows: Rows) -> None:
            writer.write_table(pa.table(columns.typed(self.shop, rows), schema=columns.schema(self.shop)))

        return write_table

    def _truth_writer(self, stack: ExitStack, work: Work) -> Callable[[pa.Table], None] | None:
        if not self.truth_rows:
            return None
        path = self.folder / TRUTH / work.part / f"{work.part}-{work.number:05d}.parquet"
        write: Callable[[pa.Table], None] = stack.enter_context(parquet_file(path, columns.CLEANED)).write_table
        return write

    def _make_items(self, work: Work) -> Counter[str]:
        n = self.shop.items
        first, last = n * work.number // work.files, n * (work.number + 1) // work.files
        found: Counter[str] = Counter()
        with ExitStack() as stack:
            write = self._item_writer(stack, work)
            for begin in range(first, last, 10_000):
                items = np.arange(begin, min(last, begin + 10_000))
                write(good_items(self.items, items), 0)
                found[GOOD] += len(items)
            if work.number == work.files - 1:
                for name in self.items.planted:
                    malformed = self.items.planted[name] if name == MALFORMED else 0
                    rows = list(planted_items(self.items, name))
                    write(rows, malformed)
                    found[name] += len(rows) + malformed
        return found

    def _item_writer(self, stack: ExitStack, work: Work) -> Callable[[list[catalogue.Item], int], None]:
        schema = catalogue.SCHEMA
        if self.shop.writes_lines:
            header = ",".join(schema.names) + "\n" if self.shop.format == "csv" else ""
            file = stack.enter_context(line_file(self._path(work), header))
            return lambda rows, malformed: (file.write(item_lines(self.shop, rows, malformed)), None)[1]
        writer = stack.enter_context(parquet_file(self._path(work), schema))
        return lambda rows, _: writer.write_table(pa.Table.from_pylist(rows, schema=schema))
