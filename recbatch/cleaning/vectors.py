"""Given vectors, such as embeddings of pictures: arrays of numbers, or texts of them, to arrays of one size."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as t

from recbatch.cleaning import parsing

_BRACKETS = (("[", "]"), ("(", ")"), ("{", "}"))
_BLANKS = " \t\r\n"
_BETWEEN = r"\s*[,;]\s*|\s+"


def given(raw: Column, kind: t.DataType) -> Column:
    """A raw column of the type `kind` as an array of numbers or as a text without brackets; null where it has none."""
    if _is_numeric(kind):
        return F.when(F.size(raw) > 0, raw)
    # Spark writes an array of texts, as JSON has it, with brackets and commas.
    text = parsing.text(raw)
    # A pattern would take longer over hundreds of numbers than to split them.
    enclosed = reduce(Column.__or__, [text.startswith(left) & text.endswith(right) for left, right in _BRACKETS])
    inner = F.when(enclosed, F.substring(text, F.lit(2), F.length(text) - 2)).otherwise(text)
    return F.nullif(F.trim(inner, F.lit(_BLANKS)), F.lit(""))


def vector(given: Column, kind: t.DataType, size: int) -> Column:
    """What `given` makes of a column of the type `kind` as `size` finite numbers, or null."""
    if _is_numeric(kind):
        numbers = given.cast("array<float>")
    else:
        # As with single numbers, the literals of Java ("5d", "5f") are none.
        plain = F.when(~given.rlike("[dfDF]"), given)
        numbers = F.split(plain, _BETWEEN).try_cast("array<float>")
    # A transform of one element names the numbers: an expression would be worked out again for every condition.
    return F.transform(F.array(numbers), lambda found: F.when(_is_proper(found, size), found))[0]


def _is_numeric(kind: t.DataType) -> bool:
    return isinstance(kind, t.ArrayType) and isinstance(kind.elementType, t.NumericType)


def _is_proper(numbers: Column, size: int) -> Column:
    """False or null where a number is missing, NaN or infinite, or there are more or fewer than `size`."""
    infinity = F.lit(float("inf")).cast("float")
    # Null where an element is null: it might be the one. To Spark NaN is a value, and larger than infinity.
    known = ~F.array_contains(numbers, F.lit(float("nan")).cast("float"))
    return (F.size(numbers) == size) & known & (F.array_max(numbers) < infinity) & (F.array_min(numbers) > -infinity)
