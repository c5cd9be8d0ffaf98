"""What a stage is given: the session, the configuration, the tables, and the transaction it writes under."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from recbatch.config.sections import Config
from recbatch.tables.store import TableStore, Transaction

Notify = Callable[[str], None]
Advance = Callable[[str, int, int, str], None]

_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Progress:
    """Where a stage reports to: `notify` for a line worth keeping, `advance(task, done, total, detail)` for a bar."""

    notify: Notify
    advance: Advance


@dataclass(frozen=True)
class Request:
    """What one invocation asks for beside the configuration.

    full_refresh: clean everything again, from the files that are there. follow_seconds: look for new input again and
    again, so often, until the process is asked to stop; None takes what is there and ends.
    """

    full_refresh: bool = False
    follow_seconds: float | None = None


@dataclass(frozen=True)
class StageContext:
    """`as_of` is data time (UTC): nothing later is read. None means the latest event of the log.

    previous: the row in `runs` of the last finished run of the stage.
    """

    spark: SparkSession
    config: Config
    tables: TableStore
    run_id: str
    transaction: Transaction
    as_of: dt.datetime | None
    progress: Progress
    request: Request = Request()
    previous: Mapping[str, Any] | None = None

    @classmethod
    def read_only(cls, spark: SparkSession, config: Config) -> StageContext:
        """What functions take that read the warehouse outside of a run; nothing may be written under it."""
        silent = Progress(lambda _: None, lambda *_: None)
        return cls(spark, config, TableStore(spark, config.warehouse), "", Transaction("", 0), None, silent)


@contextmanager
def watched(look: Callable[[], None]) -> Iterator[None]:
    """Call `look` again and again, from a thread of its own, until the block ends: it reports how far the block is."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            look()

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
