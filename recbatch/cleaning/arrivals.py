"""What has arrived since the last run, found by Structured Streaming and handed on batch by batch, exactly once.

Of files the stream carries names only: `binaryFile` without its content. So each file is read by the code that checks
its shape, with the columns that it declares itself, and a file that cannot be read fails before anything is written.
Delta tables stream their rows, by version.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from pyspark.errors import PySparkException, StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recbatch.config.inputs import EventsInput, ItemsInput
from recbatch.errors import InputContractError
from recbatch.tables.files import list_files

# The column of `Arrived.rows` with the file, or the table, that a row came in.
ARRIVED_IN = "_arrived_in"
_FILE_SCHEMA = "path string, modificationTime timestamp, length long, content binary"


@dataclass(frozen=True)
class Arrived:
    """What there is to read of an input: files (path, bytes, modified in epoch ms), or a Delta table's rows."""

    files: tuple[tuple[str, int, int], ...] = ()
    rows: DataFrame | None = None


Handle = Callable[[int, Arrived], None]


def everything(spark: SparkSession, source: EventsInput | ItemsInput) -> Arrived:
    """All that lies at the path of an input now."""
    if source.format == "delta":
        return Arrived(rows=_delta_table(spark, source.path).withColumn(ARRIVED_IN, F.col("_metadata.file_path")))
    return Arrived(tuple(list_files(spark, source.path)))


def follow(
    spark: SparkSession, source: EventsInput, checkpoint: str, handle: Handle, *, every_seconds: float | None
) -> None:
    """Call `handle` with the number and content of each new batch; a batch that it fails on comes again, unchanged.

    Returns when all that is there has been handled, or, with `every_seconds`, when the process is asked to stop.

    Raises:
        InputContractError: the source is missing, or a Delta table was changed other than by appends.
        What `handle` raises.
    """
    failures: list[Exception] = []

    def call(frame: DataFrame, number: int) -> None:
        try:
            handle(number, Arrived(rows=frame) if source.format == "delta" else _files(frame))
        except Exception as error:
            failures.append(error)  # Spark would hand on its text alone
            raise

    writer = _stream(spark, source).writeStream.foreachBatch(call).option("checkpointLocation", checkpoint)
    trigger = {"availableNow": True} if every_seconds is None else {"processingTime": f"{every_seconds} seconds"}
    try:
        query = writer.trigger(**trigger).start()
        with _stopped_by_signals(query.stop) if every_seconds is not None else _nothing():
            query.awaitTermination()
    except StreamingQueryException as error:
        if failures:
            raise failures[0] from error
        raise InputContractError(
            f"new rows of '{source.path}' cannot be read: {_cause(error)}",
            remedy="a Delta source may only be appended to; after other changes run `recbatch clean --full-refresh`",
        ) from error


def _stream(spark: SparkSession, source: EventsInput) -> DataFrame:
    if source.format == "delta":
        _delta_table(spark, source.path)
        rows = spark.readStream.format("delta").options(**source.options).load(source.path)
        # A stream of Delta does not tell the files of its rows.
        return rows.withColumn(ARRIVED_IN, F.lit(source.path))
    reader = spark.readStream.format("binaryFile").schema(_FILE_SCHEMA)
    # Without an age limit: a file that comes late is as good as any other.
    reader = reader.options(recursiveFileLookup="true", maxFileAge="36500d")
    if source.files_per_batch is not None:
        reader = reader.option("maxFilesPerTrigger", source.files_per_batch)
    files = reader.load(source.path)
    return files.selectExpr("path", "length", "unix_millis(modificationTime) AS modified")


def _files(frame: DataFrame) -> Arrived:
    return Arrived(tuple(sorted((row["path"], row["length"], row["modified"]) for row in frame.collect())))


def _delta_table(spark: SparkSession, path: str) -> DataFrame:
    try:
        return spark.read.format("delta").load(path)
    except PySparkException as error:
        raise InputContractError(
            f"Delta table '{path}' cannot be read: {str(error).strip().splitlines()[0]}",
            remedy="set the input's 'path' to the folder that holds '_delta_log', or its 'format' to that of the files",
        ) from error


def _cause(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Stop after the batch at hand on SIGTERM and SIGINT, which schedulers and Ctrl-C send."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(_: int, __: FrameType | None) -> None:
        threading.Thread(target=stop).start()

    before = {one: signal.signal(one, handler) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, previous in before.items():
            signal.signal(one, previous)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
