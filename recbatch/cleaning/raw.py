"""Raw files as DataFrames of text, with the shape of every file checked before the first row is read."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as t

from recbatch.cleaning.arrivals import ARRIVED_IN, Arrived
from recbatch.cleaning.contract import Contract, kinds_of
from recbatch.config.inputs import EventsInput, ItemsInput, RawColumn
from recbatch.errors import InputContractError
from recbatch.tables import columns as c
from recbatch.tables.files import file_header, parquet_columns

CORRUPT = "_corrupt_record"
# pyspark has no class for what a task throws while it reads a file; py4j's own comes through then.
READ_FAILURES = (PySparkException, Py4JJavaError)
_HEADER_BYTES = 1 << 16
# What Spark would take for a pattern in the name of a file.
_GLOB = re.compile(r"[{}\[\]*?\\]")


@dataclass(frozen=True)
class RawRows:
    """Rows of files with the same columns: those asked for, `_corrupt_record`, `source_file` and what `record` needs.

    `record` is the row as text (JSON), or the line itself where its format cannot parse it. It is an expression and no
    column, so that only rows that are rejected pay for it.
    """

    rows: DataFrame
    record: Column
    needs: tuple[str, ...]


def read_raw(
    spark: SparkSession,
    source: EventsInput | ItemsInput,
    wanted: Mapping[str, RawColumn],
    arrived: Arrived,
    contract: Contract | None = None,
) -> list[RawRows]:
    """The columns `wanted` of what has arrived, one entry a group of files with the same columns.

    `contract` is what the columns were before; it is checked and extended.

    Raises:
        InputContractError: no file is there, one is unreadable, lacks a column that the mapping names, or has one of
            another type than before.
    """
    contract = Contract() if contract is None else contract
    if arrived.rows is not None:
        contract.check(source.path, kinds_of(arrived.rows.drop(ARRIVED_IN).schema), wanted)
        rows = arrived.rows.withColumn(CORRUPT, F.lit(None).cast("string"))
        return [_select(rows, wanted, source.path, F.col(ARRIVED_IN))]
    frames = []
    for columns, files in _files_by_columns(spark, source, wanted, arrived, contract).items():
        frame = _read_files(spark, source, files, columns)
        if source.format == "json":
            contract.check(source.path, kinds_of(frame.drop(CORRUPT).schema), wanted)
        frames.append(_select(frame, wanted, source.path, F.col("_metadata.file_path")))
    return frames


def _files_by_columns(
    spark: SparkSession,
    source: EventsInput | ItemsInput,
    wanted: Mapping[str, RawColumn],
    arrived: Arrived,
    contract: Contract,
) -> dict[tuple[tuple[str, str], ...], list[str]]:
    """Files with the same columns in the same order are read together; a reordered header is a group of its own."""
    if not arrived.files:
        raise InputContractError(
            f"input path '{source.path}' has no files", remedy="set the input's 'path' to the folder of the raw files"
        )
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for file, size, _ in arrived.files:
        if size == 0 and source.format != "parquet":
            continue
        columns = _columns_of(spark, source, file)
        if source.format == "csv" and not columns:
            continue
        if source.format != "json":
            contract.check(file, dict(columns), wanted)
        groups.setdefault(tuple(columns), []).append(file)
    if not groups:
        raise InputContractError(
            f"every file at '{source.path}' is empty", remedy="set the input's 'path' to the folder of the raw files"
        )
    return groups


def _columns_of(spark: SparkSession, source: EventsInput | ItemsInput, file: str) -> list[tuple[str, str]]:
    """(name, kind) of the columns a file declares; none for JSON lines, where every row says its own."""
    try:
        if source.format == "parquet":
            return parquet_columns(spark, file)
        if source.format == "csv":
            return [(name, "text") for name in _csv_header(file_header(spark, file, _HEADER_BYTES), source.options)]
    except Exception as error:  # Hadoop and Parquet share no narrower error
        raise InputContractError(
            f"file '{file}' cannot be read as {source.format}: {_first_line(error)}",
            remedy="repair or remove the file; nothing was written",
        ) from error
    return []


def _csv_header(head: bytes, options: Mapping[str, str]) -> list[str]:
    encoding = options.get("encoding", options.get("charset", "utf-8"))
    # The last character may be cut, and the header is not there.
    text = head.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding, errors="replace")
    delimiter = options.get("sep", options.get("delimiter", ","))
    rows = csv.reader(text.splitlines(), delimiter=delimiter, quotechar=options.get("quote", '"'))
    return next((row for row in rows if row), [])


def _read_files(
    spark: SparkSession, source: EventsInput | ItemsInput, files: list[str], columns: tuple[tuple[str, str], ...]
) -> DataFrame:
    reader = spark.read.format(source.format)
    if source.format == "csv":
        schema = t.StructType([t.StructField(name, t.StringType()) for name in (*dict(columns), CORRUPT)])
        # Pruned columns hide lines with too few or too many values; the header was checked above.
        options = {"header": "true", "columnPruning": "false", "enforceSchema": "false", "mode": "PERMISSIVE"}
        # A quote inside a quoted value is doubled (RFC 4180); Spark's own default is a backslash before it.
        options["escape"] = '"'
        reader = reader.schema(schema).options(**options, columnNameOfCorruptRecord=CORRUPT)
    elif source.format == "json":
        reader = reader.options(primitivesAsString="true", mode="PERMISSIVE", columnNameOfCorruptRecord=CORRUPT)
    try:
        frame = reader.options(**source.options).load([_GLOB.sub(r"\\\g<0>", file) for file in files])
    except READ_FAILURES as error:  # JSON lines are read here already, for their columns
        raise explain_read_failure(error, source.path) from error
    return frame if CORRUPT in frame.columns else frame.withColumn(CORRUPT, F.lit(None).cast("string"))


def _select(frame: DataFrame, wanted: Mapping[str, RawColumn], path: str, file: Column) -> RawRows:
    # Under names of their own, because a raw column may be called as one of ours.
    raw = {f"_raw_{n}": name for n, name in enumerate(one for one in frame.columns if one not in (CORRUPT, ARRIVED_IN))}
    record = F.to_json(F.struct(*[F.col(ours).alias(name) for ours, name in raw.items()]))
    try:
        rows = frame.select(
            *[raw_expression(source).alias(name) for name, source in wanted.items()],
            *[F.col(quoted(name)).alias(ours) for ours, name in raw.items()],
            F.col(CORRUPT),
            file.alias(c.SOURCE_FILE),
        )
    except PySparkException as error:
        raise InputContractError(
            f"the column mapping does not fit the files at '{path}': {_first_line(error)}",
            remedy="compare the mapping's columns and SQL expressions with the header of the files",
        ) from error
    return RawRows(rows, F.coalesce(F.col(CORRUPT), record), tuple(raw))


def raw_expression(source: RawColumn) -> Column:
    if source.column is not None:
        return F.col(quoted(source.column))
    return F.expr(source.sql) if source.sql is not None else F.lit(source.constant)


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def explain_read_failure(error: Exception, path: str) -> InputContractError:
    """A failure while rows were read (one of `READ_FAILURES`), as one message that names the file or the value."""
    named = re.search(r"FAILED_READ_FILE.* reading file (\S+?)\.?(?:\s|$)", str(error))
    if named is None:
        return InputContractError(
            f"an SQL expression fails on a value in the files at '{path}': {_first_line(error)}",
            remedy="use try_cast and try_divide in the SQL of the mapping and of the rules; nothing was written",
        )
    return InputContractError(
        f"file '{named.group(1)}' cannot be read: {_root_cause(error)}",
        remedy="repair or remove the file; nothing was written",
    )


def _root_cause(error: Any) -> str:
    """What the innermost Java exception says: the outer ones only say that reading failed."""
    java = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    while java is not None and java.getCause() is not None:
        java = java.getCause()
    return _first_line(error) if java is None else str(java.toString()).splitlines()[0]


def _first_line(error: Any) -> str:
    java = getattr(error, "java_exception", None)
    text = str(java.getMessage() if java is not None else error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
