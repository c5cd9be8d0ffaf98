"""What a table is, and the types that its columns have: the words in which `schemas` says its contracts."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import types as t

STRING = t.StringType()
INT = t.IntegerType()
LONG = t.LongType()
FLOAT = t.FloatType()
DOUBLE = t.DoubleType()
TIME = t.TimestampType()


def list_of(of: t.DataType) -> t.ArrayType:
    """An array without nulls."""
    return t.ArrayType(of, containsNull=False)


def map_of(of: t.DataType, *, nulls: bool = False) -> t.MapType:
    return t.MapType(STRING, of, valueContainsNull=nulls)


def struct(**columns: t.DataType) -> t.StructType:
    return t.StructType([t.StructField(name, of) for name, of in columns.items()])


@dataclass(frozen=True)
class TableSpec:
    """One table: its name (also its folder), its schema, how it is partitioned, and whether other teams read it."""

    name: str
    schema: t.StructType
    partition_by: tuple[str, ...] = ()
    published: bool = False


def spec(name: str, *, partition_by: tuple[str, ...] = (), published: bool = False, **columns: t.DataType) -> TableSpec:
    return TableSpec(name, struct(**columns), partition_by, published)
